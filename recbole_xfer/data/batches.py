"""Training batches of windows, of users, or of users of several domains; equal for equal seeds.

Of several processes each makes the same batches, with the same negatives, and gets its own rows of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from torch import Tensor

from recbole_xfer.data.dataset import NEGATIVES, TARGETS, TransferDataset
from recbole_xfer.data.histories import gather, head_ids
from recbole_xfer.errors import XferError
from recbole_xfer.processes import own

HISTORIES = "histories"
"""Field of a batch of users: training histories in each domain, padded on the right, [D, B, L]."""
SHARED = "shared_histories"
"""Field of a batch of users: histories of S users who are in every domain, [D, S, L]; S may be 0."""
CRITIC = "critic_histories"
"""Field of a batch of users: like ``HISTORIES``, for each step of the critic, [K, D, B, L]."""

POOL = 32
"""Number of batches whose shuffled windows are sorted by length together."""
HEAD = "is_head"
"""Field of a batch of users: 1 for head users, otherwise 0."""


class WindowDataLoader:
    """Loads batches of about ``batch_size`` training targets, from windows of similar length.

    Args:
        dataset: the training part of a TransferDataset.
        batch_size: training targets in a batch; a batch has at least one window.
        seed: decides the order, together with the epoch.
        shuffle: False keeps the windows' order.
        sampler: RecBole's sampler of one negative for each target; None for no negatives.
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

    @classmethod
    def of(cls, config: Any, dataset: TransferDataset, sampler: Any = None) -> WindowDataLoader:
        """Makes the loader for a configuration."""
        return cls(dataset, config["train_batch_size"], config["seed"], config["shuffle"], sampler)

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
            yield batch[own(len(batch))]

    def _negatives(self, batch: Interaction) -> Tensor:
        """Draws a negative for each target, [B, L]."""
        targets = batch[TARGETS]
        window, position = targets.nonzero(as_tuple=True)
        users = batch[self.dataset.uid_field][window]
        negatives = torch.zeros_like(targets)
        negatives[window, position] = self.sampler.sample_by_user_ids(
            users.numpy(), targets[window, position].numpy(), 1
        )
        return negatives

    def _batches(self) -> list[np.ndarray]:
        """The windows of each batch."""
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
        """Number of each window's batch; batches are cut by their count of targets."""
        targets = self.dataset.windows.targets[order]
        return (np.cumsum(targets) - targets) // self.batch_size


class DomainPairDataLoader:
    """Loads batches with the same number of users of each domain; the largest domain decides the length of a pass.

    Each domain is read repeatedly in its own random order; equal seeds and passes give equal batches. A user's history
    is the most recent ``MAX_ITEM_LIST_LENGTH`` items of training, at least two.

    Args:
        dataset: the training part of a TransferDataset whose histories are kept ``per_domain``.
        batch_size: users of each domain, limited by the largest domain; also the limit of shared users.
        critic_steps: K, batches for the critic in each batch; with 0, there are no shared users either.
        seed: decides the order, together with the pass.

    Attributes:
        users: indices of the histories of each domain, D times [N].
        shared: indices of the histories of users who are in every domain, [D, S].

    Raises:
        XferError: if a domain has no user with two training interactions.
    """

    shuffle = True

    def __init__(self, dataset: TransferDataset, batch_size: int, critic_steps: int, seed: int) -> None:
        self.dataset = self._dataset = dataset
        self.critic_steps = critic_steps
        self.seed = seed
        self.epoch = 0
        first, self.ends = dataset.target_ranges
        starts = first - 1
        self.starts = np.maximum(starts, self.ends - dataset.max_item_list_len)
        enough = np.flatnonzero(self.ends - starts >= 2)
        domain = dataset.item_domain[dataset.sequences.items[starts[enough]]]
        self.users = [enough[domain == number] for number in range(len(dataset.domains))]
        for name, users in zip(dataset.domains, self.users, strict=True):
            if not len(users):
                raise XferError(f"{name} has no user with two training interactions. Use more data.")
        self.shared = self._shared()
        self.batch_size = min(batch_size, max(map(len, self.users)))

    def _shared(self) -> np.ndarray:
        frames = [pd.Series(users, self.dataset.sequences.users[users]) for users in self.users]
        return pd.concat(frames, axis=1, join="inner").to_numpy(dtype=np.int64).T

    def set_epoch(self, epoch: int) -> None:
        """Chooses the order of the next pass."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-max(map(len, self.users)) // self.batch_size)

    def __iter__(self) -> Iterator[Interaction]:
        rng = np.random.default_rng([self.seed, self.epoch])
        streams = [shuffled_forever(users, rng) for users in self.users]
        columns = shuffled_forever(np.arange(self.shared.shape[1]), rng)
        together = min(self.batch_size, self.shared.shape[1])
        for _ in range(len(self)):
            drawn = np.stack([take(stream, (self.critic_steps + 1) * self.batch_size) for stream in streams])
            drawn = drawn.reshape(len(streams), self.critic_steps + 1, self.batch_size).swapaxes(0, 1)  # [K + 1, D, B]
            batch = {HISTORIES: drawn[0]}
            if self.critic_steps:
                batch |= {CRITIC: drawn[1:], SHARED: self.shared[:, take(columns, together)]}
            rows = {field: which[..., own(which.shape[-1])] for field, which in batch.items()}
            yield Interaction({field: self._histories(which) for field, which in rows.items()})

    def _histories(self, which: np.ndarray) -> Tensor:
        """Returns the items of histories [...] as [..., L]."""
        starts, lengths = self.starts[which].ravel(), (self.ends - self.starts)[which].ravel()
        longest = lengths.max(initial=1)  # of several processes, one may have no rows
        items = gather(self.dataset.sequences.items, starts, lengths, longest).astype(np.int64)
        return torch.from_numpy(items).unflatten(0, which.shape)


def shuffled_forever(values: np.ndarray, rng: np.random.Generator) -> Iterator[int]:
    """Yields all values in a random order, then in another order, forever; nothing without values."""
    while len(values):
        yield from rng.permutation(values)


def take(values: Iterator[int], count: int) -> np.ndarray:
    """Returns the next values, [count]."""
    return np.fromiter(islice(values, count), dtype=np.int64, count=count)


class UserDataLoader(WindowDataLoader):
    """Loads batches of k times P users, one window each, for k steps on P paths; an epoch reads every user once.

    Users are drawn at random, not by length: a batch of similar lengths would have only head users or only tail users.
    If the number of users is not a multiple of k times P, the remaining users are skipped in this epoch.

    Args:
        dataset: the training part of a TransferDataset.
        steps: k.
        paths: P, limited by the number of users divided by k.
        head_share: fraction of users, those with the most interactions, that are head users.
        seed: decides users and windows, together with the epoch.
        sampler: RecBole's sampler of one negative for each target; None for no negatives.

    Raises:
        XferError: if there are fewer than k users, or k or P is below 1.
    """

    def __init__(
        self, dataset: TransferDataset, steps: int, paths: int, head_share: float, seed: int, sampler: Any = None
    ) -> None:
        super().__init__(dataset, steps * paths, seed, sampler=sampler)
        first, end = dataset.target_ranges
        histories = dataset.sequences.users
        self.head = head_ids(histories, np.maximum(end - first, 0), head_share)  # by their targets
        users = histories[dataset.sequences.history_of(dataset.windows.start)]
        self._windows = np.argsort(users, kind="stable")  # windows grouped by user
        _, self._first, self._count = np.unique(users[self._windows], return_index=True, return_counts=True)
        if len(self._first) < steps:
            raise XferError(f"inner_steps={steps} exceeds the {len(self._first)} users of {dataset.dataset_name}.")
        self.steps, self.paths = steps, min(paths, len(self._first) // steps)

    @classmethod
    def of(cls, config: Any, dataset: TransferDataset, sampler: Any = None) -> UserDataLoader:
        """Makes the loader for a configuration."""
        steps, paths, share = (config[key] for key in ("inner_steps", "paths", "head_share"))
        return cls(dataset, steps, paths, share, config["seed"], sampler)

    def __len__(self) -> int:
        return len(self._first) // (self.steps * self.paths)

    def __iter__(self) -> Iterator[Interaction]:
        """Yields interactions whose fields are [k, P, ...]."""
        for which in self._batches():
            batch = self.dataset.training_batch(which.reshape(-1))
            if self.sampler is not None:
                batch.update(Interaction({NEGATIVES: self._negatives(batch)}))
            head = torch.from_numpy(self.head[batch[self.dataset.uid_field].numpy()].astype(np.int64))
            fields = {**batch.interaction, HEAD: head}
            paths = {name: value.unflatten(0, which.shape)[:, own(self.paths)] for name, value in fields.items()}
            yield Interaction(paths)

    def _batches(self) -> list[np.ndarray]:
        """The windows of each batch, [k, P]."""
        rng = np.random.default_rng([self.seed, self.epoch])
        users = rng.permutation(len(self._first))[: len(self) * self.steps * self.paths]
        windows = self._windows[self._first[users] + (rng.random(len(users)) * self._count[users]).astype(np.int64)]
        return list(windows.reshape(len(self), self.steps, self.paths))
