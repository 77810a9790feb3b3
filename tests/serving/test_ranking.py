"""The best items by vectors are those of the whole matrix of scores; and which models rank by vectors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_xfer.data.targets import TargetLoader
from recbole_xfer.evaluation.ties import TieOrder, best
from recbole_xfer.experiment import build
from recbole_xfer.serving import ranking
from recbole_xfer.serving.vectors import vectors_of
from recbole_xfer.testing.data import config, write_small


@pytest.mark.parametrize("tied", [False, True], ids=["distinct", "tied"])
@pytest.mark.parametrize(("tile", "together"), [(7, 1), (7, 16), (64, 2), (1000, 16)])
@pytest.mark.parametrize("k", [1, 20, 500])
def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch, tile: int, together: int, k: int, tied: bool) -> None:
    """Vectors of small integers have exact products, and many ties."""
    monkeypatch.setattr(ranking, "TILE", tile)
    monkeypatch.setattr(ranking, "TOGETHER", together)
    random = np.random.default_rng(0)
    users, items = (torch.from_numpy(random.integers(-9, 10, (count, 4))).float() for count in (40, 300))
    if not tied:
        items[:, 0] += torch.arange(300) * 100
        users[:, 0] = 1
    left_out = tuple(torch.from_numpy(random.integers(0, high, 900)) for high in (40, 300))
    number, row = TieOrder.draw(1, 300).items, torch.from_numpy(random.integers(1, 2**31 - 1, 40))
    scores = users @ items.T
    scores[left_out] = -torch.inf
    values, places = best(scores, min(k, 300), number, row)
    found = ranking.best_by_vectors(users, items, k, number, row, left_out)
    assert torch.equal(found[0], values)
    assert torch.equal(found[1][values > -torch.inf], places[values > -torch.inf])


@pytest.mark.parametrize(
    ("model", "ranks_by_vectors"),
    [
        ("RETR", True), ("ANT", True), ("SASRec", True), ("GRU4Rec", True), ("Caser", True), ("BPR", True),
        ("LightGCN", True), ("TPSASRec", True), ("BERT4Rec", False), ("NeuMF", False),
    ],
)  # fmt: skip
def test_models_that_rank_by_vectors_are_found(tmp_path: Path, model: str, ranks_by_vectors: bool) -> None:
    write_small(tmp_path)
    made = build(config(tmp_path, model, topk=[5]))
    made.model.eval()
    for parameter in made.model.parameters():  # also a bias that begins with zeros
        parameter.data += torch.randn(parameter.shape) / 100
    rows = TargetLoader(made.config, made.dataset.following()).collate_fn([0, 1, 2, 3])[0]
    vectors = vectors_of(made.model, rows[:2])
    assert (vectors is not None) == ranks_by_vectors
    if vectors is not None:
        with torch.no_grad():
            scores = made.model.full_sort_predict(rows).view(4, -1)
            assert torch.allclose(vectors.users(rows) @ vectors.items.T, scores, atol=1e-6)
