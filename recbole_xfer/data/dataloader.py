"""Training batches of windows: bucketed by length, counted in targets, the same in every run of a seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_xfer.data.dataset import NEGATIVES, TARGETS, TransferDataset

POOL = 32
"""Batches' worth of shuffled windows that are sorted by length together."""


class WindowDataLoader:
    """Batches of about ``batch_size`` training targets, from windows of similar length.

    Args:
        dataset: the training part of a TransferDataset.
        batch_size: training targets in a batch; a batch holds at least one window.
        seed: with the epoch it decides the order.
        shuffle: False keeps the windows' order.
        sampler: RecBole's, to draw an item against each target; no negatives where None.
    """

    def __init__(
        self, dataset: TransferDataset, batch_size: int, seed: int, shuffle: bool = True, sampler: Any = None
    ) -> None:
        self.dataset = self._dataset = dataset
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.sampler = sampler
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[Interaction]:
        for which in self._batches():
            batch = self.dataset.training_batch(which)
            if self.sampler is not None:
                batch.update(Interaction({NEGATIVES: self._negatives(batch)}))
            yield batch

    def _negatives(self, batch: Interaction) -> Tensor:
        """A fresh item against each target, [B, L]."""
        targets = batch[TARGETS]
        window, position = targets.nonzero(as_tuple=True)
        users = batch[self.dataset.uid_field][window]
        negatives = torch.zeros_like(targets)
        negatives[window, position] = self.sampler.sample_by_user_ids(
            users.numpy(), targets[window, position].numpy(), 1
        )
        return negatives

    def _batches(self) -> list[np.ndarray]:
        """Which windows make up each batch."""
        windows = self.dataset.windows
        order = np.arange(len(windows))
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.shuffle:
            order = rng.permutation(order)
            pool = self._cut(order) // POOL
            order = order[np.lexsort((windows.length[order], pool))]
        number = self._cut(order)
        batches = np.split(order, np.flatnonzero(np.diff(number)) + 1)
        return [batches[index] for index in rng.permutation(len(batches))] if self.shuffle else batches

    def _cut(self, order: np.ndarray) -> np.ndarray:
        """Number of the batch in which each window starts, when batches are cut by their count of targets."""
        targets = self.dataset.windows.targets[order]
        return (np.cumsum(targets) - targets) // self.batch_size
