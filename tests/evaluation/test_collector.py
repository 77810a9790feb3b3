"""Ranking equal scores does not depend on torch.topk, the device or the batch size, and is fair on average."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from recbole_xfer.evaluation.collector import SeededCollector


def collect(scores: Tensor, targets: Tensor, batch: int = 64, seed: int = 1, topk: int = 10) -> Any:
    """What is collected of rows with one target each; and the collector."""
    settings = {"metrics": ["NDCG", "ItemCoverage", "GAUC"], "topk": [topk], "seed": seed, "device": scores.device}
    collector = SeededCollector({**settings, "eval_args": {"mode": "full"}})
    for start in range(0, len(scores), batch):
        part = scores[start : start + batch].clone()
        collector.eval_batch_collect(part, None, torch.arange(len(part)), targets[start : start + batch])
    return collector.get_data_struct(), collector


@pytest.fixture
def tied() -> tuple[Tensor, Tensor]:
    """Scores 0 to 4 of 50 items, and a target of each row."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.randint(0, 5, (4000, 50), generator=generator).float()
    scores[:, 0] = -torch.inf
    return scores, torch.randint(1, 50, (4000,), generator=generator)


def test_order_of_ties_is_the_same_for_every_batch_size_and_column_order_of_topk(tied: tuple[Tensor, Tensor]) -> None:
    one, other = collect(*tied, batch=64)[0], collect(*tied, batch=997)[0]
    for name in ("rec.topk", "rec.items", "rec.meanrank"):
        assert torch.equal(one[name], other[name]), name
    assert not torch.equal(one["rec.items"], collect(*tied, seed=2)[0]["rec.items"])  # drawn from the seed
    items, scores = one["rec.items"], tied[0].gather(1, one["rec.items"])
    assert (scores[:, :-1] >= scores[:, 1:]).all()
    assert all(len(set(row)) == len(row) for row in items.tolist())


def test_target_in_a_tie_has_each_place_of_the_tie_with_equal_probability(tied: tuple[Tensor, Tensor]) -> None:
    scores, targets = (part.numpy() for part in tied)
    own = scores[np.arange(len(targets)), targets][:, None]
    better, equal = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
    for k in (1, 5, 10):
        hits = collect(*tied)[0]["rec.topk"][:, :k].any(dim=1).float().mean()
        assert float(hits) == pytest.approx(((k - better) / equal).clip(0, 1).mean(), abs=0.02)


def test_without_ties_the_best_items_are_those_of_topk() -> None:
    scores = torch.from_numpy(np.random.default_rng(0).permuted(np.tile(np.arange(50.0), (300, 1)), axis=1))
    collected, collector = collect(scores, torch.full((300,), 7))
    assert torch.equal(collected["rec.items"], scores.topk(10).indices)
    assert collector.tied == 0


def test_share_of_tied_targets() -> None:
    scores = torch.tensor([[-torch.inf, 1, 1, 0], [-torch.inf, 1, 2, 2], [-torch.inf, -torch.inf, 1, 2]])
    assert collect(scores, torch.tensor([1, 1, 1]), topk=2)[1].tied == pytest.approx(1 / 3)


def test_left_out_items_are_neither_recommended_nor_hit() -> None:
    """A target that is left out is a miss, and the last of its row for the AUC."""
    scores = torch.tensor([[-torch.inf, 3, -torch.inf, 1, 2]])
    collected, _ = collect(scores, torch.tensor([2]), topk=4)
    assert collected["rec.items"].tolist() == [[1, 4, 3, 0]]
    assert collected["rec.topk"].tolist() == [[0, 0, 0, 0, 1]]
    assert collected["rec.meanrank"].tolist() == [[4, 4, 1]]
