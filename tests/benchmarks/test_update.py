"""The comparison of updating with training anew, on a tiny log."""

from pathlib import Path

import pandas as pd
import pytest

from benchmarks.update import compare, read_log, targets
from recbole_xfer.testing.data import settings, write_small


@pytest.mark.parametrize("model", ["RETR", "ANT"])
def test_each_way_is_measured_at_each_cut(tmp_path: Path, model: str) -> None:
    folder = write_small(tmp_path, holes=False)
    log = read_log(folder)
    cuts = [pd.Timestamp(log["timestamp"].quantile(part), unit="s") for part in (0.5, 0.7, 0.9)]
    keys = {**settings(tmp_path, model), "epochs": 1, "checkpoint_dir": str(tmp_path / "saved")}
    lines = list(compare(folder, model, cuts, tmp_path / "work", **keys))
    assert [line["way"] for line in lines] == ["kept", *["kept", "updated", "anew"] * 2]
    assert all(0 <= line["ndcg@10"] <= 1 and line["targets"] for line in lines)
    assert all(line["new interactions"] > 0 for line in lines if line["way"] == "updated")


def test_targets_are_the_first_items_of_returning_users() -> None:
    day, start = 86400, pd.Timestamp("2020-01-10")
    rows = [
        ("a", "x", -2),
        ("a", "y", -1),
        ("b", "x", -1),
        ("a", "new", 1),
        ("b", "y", 1),
        ("b", "x", 2),
        ("c", "x", 3),
    ]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    log["timestamp"] = start.timestamp() + day * log["timestamp"]
    assert targets(log, start) == ([["x"]], ["y"])
    assert targets(log, start + pd.Timedelta(days=2.5)) == ([], [])
