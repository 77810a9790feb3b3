"""The best items of many users: a product of matrices in tiles, of which only what may be among the best is sorted."""

from __future__ import annotations

import torch
from torch import Tensor

from recbole_xfer.evaluation.ties import best

TILE = 8192
"""Items whose scores are computed at once."""

FEW = 64
"""With at most so many candidates in a tile, each row sorts only these."""


def best_by_vectors(
    users: Tensor, items: Tensor, k: int, number: Tensor, row: Tensor, left_out: tuple[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    """The best items by the product of vectors; exact, in an order of ties as in :func:`~.ties.best`.

    Memory does not grow with the number of items: after the first tile, a score that is below the user's k-th best one
    so far is not looked at again.

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
    starts = range(0, len(items), TILE)
    bounds = torch.searchsorted(left_item, torch.tensor([*starts, len(items)], device=left_item.device)).tolist()
    values = torch.full((len(users), 0), -torch.inf, device=users.device)
    places = torch.zeros((len(users), 0), dtype=torch.long, device=users.device)
    for tile, start in enumerate(starts):
        scores = users @ items[start : start + TILE].T
        pairs = slice(bounds[tile], bounds[tile + 1])
        scores[left_row[pairs], left_item[pairs] - start] = -torch.inf
        found = _candidates(scores, values, k, number[start : start + TILE], row)
        if found is not None:
            values, places = torch.cat([values, found[0]], dim=1), torch.cat([places, found[1] + start], dim=1)
            values, order = best(values, min(k, values.shape[1]), number[places], row)
            places = places.gather(1, order)
    return values, places


def _candidates(scores: Tensor, values: Tensor, k: int, number: Tensor, row: Tensor) -> tuple[Tensor, Tensor] | None:
    """Scores and columns of what may be among the best k of each row, padded with minus infinity; None if nothing is.

    Args:
        scores: of a tile, [B, C].
        values: the best so far, [B, at most k].
        number, row: as in :func:`best_by_vectors`.
    """
    if values.shape[1] == k:
        lowest = values[:, -1:].clamp(min=torch.finfo(scores.dtype).min)
        who, column = (scores >= lowest).nonzero(as_tuple=True)  # rows in ascending order
        if not len(who):
            return None
        counts = torch.bincount(who, minlength=len(scores))
        most = int(counts.max())
        if most <= FEW:
            place = torch.arange(len(who), device=who.device) - (counts.cumsum(0) - counts)[who]
            found = scores.new_full((len(scores), most), -torch.inf), column.new_zeros((len(scores), most))
            found[0][who, place], found[1][who, place] = scores[who, column], column
            return found
    return best(scores, min(k, scores.shape[1]), number, row)
