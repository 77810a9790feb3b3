"""SyNCRec's equations, literally, in NumPy float64 with loops.

Paper: "Pacer and Runner: Cooperative Learning Framework between Single- and Cross-Domain Sequential Recommendation",
sections 4.1 to 4.5. A sequence is a list of item ids without its start token; an expert is SASRec's encoder.

Symbols: T positions of a sequence with its start token, r width, K experts, D domains.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tests.reference.sasrec import Array, Parameters, feed_forward, sasrec, softmax


@dataclass(frozen=True)
class Model:
    """Parameters: experts under RecBole's names, towers as the feed-forward part `tower` of a layer.

    Attributes:
        start: (SOS), [r].
        M: item embeddings, [n_items, r].
        P: position embeddings, [most positions, r].
        gates: W_g of each domain, followed by the cross-domain sequence, [D + 1, T or 1, K, r].
        W_H: of Eq. 17, [r, r].
    """

    start: Array
    M: Array
    P: Array
    experts: Sequence[Parameters]
    gates: Array
    towers: Sequence[Parameters]
    W_H: Array
    heads: int


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def Y(model: Model, sequence: Sequence[int], task: int) -> Array:
    """Eq. 2 or 4 at the start token and at each item, [T, r]; SG is the identity in the forward pass."""
    E = np.stack([vector + model.P[t] for t, vector in enumerate([model.start, *model.M[list(sequence)]])])
    outputs = [sasrec(E, expert, model.heads) for expert in model.experts]
    f = np.zeros_like(E)
    for t in range(len(E)):
        g = gate(model.gates[task], E, t)
        for k in range(len(outputs)):
            f[t] += g[k] * outputs[k][t]
    return feed_forward(f, model.towers[task], "tower")


def gate(W: Array, E: Array, t: int) -> Array:
    """Eq. 3, [K]: from the flattened sequence, or, with weights for one position, only from position t."""
    if len(W) == 1:
        return softmax(W[0] @ E[t])
    return softmax(sum(W[s] @ E[s] for s in range(len(E))))


def pairwise_loss(state: Array, positive: Array, negative: Array, bounded: bool) -> float:
    """-l of Eq. 8 and 9."""
    scores = [float(state @ item) for item in (positive, negative)]
    if bounded:
        scores = [sigmoid(score) for score in scores]
    return -math.log(sigmoid(scores[0] - scores[1]))


@dataclass(frozen=True)
class Target:
    """A target, with its states and its negative."""

    domain: int
    single: Array
    cross: Array
    positive: Array
    negative: Array


def gaps(targets: Sequence[Target], last: Array, bounded: bool) -> Array:
    """phi of Eq. 10, [D], as means; a domain without targets keeps its last."""
    phi = np.array(last)
    for d in range(len(last)):
        differences = [
            pairwise_loss(target.single, target.positive, target.negative, bounded)
            - pairwise_loss(target.cross, target.positive, target.negative, bounded)
            for target in targets
            if target.domain == d
        ]
        if differences:
            phi[d] = sum(differences) / len(differences)
    return phi


def weights(last: Array, phi: Array, alpha: float, beta: float, delta: float) -> Array:
    """lambda of Eq. 11, [D]."""
    return softmax(np.array([(alpha * last[d] + beta * phi[d]) / delta for d in range(len(phi))]))


def single_loss(targets: Sequence[Target], bounded: bool) -> float:
    """Eq. 8 over all domains, as a mean."""
    return sum(pairwise_loss(t.single, t.positive, t.negative, bounded) for t in targets) / len(targets)


def cross_loss(targets: Sequence[Target], weight: Array, bounded: bool) -> float:
    """Eq. 12 as a mean; Eq. 9 where all weights are 1."""
    losses = [weight[t.domain] * pairwise_loss(t.cross, t.positive, t.negative, bounded) for t in targets]
    return sum(losses) / len(losses)


def mutual_information_loss(sequences: Mapping[tuple[int, int], tuple[int, Array, Array]], W_H: Array) -> float:
    """-L of Eq. 16, summed over the sequences of a domain of which another user of the batch also has one.

    Args:
        sequences: by (window, domain): the user, and Y of the domain's items by both towers, [n, r] each.
    """
    losses = []
    for (_, domain), (user, single, cross) in sequences.items():
        V = cross.mean(axis=0)
        others = [
            sigmoid(theirs.mean(axis=0) @ W_H @ V)
            for (_, d), (u, theirs, _) in sequences.items()
            if d == domain and u != user
        ]
        if others:
            own = sigmoid(single.mean(axis=0) @ W_H @ V)
            losses.append(-(own - math.log(sum(math.exp(rho) for rho in others))))
    return sum(losses)
