"""Samplers of negatives: never draw from the user's history; can draw from the target's domain only."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.sampler import RepeatableSampler, Sampler
from recbole.sampler.sampler import AbstractSampler
from torch import Tensor

from recbole_xfer.errors import XferError


class WithinDomain(AbstractSampler):
    """Restricts a sampler of RecBole to the items of the target's domain.

    ``popularity`` draws in proportion to the counts of the domain's items, to the power of alpha.
    """

    datasets: list[Any]
    user_num: int
    item_num: int

    def sample_by_user_ids(self, user_ids: np.ndarray, item_ids: np.ndarray, num: int) -> Tensor:
        """Calls RecBole's ``sample_by_user_ids`` (see its docstring) for one domain at a time, [num * N]."""
        domain = self._item_domain[item_ids]
        drawn = torch.zeros(num, len(item_ids), dtype=torch.long)
        for self._domain in np.unique(domain):
            rows = np.flatnonzero(domain == self._domain)
            drawn[:, rows] = super().sample_by_user_ids(user_ids[rows], item_ids[rows], num).view(num, -1)
        return drawn.flatten()

    @property
    def _item_domain(self) -> np.ndarray:
        return self._source.item_domain

    @property
    def _source(self) -> Any:
        return self.dataset if isinstance(self, RepeatableSampler) else self.datasets[0]

    def set_distribution(self, distribution: str) -> None:
        """Stores each domain's items and their cumulative probabilities."""
        self.distribution = distribution
        counts = np.ones(self.item_num, dtype=np.int64)
        if distribution == "popularity":
            counts = np.bincount(self._get_candidates_list(), minlength=self.item_num)
        shares = counts ** float(self.alpha)
        members = [np.flatnonzero(self._item_domain[1:] == d) + 1 for d in range(len(self._source.domains))]
        self._members = [(items, np.cumsum(shares[items]) / shares[items].sum()) for items in members]

    def sampling(self, sample_num: int) -> np.ndarray:
        """Draws items of the current domain, [sample_num]."""
        items, cumulated = self._members[self._domain]
        return items[np.searchsorted(cumulated, np.random.random(sample_num), side="right").clip(max=len(items) - 1)]


class RepeatableDomainSampler(WithinDomain, RepeatableSampler):
    """Draws any item of the target's domain except the target."""


class HistorySampler(Sampler):
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
        """Describes the candidates if a user interacted with all of them."""
        return f"{len(items)} items" if len(items) == self.item_num - 1 else None


class DomainSampler(WithinDomain, HistorySampler):
    """Draws items of the target's domain outside the user's history up to the last target of the phase."""

    def _exhausted(self, items: set[int]) -> str | None:
        counts = np.bincount(self._item_domain[list(items)], minlength=len(self._members))
        whole = (number for number, (members, _) in enumerate(self._members) if counts[number] == len(members))
        return next((f"{counts[n]} items of the domain {self._source.domains[n]}" for n in whole), None)


def within_domain(sampler: RepeatableSampler) -> RepeatableDomainSampler:
    """Returns RecBole's sampler, restricted to the target's domain."""
    if isinstance(sampler, RepeatableDomainSampler):
        return sampler
    made = RepeatableDomainSampler(sampler.phases, sampler.dataset, sampler.distribution, sampler.alpha)
    return made.set_phase(sampler.phase)
