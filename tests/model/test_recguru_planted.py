"""RecGURU on two domains without a common user or item but with the same tastes.

RecGURU ranks better than AutoRec of only the target, as in the paper's Table 2, after equally many epochs, which are
more than twice as many steps on two domains. With twice the autoencoder's epochs, AutoRec of the target is as good, so
the gain may come from the additional steps. The game, which makes the domains indistinguishable, has no effect on
the ranking: AutoRec on both domains is as good. Common users do have one, by the penalty of Eq. 9 alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.batches import DomainPairDataLoader
from recbole_xfer.experiment import Experiment, build, fit
from recbole_xfer.testing.data import paths
from recbole_xfer.trainer.recguru import ADVERSARIAL

KEYS = {
    "hidden_size": 16, "inner_size": 32, "n_layers": 1, "MAX_ITEM_LIST_LENGTH": 8, "hidden_dropout_prob": 0.0,
    "attn_dropout_prob": 0.0, "reconstruction_negatives": None, "user_batch_size": 64, "train_batch_size": 512,
    "warmup_steps": 60, "adversarial_learning_rate": 1e-3, "topk": [10], "show_progress": False, "seed": 1,
}  # fmt: skip
TASTES = 6


def write_tastes(root: Path, name: str, users: int, items: int, length: int, rng: np.random.Generator) -> None:
    """Users have one of six tastes, some more common than others, and interact with its items, with some noise."""
    share = 1 / np.arange(1, TASTES + 1) ** 0.7
    taste_of_item = rng.permutation(np.arange(items) % TASTES)
    taken = rng.integers(0, items, (users, length))
    for user, taste in enumerate(rng.choice(TASTES, users, p=share / share.sum())):
        own = rng.choice(np.flatnonzero(taste_of_item == taste), length)
        taken[user] = np.where(rng.random(length) < 0.95, own, taken[user])
    user, time = np.indices(taken.shape)
    rows = {
        "user_id": np.char.add(name, user.ravel().astype(str)),
        "item_id": np.char.add("i", taken.ravel().astype(str)),
        "timestamp": (time * users + user).ravel().astype(float),
    }
    ids = np.char.add("i", np.arange(items).astype(str))
    write_domain(root, name, pd.DataFrame(rows), pd.DataFrame({"item_id": ids}))


def write_common_users(root: Path, rng: np.random.Generator) -> None:
    """Of 60 target users of six tastes, half are among the 400 of Source; most items of Target are seen once."""
    taste_of_user = rng.choice(TASTES, 430)
    users = {"Source": np.arange(400), "Target": np.arange(370, 430)}
    for name, items, length in (("Source", 60, 8), ("Target", 200, 6)):
        taste_of_item = rng.permutation(np.arange(items) % TASTES)
        taken = [rng.choice(np.flatnonzero(taste_of_item == taste_of_user[user]), length) for user in users[name]]
        user, time = np.repeat(users[name], length), np.tile(np.arange(length), len(users[name]))
        rows = pd.DataFrame({"user_id": user.astype(str), "item_id": np.concatenate(taken).astype(str)})
        ids = pd.DataFrame({"item_id": np.arange(items).astype(str)})
        write_domain(root, name, rows.assign(timestamp=time.astype(float)), ids)


def experiment(root: Path, dataset: str, **keys: Any) -> Experiment:
    return build(XferConfig("RecGURU", dataset, overrides={**KEYS, **paths(root), **keys}))


def users_of(made: Experiment) -> list[Tensor]:
    """h of the training users of each domain, [N, d]."""
    loader = DomainPairDataLoader(made.train_data._dataset, 64, 0, seed=0)
    return [made.model.extract(loader._histories(users)) for users in loader.users]


def domain_accuracy(made: Experiment) -> float:
    """Accuracy of a discriminator of domains that is trained on half of the users and tested on the other half."""
    torch.manual_seed(0)
    a, b = (users[torch.randperm(len(users))] for users in users_of(made))
    count = min(len(a), len(b))
    users = torch.stack([a[:count], b[:count]], dim=1).flatten(0, 1)
    domain = torch.tensor([0.0, 1.0]).repeat(count)
    discriminator = nn.Sequential(nn.Linear(users.shape[1], 64), nn.ReLU(), nn.Linear(64, 1), nn.Flatten(0))
    optimizer = torch.optim.Adam(discriminator.parameters(), 1e-2, weight_decay=1e-3)
    for _ in range(100):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(discriminator(users[:count]), domain[:count]).backward()
        optimizer.step()
    return float(((discriminator(users[count:]) > 0) == domain[count:].bool()).float().mean())


def target_rank(made: Experiment) -> float:
    """Mean fraction of the domain Target's items that rank below the target, over its test rows."""
    data = made.test_data._dataset
    rows = data[np.arange(len(data))]
    inside = torch.from_numpy(made.dataset.item_domain == made.dataset.domains.index("Target"))
    rows = rows[inside[rows["item_id"]]]
    made.trainer.evaluate(made.test_data)  # with the best epoch
    scores = made.model.full_sort_predict(rows)
    own = scores[torch.arange(len(scores)), rows["item_id"]]
    inside[0] = False  # padding
    return float((scores[:, inside] < own[:, None]).float().mean())


def test_recguru_ranks_better_than_autorec_of_the_target(tmp_path: Path) -> None:
    """On four sets, since one has only 150 test rows; on eight the gain was 0.028, standard error 0.006."""
    keys = {"autoencoder_epochs": 6, "adversarial_epochs": 5, "epochs": 6}
    gains = []
    for seed in range(4):
        root, rng = tmp_path / str(seed), np.random.default_rng(seed)
        write_tastes(root, "Source", users=400, items=60, length=6, rng=rng)
        write_tastes(root, "Target", users=150, items=200, length=4, rng=rng)
        ranks = []
        for dataset, variant in (("Source+Target", "RecGURU"), ("Target", "AutoRec")):
            made = experiment(root, dataset, variant=variant, **keys)
            fit(made)
            ranks.append(target_rank(made))
        assert min(ranks) > 0.53  # chance is 0.5
        gains.append(ranks[0] - ranks[1])
    assert np.mean(gains) > 0.015


def test_the_game_makes_domains_indistinguishable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    write_tastes(tmp_path, "Source", users=400, items=60, length=7, rng=rng)
    write_tastes(tmp_path, "Target", users=200, items=60, length=7, rng=rng)
    keys = {"autoencoder_epochs": 15, "adversarial_epochs": 60, "adversarial_learning_rate_decay": 0.95, "epochs": 0}
    made = experiment(tmp_path, "Source+Target", **keys)
    before = []
    begin = made.trainer._begin

    def watch(phase: str, *data: Any) -> None:
        begin(phase, *data)
        if phase == ADVERSARIAL:
            before.append(domain_accuracy(made))

    monkeypatch.setattr(made.trainer, "_begin", watch)
    fit(made)
    assert before[0] > 0.95
    assert domain_accuracy(made) < 0.7  # 0.58 to 0.67 with other seeds; chance gives up to 0.58 of 200 guesses


def test_known_common_users_help(tmp_path: Path) -> None:
    """Eq. 9 without the game: the encoder learns the tastes of Target's items from users that Source knows well.

    The target's rank of seeds 0 to 2 was 0.58, 0.58 and 0.61 where no common user is known, and 0.61, 0.63 and 0.63
    where all are.
    """
    keys = {
        "autoencoder_epochs": 6, "adversarial_epochs": 60, "adversarial_learning_rate": 3e-3, "critic_steps": 1,
        "adversarial_weight": 0.0, "overlap_weight": 10.0, "epochs": 6,
    }  # fmt: skip
    write_common_users(tmp_path, np.random.default_rng(1))
    ranks = []
    for overlap in (0.0, 1.0):
        made = experiment(tmp_path, "Source+Target", overlap=overlap, **keys)
        fit(made)
        ranks.append(target_rank(made))
    assert ranks[1] > ranks[0] + 0.015
