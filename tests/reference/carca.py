"""CARCA's equations, literally, in NumPy float64.

Paper: Rashed et al., "Context and Attribute-Aware Sequential Recommendation via Cross-Attention", RecSys 2022, without
contexts. The profile is that of `sasrec.sasrec`.
"""

import math
from collections.abc import Sequence

import numpy as np

from tests.reference.sasrec import Array, Parameters, softmax


def item_vector(embedding: Array, attributes: Sequence[Array], p: Parameters) -> Array:
    """z [d] of an item's embedding e [d] and its attributes, whose sum is q [d]."""
    q = np.zeros(len(embedding))
    for attribute in attributes:
        q += attribute
    return p["join.weight"] @ np.concatenate([embedding, q]) + p["join.bias"]


def score(candidate: Array, states: Array, p: Parameters, n_heads: int) -> float:
    """The score of a candidate z [d] for the states [L, d] of a history's items.

    The names in `p` are query.{weight, bias}, key.{weight, bias}, value.{weight, bias} and score.{weight, bias}.
    """
    width = len(candidate) // n_heads
    query = p["query.weight"] @ candidate + p["query.bias"]
    keys = [p["key.weight"] @ state + p["key.bias"] for state in states]
    values = [p["value.weight"] @ state + p["value.bias"] for state in states]
    read = np.zeros(len(candidate))
    for head in range(n_heads):
        part = slice(head * width, (head + 1) * width)
        weights = softmax(np.array([query[part] @ key[part] / math.sqrt(width) for key in keys]))
        for weight, value in zip(weights, values, strict=True):
            read[part] += weight * value[part]
    return float(p["score.weight"][0] @ (candidate * read) + p["score.bias"][0])


def loss(targets: Sequence[float], negatives: Sequence[float]) -> float:
    """Mean over targets of the binary cross-entropy of a target's score and a negative's."""
    total = 0.0
    for own, other in zip(targets, negatives, strict=True):
        total -= math.log(1 / (1 + math.exp(-own))) + math.log(1 - 1 / (1 + math.exp(-other)))
    return total / len(targets)
