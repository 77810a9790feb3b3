"""Samplers of negatives: never draw from the user's history; can draw from the target's domain only."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.sampler import RepeatableSampler, Sampler
from recbole.sampler.sampler import AbstractSampler
from torch import Tensor

from recbole_xfer.errors import XferError


class ItemSampler(AbstractSampler):
    """Draws items uniformly, or with ``popularity`` by their training targets to the power of ``alpha``.

    RecBole draws by popularity, too, but it counts the targets of validation and test as well, and a draw reads the
    whole catalogue.
    """

    datasets: list[Any]
    user_num: int
    item_num: int

    @property
    def _training(self) -> Any:
        return self.dataset if isinstance(self, RepeatableSampler) else self.datasets[0]

    @property
    def _groups(self) -> list[tuple[str, np.ndarray]]:
        """Groups of items that are drawn from separately, each after the words that name it in an error."""
        return [("", np.arange(1, self.item_num))]

    def set_distribution(self, distribution: str) -> None:
        """Stores the items of each group that can be drawn, and their cumulative probabilities."""
        self.distribution = distribution
        counts = self._training.target_counts if distribution == "popularity" else np.ones(self.item_num)
        weights = powers(counts, self.alpha)
        self._urns: list[tuple[str, np.ndarray, np.ndarray]] = []
        for name, items in self._groups:
            items = items[weights[items] > 0]
            if distribution == "popularity":
                check_drawable(len(items), name)
            self._urns.append((name, items, np.cumsum(weights[items]) / weights[items].sum()))
        self._group = 0

    def _pop_sampling(self, sample_num: int) -> np.ndarray:
        """Draws items of the current group by their probabilities, [sample_num]."""
        _, items, cumulated = self._urns[self._group]
        return items[np.searchsorted(cumulated, np.random.random(sample_num), side="right").clip(max=len(items) - 1)]


def check_drawable(items: int, name: str) -> None:
    """Raises XferError if fewer than two items can be drawn by popularity, so that a target may have no negative."""
    if items < 2:
        raise XferError(
            f"The distribution popularity draws items with training targets, and there are {items}{name}, so no "
            f"negative can be drawn. Use more data, or set --train_neg_sample_args='{{distribution: uniform}}'."
        )


def powers(counts: np.ndarray, alpha: Any) -> np.ndarray:
    """Counts to the power of alpha; what does not occur stays 0."""
    return np.power(counts, float(alpha), where=counts > 0, out=np.zeros(len(counts)))


class WithinDomain(ItemSampler):
    """Restricts a sampler to the items of the target's domain."""

    def sample_by_user_ids(self, user_ids: np.ndarray, item_ids: np.ndarray, num: int) -> Tensor:
        """Calls RecBole's ``sample_by_user_ids`` (see its docstring) for one domain at a time, [num * N]."""
        domain = self._training.item_domain[item_ids]
        drawn = torch.zeros(num, len(item_ids), dtype=torch.long)
        for self._group in np.unique(domain):
            rows = np.flatnonzero(domain == self._group)
            drawn[:, rows] = super().sample_by_user_ids(user_ids[rows], item_ids[rows], num).view(num, -1)
        return drawn.flatten()

    def _uni_sampling(self, sample_num: int) -> np.ndarray:
        """Draws items of the current domain, which have equal probabilities, [sample_num]."""
        return self._pop_sampling(sample_num)

    @property
    def _groups(self) -> list[tuple[str, np.ndarray]]:
        domains, item_domain = self._training.domains, self._training.item_domain[1:]
        return [(f" of the domain {name}", np.flatnonzero(item_domain == d) + 1) for d, name in enumerate(domains)]


class RepeatableItemSampler(ItemSampler, RepeatableSampler):
    """Draws any item except the target."""


class RepeatableDomainSampler(WithinDomain, RepeatableSampler):
    """Draws any item of the target's domain except the target."""


class HistorySampler(ItemSampler, Sampler):
    """Draws items outside the user's history up to the last target of the phase.

    RecBole's sampler knows only the targets of this and earlier phases. It misses items that are never targets: a
    history's first item, and the items of held-out and new users before the ranked ones.
    """

    def get_used_ids(self) -> dict[str, np.ndarray]:
        """Returns item ids by phase and user."""
        return {phase: self._used(part) for phase, part in zip(self.phases, self.datasets, strict=True)}

    def _used(self, part: Any) -> np.ndarray:
        histories, (first, end) = part.sequences, part.target_ranges
        used = np.array([set() for _ in range(self.user_num)])
        ends = np.where(first < end, end, histories.starts)
        for user, start, stop in zip(histories.users, histories.starts, ends, strict=True):
            used[user].update(histories.items[start:stop].tolist())
        return used

    def set_phase(self, phase: str) -> HistorySampler:
        """Sets RecBole's phase, and checks that each user has an item to draw."""
        sampler = super().set_phase(phase)
        for user, items in enumerate(sampler.used_ids):
            exhausted = sampler._exhausted(items) if items else None
            if exhausted:
                token = self.datasets[0].id2token(self.uid_field, user)
                remedy = "Filter such users with --user_inter_num_interval"
                if phase != "train":
                    remedy = "Set --mask_history=False"
                raise XferError(
                    f"The user {token} interacted with all {exhausted}, so no negative can be drawn. {remedy}."
                )
        return sampler

    def _exhausted(self, items: set[int]) -> str | None:
        """Describes the items that could be drawn if a user interacted with all of them."""
        for name, members, _ in self._urns:
            if len(items) >= len(members) and items.issuperset(members.tolist()):
                return f"{len(members)} items{name}"
        return None


class DomainSampler(WithinDomain, HistorySampler):
    """Draws items of the target's domain outside the user's history up to the last target of the phase."""


def within_domain(sampler: RepeatableSampler, training: Any) -> RepeatableDomainSampler:
    """Returns RecBole's sampler, restricted to the target's domain, for the training part of a split."""
    if isinstance(sampler, RepeatableDomainSampler):
        return sampler
    made = RepeatableDomainSampler(sampler.phases, training, sampler.distribution, sampler.alpha)
    return made.set_phase(sampler.phase)
