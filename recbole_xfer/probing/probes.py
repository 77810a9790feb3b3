"""Probes: classifiers that are trained to say from which of two sets a vector comes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier

FOLDS = 5
"""Parts of a cross-validation."""

FEWEST = 20
"""Minimum number of vectors of each set, so that every fold has some of both."""

ERRORS = 3
"""Standard errors of guessing that an accuracy must be above 0.5: many pairs are probed, twice each."""

STEPS = 200
"""Maximum number of a probe's iterations."""

PROBES: Mapping[str, Callable[[int], Any]] = {
    "linear": lambda seed: LogisticRegression(max_iter=STEPS, random_state=seed),
    "MLP": lambda seed: MLPClassifier(
        (64,), learning_rate_init=0.01, early_stopping=True, max_iter=STEPS, random_state=seed
    ),
}
"""The classifiers by name, made from a seed; the second one has a hidden layer."""


@dataclass(frozen=True)
class Accuracy:
    """The accuracy of a probe on vectors that it was not trained on; 0.5 is that of guessing.

    Attributes:
        mean: over the folds.
        spread: standard deviation over the folds.
        rows: number of vectors of each set.
    """

    mean: float
    spread: float
    rows: int

    @property
    def guessing(self) -> bool:
        """Whether guessing could give the accuracy: it is at most some of its standard errors above 0.5."""
        return self.mean <= 0.5 + ERRORS * (0.25 / (2 * self.rows)) ** 0.5

    def text(self) -> str:
        """Such as ``0.981 ±.004``."""
        return f"{self.mean:.3f} ±{self.spread:.3f}".replace("±0", "±")


def accuracy(a: np.ndarray, b: np.ndarray, probe: str, seed: int) -> Accuracy | None:
    """The cross-validated accuracy of a probe on two sets of vectors, as many of each; None if there are too few.

    Args:
        a, b: in random order, [n, d] each; the first vectors of the larger set are used.
        probe: a name in :data:`PROBES`.
        seed: of the folds and of the probe.
    """
    rows = min(len(a), len(b))
    if rows < FEWEST:
        return None
    vectors, labels = standardised(np.concatenate([a[:rows], b[:rows]])), np.repeat([0, 1], rows)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        scores = cross_val_score(PROBES[probe](seed), vectors, labels, cv=folds)
    return Accuracy(float(scores.mean()), float(scores.std(ddof=1)), rows)


def standardised(vectors: np.ndarray) -> np.ndarray:
    """Vectors [n, d] with mean 0 and entries near 1: all entries have one factor, so that no noise is magnified."""
    centred = vectors - vectors.mean(axis=0)
    return centred / max(float(np.sqrt(np.square(centred).mean())), 1e-12)
