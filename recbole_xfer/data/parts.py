"""Interactions whose split is given by their files: one file each for training, validation and test targets.

A file has plain rows, one for each interaction, or in addition each row's history (``item_id_list:token_seq``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_xfer.data.splits import NOWHERE
from recbole_xfer.errors import XferError

PART = "part:"
"""Column of an interaction's part, see :func:`recbole_xfer.data.splits.by_part`; no file can have this column."""

FILE, LINE = "file:", "line:"
"""Columns of the name of a row's file, and its line."""


def part_files(folder: Path, name: str, parts: Sequence[str]) -> list[Path]:
    """Returns ``<name>.<part>.inter`` of each part.

    Raises:
        XferError: if there are not three parts, or a file is missing.
    """
    if len(parts) != 3 or len(set(parts)) < 3:
        raise XferError(
            f"benchmark_filename={list(parts)} must name three parts: training, validation and test, such as "
            f"--benchmark_filename='[train, valid, test]'."
        )
    paths = [folder / f"{name}.{part}.inter" for part in parts]
    for path in paths:
        if not path.is_file():
            raise XferError(f"The file {path} does not exist, but benchmark_filename names it. Correct one of them.")
    return paths


def concatenate(paths: Sequence[Path], read: Callable[[Path], pd.DataFrame]) -> pd.DataFrame:
    """Returns the rows of all files, with :data:`FILE` and :data:`LINE`."""
    frames = []
    for path in paths:
        frame = read(path)
        frames.append(frame.assign(**{FILE: path.name, LINE: np.arange(len(frame)) + 2}))
    return pd.concat(frames, ignore_index=True)


def assemble(rows: pd.DataFrame) -> pd.DataFrame:
    """Assembles each user's sequence of items from rows with histories, and checks every row against it.

    A sequence is the history of the user's first row, followed by every row's item; files come in the given order, and
    the rows of a file from short to long histories. A longest history may lack its first items.

    Args:
        rows: ``user``, ``before`` (an array of items), ``item``, :data:`FILE` and :data:`LINE`.

    Returns:
        ``user``, ``item``, ``position`` in the user's sequence, and :data:`FILE` of the row whose item it is; None
        for an item that is in histories only.

    Raises:
        XferError: for the first row whose history contradicts the user's other rows.
    """
    rows = _growing(rows)
    lengths = rows["before"].map(len).to_numpy()
    coded, tokens = pd.factorize(np.concatenate([*rows["before"], rows["item"].to_numpy()]))
    history, targets = np.split(coded, [lengths.sum()])  # the histories of all rows, concatenated

    first = ~rows["user"].duplicated().to_numpy()
    added = np.where(first, lengths, 0) + 1  # how many items a row adds to its user's sequence
    ends = np.cumsum(added)  # end (exclusive) of the row's item in the concatenated sequences
    owner = np.repeat(np.arange(len(rows)), lengths)  # the row of each history item
    begins = ends - 1 - lengths
    place = begins[owner] + np.arange(len(owner)) - (np.cumsum(lengths) - lengths)[owner]
    items = np.empty(added.sum(), np.int64)
    items[ends - 1] = targets
    items[place[first[owner]]] = history[first[owner]]

    wrong = begins < (ends - added)[first][np.cumsum(first) - 1]
    wrong[owner[items[place.clip(0)] != history]] = True
    if wrong.any():
        row = rows.iloc[int(wrong.argmax())]
        raise XferError(
            f"{row[FILE]}, line {row[LINE]}: the history of user {row['user']} before item {row['item']} "
            "contradicts the user's other rows. Check that the split files belong to one data set."
        )
    users = pd.Series(np.repeat(rows["user"].to_numpy(), added))
    files = np.full(len(items), None, dtype=object)
    files[ends - 1] = rows[FILE]
    return pd.DataFrame(
        {"user": users, "item": tokens[items], "position": users.groupby(users).cumcount(), FILE: files}
    )


def _growing(rows: pd.DataFrame) -> pd.DataFrame:
    """Sorts rows by user, file and length of the history; histories cut at one length keep the order of their file.

    A file can go from the longest history to the shortest, as the training rows that UniSRec publishes.
    """
    parts = []
    for _, part in rows.groupby(FILE, sort=False):
        lengths = part["before"].map(len)
        by_user = lengths.groupby(part["user"])
        backwards = (by_user.first() > by_user.last()).any()
        parts.append(part.assign(length=lengths)[:: -1 if backwards else 1].sort_values("length", kind="stable"))
    return pd.concat(parts).sort_values("user", kind="stable", ignore_index=True)


def numbered(files: pd.Series, paths: Sequence[Path]) -> np.ndarray:
    """Returns the part of each interaction by the name of its file: ``NOWHERE``, or the file's number from 1."""
    return pd.Index([path.name for path in paths]).get_indexer(files) + NOWHERE + 1
