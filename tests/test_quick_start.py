"""Recommendations and comparisons as functions."""

from pathlib import Path
from typing import Any

import pytest

from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build
from recbole_xfer.quick_start import compare, recommend
from recbole_xfer.testing.data import config, write_small


@pytest.mark.parametrize(
    ("model", "history", "k", "message"),
    [
        ("BPR", ["i1"], 5, "BPR does not read histories. Use a sequential model"),
        ("ItemKNN", ["i1"], 5, "ItemKNN does not read histories"),
        ("Pop", ["i1"], 0, "k=0 is invalid: it must be an integer of at least 1"),
        ("Pop", ["[PAD]"], 5, r"The item '\[PAD\]' is not in Small\."),
        ("Pop", "i1", 5, r"A history must be a list of items: write \['i1'\] instead of 'i1'"),
        ("Pop", [["i1"], ["i2", "i3"]], 5, "ranks for one history, and this is a list of several. Call it once for"),
        ("Pop", [], 5, "The history is empty. Give at least one item"),
        ("Pop", [1], 5, "An item must be a string: write '1' instead of 1"),
    ],
)
def test_invalid_recommendation_requests_are_explained(
    tmp_path: Path, model: str, history: Any, k: int, message: str
) -> None:
    write_small(tmp_path)
    experiment = build(config(tmp_path, model))
    with pytest.raises(XferError, match=message):
        recommend(experiment, history, k)


def test_a_comparison_rejects_run_dir(tmp_path: Path) -> None:
    write_small(tmp_path)
    plan = tmp_path / "plan.yaml"
    plan.write_text("dataset: Small\nrun_dir: out\nrows: [{model: Pop}, {model: SASRec}]")
    with pytest.raises(XferError, match="'run_dir' is the folder of one run, and a comparison has many. Set check"):
        compare(plan, {"data_path": str(tmp_path)})
