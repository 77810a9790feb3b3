"""The best items of many users: a product of matrices in tiles, of which only what may be among the best is sorted."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from recbole_xfer.evaluation.ties import best
from recbole_xfer.serving.approximate import search

TILE = 1024
"""Items whose scores are computed at once; with 1,024 users they fit into the cache of a processor."""

TOGETHER = 16
"""Tiles whose candidates are merged with the best so far at once, after as many single ones."""


def best_by_vectors(
    users: Tensor, items: Tensor, k: int, number: Tensor, row: Tensor, left_out: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """The best items by the product of vectors; exact, in an order of ties as in :func:`~.ties.best`.

    Memory does not grow with the number of items: after the first tiles, a score that is below the user's k-th best
    one so far is not looked at again.

    Args:
        users: [B, d].
        items: [C, d].
        k: how many.
        number: of each item in the order of ties, [C].
        row: of each user in the order of ties, [B].
        left_out: pairs of a user's and an item's position that are not ranked.

    Returns:
        scores, minus infinity where there are fewer items, and positions of items, [B, min(k, C)].
    """
    by_item = left_out[1].argsort()
    left_row, left_item = left_out[0][by_item], left_out[1][by_item]
    first = min(len(items), max(k, TILE))
    starts = [0, *range(first, len(items), TILE), len(items)]
    bounds = torch.searchsorted(left_item, torch.tensor(starts, device=left_item.device)).tolist()
    found, tiles = _Best(k, number, row), dict[int, Tensor]()
    for tile, (start, end) in enumerate(pairwise(starts)):
        if end - start not in tiles:  # new memory for each tile would cost as much as the product
            tiles[end - start] = users.new_empty(len(users), end - start)
        scores = torch.mm(users, items[start:end].T, out=tiles[end - start])
        pairs = slice(bounds[tile], bounds[tile + 1])
        scores[left_row[pairs], left_item[pairs] - start] = -torch.inf
        found.add(scores, start)
        if tile < TOGETHER or tile % TOGETHER == 0:
            found.merge()
    found.merge()
    return found.values, found.places


def best_by_index(
    users: Tensor, index: Any, k: int, number: Tensor, row: Tensor, left_out: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """As :func:`best_by_vectors`, but approximate: searched in an index of the items' vectors, on the CPU."""
    most = int(torch.bincount(left_out[0], minlength=1).max())
    found = search(index, users.cpu().numpy(), min(k + most, index.ntotal))
    values, places = (torch.from_numpy(part).to(users.device) for part in found)
    pairs = left_out[0] * index.ntotal + left_out[1]
    cells = torch.arange(len(users), device=users.device)[:, None] * index.ntotal + places
    values[torch.isin(cells, pairs) | (places < 0)] = -torch.inf
    places = places.clamp(min=0)
    values, order = best(values, min(k, values.shape[1]), number[places], row)
    return values, places.gather(1, order)


class _Best:
    """The best k items of each row so far, and candidates that are not merged yet.

    Args:
        k, number, row: as in :func:`best_by_vectors`.
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
