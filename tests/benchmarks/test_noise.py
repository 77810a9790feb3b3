"""Noisy copies of a data set."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.studies import noise
from recbole_xfer.testing.data import write_small


@pytest.fixture
def rows(tmp_path: Path) -> pd.DataFrame:
    """The interactions of a small data set, in order of time."""
    return noise.read(write_small(tmp_path) / "Small.inter")


@pytest.mark.parametrize("items", [1, 3])
def test_random_items_follow_each_item_but_the_targets(
    tmp_path: Path, rows: pd.DataFrame, items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["noise", f"--data_path={tmp_path}", "--dataset=Small", f"--items={items}"]
    monkeypatch.setattr("sys.argv", options)
    noise.main()
    copy = noise.read(tmp_path / f"Small-noise{items}" / f"Small-noise{items}.inter")
    assert set(copy["item_id"]) == set(rows["item_id"])
    early = 0
    for user, real in rows.groupby("user_id")["item_id"]:
        own = copy.loc[copy["user_id"] == user, "item_id"].tolist()
        assert own[-2:] == real.tolist()[-2:]
        position = 0
        for item in real:  # all are there, in their order
            position = own.index(item, position) + 1
        early += max(len(real) - noise.HELD_OUT, 0)
    assert (len(copy) - len(rows)) / early == pytest.approx(items, rel=0.25)


def test_numbers_of_random_items_differ_and_are_repeatable(rows: pd.DataFrame) -> None:
    one, other = (noise.noisy(rows, 1, np.random.default_rng(noise.SEED)) for _ in range(2))
    pd.testing.assert_frame_equal(one, other)
    real, added = one.iloc[: len(rows)], one.iloc[len(rows) :]
    assert real["item_id"].tolist() == rows["item_id"].tolist()
    assert not one["timestamp"].duplicated().any()
    following = real["timestamp"].diff()[real["user_id"].eq(real["user_id"].shift())] - 1
    assert set(range(3)) <= set(following.astype(int)) and len(added) >= following.sum()
