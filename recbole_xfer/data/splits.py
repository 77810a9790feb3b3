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

TEST = NOWHERE + 3
"""The part of test targets."""


def split(
    sequences: Sequences, eval_args: Mapping[str, Any], held_out_targets: int, train_share: float = 1
) -> list[Ranges]:
    """Returns training, validation and test targets by RecBole's ``eval_args``.

    ``LS`` (leave one out) and ``RS`` (ratio) are RecBole's; ``LS: none`` holds nothing out. ``HU: [8, 1, 1]`` splits
    users: those of the first part are trained completely, and the last ``held_out_targets`` items of the others are
    ranked. ``NU: 0.2`` leaves one out and holds this fraction of users out as new: everyone's last item is tested, the
    previous item validated, and new users are neither trained nor validated.

    Below 1, ``train_share`` is the fraction of users that are trained and validated; test targets stay the same. A
    larger fraction contains the users of a smaller one. With ``HU`` it is a fraction of the training users and of the
    validation users, with ``NU`` of the users that are not new.

    Raises:
        XferError: if the order is not by time, or the split is invalid.
    """
    if eval_args["order"] != "TO":
        raise XferError(f"eval_args.order={eval_args['order']} must be TO, because histories are ordered by time.")
    check_values({"eval_args.split": eval_args["split"]})
    ((mode, argument),) = eval_args["split"].items()
    if holds_nothing_out(eval_args):
        return leave_one_out(sequences, argument)
    if mode == "LS":
        return untrained(sequences, leave_one_out(sequences, argument), 1 - train_share)
    if mode == "RS":
        parts = by_ratio(sequences, argument, by_user=eval_args["group_by"] == "user")
        return untrained(sequences, parts, 1 - train_share)
    if mode == "HU":
        return held_out_users(sequences, argument, held_out_targets, train_share)
    return untrained(sequences, leave_one_out(sequences, "valid_and_test"), 1 - (1 - argument) * train_share)


def describe(eval_args: Mapping[str, Any], held_out_targets: int, train_share: float = 1) -> str:
    """Returns what :func:`split` does with these arguments, such as ``leave one out by time``."""
    if holds_nothing_out(eval_args):
        return "nothing held out"
    ((mode, argument),) = eval_args["split"].items()
    if mode == "LS":
        text = "leave one out by time" + (f" ({argument})" if argument != "valid_and_test" else "")
    elif mode == "RS":
        scope = "per user" if eval_args["group_by"] == "user" else "over all users"
        text = f"ratio {_numbers(argument)} by time, {scope}"
    elif mode == "HU":
        text = f"held-out users {_numbers(argument)}, last {held_out_targets} items of each"
    else:
        text = f"leave one out by time, {argument} of users new"
    users = {"NU": "others trained", "HU": "training and validation users used"}.get(mode, "users trained")
    return text + trained_text(train_share, f"the {users}")


def _numbers(ratios: Sequence[float]) -> str:
    return f"[{', '.join(f'{ratio:g}' for ratio in ratios)}]"


def trained_text(train_share: float, users: str = "the users trained") -> str:
    """Returns the end of a split's description, such as ``, 10% of the users trained``; empty if all are."""
    return f", {percentage(train_share)} of {users}" if train_share < 1 else ""


def users_text(share: float) -> str:
    """Returns a fraction of users as text, such as ``10% of the users`` or ``all users``."""
    return f"{percentage(share)} of the users" if share < 1 else "all users"


def percentage(share: float) -> str:
    """Returns a fraction as text, such as ``0.5%``."""
    return f"{100 * share:g}%"


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


def held_out_users(sequences: Sequences, shares: Sequence[float], targets: int, train_share: float = 1) -> list[Ranges]:
    """Splits users into parts; ranks the last records of validation and test users, each by all previous records.

    This is the rolling prediction of RETR's appendix D. It calls the last record of training users "for prediction"
    but never ranks it; here it is their last training target.
    """
    starts, ends = sequences.starts, sequences.ends
    train, valid, test = shares
    used, unused = train_share, 1 - train_share
    group = _drawn(sequences.users, [train * used, train * unused, valid * used, valid * unused, test])
    ranked_from = np.maximum(ends - targets, starts + 1)
    firsts = {0: starts + 1, 2: ranked_from, 4: ranked_from}
    return [(np.where(group == number, first, ends), ends) for number, first in firsts.items()]


def untrained(sequences: Sequences, parts: Sequence[Ranges], share: float) -> list[Ranges]:
    """Returns a split in which a fraction of users is neither trained nor validated."""
    out = _drawn(sequences.users, [1 - share, share]) == 1
    train, valid, test = parts
    return [*((np.where(out, end, first), end) for first, end in (train, valid)), test]


def untrained_parts(users: np.ndarray, parts: np.ndarray, share: float) -> np.ndarray:
    """As :func:`untrained`, by each interaction's user and part (see :func:`by_part`), [M]."""
    out = _drawn(users, [1 - share, share]) == 1
    return np.where(out & (parts < TEST), NOWHERE, parts)


def _drawn(users: np.ndarray, shares: Sequence[float]) -> np.ndarray:
    """The part of each user, [S]; different users are drawn at random in these proportions."""
    different, which = np.unique(users, return_inverse=True)
    place = np.random.default_rng(SPLIT_SEED).permutation(len(different)) / max(len(different), 1)
    return np.searchsorted(np.cumsum(shares)[:-1] / sum(shares), place[which], side="right")
