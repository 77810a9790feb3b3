"""ContentKNN's scores, literally, in NumPy float64."""

from collections.abc import Mapping, Sequence

import numpy as np

from tests.reference.ant import price_embedding, scale_prices
from tests.reference.sasrec import Array


def unit(vector: Array) -> Array:
    """A vector of length 1 in the same direction; zero stays zero."""
    length = np.linalg.norm(vector)
    return vector / length if length else vector


def price_vectors(prices: Array, size: int, omega: float) -> Array:
    """The waves of prices [n] without their mean, [n, size]; zero where a price is missing (NaN)."""
    waves = np.stack([price_embedding(price, size, omega) for price in scale_prices(prices)])
    known = ~np.isnan(prices)
    return np.where(known[:, None], waves - waves[known].mean(axis=0), 0)


def score(
    item: int, history: Sequence[int], modalities: Mapping[str, Array], weights: Mapping[str, float], decay: float
) -> float:
    """The score of an item for a history, oldest item first.

    Args:
        item: its row.
        history: the rows of its items.
        modalities: centred vectors [n, D] of each modality, zero where an item lacks it.
        weights: of each modality.
        decay: weight of an item relative to the next one.
    """
    total = 0.0
    for name, vectors in modalities.items():
        mean = np.zeros(vectors.shape[1])
        for back, earlier in enumerate(reversed(history)):
            mean += decay**back * unit(vectors[earlier])
        total += weights[name] * float(unit(mean) @ unit(vectors[item]))
    return total / sum(weights[name] for name in modalities)
