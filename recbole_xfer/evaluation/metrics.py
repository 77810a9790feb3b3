"""RecBole's metrics of what is recommended, where its own differ from their definitions.

RecBole 1.2.0 counts the padding item as an item (ItemCoverage and GiniIndex), divides the entropy by the number of
recommended items (ShannonEntropy), and divides by k where a row has fewer candidates (AveragePopularity,
TailPercentage). In ``rec.items`` 0 stands for no item.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from recbole.evaluator import metrics


def counts(items: np.ndarray) -> np.ndarray:
    """How often each item is recommended, by id from 1."""
    return np.bincount(items.ravel())[1:]


def mean_of_recommended(values: np.ndarray, items: np.ndarray) -> np.ndarray:
    """The mean of values [N, k] over the items recommended at ranks 1 to j, for each j, [N, k]."""
    present = items > 0
    return (values * present).cumsum(axis=1) / present.cumsum(axis=1).clip(min=1)


class ItemCoverage(metrics.ItemCoverage):
    """The share of all items that are recommended at least once."""

    def get_coverage(self, item_matrix: np.ndarray, num_items: int) -> float:
        """Returns the share; ``num_items`` counts the padding item."""
        return float((counts(item_matrix) > 0).sum() / (num_items - 1))


class GiniIndex(metrics.GiniIndex):
    """The Gini coefficient of how often each item is recommended; 0 if all equally often."""

    def get_gini(self, item_matrix: np.ndarray, num_items: int) -> float:
        """Returns the coefficient; ``num_items`` counts the padding item."""
        often, number = counts(item_matrix), num_items - 1
        often = np.sort(np.pad(often, (0, number - len(often))))
        return float(((2 * np.arange(1, number + 1) - number - 1) * often).sum() / (number * often.sum()))


class ShannonEntropy(metrics.ShannonEntropy):
    """The entropy, in nats, of the distribution of recommended items."""

    def get_entropy(self, item_matrix: np.ndarray) -> float:
        """Returns the entropy."""
        often = counts(item_matrix)
        share = often[often > 0] / often.sum()
        return float(-(share * np.log(share)).sum())


class AveragePopularity(metrics.AveragePopularity):
    """The mean number of training interactions of recommended items, as a mean over rows."""

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Returns the metric at each length."""
        items, popularity = self.used_info(dataobject)
        values = self.get_pop(items, popularity)
        return self.topk_result("averagepopularity", mean_of_recommended(values, items))


class TailPercentage(metrics.TailPercentage):
    """The share of recommended items that are among the rarest in training, as a mean over rows."""

    def calculate_metric(self, dataobject: Any) -> dict[str, float]:
        """Returns the metric at each length."""
        items, popularity = self.used_info(dataobject)
        values = self.get_tail(items, popularity)
        return self.topk_result("tailpercentage", mean_of_recommended(values, items))


CORRECTED = {
    own.__name__.lower(): own for own in (ItemCoverage, GiniIndex, ShannonEntropy, AveragePopularity, TailPercentage)
}
"""Metrics that replace RecBole's, by name."""
