"""Histories kept once: one flat array of items and offsets serve training windows and evaluation rows.

RecBole writes one row for every (prefix, target) pair, so that its memory grows with the squared length of a
history. Here a pair is two numbers, and the rows of a batch are gathered when the batch is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recbole_xfer.config.schema import check, kind_of


@dataclass(frozen=True)
class Sequences:
    """S histories, one behind the other, each in order of time.

    Attributes:
        items: item ids, [M].
        offsets: history ``s`` is ``items[offsets[s]:offsets[s + 1]]``, [S + 1].
        users: the user id of each history, [S]; a user has several where histories are kept apart by domain.
        order: the interaction that each entry of ``items`` came from, [M].
    """

    items: np.ndarray
    offsets: np.ndarray
    users: np.ndarray
    order: np.ndarray

    @classmethod
    def from_interactions(cls, users: np.ndarray, items: np.ndarray, domains: np.ndarray | None = None) -> Sequences:
        """Groups interactions, given in order of time, by user, or by user and domain.

        Args:
            users: user id of each interaction, [M].
            items: item id of each interaction, [M].
            domains: domain of each interaction, [M], where a history must not mix domains.
        """
        key = users if domains is None else users.astype(np.int64) * (int(domains.max(initial=0)) + 1) + domains
        order = np.argsort(key, kind="stable")
        sorted_key = key[order]
        starts = np.flatnonzero(np.r_[True, sorted_key[1:] != sorted_key[:-1]]) if len(key) else np.empty(0, np.int64)
        return cls(
            items=items[order].astype(np.int32),
            offsets=np.r_[starts, len(key)].astype(np.int64),
            users=users[order[starts]].astype(np.int32),
            order=order,
        )

    def __len__(self) -> int:
        return len(self.users)

    @property
    def starts(self) -> np.ndarray:
        """Index of each history's first item, [S]."""
        return self.offsets[:-1]

    @property
    def ends(self) -> np.ndarray:
        """Index behind each history's last item, [S]."""
        return self.offsets[1:]

    def history_of(self, targets: np.ndarray) -> np.ndarray:
        """The history in which each index into ``items`` lies, [N]."""
        return np.searchsorted(self.offsets, targets, side="right") - 1


@dataclass(frozen=True)
class Windows:
    """Training inputs: window ``w`` reads ``length[w]`` items from ``start[w]``; each position's target is the item
    behind it. The first ``skip[w]`` targets are left out, because an earlier window has them with a longer past.
    """

    start: np.ndarray
    length: np.ndarray
    skip: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    @property
    def targets(self) -> np.ndarray:
        """How many targets each window trains, [W]."""
        return self.length - self.skip


def ranges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """All integers of the half-open intervals [starts, ends), one interval behind the other."""
    lengths = np.maximum(ends - starts, 0)
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def windows(starts: np.ndarray, ends: np.ndarray, size: int, stride: int) -> Windows:
    """Windows over histories [starts, ends) in which every item but each history's first is a target exactly once.

    A history of at most ``size + 1`` items is one window. A longer one is cut so that its last window ends with the
    history, each window starts ``stride`` items after the one before, and only the targets that the one before
    lacks are trained: so their past is at least ``size - stride + 1`` items long. ``stride=1`` gives every target
    the longest past it can have, which is what RecBole's rows give, at ``size`` times the cost.

    Args:
        starts: index of each history's first item, [S].
        ends: index behind its last training item, [S].
        size: most items that a window reads.
        stride: from 1 to ``size``.
    """
    inputs = ends - starts - 1
    keep = inputs > 0
    starts, ends, inputs = starts[keep], ends[keep], inputs[keep]
    more = np.maximum(-(-(inputs - size) // stride), 0)  # windows besides the first
    history = np.repeat(np.arange(len(starts)), more + 1)
    number = ranges(np.zeros_like(more), more + 1)  # 0 for a history's first window
    stop = ends[history] - 1 - (more[history] - number) * stride
    start = np.maximum(starts[history], stop - size)
    previous = np.where(number > 0, stop - stride, start)
    return Windows(start=start, length=stop - start, skip=previous - start)


def prefixes(starts: np.ndarray, ends: np.ndarray, size: int) -> Windows:
    """RecBole's rows as windows: one for each target, reading the at most ``size`` items before it."""
    targets = ranges(starts + 1, ends)
    first = np.repeat(starts, np.maximum(ends - starts - 1, 0))
    start = np.maximum(first, targets - size)
    length = targets - start
    return Windows(start=start, length=length, skip=length - 1)


def head_users(users: np.ndarray, counts: np.ndarray, share: float) -> np.ndarray:
    """Which users have the most interactions; where some have as many at the edge, those with the smaller ids.

    Args:
        users: user id of each history, [S].
        counts: its interactions, [S]; users without any are neither head users nor counted.
        share: share of head users, such as 0.2.

    Returns:
        bool by user id, [largest id + 1].

    Raises:
        XferError: if the share is none.
    """
    check("head_share", share, kind_of("head_share"))
    total = np.bincount(users, weights=counts)
    head = np.zeros(len(total), dtype=bool)
    head[np.argsort(-total, kind="stable")[: round(share * np.count_nonzero(total > 0))]] = True
    return head


def gather(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, width: int | None = None) -> np.ndarray:
    """Slices of a flat array as rows, padded with zeros on the right.

    Args:
        values: [M].
        starts: first index of each row, [B].
        lengths: length of each row, [B].
        width: columns of the result; the longest row's length where not given.

    Returns:
        [B, width]
    """
    columns = np.arange(width if width is not None else lengths.max(initial=0))
    inside = columns < lengths[:, None]
    index = np.where(inside, starts[:, None] + columns, 0)
    return np.where(inside, values[index], 0)
