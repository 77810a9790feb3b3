"""A log of interactions of any size, in Arrow's memory: collected in batches, then filtered and put in order."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbole_xfer.data.atomic_writer import is_writable
from recbole_xfer.prepare.dropped import Dropped
from recbole_xfer.prepare.options import Duplicates
from recbole_xfer.prepare.times import MILLISECONDS

LAST = 4_102_444_800
"""The first second of 2100, after which no time is believed."""

SHUFFLE_SEED = 0

SCHEMA = pa.schema([("user", pa.string()), ("item", pa.string()), ("time", pa.float64()), ("rating", pa.float32())])

Batch = tuple[pa.Array, pa.Array, pa.Array, pa.Array]
"""Users, items, times and ratings of some interactions."""


class Log:
    """Collects interactions, then holds them as codes of users and items.

    Attributes:
        users, items: distinct ids, as strings.
        user_codes, item_codes: positions in ``users`` and ``items``, one for each interaction [N].
        times: seconds since 1970 [N].
        ratings: NaN where missing [N].
        sizes: the number of interactions of each file, until they are sorted.
    """

    def __init__(self, dropped: Dropped) -> None:
        self._batches: list[pa.RecordBatch] = []
        self._dropped = dropped
        self.sizes: list[int] = []

    def add_file(self, batches: Iterable[Batch]) -> None:
        """Adds a file's interactions: users and items as strings, times and ratings as float64, null where missing."""
        added = [self._with_time(*batch) for batch in batches if len(batch[0])]
        self._batches += added
        self.sizes.append(sum(map(len, added)))

    def _with_time(self, users: pa.Array, items: pa.Array, times: pa.Array, ratings: pa.Array) -> pa.RecordBatch:
        """The rows of a batch that have a time; counts the others, and ratings that are not numbers."""
        seconds = pc.if_else(pc.greater_equal(times, MILLISECONDS), pc.divide(times, 1000.0), times)
        in_time = pc.fill_null(pc.and_(pc.greater(seconds, 0.0), pc.less(seconds, float(LAST))), False)
        self._count("rows have no time between 1970 and 2100 and are dropped", in_time, users, times)
        ratings = pc.cast(ratings, pa.float32())
        is_rating = pc.fill_null(pc.is_finite(ratings), False)
        self._count("ratings cannot be read and are missing", is_rating, users, ratings)
        ratings = pc.if_else(is_rating, ratings, pa.scalar(np.nan, pa.float32()))
        batch = pa.record_batch([users, items, seconds, ratings], names=["user", "item", "time", "rating"])
        return batch if pc.all(in_time).as_py() else batch.filter(in_time)

    def _count(self, what: str, valid: pa.Array, *columns: pa.Array) -> None:
        if not pc.all(valid).as_py():
            row = pc.index(valid, False).as_py()
            first = ", ".join(str(column[row].as_py()) for column in columns)
            self._dropped.add(what, first, len(valid) - pc.sum(valid).as_py())

    def collect(self) -> None:
        """Turns the added batches into codes; drops and counts rows with an unusable id."""
        table = pa.Table.from_batches(self._batches, SCHEMA)
        self._batches = []
        self.times = table["time"].to_numpy()
        self.ratings = table["rating"].to_numpy()
        with ThreadPoolExecutor(2) as pool:
            columns = pool.map(_codes, (table["user"], table["item"]))
        (self.user_codes, self.users), (self.item_codes, self.items) = columns
        del table
        usable = [is_writable(ids).to_numpy(zero_copy_only=False) for ids in (self.users, self.items)]
        if not (usable[0].all() and usable[1].all()):
            rows = usable[0][self.user_codes] & usable[1][self.item_codes]
            row = int(rows.argmin())
            first = f"{self.users[self.user_codes[row]]}, {self.items[self.item_codes[row]]}"
            self._dropped.add("rows have an empty or unusable user or item and are dropped", first, (~rows).sum())
            ends = np.cumsum([0, *self.sizes])
            self.sizes = [int(rows[start:end].sum()) for start, end in itertools.pairwise(ends)]
            self.keep(rows)

    def __len__(self) -> int:
        return len(self.times)

    def keep(self, rows: np.ndarray) -> None:
        """Keeps the rows of a mask, or takes rows in an order."""
        for name in ("user_codes", "item_codes", "times", "ratings"):
            setattr(self, name, getattr(self, name)[rows])

    def sort(self) -> None:
        """Sorts by time. Rows of equal time are sorted by file, and shuffled with a fixed seed within a file.

        Where times are days, the order of a day's rows in the file says nothing about the order of buying. A model that
        learns it would look good.
        """
        rng, starts = np.random.default_rng(SHUFFLE_SEED), np.cumsum([0, *self.sizes])
        shuffled = np.concatenate(
            [start + rng.permutation(size) for start, size in zip(starts, self.sizes, strict=False)]
        )
        times = self.times[shuffled]
        if len(times) < 2**32 and (times % 1 == 0).all():  # time and place in one number: the fastest to sort
            packed = times.astype(np.uint64) << np.uint64(32) | np.arange(len(times), dtype=np.uint64)
            packed.sort()
            self.keep(shuffled[(packed & np.uint64(2**32 - 1)).astype(np.int64)])
        else:
            self.keep(shuffled[np.argsort(times, kind="stable")])

    def repeats(self, kind: Duplicates) -> np.ndarray:
        """Whether a row repeats the user and item, and with ``same_time`` also the time, of an earlier row."""
        pairs = self.user_codes.astype(np.int64) * len(self.items) + self.item_codes
        columns = {"pair": pairs, "time": self.times} if kind == "same_time" else {"pair": pairs}
        return pd.DataFrame(columns, copy=False).duplicated().to_numpy()

    def core(self, least: int) -> np.ndarray:
        """Whether a row stays if users and items with fewer than ``least`` rows are removed until all have as many."""
        return core(self.user_codes, self.item_codes, least)

    def used_items(self) -> pa.Array:
        """The ids of the items that have interactions."""
        return self.items.filter(pa.array(np.bincount(self.item_codes, minlength=len(self.items)) > 0))

    def count_users(self) -> int:
        """The number of users that have interactions."""
        return int(np.count_nonzero(np.bincount(self.user_codes)))

    def table(self) -> pa.Table:
        """The columns of an ``.inter`` file."""
        columns: dict[str, Any] = {
            "user_id": pa.DictionaryArray.from_arrays(self.user_codes, self.users),
            "item_id": pa.DictionaryArray.from_arrays(self.item_codes, self.items),
            "timestamp": self.times,
        }
        if not np.isnan(self.ratings).all():
            columns["rating"] = self.ratings
        return pa.table(columns)


def core(users: np.ndarray, items: np.ndarray, least: int) -> np.ndarray:
    """The rows of the k-core: users and items with fewer rows than ``least`` are removed until all have as many.

    Args:
        users, items: codes from 0 [N].

    Returns:
        A mask of the rows that stay [N].
    """
    stays = np.ones(len(users), bool)
    while True:
        before = int(stays.sum())
        for codes in (users, items):
            if before:
                stays &= (np.bincount(codes[stays], minlength=codes.max() + 1) >= least)[codes]
        if int(stays.sum()) == before:
            return stays


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    encoded = pc.fill_null(column, "").dictionary_encode().combine_chunks()
    return encoded.indices.to_numpy(), encoded.dictionary
