"""Paired tests over test targets, and their correction where there are several."""

from __future__ import annotations

import numpy as np
from scipy import stats

SIGNIFICANCE = 0.05
"""What p must be below to be called sure."""


def paired_change(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Relative change of the mean, and the p-value of a paired t-test; both arguments [rows], of the same targets.

    Where there is nothing to test, one target or no difference, p is 1.
    """
    testable = len(ours) > 1 and (ours != theirs).any()
    p = float(stats.ttest_rel(ours, theirs).pvalue) if testable else 1.0
    return float(ours.mean() / max(theirs.mean(), 1e-12) - 1), p


def holm(p: np.ndarray) -> np.ndarray:
    """Holm's correction of p-values [n]: their error rate as a family is that of each without it."""
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)).clip(max=1)
    return corrected
