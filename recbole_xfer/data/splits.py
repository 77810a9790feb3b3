"""Which items of each history are trained, validated and tested: the same for models with and without sequences.

A split is three pairs (first, end) of indices into ``Sequences.items``, one pair of arrays [S] a part: history ``s``
gives that part its items ``first[s]`` to ``end[s] - 1`` as targets. A history's first item is never a target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from recbole.data.dataset import Dataset

from recbole_xfer.config.schema import check_values
from recbole_xfer.data.histories import Sequences, ranges
from recbole_xfer.errors import XferError

Ranges = tuple[np.ndarray, np.ndarray]

SPLIT_SEED = 0
"""Draws the users that are held out: the same for every ``seed``, whose results are of the same rows then."""

NOWHERE = 0
"""The part of what is read and is no target; training, validation and test have the numbers behind it."""


def split(sequences: Sequences, eval_args: Mapping[str, Any], held_out_targets: int) -> list[Ranges]:
    """Training, validation and test targets by RecBole's ``eval_args``.

    ``LS`` (leave one out) and ``RS`` (ratio) are RecBole's. ``HU: [8, 1, 1]`` holds users out: the first share of them
    is trained whole, and of the others the last ``held_out_targets`` items are ranked. ``NU: 0.2`` holds this
    share of users out as new ones, and leaves one out: everyone's last item tests, the one before validates, and of
    new users nothing is trained or validated.

    Raises:
        XferError: for an order that is not of time, or what is no split.
    """
    if eval_args["order"] != "TO":
        raise XferError("eval_args.order must be TO: a history is in order of time.")
    check_values({"eval_args.split": eval_args["split"]})
    ((mode, argument),) = eval_args["split"].items()
    if mode == "LS":
        return leave_one_out(sequences, argument)
    if mode == "RS":
        return by_ratio(sequences, argument, by_user=eval_args["group_by"] == "user")
    if mode == "HU":
        return held_out_users(sequences, argument, held_out_targets)
    return new_users(sequences, argument)


def by_part(sequences: Sequences, parts: np.ndarray) -> list[Ranges]:
    """The split whose part each interaction is in, [M]: ``NOWHERE``, then training, validation and test by number.

    What was split may have held more interactions than these; the first that is left of a history is no target.
    """
    counts = np.zeros((len(sequences), NOWHERE + 4), dtype=np.int64)
    np.add.at(counts, (sequences.history_of(np.arange(len(parts))), parts[sequences.order]), 1)
    bounds = sequences.starts[:, None] + counts.cumsum(axis=1)  # a history goes through its parts in their order
    first = sequences.starts + 1
    return [(np.maximum(start, first), np.maximum(end, first)) for start, end in pairwise(bounds.T)]


def leave_one_out(sequences: Sequences, mode: str) -> list[Ranges]:
    """The last target tests and the one before validates; as in RecBole, a history's first target is always trained."""
    held = 2 if mode == "valid_and_test" else 1
    starts, ends = sequences.starts, sequences.ends
    count = np.clip(ends - starts - 2, 0, held)
    train_end = ends - count
    last = np.where(count > 0, ends - 1, ends)
    train, nothing = (starts + 1, train_end), (ends, ends)
    if mode == "valid_only":
        return [train, (last, ends), nothing]
    return [train, (train_end, last), (last, ends)]


def by_ratio(sequences: Sequences, ratios: Sequence[float], by_user: bool) -> list[Ranges]:
    """The first share of each history's targets is trained, or of all targets in order of time."""
    shares = [ratio / sum(ratios) for ratio in ratios]
    starts, ends = sequences.starts, sequences.ends
    if by_user:
        sizes, which = np.unique(ends - starts - 1, return_inverse=True)
        cuts = np.array([_cuts(int(size), shares) for size in sizes])[which]
    else:
        targets = ranges(starts + 1, ends)
        history = sequences.history_of(targets)[np.argsort(sequences.order[targets])]  # in order of time
        cuts = np.stack(
            [np.bincount(history[:cut], minlength=len(starts)) for cut in _cuts(len(targets), shares)], axis=1
        )
    bounds = [starts + 1, *(starts + 1 + cuts.T), ends]
    return list(pairwise(bounds))


def _cuts(total: int, shares: list[float]) -> list[int]:
    """Where RecBole cuts a number of rows; its method uses nothing of the dataset."""
    return Dataset._calcu_split_ids(None, total, shares)


def held_out_users(sequences: Sequences, shares: Sequence[float], targets: int) -> list[Ranges]:
    """Whole users for training, validation and test; of the latter two the last records are ranked, each by all before.

    This is the rolling prediction of RETR's appendix D. It says of training users that their last record is "for
    prediction" and ranks it nowhere; it is read as the last of their training targets.
    """
    starts, ends = sequences.starts, sequences.ends
    group = _drawn(sequences, shares)
    ranked_from = np.maximum(ends - targets, starts + 1)
    firsts = [starts + 1, ranked_from, ranked_from]
    return [(np.where(group == part, first, ends), ends) for part, first in enumerate(firsts)]


def _drawn(sequences: Sequences, shares: Sequence[float]) -> np.ndarray:
    """The part of each history's user, [S], when users are dealt out by shares."""
    users, which = np.unique(sequences.users, return_inverse=True)
    place = np.random.default_rng(SPLIT_SEED).permutation(len(users)) / max(len(users), 1)
    return np.searchsorted(np.cumsum(shares)[:-1] / sum(shares), place[which], side="right")


def new_users(sequences: Sequences, share: float) -> list[Ranges]:
    """Leave one out, with a share of users of whom nothing is trained or validated."""
    new = _drawn(sequences, [1 - share, share]) == 1
    train, valid, test = leave_one_out(sequences, "valid_and_test")
    return [*((np.where(new, sequences.ends, first), end) for first, end in (train, valid)), test]
