"""Compares runs with the ensemble of their scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recbole_xfer.comparison.significance import SIGNIFICANCE, paired_change
from recbole_xfer.comparison.table import Comparison


@dataclass(frozen=True)
class EnsembleComparison(Comparison):
    """The results of several runs and, as the last one, of their ensemble.

    Attributes:
        weights: of each run's scores at equal spread, by label; their sum is 1.
    """

    weights: Mapping[str, float] = field(default_factory=dict)

    def caption(self) -> str:
        """Numbers of test targets, protocol, seeds and weights, as text."""
        first, seeds = self.results[0], dict.fromkeys(result.seed for result in self.results[:-1])
        weights = ", ".join(f"{label} {weight:.2f}" for label, weight in self.weights.items())
        return (
            f"{first.target_counts()}; {first.protocol}; seed {', '.join(map(str, seeds))}. "
            f"Weights of scores of equal spread, chosen on the validation split: {weights}."
        )

    def verdict(self) -> str:
        """Says whether the ensemble is significantly better than the run that is best on the validation split."""
        *members, joined = self.results
        best = max(members, key=lambda result: result.valid_score)
        if joined.by_row is None or best.by_row is None:
            return ""
        change, p = paired_change(joined.by_row, best.by_row)
        word = "is not significantly different from" if p >= SIGNIFICANCE else "gains on" if change > 0 else "loses to"
        return (
            f"The ensemble {word} {best.label}, the best run on the validation split: NDCG@{joined.cutoff} "
            f"{change:+.1%}, p = {p:.2g}. Paired t-test over {len(joined.by_row):,} test targets."
        )

    def as_dict(self) -> dict[str, Any]:
        """The content of the file of ``--result``."""
        return {**super().as_dict(), "weights": dict(self.weights)}
