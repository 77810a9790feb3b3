"""VQ-Rec's equations, literally, in NumPy float64.

Paper: Hou et al., "Learning Vector-Quantized Item Representation for Transferable Sequential Recommenders", WWW 2023.
"""

import math
from collections.abc import Sequence

import numpy as np

from tests.reference.ant import cosine
from tests.reference.sasrec import Array


def codes(text: Array, center: Array, rotation: Array, centroids: Array) -> list[int]:
    """The codes [D] of a text vector: for each part of the rotated vector, the nearest of its centroids [D, M, w]."""
    rotated, width = (text - center) @ rotation, centroids.shape[2]
    found = []
    for d, candidates in enumerate(centroids):
        part = rotated[d * width : (d + 1) * width]
        found.append(int(np.argmin([((part - centroid) ** 2).sum() for centroid in candidates])))
    return found


def item_vector(item_codes: Sequence[int], embeddings: Array) -> Array:
    """The mean of the embeddings [D, M, d] of an item's codes, [d]."""
    total = np.zeros(embeddings.shape[2])
    for d, code in enumerate(item_codes):
        total += embeddings[d, code]
    return total / len(item_codes)


def sinkhorn(logits: Array, rounds: int) -> Array:
    """exp(logits) [M, M], whose rows and then columns are divided by their sums, in rounds."""
    matrix = np.exp(logits)
    for _ in range(rounds):
        matrix = matrix / matrix.sum(axis=1, keepdims=True)
        matrix = matrix / matrix.sum(axis=0, keepdims=True)
    return matrix


def permuted(embeddings: Array, matrices: Array) -> Array:
    """The embeddings [D, M, d] of each code, permuted by its doubly stochastic matrix, [D, M, M]."""
    found = np.zeros_like(embeddings)
    for d, matrix in enumerate(matrices):
        for value, row in enumerate(matrix):
            for other, share in enumerate(row):
                found[d, value] += share * embeddings[d, other]
    return found


def contrastive_loss(
    users: Array, items: Array, synthetic: Array, targets: Sequence[int], windows: Sequence[set[int]], tau: float
) -> float:
    """Mean over users [T, d] of -log of the share of their target among the candidates.

    Args:
        users: states.
        items: vectors of all items by id.
        synthetic: the semi-synthetic form of each distinct target, in the order of their ids.
        targets: item ids, [T].
        windows: the items of each user's window, of which no other than the target is a candidate.
        tau: temperature.
    """
    total = 0.0
    for user, target, window in zip(users, targets, windows, strict=True):
        shares = {
            candidate: math.exp(cosine(user, items[candidate]) / tau)
            for candidate in set(targets)
            if candidate == target or candidate not in window
        }
        others = [math.exp(cosine(user, other) / tau) for other in synthetic]
        total -= math.log(shares[target] / (sum(shares.values()) + sum(others)))
    return total / len(users)
