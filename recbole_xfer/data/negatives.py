"""RecBole's samplers of negatives, drawing each from the domain of its target."""

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


class DomainSampler(WithinDomain, Sampler):
    """Items of the target's domain that the user did not take in this phase or before."""

    def get_used_ids(self) -> dict[str, np.ndarray]:
        """RecBole's, after a check that each user leaves something to draw in each domain."""
        used = super().get_used_ids()
        sizes = [len(items) for items, _ in self._members]
        for user, items in enumerate(used[self.phases[-1]]):
            counts = (
                np.bincount(self._item_domain[list(items)], minlength=len(sizes)) if items else np.zeros(len(sizes))
            )
            for domain in np.flatnonzero(counts >= sizes):
                token, name = self._source.id2token(self._source.uid_field, user), self._source.domains[domain]
                raise XferError(
                    f"The user {token} took all {sizes[domain]} items of the domain {name}, so that no negative can be "
                    f"drawn. Set --mask_history=False, or leave the domain out of --dataset."
                )
        return used


def within_domain(sampler: RepeatableSampler) -> RepeatableDomainSampler:
    """A sampler that RecBole made, drawing within domains from now on."""
    if isinstance(sampler, RepeatableDomainSampler):
        return sampler
    made = RepeatableDomainSampler(sampler.phases, sampler.dataset, sampler.distribution, sampler.alpha)
    return made.set_phase(sampler.phase)
