"""Histories in which a marked minority of items determines the next item: RETR must find it, and gain from it.

Three threads of marked items are interleaved with items of the user's tastes. The previous marked item of the same
thread determines the item after a marked item, so a marked item needs a query. The item after another item is of one of
the user's tastes; uniform attention to the past predicts it best, and a behaviour off the route has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.experiment import load
from recbole_xfer.quick_start import run
from recbole_xfer.testing.data import paths

USERS, LENGTH = 400, 60
THREADS, MARKED = 3, 6
TASTES, OF_A_USER, TASTE_ITEMS = 10, 3, 100
SHARE = 0.15  # of marked items
SEEDS = (0, 1, 2)
KEYS = {
    "hidden_size": 32, "inner_size": 32, "n_layers": 1, "n_heads": 1, "hidden_dropout_prob": 0.3,
    "attn_dropout_prob": 0.0, "initializer_range": 0.1, "loss_type": "CE", "MAX_ITEM_LIST_LENGTH": 40,
    "train_batch_size": 1024, "learning_rate": 0.003, "epochs": 36, "stopping_step": 8, "topk": [5],
    "valid_metric": "NDCG@5",
    "eval_args": {"split": {"HU": [2, 1, 1]}},
    "show_progress": False,
}  # fmt: skip


def history(rng: np.random.Generator, determined: np.ndarray) -> list[str]:
    """Items of a user, the last of which is determined: ``m0.3`` is marked, of thread 0, and ``417`` is of a taste."""
    tastes, length = rng.choice(TASTES, OF_A_USER, replace=False), rng.integers(LENGTH - 6, LENGTH + 6)
    before: dict[int, int] = {}
    items: list[str] = []
    while True:
        if rng.random() >= SHARE:
            items.append(str(rng.choice(tastes) * TASTE_ITEMS + rng.integers(TASTE_ITEMS)))
            continue
        thread, number = int(rng.integers(THREADS)), int(rng.integers(MARKED))
        items.append(f"m{thread}.{number}")
        if thread in before:
            items.append(str(determined[thread, before[thread]]))
            if len(items) >= length:
                return items
        before[thread] = number


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, rng = tmp_path_factory.mktemp("threads"), np.random.default_rng(0)
    determined = rng.choice(TASTES * TASTE_ITEMS, (THREADS, MARKED), replace=False)
    rows = [(str(user), item, float(t)) for user in range(USERS) for t, item in enumerate(history(rng, determined))]
    write_domain(folder, "Threads", pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]), None)
    return folder


@dataclass
class Outcome:
    """A run's NDCG@5 of the determined item, and the fractions of marked and of other items on its route."""

    ndcg: float
    marked: float = 1.0
    rest: float = 1.0
    precision: float = SHARE


def outcome(root: Path, pathway: bool, seed: int) -> Outcome:
    result = run("RETR", "Threads", overrides={**KEYS, **paths(root), "pathway": pathway, "seed": seed})
    if not pathway:
        return Outcome(result.test["ndcg@5"])
    made = load(result.folder)
    dataset = made.test_data._dataset
    items = dataset[np.arange(len(dataset))][made.model.ITEM_SEQ]
    with torch.no_grad():
        (route,) = made.model.encoder.trace(made.model.embed(items)).routes
    marked = torch.tensor([token.startswith("m") for token in made.dataset.field2id_token["item_id"]])[items]
    kept, real = route > 0, items > 0
    shares = kept[marked], kept[real & ~marked], marked[real & kept]
    return Outcome(result.test["ndcg@5"], *(float(share.float().mean()) for share in shares))


def test_the_route_keeps_the_items_that_determine_the_next_and_gains(root: Path) -> None:
    routed = [outcome(root, True, seed) for seed in SEEDS]
    plain = [outcome(root, False, seed) for seed in SEEDS]
    marked, rest, precision = (np.mean([getattr(o, name) for o in routed]) for name in ("marked", "rest", "precision"))
    print(f"recall of the route {marked:.2f}, precision {precision:.2f}, share of the rest {rest:.2f}", routed, plain)
    assert marked > 0.95
    assert rest < 0.6 * marked
    assert precision > 1.5 * SHARE
    assert np.mean([o.ndcg for o in routed]) > 1.05 * np.mean([o.ndcg for o in plain])
