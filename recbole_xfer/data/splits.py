"""Splits histories into training, validation and test targets, identically for models with and without sequences.

A split has three pairs (first, end) of arrays [S], one pair per part, with indices into ``Sequences.items``. The part's
targets in history ``s`` start at ``first[s]`` (inclusive) and end at ``end[s]`` (exclusive). A history's first item is
never a target.
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
"""Draws the held-out users: the same for every ``seed``, so that all results have the same test rows."""

WHOLE: Mapping[str, Any] = {"LS": "none"}
"""The split that holds nothing out."""

NOWHERE = 0
"""The part of items that are never targets; training, validation and test have the next numbers."""


def split(sequences: Sequences, eval_args: Mapping[str, Any], held_out_targets: int) -> list[Ranges]:
    """Returns training, validation and test targets by RecBole's ``eval_args``.

    ``LS`` (leave one out) and ``RS`` (ratio) are RecBole's; ``LS: none`` holds nothing out. ``HU: [8, 1, 1]`` splits
    users: those of the first part are trained completely, and the last ``held_out_targets`` items of the others are
    ranked. ``NU: 0.2`` leaves one out and holds this fraction of users out as new: everyone's last item is tested, the
    previous item validated, and new users are neither trained nor validated.

    Raises:
        XferError: if the order is not by time, or the split is invalid.
    """
    if eval_args["order"] != "TO":
        raise XferError(f"eval_args.order={eval_args['order']} must be TO, because histories are ordered by time.")
    check_values({"eval_args.split": eval_args["split"]})
    ((mode, argument),) = eval_args["split"].items()
    if mode == "LS":
        return leave_one_out(sequences, argument)
    if mode == "RS":
        return by_ratio(sequences, argument, by_user=eval_args["group_by"] == "user")
    if mode == "HU":
        return held_out_users(sequences, argument, held_out_targets)
    return new_users(sequences, argument)


def describe(eval_args: Mapping[str, Any], held_out_targets: int) -> str:
    """Returns what :func:`split` does with these arguments, such as ``leave one out by time``."""
    ((mode, argument),) = eval_args["split"].items()
    if holds_nothing_out(eval_args):
        return "nothing held out"
    if mode == "LS":
        return "leave one out by time" + (f" ({argument})" if argument != "valid_and_test" else "")
    if mode == "RS":
        return f"ratio {argument} by time, {'per user' if eval_args['group_by'] == 'user' else 'over all users'}"
    if mode == "HU":
        return f"held-out users {argument}, last {held_out_targets} items of each"
    return f"leave one out by time, {argument} of users new"


def holds_nothing_out(eval_args: Mapping[str, Any]) -> bool:
    """Whether everything is trained on."""
    return eval_args["split"] == WHOLE


def by_part(sequences: Sequences, parts: np.ndarray) -> list[Ranges]:
    """Returns the split by each interaction's part, [M]: ``NOWHERE``, or the number of training, validation or test.

    Histories may have lost interactions since the split; the first remaining item of a history is not a target.
    """
    counts = np.zeros((len(sequences), NOWHERE + 4), dtype=np.int64)
    np.add.at(counts, (sequences.history_of(np.arange(len(parts))), parts[sequences.order]), 1)
    bounds = sequences.starts[:, None] + counts.cumsum(axis=1)  # a history passes through the parts in order
    first = sequences.starts + 1
    return [(np.maximum(start, first), np.maximum(end, first)) for start, end in pairwise(bounds.T)]


def leave_one_out(sequences: Sequences, mode: str) -> list[Ranges]:
    """Tests the last target and validates the previous one; as in RecBole, always trains a history's first target.

    Args:
        sequences: all histories.
        mode: RecBole's ``valid_and_test``, ``valid_only`` or ``test_only``, or ``none``, which trains all targets.
    """
    held = {"valid_and_test": 2, "none": 0}.get(mode, 1)
    starts, ends = sequences.starts, sequences.ends
    count = np.clip(ends - starts - 2, 0, held)
    train_end = ends - count
    last = np.where(count > 0, ends - 1, ends)
    train, nothing = (starts + 1, train_end), (ends, ends)
    if mode == "valid_only":
        return [train, (last, ends), nothing]
    return [train, (train_end, last), (last, ends)]


def by_ratio(sequences: Sequences, ratios: Sequence[float], by_user: bool) -> list[Ranges]:
    """Splits each history's targets by ratio, or all targets in order of time."""
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
    """The cuts of RecBole, whose method uses nothing of the dataset."""
    return Dataset._calcu_split_ids(None, total, shares)


def held_out_users(sequences: Sequences, shares: Sequence[float], targets: int) -> list[Ranges]:
    """Splits users into parts; ranks the last records of validation and test users, each by all previous records.

    This is the rolling prediction of RETR's appendix D. It calls the last record of training users "for prediction"
    but never ranks it; here it is their last training target.
    """
    starts, ends = sequences.starts, sequences.ends
    group = _drawn(sequences, shares)
    ranked_from = np.maximum(ends - targets, starts + 1)
    firsts = [starts + 1, ranked_from, ranked_from]
    return [(np.where(group == part, first, ends), ends) for part, first in enumerate(firsts)]


def _drawn(sequences: Sequences, shares: Sequence[float]) -> np.ndarray:
    """The part of each history's user, [S]; users are drawn at random in these proportions."""
    users, which = np.unique(sequences.users, return_inverse=True)
    place = np.random.default_rng(SPLIT_SEED).permutation(len(users)) / max(len(users), 1)
    return np.searchsorted(np.cumsum(shares)[:-1] / sum(shares), place[which], side="right")


def new_users(sequences: Sequences, share: float) -> list[Ranges]:
    """Leaves one out; a fraction of users, the new ones, is neither trained nor validated."""
    new = _drawn(sequences, [1 - share, share]) == 1
    train, valid, test = leave_one_out(sequences, "valid_and_test")
    return [*((np.where(new, sequences.ends, first), end) for first, end in (train, valid)), test]
