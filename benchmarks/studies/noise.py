"""Writes noisy copies of a data set: random items after each real item of a history.

    python -m benchmarks.studies.noise --data_path=dataset --dataset=Scientific --items 1 3

writes Scientific-noise1 and Scientific-noise3. The items are drawn uniformly, and their number after each real item
from a geometric distribution of this mean: a fixed number would tell a model whether a real item is next. None follow a
user's last two items, which are the targets of validation and test, so that all copies rank the same targets among the
same items.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_xfer.data.atomic_writer import write_domain

SEED = 0
HELD_OUT = 2
"""Items of each user that are targets of validation and test."""


def noisy(rows: pd.DataFrame, items: float, rng: np.random.Generator) -> pd.DataFrame:
    """Returns interactions with random items after the real ones, at times that are positions in a history.

    Args:
        rows: ``user_id``, ``item_id``, in order of time.
        items: mean number of random items after each real one.
        rng: draws them.
    """
    known = np.sort(rows["item_id"].unique())
    numbers = np.where(held_out(rows), 0, rng.geometric(1 / (1 + items), len(rows)) - 1)
    copy = rows.loc[rows.index.repeat(numbers + 1), ["user_id", "item_id"]]
    copy["timestamp"] = np.arange(len(copy))
    added = copy.index.duplicated()
    copy.loc[added, "item_id"] = rng.choice(known, added.sum())
    return pd.concat([copy[~added], copy[added]], ignore_index=True)


def held_out(rows: pd.DataFrame) -> pd.Series:
    """Returns whether an interaction is a target of validation or test."""
    return rows.groupby("user_id").cumcount(ascending=False) < HELD_OUT


def read(path: Path) -> pd.DataFrame:
    """Returns the users and items of an ``.inter`` file, in order of time."""
    rows = pd.read_csv(path, sep="\t", dtype=str)
    rows.columns = [name.split(":")[0] for name in rows.columns]
    order = rows["timestamp"].astype(float).sort_values(kind="stable").index
    return rows.loc[order].reset_index(drop=True)


def main() -> None:
    """Writes a copy for each number of items."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data_path", type=Path, default=Path("dataset"))
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--items", type=int, nargs="+", default=[1, 3])
    options = parser.parse_args()
    rows = read(options.data_path / options.dataset / f"{options.dataset}.inter")
    for items in options.items:
        name = f"{options.dataset}-noise{items}"
        write_domain(options.data_path, name, noisy(rows, items, np.random.default_rng(SEED)), None)
        print(options.data_path / name)


if __name__ == "__main__":
    main()
