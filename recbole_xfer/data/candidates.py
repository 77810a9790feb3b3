"""Draws the items that targets are ranked with in sampled evaluation, once and without replacement."""

from __future__ import annotations

from typing import Any

import numpy as np

from recbole_xfer.data.histories import ranges
from recbole_xfer.errors import XferError

ROUNDS = 8
"""Draws of all missing candidates at once; the few that are still missing then are drawn for one target at a time."""

CELLS = 2**22
"""Maximal number of candidates drawn at once."""


def draw_candidates(config: Any, part: Any, phase: str) -> np.ndarray | None:
    """Draws the items that each target of a part of the split is ranked with, without replacement.

    They depend on the data, ``seed``, the phase and the protocol only, so all models and passes have the same. Never
    draws the target or, with ``mask_history``, an item of its history up to the last target of the part.

    Returns:
        item ids, [targets, number]; None if all items are ranked.

    Raises:
        XferError: if a target has fewer items than are to be drawn.
    """
    number = config[f"{phase}_neg_sample_args"]["sample_num"]
    if number == "none":
        return None
    urn = Urn(config, part, phase)
    drawn = np.zeros((len(urn.targets), number), dtype=np.int32)
    for _ in range(ROUNDS):
        unfinished = np.flatnonzero((drawn == 0).any(axis=1))
        step = max(1, CELLS // number)
        for first in range(0, len(unfinished), step):
            rows = unfinished[first : first + step]
            drawn[rows] = first_distinct(np.c_[drawn[rows], urn.draw(rows, number)], number)
    for row in np.flatnonzero((drawn == 0).any(axis=1)).tolist():
        drawn[row] = urn.complete(row, drawn[row][drawn[row] > 0], number)
    return drawn


def first_distinct(items: np.ndarray, number: int) -> np.ndarray:
    """Returns the first distinct items of each row except 0, padded with 0, [N, number]."""
    order = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, order, axis=1)
    repeated = np.zeros(items.shape, dtype=bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    kept = np.where(repeated, 0, items)
    return np.take_along_axis(kept, np.argsort(kept == 0, axis=1, kind="stable")[:, :number], axis=1)


class Urn:
    """The items that can be drawn for each target, in proportion to 1 or to their popularity.

    Drawing again after an excluded or repeated item is drawing without replacement.

    Args:
        config: of the run.
        part: of the split.
        phase: its name.
    """

    def __init__(self, config: Any, part: Any, phase: str) -> None:
        self.part, self.phase, self.mode = part, phase, config["eval_args"]["mode"][phase]
        self.random = np.random.default_rng([config["seed"], ["train", "valid", "test"].index(phase)])
        histories, self.targets = part.sequences, ranges(*part.target_ranges)
        self.history, self.item = histories.history_of(self.targets), histories.items[self.targets]
        arguments = config[f"{phase}_neg_sample_args"]
        counts = np.ones(part.item_num)
        if arguments["distribution"] == "popularity":
            counts = np.bincount(histories.items, minlength=part.item_num)
        self.weights = counts ** float(arguments.get("alpha", 1.0))
        self.weights[0] = 0  # the padding item
        self.group = part.item_domain if config["rank_within_domain"] else np.zeros(part.item_num, dtype=np.int16)
        self.members = np.argsort(self.group, kind="stable")  # the items of a group, one group after another
        self.cumulated = np.r_[0, self.weights[self.members].cumsum()]
        self.bounds = np.r_[0, np.bincount(self.group).cumsum()]
        self.seen = np.empty(0, dtype=np.int64)
        if config["mask_history"]:
            place = ranges(histories.starts, part.target_ranges[1])
            self.seen = np.unique(self._keys(histories.history_of(place), histories.items[place]))

    def draw(self, rows: np.ndarray, number: int) -> np.ndarray:
        """Draws items with replacement; 0 instead of an excluded one, [len(rows), number]."""
        group = self.group[self.item[rows]]
        first, end = self.bounds[group][:, None], self.bounds[group + 1][:, None]
        low, high = self.cumulated[first], self.cumulated[end]
        value = low + self.random.random((len(rows), number)) * (high - low)
        place = np.searchsorted(self.cumulated, value, side="right") - 1
        drawn = self.members[place.clip(first, end - 1)].astype(np.int32)
        excluded = (drawn == self.item[rows][:, None]) | self._is_seen(self.history[rows][:, None], drawn)
        return np.where(excluded, 0, drawn)

    def complete(self, row: int, drawn: np.ndarray, number: int) -> np.ndarray:
        """Draws the missing candidates of one target, [number]."""
        items = np.arange(len(self.weights))
        possible = (self.weights > 0) & (self.group == self.group[self.item[row]]) & (items != self.item[row])
        possible &= ~self._is_seen(self.history[row], items)
        if possible.sum() < number:
            token, user = self.item[row], self.part.sequences.users[self.history[row]]
            raise XferError(
                f"eval_args.mode={self.mode}: only {possible.sum()} different items can be drawn for the {self.phase} "
                f"target {self.part.id2token(self.part.iid_field, token)} of user "
                f"{self.part.id2token(self.part.uid_field, user)}. Draw fewer, or rank all with mode full."
            )
        possible[drawn] = False
        items, weights = items[possible], self.weights[possible]
        missing = number - len(drawn)
        return np.r_[drawn, self.random.choice(items, missing, replace=False, p=weights / weights.sum(), shuffle=False)]

    def _keys(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        return history * np.int64(self.part.item_num) + items

    def _is_seen(self, history: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Returns whether items belong to the masked history, with the shape of ``items``."""
        if not len(self.seen):
            return np.zeros(items.shape, dtype=bool)
        keys = self._keys(history, items)
        return self.seen[np.searchsorted(self.seen, keys).clip(max=len(self.seen) - 1)] == keys
