"""Decides which users of different domains are the same person; can hide a fraction of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_xfer.config.schema import check, kind_of
from recbole_xfer.errors import XferError
from recbole_xfer.files import WithoutNul

Frames = Mapping[str, Mapping[str, Any]]
"""Each domain's frames: ``inter``, and ``user`` and ``item``, None if the file does not exist."""


def join_users(path: Path, frames: Frames, field: str) -> None:
    """Joins the users on each line of a file; all other users are different in each domain.

    Args:
        path: a table, separated by tabs, with one column per domain and one person per line. A cell is empty if the
            person is not in the domain.
        frames: their users are renamed to ``<domain>/<id>``.
        field: name of the column of users.

    Raises:
        XferError: if the file is missing or not a table, lacks a domain, or names a user twice or an unknown user.
    """
    table = _read(path, frames, field)
    person = pd.Series("", index=table.index)
    for domain in reversed(list(frames)):  # the first domain that a line names is the person's
        person = person.where(table[domain] == "", f"{domain}/" + table[domain])
    for domain, parts in frames.items():
        named = table[domain] != ""
        joined = pd.Series(person[named].to_numpy(), index=table.loc[named, domain])
        for users in _users(parts):
            users[field] = users[field].map(joined).fillna(f"{domain}/" + users[field])


def _read(path: Path, frames: Frames, field: str) -> pd.DataFrame:
    """Reads and checks the ids of each domain, as strings."""
    if not path.is_file():
        raise XferError(f"The file overlap_file={path} does not exist.")
    try:
        with path.open("rb") as file:
            table = pd.read_csv(
                io.BufferedReader(WithoutNul(path, file)), sep="\t", dtype=str, keep_default_na=False,
                skip_blank_lines=False, index_col=False, quoting=csv.QUOTE_NONE,
            )  # fmt: skip
    except (ValueError, pd.errors.ParserError) as error:
        raise XferError(f"{path} cannot be read: {error}. Write a table of ids, separated by tabs.") from error
    table = table.fillna("")  # missing last cells
    for domain, parts in frames.items():
        if domain not in table:
            raise XferError(f"{path} has no column '{domain}' (columns: {', '.join(table)}). Add one per domain.")
        ids = table.loc[table[domain] != "", domain]
        known = pd.concat([users[field] for users in _users(parts)])
        for wrong, mistake in ((ids.duplicated(), "is repeated"), (~ids.isin(known), "does not exist")):
            if wrong.any():
                line = ids[wrong].index[0] + 2
                raise XferError(
                    f"{path}, line {line}: the user '{ids[wrong].iloc[0]}' of {domain} {mistake}. "
                    f"Correct or remove the line."
                )
    return table


def hide_overlap(share: float, seed: int, frames: Frames, field: str) -> None:
    """Makes common users of several domains different users in each domain, except a fraction of them.

    Equal seeds hide equal users. A smaller share hides all users that a larger share hides, and more.

    RecGURU's paper also removes one of the two histories of a hidden user, which changes the data of both domains; here
    both remain.

    Args:
        share: fraction of common users that stay one user.
        seed: draws them.
        frames: hidden users are renamed to ``<domain>/<id>``.
        field: name of the column of users.

    Raises:
        XferError: if the share is not from 0 to 1.
    """
    check("overlap", share, kind_of("overlap"))
    if share == 1 or len(frames) == 1:
        return
    users = pd.concat([pd.Series(parts["inter"][field].unique()) for parts in frames.values()]).dropna()
    shared = np.sort(users[users.duplicated()].unique())
    hidden = shared[np.random.default_rng(seed).random(len(shared)) >= share]
    for domain, parts in frames.items():
        for part in _users(parts):
            rows = part[field].isin(hidden)
            part.loc[rows, field] = f"{domain}/" + part.loc[rows, field]


def _users(parts: Mapping[str, Any]) -> Iterator[pd.DataFrame]:
    """The frames with a column of users."""
    return (parts[name] for name in ("inter", "user") if parts[name] is not None)
