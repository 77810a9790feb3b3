"""Recommendations and comparisons as functions."""

from pathlib import Path
from typing import Any

import pytest

from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build
from recbole_xfer.quick_start import compare, evaluate, recommend, run
from recbole_xfer.testing.data import config, settings, write_small


@pytest.mark.parametrize(
    ("model", "history", "k", "message"),
    [
        ("BPR", ["i1"], 5, "BPR does not read histories. Use a sequential model"),
        ("ItemKNN", ["i1"], 5, "ItemKNN does not read histories"),
        ("Pop", ["i1"], 0, "k=0 is invalid: it must be an integer of at least 1"),
        ("Pop", ["[PAD]"], 5, r"The item '\[PAD\]' is not in Small\."),
        ("Pop", [1], 5, "An item must be a string: write '1' instead of 1"),
    ],
)
def test_invalid_recommendation_requests_are_explained(
    tmp_path: Path, model: str, history: list[Any], k: int, message: str
) -> None:
    write_small(tmp_path)
    experiment = build(config(tmp_path, model))
    with pytest.raises(XferError, match=message):
        recommend(experiment, history, k)


def test_evaluate_writes_nothing(tmp_path: Path) -> None:
    write_small(tmp_path)
    folder = run("SASRec", "Small", overrides=settings(tmp_path, "SASRec")).folder
    assert (tmp_path / "log_tensorboard").is_dir()
    before = set(tmp_path.rglob("*"))
    evaluate([folder], {"topk": [5]})
    assert set(tmp_path.rglob("*")) == before


def test_a_comparison_rejects_run_dir(tmp_path: Path) -> None:
    write_small(tmp_path)
    plan = tmp_path / "plan.yaml"
    plan.write_text("dataset: Small\nrun_dir: out\nrows: [{model: Pop}, {model: SASRec}]")
    with pytest.raises(XferError, match="'run_dir' is the folder of one run, and a comparison has many. Set check"):
        compare(plan, {"data_path": str(tmp_path)})
