"""Approximate search for the items with the largest products, by faiss, which is an optional package."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.ties import best
from recbole_xfer.evaluation.tiles import VectorScores

LINKS, CONSTRUCTION, SEARCH = 32, 200, 128
"""M, efConstruction and efSearch of HNSW: neighbours of each vector, and candidates while building and searching."""


def check_faiss() -> None:
    """Raises XferError if faiss is not installed."""
    if find_spec("faiss") is None:
        raise XferError("Approximate search needs the package faiss. Run `pip install recbole-xfer[serving]`.")


def hnsw(items: np.ndarray) -> Any:
    """A graph of small worlds over vectors [N, d], float32, that is searched by inner product."""
    import faiss

    index = faiss.IndexHNSWFlat(items.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = CONSTRUCTION, SEARCH
    index.add(items)
    return index


def search(index: Any, users: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest products of users [B, d], and the rows of their items, -1 where fewer are found, [B, count]."""
    index.hnsw.efSearch = max(SEARCH, 2 * count)
    return index.search(users, count)


def best_by_index(scores: VectorScores, index: Any, k: int, number: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
    """As :meth:`VectorScores.best`, but approximate: searched in an index of the items' vectors, on the CPU."""
    users, left_out = scores.users, scores.left_out[0] * index.ntotal + scores.left_out[1]
    own_values, own_places = _of_histories(scores, left_out)
    most = int(torch.bincount(scores.left_out[0], minlength=1).max()) + own_places.shape[1]
    found = search(index, users.cpu().numpy(), min(k + most, index.ntotal))
    values, places = (torch.from_numpy(part).to(users.device) for part in found)
    first = torch.arange(len(users), device=users.device)[:, None] * index.ntotal
    known = torch.cat([left_out, (first + own_places)[own_values > -torch.inf]])
    values[torch.isin(first + places, known) | (places < 0)] = -torch.inf
    values, places = torch.cat([own_values, values], dim=1), torch.cat([own_places, places.clamp(min=0)], dim=1)
    values, order = best(values, min(k, values.shape[1]), number[places], row)
    return values, places.gather(1, order)


def _of_histories(scores: VectorScores, left_out: Tensor) -> tuple[Tensor, Tensor]:
    """The exact scores and the positions of the ranked items to which something is added, [B, R].

    Args:
        scores: of B users and C items.
        left_out: row * C + item of what is not ranked.

    Returns:
        values, minus infinity where there are fewer, and positions.
    """
    users, items, repeated = scores.users, scores.items, scores.repeated
    if repeated is None:
        return users.new_empty(len(users), 0), left_out.new_empty(len(users), 0)
    cells = (repeated.row * len(items) + repeated.item).unique()
    cells = cells[~torch.isin(cells, left_out)]
    row, item = cells // len(items), cells % len(items)
    counts = torch.bincount(row, minlength=len(users))
    place = row, torch.arange(len(row), device=row.device) - (counts.cumsum(0) - counts)[row]
    values = users.new_full((len(users), int(counts.max())), -torch.inf)
    values[place] = (users[row] * items[item]).sum(dim=1) + repeated.score
    places = torch.zeros_like(values, dtype=torch.long)
    places[place] = item
    return values, places


def recall(found: np.ndarray, exact: np.ndarray) -> float:
    """The share of the items of exact search, [B, k], that are among those found, [B, k]."""
    return float(np.mean([np.isin(best, own).mean() for best, own in zip(exact, found, strict=True)]))
