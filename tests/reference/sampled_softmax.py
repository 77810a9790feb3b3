"""Sampled softmax with the log-Q correction, literally, in NumPy float64.

Papers: Bengio and Senecal, "Adaptive importance sampling to accelerate training of a neural probabilistic language
model" (2008); Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations" (2019), whose
Eq. 3 subtracts log Q from the logit of each candidate.

Items are numbered from 1; a window is the list of its targets.
"""

from collections.abc import Sequence

import numpy as np

from tests.reference.sasrec import Array


def probability(count: int, total: int, targets: int, items: int, draws: int) -> float:
    """Q of an item with ``count`` of the ``total`` training targets: it is one of the batch's or of the draws."""
    missed = 1.0
    for _ in range(count):
        missed *= 1 - targets / total
    for _ in range(draws):
        missed *= 1 - 1 / items
    return 1 - missed


def loss(
    states: Sequence[Sequence[Array]], vectors: Array, windows: Sequence[Sequence[int]], drawn: set[int], q: Array
) -> float:
    """The mean over targets of -log of the estimated softmax.

    Args:
        states: of each target, window by window, [d].
        vectors: of all items, [1 + N, d].
        windows: their targets.
        drawn: the uniform draws.
        q: probability that an item is a candidate, [1 + N].
    """
    candidates = drawn | {target for window in windows for target in window}
    losses = []
    for window, own_states in zip(windows, states, strict=True):
        for target, state in zip(window, own_states, strict=True):
            total = 0.0
            for item in candidates:
                weight = 1.0 if item in window else 1 / q[item]
                total += weight * np.exp(state @ vectors[item])
            losses.append(np.log(total) - state @ vectors[target])
    return float(np.mean(losses))
