"""Printed tables: every number is shown, whatever the width of the terminal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recbole_xfer.cli.tables import print_comparison, print_result
from recbole_xfer.comparison.table import Comparison
from recbole_xfer.evaluation.result import Result
from tests.comparison.test_table import result

METRICS = (
    "recall", "mrr", "ndcg", "hit", "precision", "map", "itemcoverage", "averagepopularity", "shannonentropy",
    "giniindex",
)  # fmt: skip
LABELS = "Pop", "SASRec", "ANT (relearn)", "ANT (finetune)", "PathwayBERT4Rec", "RETR n_heads=4"


@pytest.fixture(autouse=True)
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def measured(label: str, seed: int, offset: float) -> Result:
    names = [f"{metric}@{k}" for metric in METRICS for k in (5, 10, 50)]
    values = {name: offset + number / 1e3 for number, name in enumerate(names)}
    return replace(result(label, np.zeros(9), seed), valid=values, test=values)


def test_a_result_of_ten_metrics_and_three_lengths_shows_its_numbers(capsys: pytest.CaptureFixture) -> None:
    print_result(measured("ANT (relearn)", 1, 0.1))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line.split() for line in lines if "@" in line]
    assert rows[0] == ["recall@5", "0.1000", "0.1000"] and rows[-1] == ["giniindex@50", "0.1290", "0.1290"]
    assert len(rows) == 30


def test_a_comparison_of_ten_metrics_and_three_lengths_shows_its_numbers(capsys: pytest.CaptureFixture) -> None:
    results = [measured(label, seed, row / 10) for row, label in enumerate(LABELS) for seed in (1, 2)]
    print_comparison(Comparison(results))
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80 and "…" not in output
    for row in range(len(LABELS)):
        assert all(f"{row / 10 + number / 1e3:.4f} ±.0000" in output for number in range(30))


def test_a_table_on_its_side_names_the_model_of_each_domain(capsys: pytest.CaptureFixture) -> None:
    metrics = {f"{metric}@10{part}": 0.1234 for part in ("", " [Books]", " [Toys]") for metric in METRICS}
    print_comparison(Comparison([replace(result(label, np.zeros(9)), test=metrics) for label in ("ANT", "Pop")]))
    lines = capsys.readouterr().out.splitlines()
    heads, domains = (
        [word for line in lines if line.split()[:1] == [name] for word in line.split()[1:]]
        for name in ("model", "domain")
    )
    assert heads == ["ANT"] * 3 + ["Pop"] * 3
    assert domains == ["all", "Books", "Toys"] * 2
