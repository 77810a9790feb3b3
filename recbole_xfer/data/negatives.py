"""RecBole's samplers of negatives: what a user took before is none, and each can be of the domain of its target."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.sampler import RepeatableSampler, Sampler
from recbole.sampler.sampler import AbstractSampler
from torch import Tensor

from recbole_xfer.errors import XferError


class WithinDomain(AbstractSampler):
    """Over one of RecBole's samplers: what it may draw against a target are the items of the target's domain.

    ``popularity`` draws in proportion to the counts of the domain's items, to the power of alpha.
    """

    datasets: list[Any]
    user_num: int
    item_num: int

    def sample_by_user_ids(self, user_ids: np.ndarray, item_ids: np.ndarray, num: int) -> Tensor:
        """RecBole's ``sample_by_user_ids`` (see its docstring), one domain at a time, [num * N]."""
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
        """Items of each domain, and what part of the domain's draws falls to them and those before them."""
        self.distribution = distribution
        counts = np.ones(self.item_num, dtype=np.int64)
        if distribution == "popularity":
            counts = np.bincount(self._get_candidates_list(), minlength=self.item_num)
        shares = counts ** float(self.alpha)
        members = [np.flatnonzero(self._item_domain[1:] == d) + 1 for d in range(len(self._source.domains))]
        self._members = [(items, np.cumsum(shares[items]) / shares[items].sum()) for items in members]

    def sampling(self, sample_num: int) -> np.ndarray:
        """Items of the domain at hand, [sample_num]."""
        items, cumulated = self._members[self._domain]
        return items[np.searchsorted(cumulated, np.random.random(sample_num), side="right").clip(max=len(items) - 1)]


class RepeatableDomainSampler(WithinDomain, RepeatableSampler):
    """Any item of the target's domain but the target."""


class HistorySampler(Sampler):
    """Items that are not in the user's history up to the last target of the phase.

    RecBole's takes the targets of this phase and those before, and so misses what is read and never a target: a
    history's first item, and what held-out and new users took before the ranked items.
    """

    def get_used_ids(self) -> dict[str, np.ndarray]:
        """Item ids by phase and user."""
        return {phase: self._taken(part) for phase, part in zip(self.phases, self.datasets, strict=True)}

    def _taken(self, part: Any) -> np.ndarray:
        histories, (first, end) = part.sequences, part.target_ranges
        taken = np.array([set() for _ in range(self.user_num)])
        ends = np.where(first < end, end, histories.starts)
        for user, start, stop in zip(histories.users, histories.starts, ends, strict=True):
            taken[user].update(histories.items[start:stop].tolist())
        return taken

    def set_phase(self, phase: str) -> HistorySampler:
        """RecBole's, after a check that each user leaves something to draw."""
        sampler = super().set_phase(phase)
        for user, items in enumerate(sampler.used_ids):
            whole = sampler._taken_whole(items) if items else None
            if whole:
                token = self.datasets[0].id2token(self.uid_field, user)
                remedy = "Leave such users out with --user_inter_num_interval"
                if phase != "train":
                    remedy = "Set --mask_history=False"
                raise XferError(f"The user {token} took all {whole}, so that no negative can be drawn. {remedy}.")
        return sampler

    def _taken_whole(self, items: set[int]) -> str | None:
        """What a user took all of, if anything."""
        return f"{len(items)} items" if len(items) == self.item_num - 1 else None


class DomainSampler(WithinDomain, HistorySampler):
    """Items of the target's domain that are not in the user's history up to the last target of the phase."""

    def _taken_whole(self, items: set[int]) -> str | None:
        counts = np.bincount(self._item_domain[list(items)], minlength=len(self._members))
        whole = (number for number, (members, _) in enumerate(self._members) if counts[number] == len(members))
        return next((f"{counts[n]} items of the domain {self._source.domains[n]}" for n in whole), None)


def within_domain(sampler: RepeatableSampler) -> RepeatableDomainSampler:
    """A sampler that RecBole made, drawing within domains from now on."""
    if isinstance(sampler, RepeatableDomainSampler):
        return sampler
    made = RepeatableDomainSampler(sampler.phases, sampler.dataset, sampler.distribution, sampler.alpha)
    return made.set_phase(sampler.phase)
