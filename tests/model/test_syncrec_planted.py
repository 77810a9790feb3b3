"""SyNCRec on generated domains with a known answer: two that inform each other, and one that is only noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.experiment import Experiment, build, fit
from recbole_xfer.measure import measure
from recbole_xfer.testing.data import paths

STATES, COPIES = 10, 2
KEYS = {
    "hidden_size": 32, "inner_size": 32, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.0,
    "MAX_ITEM_LIST_LENGTH": 20, "train_batch_size": 512, "learning_rate": 0.005, "epochs": 12, "topk": [2],
    "metrics": ["Recall"], "valid_metric": "Recall@2 [mean]", "rank_within_domain": True, "show_progress": False,
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "user", "mode": "full"},
}  # fmt: skip
ALONE = 0.5
"""The best possible recall@2 on only Ann or only Ben."""


SASREC = {"pathway": False, "n_heads": 1, "loss_type": "BPR"}


def write(root: Path, rows: list[tuple[str, str, float, str]]) -> None:
    """Writes each domain of interactions of user, item, time and domain."""
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "domain"])
    for name, part in table.groupby("domain"):
        write_domain(root, str(name), part.drop(columns="domain"), None)


def write_truth(root: Path, users: int = 400, length: int = 20, seed: int = 0) -> None:
    """Ann and Ben walk around one ring of states together: whoever comes next shows the next state.

    Noise has its own ring.

    The previous state determines the next item except for one of two copies, so the best recall@2 is 1. Ann's items
    without Ben's do not reveal how many of his came between: half of the time none did, so the best is then 1/2.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        state = {"shared": rng.integers(STATES), "own": rng.integers(STATES)}
        for moment in range(length):
            domain = rng.choice(["Ann", "Ben", "Noise"], p=[0.35, 0.35, 0.3])
            ring = "own" if domain == "Noise" else "shared"
            state[ring] = (state[ring] + 1) % STATES
            item = f"{state[ring]}-{rng.integers(COPIES)}"
            rows.append((f"u{user}", item, 1.4e9 + moment, domain))
    write(root, rows)


def trained(root: Path, model: str, dataset: str, **keys: Any) -> tuple[dict[str, float], Experiment]:
    """Test results and the trained experiment."""
    made = build(XferConfig(model, dataset, overrides={**KEYS, **paths(root), **keys}))
    _, valid = fit(made)
    return dict(measure(made, valid, 0, made.trainer.best_epoch).test), made


@pytest.fixture(scope="module")
def joined(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, float], Experiment]:
    """The data, and SyNCRec on all three domains."""
    root = tmp_path_factory.mktemp("planted")
    write_truth(root)
    return root, *trained(root, "SyNCRec", "Ann+Ben+Noise", n_experts=2, cross_experts=1)


def test_the_noise_domain_has_a_negative_gap_and_a_falling_weight(joined: Any) -> None:
    epochs = [record["train"] for record in joined[2].trainer.history]
    first, last = epochs[0], epochs[-1]
    assert last["gap/Noise"] < -0.1
    assert min(last["gap/Ann"], last["gap/Ben"]) > 0.05
    assert first["weight/Noise"] > 0.25 and last["weight/Noise"] < 0.6 * first["weight/Noise"]
    assert min(last["weight/Ann"], last["weight/Ben"]) > 1.5 * last["weight/Noise"]


@pytest.mark.parametrize("domain", ["Ann", "Ben"])
def test_the_other_domains_gain_over_training_alone(joined: Any, domain: str) -> None:
    """They exceed the best possible recall of one domain."""
    root, together, _ = joined
    alone, _ = trained(root, "RETR", domain, **SASREC)
    assert 0.25 < alone["recall@2"] < ALONE + 0.05
    assert together[f"recall@2 [{domain}]"] > ALONE + 0.05


def test_constant_alpha_and_beta_keep_the_weights_of_helpful_domains_equal(tmp_path: Path) -> None:
    """Ann and Ben gain alike, so the correction must weigh them alike, however long training is.

    Trained by the loss that they weigh, alpha and beta were 2.5 and 2.2 after 41 epochs, the weights 0.16, 0.79 and
    0.04, and after 60 epochs recall@2 was 0.54, a mean over the domains, where it is 0.66 with constants.
    """
    write_truth(tmp_path, users=200)
    keys = {"n_experts": 2, "cross_experts": 1, "epochs": 41, "stopping_step": 50, "trained_correction": False}
    _, made = trained(tmp_path, "SyNCRec", "Ann+Ben+Noise", **keys)
    ann, ben, noise = (made.trainer.history[-1]["train"][f"weight/{name}"] for name in ("Ann", "Ben", "Noise"))
    assert 0.9 < ann / ben < 1.1
    assert noise < 0.8 * min(ann, ben)


def write_dominant(root: Path, users: int = 200, length: int = 30, seed: int = 0) -> None:
    """Users walk around a ring forwards in Small and around another one backwards in Big, in four of five moments.

    The previous item of the domain determines the next one but for one of two copies, so the best recall@2 is 1.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        state = {"Big": rng.integers(STATES), "Small": rng.integers(STATES)}
        for moment in range(length):
            domain = "Big" if rng.random() < 0.8 else "Small"
            state[domain] = (state[domain] + (1 if domain == "Small" else -1)) % STATES
            rows.append((f"u{user}", f"{state[domain]}-{rng.integers(COPIES)}", 1.4e9 + moment, domain))
    write(root, rows)


def test_a_dominant_domain_harms_unless_the_own_sequence_ranks(tmp_path: Path) -> None:
    """The joined sequence hides the last item of Small, and no weight of its loss changes that (Eq. 12)."""
    write_dominant(tmp_path)
    keys = {"MAX_ITEM_LIST_LENGTH": 30, "epochs": 20, "negatives_within_domain": True}
    syncrec = {**keys, "n_experts": 2, "cross_experts": 1}
    alone = trained(tmp_path, "RETR", "Small", **keys, **SASREC)[0]["recall@2"]
    joint = trained(tmp_path, "RETR", "Big+Small", **keys, **SASREC)[0]["recall@2 [Small]"]
    paper, own = (
        trained(tmp_path, "SyNCRec", "Big+Small", **syncrec, ranking_sequence=ranks)[0]["recall@2 [Small]"]
        for ranks in ("joined", "own")
    )
    assert max(joint, paper) < 0.5 * alone
    assert own > alone - 0.02
