"""Who is one user in several domains: those of one name, or those that a file joins, but for a share that is hidden."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_xfer.config.schema import check, kind_of
from recbole_xfer.errors import XferError

Frames = Mapping[str, Mapping[str, Any]]
"""Of each domain the frames of its files: ``inter``, and ``user`` and ``item``, None where they are not there."""


def join_users(path: Path, frames: Frames, field: str) -> None:
    """Names users so that those of a line of a file are one, and all others are different in each domain.

    Args:
        path: a table, separated by tabs, with a column for each domain: ids of one person in a line. A person who is
            not in a domain has an empty cell there.
        frames: whose users are renamed, to ``<domain>/<id>``.
        field: name of the column of users.

    Raises:
        XferError: if the file is missing or no table, lacks a domain, or names a user twice or one who is not there.
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
    """The file's ids by domain as text, checked."""
    if not path.is_file():
        raise XferError(f"overlap_file={path} is missing.")
    try:
        table = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False, skip_blank_lines=False, index_col=False)
    except (ValueError, pd.errors.ParserError) as error:
        raise XferError(f"{path} cannot be read: {error}. It must be a table of ids, separated by tabs.") from error
    table = table.fillna("")  # what a line lacks
    for domain, parts in frames.items():
        if domain not in table:
            raise XferError(f"{path} has no column '{domain}', only {', '.join(table)}. It needs one for each domain.")
        ids = table.loc[table[domain] != "", domain]
        known = pd.concat([users[field] for users in _users(parts)])
        for wrong, mistake in ((ids.duplicated(), "is named a second time"), (~ids.isin(known), "is not there")):
            if wrong.any():
                line = ids[wrong].index[0] + 2
                raise XferError(
                    f"{path}, line {line}: the user '{ids[wrong].iloc[0]}' of {domain} {mistake}. "
                    f"Correct or remove the line."
                )
    return table


def hide_overlap(share: float, seed: int, frames: Frames, field: str) -> None:
    """Makes users of several domains different users in each, but for a share of them.

    Equal seeds hide equal users, and a smaller share hides those that a larger one hides, and more.

    Args:
        share: of those who stay one user.
        seed: draws them.
        frames: whose users are renamed, to ``<domain>/<id>``.
        field: name of the column of users.

    Raises:
        XferError: if the share is none.
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
    """The frames that name users."""
    return (parts[name] for name in ("inter", "user") if parts[name] is not None)
