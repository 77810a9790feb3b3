"""Finds the known items that are most similar to new ones by the vectors of their texts, or else of their images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_xfer.data.atomic import AtomicFormat
from recbole_xfer.data.features import load_item_features
from recbole_xfer.data.vectors import VectorTable, find_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.log import logger

COUNT = 5
"""Number of known items from which a new one starts."""

NEW, KNOWN = 2**10, 2**16
"""Numbers of new and of known items that are compared at a time."""


@dataclass(frozen=True)
class Neighbours:
    """The known items nearest to new ones.

    Attributes:
        items: ids of new items, [Q].
        nearest: ids of known items, [Q, K].
    """

    items: np.ndarray
    nearest: np.ndarray

    def fill(self, table: Tensor, dim: int) -> Tensor:
        """A copy of a table whose new items have the mean of their neighbours' entries along a dimension."""
        made = table.transpose(0, dim).clone()
        for first in range(0, len(self.items), KNOWN):
            some = slice(first, first + KNOWN)
            made[torch.from_numpy(self.items[some])] = made[torch.from_numpy(self.nearest[some])].mean(dim=1)
        return made.transpose(0, dim)


def neighbours_of_new(dataset: Any, known: np.ndarray) -> list[Neighbours]:
    """The nearest known items of those new ones that have a text, then of the others that have an image.

    Args:
        dataset: whose files may have vectors.
        known: whether an item is known, bool [n_items]; the padding is.
    """
    found, new = [], ~known
    for modality in ("text", "image"):
        table = _vectors(dataset, modality) if new.any() else None
        if table is None:
            continue
        queries, candidates = np.flatnonzero(new & table.present), np.flatnonzero(known & table.present)
        if len(queries) and len(candidates):
            found.append(Neighbours(queries, candidates[nearest(table.values, queries, candidates)]))
            new[queries] = False
    return found


def nearest(values: np.ndarray, queries: np.ndarray, candidates: np.ndarray) -> np.ndarray:
    """The candidates of the largest cosine with each query, by their number, [Q, K].

    The mean vector of the candidates is subtracted first, since vectors of one encoder have a common part.

    Args:
        values: vectors, [N, D].
        queries: rows of ``values``, [Q].
        candidates: others, [C].
    """
    center = torch.zeros(values.shape[1], dtype=torch.float64)
    for block in _blocks(values, candidates, KNOWN):
        center += block.sum(dim=0, dtype=torch.float64)
    center = (center / len(candidates)).float()
    found = []
    for query in _blocks(values, queries, NEW):
        query, first = F.normalize(query - center, dim=1), 0
        score, number = torch.empty(len(query), 0), torch.empty(len(query), 0, dtype=torch.long)
        for block in _blocks(values, candidates, KNOWN):
            more = query @ F.normalize(block - center, dim=1).T
            score = torch.cat([score, more], dim=1)
            number = torch.cat([number, torch.arange(first, first + len(block)).expand_as(more)], dim=1)
            score, place = score.topk(min(COUNT, score.shape[1]))
            number, first = number.gather(1, place), first + len(block)
        found.append(number.numpy())
    return np.concatenate(found)


def _blocks(values: np.ndarray, rows: np.ndarray, size: int) -> Iterator[Tensor]:
    for first in range(0, len(rows), size):
        yield torch.from_numpy(np.asarray(values[rows[first : first + size]], dtype=np.float32))


def _vectors(dataset: Any, modality: str) -> VectorTable | None:
    """The vectors of a dataset's items; None if there are none that can be used."""
    if "features" in vars(dataset):  # which the model has read
        return getattr(dataset.features, modality)
    if not any(find_vectors(dataset.root / domain, domain, modality) for domain in dataset.domains):
        return None
    items = dataset.item_domain, dataset.item_tokens
    try:
        form = AtomicFormat.of(dataset.config)
        return getattr(load_item_features(dataset.root, dataset.domains, *items, [modality], form), modality)
    except XferError as error:  # the model does not need them
        logger.warning(f"New items do not start from similar ones: {error}")
        return None
