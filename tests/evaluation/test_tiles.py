"""Ranking by vectors in tiles is ranking by the whole matrix of scores; and which models rank by vectors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor

from recbole_xfer.data.targets import TargetLoader
from recbole_xfer.evaluation import tiles
from recbole_xfer.evaluation.ties import TieOrder, best
from recbole_xfer.evaluation.tiles import Repeated, VectorScores
from recbole_xfer.evaluation.vectors import Vectors, vectors_of
from recbole_xfer.experiment import build
from recbole_xfer.serving.approximate import best_by_index, hnsw
from recbole_xfer.testing.data import config, write_small


class Scores(NamedTuple):
    """Vectors of small integers, whose products are exact, and all of their products."""

    vectors: VectorScores
    whole: Tensor
    number: Tensor
    row: Tensor
    target: Tensor


@pytest.fixture(params=[False, True], ids=["no repeats", "repeats"])
def repeated(request: pytest.FixtureRequest) -> Repeated | None:
    """Pairs of a user and an item, some of which come several times."""
    random = np.random.default_rng(1)
    pairs = np.sort(random.integers(0, 40, 600)), random.integers(0, 300, 600) % 50
    return Repeated(*map(torch.from_numpy, pairs), torch.tensor(7.0)) if request.param else None


@pytest.fixture(params=[False, True], ids=["distinct", "tied"])
def scores(request: pytest.FixtureRequest, repeated: Repeated | None) -> Scores:
    random = np.random.default_rng(0)
    users, items = (torch.from_numpy(random.integers(-9, 10, (count, 4))).float() for count in (40, 300))
    if not request.param:
        items[:, 0] += torch.arange(300) * 100
        users[:, 0] = 1
    left_out = torch.from_numpy(np.sort(random.integers(0, 40, 900))), torch.from_numpy(random.integers(0, 300, 900))
    whole = users @ items.T
    if repeated is not None:
        for user, item in {*zip(repeated.row.tolist(), repeated.item.tolist(), strict=True)}:
            whole[user, item] += repeated.score
    whole[left_out] = -torch.inf
    number, row = TieOrder.draw(1, 300).items, torch.from_numpy(random.integers(1, 2**31 - 1, 40))
    target = torch.from_numpy(random.integers(0, 300, 40))
    if repeated is not None:
        target[:20] %= 50  # some are repeats
    return Scores(VectorScores(users, items, left_out, repeated), whole, number, row, target)


@pytest.fixture(params=[(7, 1), (7, 16), (64, 2), (1000, 16)], ids=str)
def sizes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of items of a tile, with some rows at once, and of tiles that are merged at once."""
    tile, together = request.param
    for name, value in {"TILE": tile, "NARROW": tile, "CELLS": 13 * tile, "TOGETHER": together}.items():
        monkeypatch.setattr(tiles, name, value)


@pytest.mark.usefixtures("sizes")
@pytest.mark.parametrize("k", [1, 20, 300])
def test_tiles_change_nothing(scores: Scores, k: int) -> None:
    values, places = best(scores.whole, k, scores.number, scores.row)
    found = scores.vectors.best(k, scores.number, scores.row, scores.target)
    assert torch.equal(found.values, values)
    assert torch.equal(found.places[values > -torch.inf], places[values > -torch.inf])
    own = scores.whole.gather(1, scores.target[:, None])
    assert torch.equal(found.tied, ((scores.whole == own).sum(dim=1) > 1) & (own[:, 0] > -torch.inf))


@pytest.mark.usefixtures("sizes")
def test_ties_do_not_depend_on_the_rounding_of_a_first_look(scores: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    """A product of another shape may be rounded otherwise: then the tiles are compared once more."""
    arguments = 5, scores.number, scores.row, scores.target
    expected = scores.vectors.best(*arguments).tied
    look = tiles._Ties._first_look
    monkeypatch.setattr(tiles._Ties, "_first_look", lambda ties: look(ties) + 1)
    assert torch.equal(scores.vectors.best(*arguments).tied, expected)


@pytest.mark.usefixtures("sizes")
def test_the_first_look_adds_what_is_added_to_repeats(scores: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise all tiles would be computed twice."""
    passes = Mock(wraps=tiles._Ties._begin)
    monkeypatch.setattr(tiles._Ties, "_begin", lambda ties: passes(ties))
    scores.vectors.best(5, scores.number, scores.row, scores.target)
    computed = passes.call_count
    monkeypatch.setattr(tiles._Ties, "tied", lambda ties: ties.found)
    passes.reset_mock()
    scores.vectors.best(5, scores.number, scores.row, scores.target)
    assert passes.call_count == computed


@pytest.mark.parametrize("score", [-7.0, 7.0])
def test_approximate_search_adds_what_is_added_to_repeats(scores: Scores, score: float) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed: pip install recbole-xfer[serving]")
    vectors, whole = scores.vectors, scores.vectors.users @ scores.vectors.items.T
    if vectors.repeated is not None:
        vectors = replace(vectors, repeated=vectors.repeated._replace(score=torch.tensor(score)))
        whole[vectors.repeated[:2]] += score
    whole[vectors.left_out] = -torch.inf
    values, places = best_by_index(vectors, hnsw(vectors.items.numpy()), 10, scores.number, scores.row)
    assert torch.equal(values, whole.gather(1, places))
    assert torch.equal(values, best(whole, 10, scores.number, scores.row)[0])  # of 300 items the graph loses none


@pytest.mark.parametrize(("largest", "bounded"), [(1e18, True), (1e21, False), (torch.inf, False), (torch.nan, False)])
def test_products_that_may_overflow_are_not_ranked_in_tiles(largest: float, bounded: bool) -> None:
    users, items = torch.tensor([[1.0], [largest]]), torch.full((3, 1), 1e18)
    assert Vectors(items, lambda rows: users).bounded(users) == bounded


@pytest.mark.parametrize("model", ["RETR", "ANT", "SASRec", "BPR"])
@pytest.mark.parametrize("mask_history", [False, True])
def test_evaluation_in_tiles_measures_what_the_whole_matrix_has(
    tmp_path: Path, model: str, mask_history: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GAUC needs all scores; without it the same run is ranked in tiles."""
    write_small(tmp_path, users=60, items=40)
    collected = []
    for metrics in (["NDCG", "Recall", "GAUC"], ["NDCG", "Recall"]):
        made = build(config(tmp_path, model, topk=[5, 20], mask_history=mask_history, metrics=metrics))
        if getattr(made.model, "repeat_bias", None):
            torch.nn.init.constant_(made.model.repeat_bias.weight, 0.05)
        ranked = Mock(wraps=tiles.VectorScores.best)
        monkeypatch.setattr(tiles.VectorScores, "best", lambda *args, ranked=ranked: ranked(*args))
        result = made.trainer.evaluate(made.test_data, load_best_model=False)
        assert ranked.called == ("GAUC" not in metrics)
        result.pop("gauc", None)
        collected.append((result, made.trainer.eval_collector.tied, made.trainer.evaluator.collected["rec.topk"]))
    (one, tied, hits), (other, also_tied, same_hits) = collected
    assert one == other
    assert tied == also_tied
    assert torch.equal(hits, same_hits)


@pytest.mark.parametrize(
    ("model", "ranks_by_vectors"),
    [
        ("RETR", True), ("ANT", True), ("SASRec", True), ("GRU4Rec", True), ("Caser", True), ("BPR", True),
        ("LightGCN", True), ("TPSASRec", True), ("NOVA", True), ("VQRec", True),
        ("BERT4Rec", False), ("NeuMF", False), ("CARCA", False),
    ],
)  # fmt: skip
def test_models_that_rank_by_vectors_are_found(tmp_path: Path, model: str, ranks_by_vectors: bool) -> None:
    write_small(tmp_path)
    made = build(config(tmp_path, model, topk=[5]))
    made.model.eval()
    for parameter in made.model.parameters():  # also biases that begin with zeros
        parameter.data += torch.randn(parameter.shape) / 100
    rows = TargetLoader(made.config, made.dataset.following()).collate_fn([0, 1, 2, 3])[0]
    vectors = vectors_of(made.model, rows[:2])
    assert (vectors is not None) == ranks_by_vectors
    if vectors is not None:
        with torch.no_grad():
            scores = made.model.full_sort_predict(rows).view(4, -1)
            products, repeated = vectors.users(rows) @ vectors.items.T, vectors.repeated(rows)
            if repeated is not None:
                products[repeated[:2]] += repeated.score
            assert torch.allclose(products[:, 1:], scores[:, 1:], atol=1e-6)
