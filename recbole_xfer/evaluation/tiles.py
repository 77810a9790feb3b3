"""The best items of many users: a product of matrices in tiles, of which only what may be among the best is sorted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_xfer.evaluation.ties import best

CELLS = 2**20
"""Scores that are computed at once; they fit into the cache of a processor."""

CELLS_ON_GPU = 2**27

TILE = 2**14
"""A catalogue of at most so many items is one tile, for fewer users at once."""

NARROW = 2**10
"""Items of a tile of a larger catalogue, at least."""

TOGETHER = 16
"""Tiles whose candidates are merged with the best so far at once, after as many single ones."""


class Ranking(NamedTuple):
    """The best items of some users.

    Attributes:
        values: their scores, best first; minus infinity where there are fewer items, [B, k].
        places: their positions, [B, k].
        tied: whether another item has the score of a user's target, if the target is ranked, bool [B].
    """

    values: Tensor
    places: Tensor
    tied: Tensor


class Repeated(NamedTuple):
    """Pairs of a user and an item of the history, to whose scores something is added.

    Attributes:
        row, item: positions, in order of users.
        score: what is added, [].
    """

    row: Tensor
    item: Tensor
    score: Tensor


@dataclass(frozen=True)
class VectorScores:
    """Scores that are products of the vectors of users and items: computed in tiles, never whole in memory.

    Attributes:
        users: [B, d].
        items: [C, d].
        left_out: pairs of a user's and an item's position that are not ranked, in order of users.
        repeated: pairs whose scores are larger or smaller than the product; None for none.
    """

    users: Tensor
    items: Tensor
    left_out: tuple[Tensor, Tensor]
    repeated: Repeated | None = None

    def best(self, k: int, number: Tensor, row: Tensor, target: Tensor | None = None) -> Ranking:
        """Ranks the items of each user; exact, in an order of ties as in :func:`~.ties.best`.

        After the first tiles, a score that is below the user's k-th best one so far is not looked at again.

        Args:
            k: how many items, at most C.
            number: of each item in the order of ties, [C].
            row: of each user in the order of ties, [B].
            target: the position of an item for each user, [B].
        """
        cells = CELLS if self.users.device.type == "cpu" else CELLS_ON_GPU
        many = max(cells // len(self.users), NARROW)
        tile = max(len(self.items) if len(self.items) <= TILE else many, k)
        bounds = [*range(0, len(self.users), max(cells // tile, 1)), len(self.users)]
        parts = []
        for start, end in pairwise(bounds):
            own = None if target is None else target[start:end]
            parts.append(_rank(_Tiles(self._part(start, end), tile), k, number, row[start:end], own))
        return Ranking(*map(torch.cat, zip(*parts, strict=True)))

    def _part(self, start: int, end: int) -> VectorScores:
        """The scores of some users."""

        def own(row: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
            some = slice(*torch.searchsorted(row, torch.tensor([start, end], device=row.device)).tolist())
            return row[some] - start, item[some]

        repeated = None
        if self.repeated is not None:
            repeated = Repeated(*own(self.repeated.row, self.repeated.item), self.repeated.score)
        return VectorScores(self.users[start:end], self.items, own(*self.left_out), repeated)


def _rank(tiles: _Tiles, k: int, number: Tensor, row: Tensor, target: Tensor | None) -> Ranking:
    """See :meth:`VectorScores.best`."""
    found, ties = _Best(k, number, row), None if target is None else _Ties(tiles, target)
    for tile, (start, scores) in enumerate(tiles):
        found.add(scores, start)
        if ties is not None:
            ties.add(scores, start)
        if tile < TOGETHER or tile % TOGETHER == 0:
            found.merge()
    found.merge()
    tied = torch.zeros(len(row), dtype=torch.bool, device=row.device) if ties is None else ties.tied()
    return Ranking(found.values, found.places, tied)


class _Tiles:
    """The scores of users in tiles of items, in memory that is used again.

    Args:
        scores: of users that are ranked together.
        tile: number of items.
    """

    def __init__(self, scores: VectorScores, tile: int) -> None:
        self.scores = scores
        self.starts = [*range(0, len(scores.items), tile), len(scores.items)]

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Yields the first item of each tile and its scores [B, T]."""
        users, items, repeated = self.scores.users, self.scores.items, self.scores.repeated
        left_out = self._by_tile(*self.scores.left_out)
        more = [] if repeated is None else self._by_tile(repeated.row, repeated.item)
        memory = dict[int, Tensor]()
        for tile, (start, end) in enumerate(pairwise(self.starts)):
            if end - start not in memory:  # new memory for each tile would cost as much as the product
                memory[end - start] = users.new_empty(len(users), end - start)
            scores = torch.mm(users, items[start:end].T, out=memory[end - start])
            if repeated is not None:
                scores[more[tile]] += repeated.score  # once, also where an item is several times in a history
            scores[left_out[tile]] = -torch.inf
            yield start, scores

    def _by_tile(self, row: Tensor, item: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Pairs of a user and an item as places in each tile."""
        by_item = item.argsort()
        row, item = row[by_item], item[by_item]
        bounds = torch.searchsorted(item, torch.tensor(self.starts, device=item.device)).tolist()
        pairs = zip(self.starts, pairwise(bounds), strict=False)
        return [(row[first:last], item[first:last] - start) for start, (first, last) in pairs]


class _Ties:
    """Finds out in tiles of scores whether another item has exactly the score of a user's target.

    Args:
        tiles: all of the scores.
        target: the position of each user's target, [B].
    """

    def __init__(self, tiles: _Tiles, target: Tensor) -> None:
        self.tiles, self.target = tiles, target
        self.expected = self._first_look()
        self._begin()

    def _begin(self) -> None:
        self.found = torch.zeros(len(self.target), dtype=torch.bool, device=self.target.device)
        self.mistaken = False

    def _first_look(self) -> Tensor:
        """The scores of targets that are not in the first tile, [B], by products of each tile and its users."""
        users, items, starts = self.tiles.scores.users, self.tiles.scores.items, self.tiles.starts
        tile = torch.searchsorted(torch.tensor(starts[1:-1], device=items.device), self.target, right=True)
        found = users.new_zeros(len(users))
        for number in tile[tile > 0].unique().tolist():
            own, some = (tile == number).nonzero().flatten(), items[starts[number] : starts[number + 1]]
            found[own] = (users[own] @ some.T).gather(1, self.target[own, None] - starts[number])[:, 0]
        repeated = self.tiles.scores.repeated
        if repeated is not None:
            found[repeated.row[repeated.item == self.target[repeated.row]]] += repeated.score
        return found

    def add(self, scores: Tensor, start: int) -> None:
        """Compares the scores of a tile, [B, T], and overwrites them."""
        own = ((self.target >= start) & (self.target < start + scores.shape[1])).nonzero().flatten()
        place = own, self.target[own] - start
        exact = scores[place]
        self.mistaken |= start > 0 and bool(((exact != self.expected[own]) & (exact > -torch.inf)).any())
        self.expected[own] = exact
        scores[place] = torch.inf
        # the least difference: several times as fast as comparing, which torch does not vectorise
        self.found |= scores.sub_(self.expected[:, None]).abs_().amin(dim=1) == 0

    def tied(self) -> Tensor:
        """Whether another item has the score of a target that is ranked, bool [B]; after the last tile."""
        if self.mistaken:  # a product of another shape was rounded otherwise
            self._begin()
            for start, scores in self.tiles:
                self.add(scores, start)
        return self.found & (self.expected > -torch.inf)


class _Best:
    """The best k items of each row so far, and candidates that are not merged yet.

    Args:
        k, number, row: as in :meth:`VectorScores.best`.
    """

    values: Tensor
    places: Tensor

    def __init__(self, k: int, number: Tensor, row: Tensor) -> None:
        self.k, self.number, self.row = k, number, row
        self.candidates: list[tuple[Tensor, Tensor, Tensor]] = []

    def add(self, scores: Tensor, start: int) -> None:
        """Adds the scores [B, C] of a tile whose first item is ``start``; the first tile has at least k items."""
        if start == 0:
            self.values, self.places = best(
                scores, min(self.k, scores.shape[1]), self.number[: scores.shape[1]], self.row
            )
            self.lowest = self._lowest()
            return
        some = (scores.amax(dim=1) >= self.lowest).nonzero().flatten()  # after some tiles few rows
        who, column = (scores[some] >= self.lowest[some, None]).nonzero(as_tuple=True)
        who = some[who]
        value = scores[who, column]
        if len(who) > self.k * len(scores):  # many ties: only the best of the tile
            number = self.number[start : start + scores.shape[1]]
            values, columns = best(scores[some], min(self.k, scores.shape[1]), number, self.row[some])
            who, column, value = some.repeat_interleave(values.shape[1]), columns.flatten(), values.flatten()
        if len(who):
            self.candidates.append((who, column + start, value))

    def merge(self) -> None:
        """Merges the candidates with the best so far."""
        if not self.candidates:
            return
        who, place, value = map(torch.cat, zip(*self.candidates, strict=True))
        self.candidates = []
        order = who.argsort(stable=True)
        who, place, value = who[order], place[order], value[order]
        rows, counts = who.unique_consecutive(return_counts=True)
        column = torch.arange(len(who), device=who.device) - (counts.cumsum(0) - counts).repeat_interleave(counts)
        index = torch.arange(len(rows), device=who.device).repeat_interleave(counts), column + self.k
        shape = len(rows), self.k + int(counts.max())
        values, places = value.new_full(shape, -torch.inf), place.new_zeros(shape)
        values[:, : self.k], places[:, : self.k] = self.values[rows], self.places[rows]
        values[index], places[index] = value, place
        self.values[rows], chosen = best(values, self.k, self.number[places], self.row[rows])
        self.places[rows] = places.gather(1, chosen)
        self.lowest = self._lowest()

    def _lowest(self) -> Tensor:
        """The score that a candidate needs in each row, [B]; minus infinity is none."""
        return self.values[:, -1].clamp(min=torch.finfo(self.values.dtype).min)
