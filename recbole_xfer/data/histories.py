"""Histories stored once: a flat array of items and offsets serves training windows and evaluation rows.

RecBole writes one row for every (prefix, target) pair, so its memory grows with the squared length of a history.
Here a pair is two numbers, and the rows of a batch are gathered when the batch is made.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recbole_xfer.config.schema import check, kind_of


@dataclass(frozen=True)
class Sequences:
    """S histories, concatenated, each in order of time.

    Attributes:
        items: item ids, [M].
        offsets: history ``s`` is ``items[offsets[s]:offsets[s + 1]]``, [S + 1].
        users: the user id of each history, [S]; with one history per domain, a user has several.
        order: index of the interaction of each entry of ``items``, [M].
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
            domains: domain of each interaction, [M], if histories must not mix domains.
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
        """End (exclusive) of each history, [S]."""
        return self.offsets[1:]

    def with_next(self) -> Sequences:
        """Each history with a place for the next item at its end, which holds item 0; ``order`` is -1 there."""
        return replace(
            self,
            items=np.insert(self.items, self.ends, 0),
            offsets=self.offsets + np.arange(len(self.offsets)),
            order=np.insert(self.order, self.ends, -1),
        )

    def before(self, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns all items before each target in its history, which may include the target's item.

        Args:
            targets: indices into ``items``, [N].

        Returns:
            (number of the target [K], item id [K]).
        """
        starts = self.starts[self.history_of(targets)]
        number = np.repeat(np.arange(len(targets)), targets - starts)
        return number, self.items[ranges(starts, targets)].astype(np.int64)

    def repeated(self, targets: np.ndarray) -> np.ndarray:
        """Returns whether each target's item occurs before it in its history, bool [N]."""
        place = np.arange(len(self.items))
        key = self.history_of(place) * (int(self.items.max(initial=0)) + 1) + self.items
        _, first, item = np.unique(key, return_index=True, return_inverse=True)
        return first[item[targets]] < targets

    def history_of(self, targets: np.ndarray) -> np.ndarray:
        """Returns the history of each index into ``items``, [N]."""
        return np.searchsorted(self.offsets, targets, side="right") - 1


@dataclass(frozen=True)
class Windows:
    """Training inputs: window ``w`` reads ``length[w]`` items from ``start[w]``; each position's target is the next
    item. The first ``skip[w]`` targets are left out, because the previous window has them with a longer past.
    """

    start: np.ndarray
    length: np.ndarray
    skip: np.ndarray

    def __len__(self) -> int:
        return len(self.start)

    @property
    def targets(self) -> np.ndarray:
        """Number of targets that each window trains, [W]."""
        return self.length - self.skip


def ranges(starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Returns all integers of the half-open intervals [starts, ends), one interval after another."""
    lengths = np.maximum(ends - starts, 0)
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def windows(starts: np.ndarray, ends: np.ndarray, size: int, stride: int) -> Windows:
    """Cuts histories [starts, ends) into windows; every item except a history's first is a target exactly once.

    A history of at most ``size + 1`` items is one window. In a longer history, the last window ends with the history,
    and each window starts ``stride`` items after the previous window. It trains only the targets that the previous
    window lacks, so their past has at least ``size - stride + 1`` items. ``stride=1`` gives every target its longest
    possible past, as RecBole's rows do, at ``size`` times the cost.

    Args:
        starts: start (inclusive) of each history, [S].
        ends: end (exclusive) of its training items, [S].
        size: maximal number of items in a window.
        stride: from 1 to ``size``.
    """
    inputs = ends - starts - 1
    keep = inputs > 0
    starts, ends, inputs = starts[keep], ends[keep], inputs[keep]
    more = np.maximum(-(-(inputs - size) // stride), 0)  # windows after the first
    history = np.repeat(np.arange(len(starts)), more + 1)
    number = ranges(np.zeros_like(more), more + 1)  # 0 for a history's first window
    stop = ends[history] - 1 - (more[history] - number) * stride
    start = np.maximum(starts[history], stop - size)
    previous = np.where(number > 0, stop - stride, start)
    return Windows(start=start, length=stop - start, skip=previous - start)


def prefixes(starts: np.ndarray, ends: np.ndarray, size: int) -> Windows:
    """Returns RecBole's rows as windows: one per target, with at most ``size`` previous items."""
    targets = ranges(starts + 1, ends)
    first = np.repeat(starts, np.maximum(ends - starts - 1, 0))
    start = np.maximum(first, targets - size)
    length = targets - start
    return Windows(start=start, length=length, skip=length - 1)


def head_ids(ids: np.ndarray, counts: np.ndarray, share: float) -> np.ndarray:
    """Selects the users or items with the most interactions; among equal ones, those with the smaller ids.

    Args:
        ids: of a user or an item, which may occur several times, [S].
        counts: number of interactions of each, [S]; ids without interactions are not counted.
        share: fraction of ids in the head, such as 0.2.

    Returns:
        Whether each id is in the head, bool by id, [largest id + 1].

    Raises:
        XferError: if the share is not between 0 and 1.
    """
    check("head_share", share, kind_of("head_share"))
    total = np.bincount(ids, weights=counts)
    head = np.zeros(len(total), dtype=bool)
    head[np.argsort(-total, kind="stable")[: round(share * np.count_nonzero(total > 0))]] = True
    return head


def gather(values: np.ndarray, starts: np.ndarray, lengths: np.ndarray, width: int | None = None) -> np.ndarray:
    """Returns slices of a flat array as rows, padded with zeros on the right.

    Args:
        values: [M].
        starts: start of each row, [B].
        lengths: length of each row, [B].
        width: columns of the result; by default, the longest row's length.

    Returns:
        [B, width]
    """
    columns = np.arange(width if width is not None else lengths.max(initial=0))
    inside = columns < lengths[:, None]
    index = np.where(inside, starts[:, None] + columns, 0)
    return np.where(inside, values[index], 0)
