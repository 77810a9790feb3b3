"""Histories of users from files, frames and lists, which need not be in the data of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_xfer.errors import XferError
from recbole_xfer.prepare.reading import TextFormat, check_column, read_table

FORMS = "Give a list of lists of items, a dictionary of lists by user, or a frame with the columns of a file."


@dataclass(frozen=True)
class Fields:
    """The names of the columns of users, items and times, which are those of the run."""

    user: str
    item: str
    time: str

    @classmethod
    def of(cls, config: Any) -> Fields:
        """The names in a configuration."""
        return cls(config["USER_ID_FIELD"], config["ITEM_ID_FIELD"], config["TIME_FIELD"])


@dataclass(frozen=True)
class Histories:
    """S histories, concatenated, each in order of time.

    Attributes:
        users: distinct ids, [S].
        items: distinct ids of items, [N].
        codes: positions in ``items``, [M].
        offsets: history ``s`` is ``codes[offsets[s]:offsets[s + 1]]``, [S + 1].
    """

    users: np.ndarray
    items: np.ndarray
    codes: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def read(cls, path: Path, fields: Fields) -> Histories:
        """Reads a file: csv, tsv, json lines, Parquet or an atomic file, gzipped or not.

        A row has a user and one item, and optionally a time; without times, the order of rows counts. Or it has a user
        and a list of all items, oldest first.

        Raises:
            XferError: if the file cannot be read, or lacks a column or a value.
        """
        return cls._from_frame(read_table(path, TextFormat()), fields, Path(path))

    @classmethod
    def of(cls, histories: Any, fields: Fields) -> Histories:
        """The histories in a list of lists (users are numbered from 0), a dictionary, a frame or a file.

        Raises:
            XferError: for other values.
        """
        if isinstance(histories, str | Path):
            return cls.read(Path(histories), fields)
        if isinstance(histories, pd.DataFrame):
            return cls._from_frame(histories.set_axis(range(1, len(histories) + 1)), fields, Path("the frame"))
        if not isinstance(histories, Mapping):
            if not isinstance(histories, Iterable):
                raise XferError(f"{histories!r} is no list of histories. {FORMS}")
            histories = dict(enumerate(histories))
        lists = [_items(user, items) for user, items in histories.items()]
        return cls._from_lists(pd.Series([str(user) for user in histories], dtype=object), lists)

    @classmethod
    def _from_frame(cls, table: pd.DataFrame, fields: Fields, path: Path) -> Histories:
        for column in (fields.user, fields.item):
            check_column(table, column, path)
        users = _ids(table[fields.user], path)
        if isinstance(table[fields.item].iloc[0] if len(table) else None, list | tuple | np.ndarray):
            if users.duplicated().any():
                row = users.index[users.duplicated()][0]
                raise XferError(f"{path}, row {row}: the user '{users[row]}' is repeated. Write one list per user.")
            return cls._from_lists(
                users, [_items(f"{path}, row {row}", cell) for row, cell in table[fields.item].items()]
            )
        items = _ids(table[fields.item], path)
        order = _by_time(table[fields.time], path) if fields.time in table else np.arange(len(table))
        user_codes, names = pd.factorize(users)
        item_codes, tokens = pd.factorize(items)
        order = order[np.argsort(user_codes[order], kind="stable")]
        offsets = np.r_[0, np.bincount(user_codes, minlength=len(names)).cumsum()]
        return cls(np.asarray(names, dtype=object), np.asarray(tokens, dtype=object), item_codes[order], offsets)

    @classmethod
    def _from_lists(cls, users: pd.Series, lists: Sequence[Sequence[str]]) -> Histories:
        codes, tokens = pd.factorize(pd.Series([item for items in lists for item in items], dtype=object))
        offsets = np.r_[0, np.cumsum([len(items) for items in lists], dtype=np.int64)]
        return cls(users.to_numpy(dtype=object), np.asarray(tokens, dtype=object), codes, offsets)

    def take(self, first: int, end: int) -> Histories:
        """Some of the histories, by position."""
        start, stop = self.offsets[first], self.offsets[end]
        offsets = self.offsets[first : end + 1] - start
        return Histories(self.users[first:end], self.items, self.codes[start:stop], offsets)

    def known(self, ids: pd.Index) -> tuple[np.ndarray, np.ndarray, int]:
        """The histories as ids of known items, without unknown ones.

        Args:
            ids: tokens by id; 0 is the padding.

        Returns:
            ids [K], offsets [S + 1] and the number of entries that are left out.
        """
        found = ids.get_indexer(pd.Index(self.items, dtype=object))[self.codes] if len(self.codes) else self.codes
        kept = found > 0
        lengths = np.add.reduceat(np.r_[kept, False].astype(np.int64), self.offsets[:-1]) if len(self) else kept
        lengths = np.where(np.diff(self.offsets) > 0, lengths, 0)  # reduceat gives an empty slice the next value
        return found[kept], np.r_[0, lengths.cumsum()].astype(np.int64), int((~kept).sum())


def read_ids(path: Path, column: str) -> list[str]:
    """The ids in a file: one in each line of a .txt file, or in a column of a table.

    Raises:
        XferError: if the file cannot be read, or lacks the column or a value.
    """
    if Path(path).suffix == ".txt":
        form = TextFormat(separator="\t", header=False, quotes=False)
        return list(_ids(read_table(path, form)["1"], Path(path)))
    table = read_table(path, TextFormat())
    check_column(table, column, Path(path))
    return list(dict.fromkeys(_ids(table[column], Path(path))))


def _ids(column: pd.Series, path: Path) -> pd.Series:
    """A column of ids as strings."""
    missing = column.isna() | (column == "")
    if missing.any():
        raise XferError(
            f"{path}, row {column.index[missing][0]}: '{column.name}' is empty. Fill it in, or remove the row."
        )
    if pd.api.types.is_float_dtype(column):
        raise XferError(f"{path}: the column '{column.name}' has decimal numbers. Write ids as text or integers.")
    return column.astype(str)


def _by_time(column: pd.Series, path: Path) -> np.ndarray:
    """The rows in order of time; rows of equal time keep theirs."""
    if pd.api.types.is_datetime64_any_dtype(column):
        column = column.astype("int64")
    times = pd.to_numeric(column, errors="coerce")
    wrong = ~np.isfinite(times)
    if wrong.any():
        row = column.index[wrong][0]
        raise XferError(
            f"{path}, row {row}: '{column[row]}' in column '{column.name}' is not a number. Write seconds since 1970."
        )
    return np.argsort(times.to_numpy(), kind="stable")


def _items(user: object, items: Any) -> list[str]:
    """A history as a list of strings."""
    if isinstance(items, str) or not isinstance(items, Iterable):
        raise XferError(f"A history must be a list of items: write [{items!r}] instead of {items!r} for {user}.")
    items = list(items)
    for item in items:
        if isinstance(item, bool | float | np.floating) or item is None or not isinstance(item, str | int | np.integer):
            raise XferError(f"An item must be a string: {item!r} in the history of {user} is not. {FORMS}")
    return [str(item) for item in items]
