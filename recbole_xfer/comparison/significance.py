"""Paired significance tests over test targets, and Holm's correction for several of them."""

from __future__ import annotations

import numpy as np
from scipy import stats

SIGNIFICANCE = 0.05
"""The significance level: a change is significant if its p-value is below."""


def paired_change(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Relative change of the mean, and the p-value of a paired t-test; both arguments [rows], of the same targets.

    The p-value is 1 where nothing can be tested: with one target, or without any difference.
    """
    testable = len(ours) > 1 and (ours != theirs).any()
    p = float(stats.ttest_rel(ours, theirs).pvalue) if testable else 1.0
    return float(ours.mean() / max(theirs.mean(), 1e-12) - 1), p


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction of p-values [n], which controls the family-wise error rate (SciPy has no such function)."""
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected
