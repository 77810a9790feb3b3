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
    for user, real in rows.groupby("user_id")["item_id"]:
        own = copy.loc[copy["user_id"] == user, "item_id"].tolist()
        early = max(len(real) - noise.HELD_OUT, 0)
        assert len(own) == len(real) + items * early
        assert own[: early * (items + 1) : items + 1] == real.tolist()[:early]
        assert own[early * (items + 1) :] == real.tolist()[early:]


def test_copies_are_repeatable_and_their_noise_is_not_the_real_item(rows: pd.DataFrame) -> None:
    one, other = (noise.noisy(rows, 1, np.random.default_rng(noise.SEED)) for _ in range(2))
    pd.testing.assert_frame_equal(one, other)
    added = one.iloc[len(rows) :]
    real = rows.loc[rows.groupby("user_id").cumcount(ascending=False) >= noise.HELD_OUT, "item_id"]
    assert (added["item_id"].to_numpy() == real.to_numpy()).mean() < 0.2
