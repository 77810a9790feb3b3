"""The best items of each row, in an order of equal scores that does not depend on the device or on batches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

PRIME = 2**31 - 1
"""A row orders a tie by ``row number * item number % PRIME``; item numbers are distinct, so no two items are equal."""


@dataclass(frozen=True)
class TieOrder:
    """An order of items with equal scores, drawn from a seed.

    Attributes:
        seed: of the draw.
        items: a distinct number for each item id, [n_items].
    """

    seed: int
    items: Tensor

    @classmethod
    def draw(cls, seed: int, n_items: int, device: torch.device | str = "cpu") -> TieOrder:
        """Draws the order of ``n_items`` items."""
        numbers = np.random.default_rng(seed).permutation(n_items) + 1
        return cls(seed, torch.from_numpy(numbers).to(device))

    def rows(self) -> np.random.Generator:
        """Draws numbers of rows by :func:`row_numbers`: with them, each row orders ties differently."""
        return np.random.default_rng(self.seed)


def row_numbers(random: np.random.Generator, count: int) -> Tensor:
    """The numbers of the next rows, [count]."""
    return torch.from_numpy(random.integers(1, PRIME, count))


def best(scores: Tensor, k: int, item: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """The best columns of each row, best first; only rows with a tie among them are sorted.

    Args:
        scores: [B, C]; minus infinity for what is not a candidate.
        k: how many, at most C.
        item: the number of each column's item, [C], or of each cell's, [B, C].
        row: the number of each row, [B]; ones order ties equally in all rows.

    Returns:
        scores and columns, both [B, k].
    """
    values, columns = scores.topk(min(k + 1, scores.shape[1]))
    tied = ((values[:, 1:] == values[:, :-1]) & (values[:, 1:] > -torch.inf)).any(dim=1).nonzero().flatten()
    if len(tied):
        lowest = values[tied, -1:].clamp(min=torch.finfo(scores.dtype).min)
        level = scores[tied].topk(max(values.shape[1], int((scores[tied] >= lowest).sum(dim=1).max())))
        number = item[level.indices] if item.dim() == 1 else item[tied].gather(1, level.indices)
        draw = (row[tied, None] * number % PRIME).argsort(dim=1)
        drawn, places = level.values.gather(1, draw), level.indices.gather(1, draw)
        order = drawn.sort(dim=1, descending=True, stable=True).indices[:, : values.shape[1]]
        values[tied], columns[tied] = drawn.gather(1, order), places.gather(1, order)
    return values[:, :k], columns[:, :k]
