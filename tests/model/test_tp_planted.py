"""Tail users follow a rule that head users share; head users also follow another rule and interact with noise items.

TP serves tail and new users better than training on all targets, most of which are those of head users, with the same
number of users' gradients. Users have equal weight in TP, which makes most of the gain. Two inner steps instead of one
added 0.01 to 0.05 NDCG@5 for tail users on most data sets of this kind, and cost some on one. Where head users have no
rule of their own, training on all targets is only slower: with three times the epochs it reached the same NDCG.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.evaluation.result import Result
from recbole_xfer.experiment import load
from recbole_xfer.model.tp import Discriminator
from recbole_xfer.quick_start import run
from recbole_xfer.testing.data import paths

USERS, ITEMS, NOISY, NEW = 800, 80, 20, 0.6
FOLLOWED = 0.9  # how often the rule is followed
FIRST = 3  # items that every user has at least
KEYS: dict[str, Any] = {
    "hidden_size": 32, "inner_size": 32, "n_layers": 1, "n_heads": 2, "hidden_dropout_prob": 0.1,
    "attn_dropout_prob": 0.1, "MAX_ITEM_LIST_LENGTH": 50, "loss_type": "BPR", "learning_rate": 0.01, "epochs": 50,
    "eval_step": 4, "stopping_step": 100, "metrics": ["NDCG"], "topk": [5], "valid_metric": "NDCG@5",
    "eval_groups": ["existing-tail", "new"], "show_progress": False,
    "eval_args": {"split": {"NU": NEW}, "order": "TO", "group_by": "user", "mode": "full"},
}  # fmt: skip


def write_planted(root: Path, noise: float, own: float) -> None:
    """Writes 800 users, most of them new, who need no training and make the test precise.

    Args:
        noise: proportion of a head user's items that follow no rule, from a few that tail users never have.
        own: proportion of a head user's other steps that follow the head users' own rule.
    """
    rng = np.random.default_rng(0)
    rule, heads_rule = rng.permutation(ITEMS), rng.permutation(ITEMS)
    rows = []
    for user in range(USERS):
        head = rng.random() < 0.2
        item = rng.integers(ITEMS)
        for step in range(30 if head else rng.integers(6, 10)):
            noisy = head and rng.random() < noise
            rows.append((f"u{user}", f"n{rng.integers(NOISY)}" if noisy else f"i{item}", float(step)))
            if not noisy:
                followed = heads_rule if head and rng.random() < own else rule
                item = followed[item] if rng.random() < FOLLOWED else rng.integers(ITEMS)
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    write_domain(root, "Planted", log, pd.DataFrame({"item_id": log["item_id"].unique()}))


def head_tail_auc(folder: str) -> float:
    """AUC of a new discriminator of head and tail users, trained on half of the users and tested on the other half.

    It reads the states at each user's first items, equally many of both kinds: only head users have later ones.
    """
    experiment = load(folder)
    model, dataset = experiment.model, experiment.train_data._dataset
    batch = dataset.training_batch(np.arange(len(dataset.windows)))
    with torch.no_grad():
        phi = model.encoder(model.embed(batch["item_id_list"][:, :FIRST]))
    head = (batch["item_length"] > 10).float()[:, None].expand(phi.shape[:2])
    torch.manual_seed(0)
    train = torch.rand(len(phi)) < 0.5
    phi = (phi - phi[train].mean(dim=(0, 1))) / phi[train].std(dim=(0, 1))
    discriminator = Discriminator(phi.shape[-1])
    optimizer = torch.optim.Adam(discriminator.parameters(), lr=0.01, weight_decay=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(discriminator(phi[train]), head[train]).backward()
        optimizer.step()
    with torch.no_grad():
        scores, labels = discriminator(phi[~train]).flatten(), head[~train].flatten()
    return float((scores[labels == 1][:, None] > scores[labels == 0]).float().mean())


def trained(root: Path, adversary_weight: float, seed: int = 2020, **others: Any) -> tuple[Result, Result]:
    """Training on all targets, and TP, with the same number of users' gradients."""
    keys = {**KEYS, **paths(root), "seed": seed, **others}
    plain = {"pathway": False, "train_batch_size": 32 * 8}
    ours = {"paths": 16, "inner_steps": 2, "inner_rate": 0.1, "adversary_positions": "all"}
    ours["adversary_weight"] = adversary_weight
    return run("RETR", "Planted", overrides={**keys, **plain}), run("TPSASRec", "Planted", overrides={**keys, **ours})


def test_tail_and_new_users_gain(tmp_path: Path) -> None:
    """With the defaults, lambda 0.01 and common positions, tail users gain 0.008 and new users 0.027."""
    write_planted(tmp_path, noise=0.4, own=0.7)
    plain, ours = trained(tmp_path, adversary_weight=0.1)
    for group in ("existing-tail", "new"):
        assert ours.groups[group].test["ndcg@5"] > plain.groups[group].test["ndcg@5"] + 0.01


def test_a_new_discriminator_distinguishes_head_and_tail_less_well(tmp_path: Path) -> None:
    """On average of three seeds; they differed by 0.02, 0.03 and 0.03."""
    write_planted(tmp_path, noise=0.7, own=0.0)
    runs = [trained(tmp_path, adversary_weight=0.3, seed=seed, epochs=20) for seed in (2020, 2021, 2022)]
    plain, ours = np.mean([[head_tail_auc(result.folder) for result in pair] for pair in runs], axis=0)
    assert ours < plain - 0.01
