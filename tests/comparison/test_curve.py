"""Curves over the fraction of users trained, from results with known answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from recbole_xfer.comparison.curve import Curve
from recbole_xfer.comparison.table import Comparison, Failure
from recbole_xfer.evaluation.result import Protocol
from tests.comparison.test_table import result

SCORES = {  # by fraction and row, one for each seed
    0.005: {"Pop": [0.2, 0.2], "ANT": [0.1, 0.3], "KNN": [0.25, 0.25]},
    0.1: {"Pop": [0.2, 0.2], "ANT": [0.3, 0.4]},
    1.0: {"Pop": [0.2, 0.2], "ANT": [0.5, 0.5], "KNN": [0.3, 0.3]},
}


def made_curve(
    scores: dict[float, dict[str, list[float]]], name: str = "Office", seeds: Sequence[int] = (1, 2)
) -> Curve:
    tables = {}
    for share, rows in scores.items():
        split = "leave one out by time" + ("" if share == 1 else f", {100 * share:g}% of the users trained")
        protocol = Protocol(split, "all 9 items", history_masked=False)
        results = [
            result(label, np.full(5, score), seed, protocol)
            for label, row in rows.items()
            for seed, score in zip(seeds, row, strict=False)
        ]
        failed = [] if "KNN" in rows else [Failure("KNN", 1, "no vectors")]
        tables[share] = Comparison(results, name=f"{name}, {share}", failed=failed)
    return Curve(name, tables)


@pytest.fixture
def curve() -> Curve:
    return made_curve(SCORES)


def test_points_are_means_and_standard_deviations_over_seeds(curve: Curve) -> None:
    points = curve.frame().set_index(["row", "train_share"])
    for share, rows in SCORES.items():
        for label, values in rows.items():
            assert points.loc[(label, share), "mean"] == pytest.approx(np.mean(values))
            assert points.loc[(label, share), "spread"] == pytest.approx(np.std(values, ddof=1))
    assert len(points) == 8 and set(points["seeds"]) == {2}


def test_the_table_has_a_column_for_each_fraction(curve: Curve) -> None:
    layout = curve.layout()
    assert layout.title == "ndcg@10 by users trained on Office" and layout.columns == ["0.5%", "10%", "100%"]
    cells = {line.names[0]: [(entry.text, entry.place) for entry in line.entries] for line in layout.lines}
    assert cells == {
        "Pop": [("0.2000 ±.0000", 2), ("0.2000 ±.0000", None), ("0.2000 ±.0000", None)],
        "ANT": [("0.2000 ±.1414", 2), ("0.3500 ±.0707", 1), ("0.5000 ±.0000", 1)],
        "KNN": [("0.2500 ±.0000", 1), ("failed", None), ("0.3000 ±.0000", 2)],
    }


def test_the_caption_says_what_all_fractions_share(curve: Curve) -> None:
    wanted = (
        "larger fractions of users contain the smaller; 5 test targets for each; leave one out by time; all 9 items "
        "ranked; history kept; mean and standard deviation over seeds 1, 2"
    )
    assert curve.caption() == wanted
    low = {share: SCORES[share] for share in (0.005, 0.1)}
    assert made_curve(low).caption() == wanted
    assert made_curve(SCORES, seeds=[3]).caption().endswith("history kept; seed 3")


def test_another_metric_is_shown_where_ndcg_is_not_measured() -> None:
    table = Comparison([replace(result("Pop", np.full(5, 0.5)), test={"recall@5": 0.75, "mrr@5": 0.5})])
    assert Curve("Office", {1.0: table}).frame()["mean"].tolist() == [0.75]
