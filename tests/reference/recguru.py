"""RecGURU's equations, literally, in NumPy float64.

Paper: "RecGURU: Adversarial Learning of Generalized User Representations for Cross-Domain Recommendation", section 3.
Each sum of the paper is a loop.

A transformer's parameters have the names of `tests.reference.sasrec`, without positions, and where it attends to a
user, for layer l = 0, 1, ..., `trm_encoder.layer.l.user_attention.{query,key,value,dense,LayerNorm}.{weight,bias}`.

Symbols: L items of a history, N longest history, d width, T targets, K negatives.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

from tests.reference.sasrec import Array, Parameters, feed_forward, layer_norm, self_attention, softmax


def positions(length: int, P: Array) -> Array:
    """Rows of P [N + 1, d] for a history padded on the left to N items, [L, d]; the last row is that of [eos]."""
    longest = len(P) - 1
    return np.stack([P[longest - length + t] for t in range(length)])


def user_attention(x: Array, user: Array, params: Parameters, name: str, n_heads: int) -> Array:
    """Multi-head attention of x [L, d] to the one vector h [d], with residual and normalisation; returns [L, d]."""

    def dense(inputs: Array, part: str) -> Array:
        return params[f"{name}.{part}.weight"] @ inputs + params[f"{name}.{part}.bias"]

    attended = [user]
    width = len(user) // n_heads
    context = np.zeros_like(x)
    for t in range(len(x)):
        for head in range(n_heads):
            part = slice(head * width, (head + 1) * width)
            query = dense(x[t], "query")[part]
            scores = np.array([query @ dense(h, "key")[part] / math.sqrt(width) for h in attended])
            for h, weight in zip(attended, softmax(scores), strict=True):
                context[t, part] += weight * dense(h, "value")[part]
    mixed = np.stack([dense(row, "dense") for row in context])
    return layer_norm(x + mixed, params[f"{name}.LayerNorm.weight"], params[f"{name}.LayerNorm.bias"])


def transformer(x: Array, params: Parameters, n_heads: int, user: Array | None = None, causal: bool = True) -> Array:
    """States [L, d] of embedded items x [L, d]: an encoder, or with a user h [d] a decoder."""
    x = layer_norm(x, params["LayerNorm.weight"], params["LayerNorm.bias"])
    layer = 0
    while f"trm_encoder.layer.{layer}.feed_forward.dense_1.weight" in params:
        prefix = f"trm_encoder.layer.{layer}"
        x = self_attention(x, params, f"{prefix}.multi_head_attention", n_heads, causal=causal)
        if user is not None:
            x = user_attention(x, user, params, f"{prefix}.user_attention", n_heads)
        x = feed_forward(x, params, f"{prefix}.feed_forward")
        layer += 1
    return x


def represent(items: Array, eos: Array, P: Array, params: Parameters, n_heads: int) -> Array:
    """Eq. 4: h [d] of a history of item embeddings [L, d], followed by [eos]."""
    embedded = np.vstack([items + positions(len(items), P), eos + P[-1]])
    return transformer(embedded, params, n_heads, causal=False)[-1]


def reconstruct(items: Array, eos: Array, P: Array, user: Array, params: Parameters, n_heads: int) -> Array:
    """Decoder's states [L, d], the t-th from h and the items before the t-th; [eos] comes before the first."""
    before = np.vstack([eos, items[:-1]])
    return transformer(before + positions(len(items), P), params, n_heads, user)


def reconstruction_loss(states: Array, own: Array, candidates: Sequence[Array]) -> float:
    """Eq. 5 as a mean over items: states and item embeddings [T, d], and the negatives of each, [K, d] each."""
    losses = []
    for state, item, others in zip(states, own, candidates, strict=True):
        total = math.exp(state @ item)
        for other in others:
            total += math.exp(state @ other)
        losses.append(-math.log(math.exp(state @ item) / total))
    return sum(losses) / len(losses)


def critic(h: Array, weights: Sequence[Array], biases: Sequence[Array]) -> float:
    """f(h) of Eq. 8: fully connected layers with ReLU between them."""
    for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        h = weight @ h + bias
        if number < len(weights) - 1:
            h = np.maximum(h, 0)
    return float(h[0])


def gradient_penalty(f: Callable[[Array], float], points: Array, step: float = 1e-6) -> float:
    """Mean of (|gradient of f| - 1)^2 at points [B, d], the gradient by central differences."""
    values = []
    for point in points:
        gradient = np.zeros_like(point)
        for column in range(len(point)):
            moved = np.zeros_like(point)
            moved[column] = step
            gradient[column] = (f(point + moved) - f(point - moved)) / (2 * step)
        values.append((math.sqrt(sum(gradient**2)) - 1) ** 2)
    return sum(values) / len(values)


def overlap_penalty(a: Array, b: Array) -> float:
    """Eq. 9 as a mean over users in both domains, h_a and h_b [S, d]."""
    distances = [math.sqrt(sum((one - other) ** 2)) for one, other in zip(a, b, strict=True)]
    return sum(distances) / len(distances)


def next_item_loss(q: Array, positives: Array, negatives: Sequence[Array]) -> float:
    """Eq. 12 as a mean over targets: q and I_v [T, d], and the embeddings of each target's negatives, [K, d] each."""

    def sigmoid(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    losses = []
    for state, item, others in zip(q, positives, negatives, strict=True):
        mean = sum(state @ other for other in others) / len(others)
        losses.append(-math.log(sigmoid(state @ item)) - math.log(1 - sigmoid(mean)))
    return sum(losses) / len(losses)


def cross_entropy(q: Array, positives: Array, items: Array) -> float:
    """In place of Eq. 12: -log softmax of q . item over the items [n, d] of a domain; q and positives are [T, d]."""
    losses = []
    for user, positive in zip(q, positives, strict=True):
        scores = np.array([user @ item for item in items])
        losses.append(scores.max() + np.log(np.exp(scores - scores.max()).sum()) - user @ positive)
    return float(np.mean(losses))
