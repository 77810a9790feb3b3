"""RETR's equations, literally, in NumPy float64.

Paper: "Recommender Transformers with Behavior Pathways", section 3.
Each sum of the paper is a loop. The MLPs of a router are dicts of `first.weight`, `first.bias`,
`second.weight` and `second.bias`, with weights [output, input] as in torch, and GELU between the two.

Symbols: L length of a sequence, d width. Gumbel noise is given, [L, 2].
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from tests.reference.sasrec import Array, Parameters, feed_forward, gelu, layer_norm, self_attention, softmax

Router = Mapping[str, Parameters]  # summary, keep and weight


def mlp(x: Array, parameters: Parameters) -> Array:
    """[d] to [size]."""
    inner = gelu(parameters["first.weight"] @ x + parameters["first.bias"])
    return parameters["second.weight"] @ inner + parameters["second.bias"]


def context(z: Array, route: Array, t: int, whole_window: bool) -> Array:
    """The pooled tokens of Eq. 2, [d]: of the whole window, or of the positions up to t; zero where none is kept."""
    behaviours = range(len(z)) if whole_window else range(t + 1)
    total, count = np.zeros(z.shape[1]), 0.0
    for i in behaviours:
        total = total + route[i] * z[i]
        count += route[i]
    return total / count if count else total


def embedded(z: Array, route: Array, router: Router, whole_window: bool = False) -> Array:
    """Z_emb of Eq. 2, [L, d]."""
    return np.stack([z[t] + z[t] * mlp(context(z, route, t, whole_window), router["summary"]) for t in range(len(z))])


def keep_probability(z_emb: Array, router: Router) -> Array:
    """pi of Eq. 2, [L, 2]: of dropping and of keeping each behaviour."""
    return np.stack([softmax(mlp(token, router["keep"])) for token in z_emb])


def sampled(pi: Array, noise: Array) -> Array:
    """Eq. 3: the preliminary route [L]; without noise the likelier outcome."""
    return np.array([float(np.argmax(np.log(pi[t]) + noise[t])) for t in range(len(pi))])


def relaxed(pi: Array, noise: Array, temperature: float) -> Array:
    """Eq. 4: the second of the two values v_t, [L]."""
    return np.array([softmax((np.log(pi[t]) + noise[t]) / temperature)[1] for t in range(len(pi))])


def adaptive(pi: Array, noise: Array, z_emb: Array, router: Router) -> Array:
    """Eq. 5: the second of the two values v_t, [L], with omega of each token."""
    values = []
    for t in range(len(pi)):
        omega = max(0.0, mlp(z_emb[t], router["weight"])[0])
        values.append(softmax(omega * np.log(pi[t]) + noise[t])[1])
    return np.array(values)


def states(
    X: Array,
    params: Parameters,
    routers: Sequence[Router],
    n_heads: int,
    noise: Sequence[Array],
    hierarchical: bool = True,
    whole_window: bool = False,
    acts_on: str = "query",
) -> tuple[Array, list[Array]]:
    """Z^L [L, d] and the routes R^1 to R^L [L] of one unpadded sequence of item vectors X [L, d]; Eq. 1 to 3, 6, 7."""
    z = X + params["position_embedding.weight"][: len(X)]
    z = layer_norm(z, params["LayerNorm.weight"], params["LayerNorm.bias"])
    routes = [np.ones(len(X))]
    for layer, router in enumerate(routers):
        decision = sampled(keep_probability(embedded(z, routes[-1], router, whole_window), router), noise[layer])
        routes.append(decision * routes[-1] if hierarchical else decision)  # Eq. 6
        prefix = f"trm_encoder.layer.{layer}"
        z = self_attention(z, params, f"{prefix}.multi_head_attention", n_heads, routes[-1], acts_on=acts_on)  # Eq. 7
        z = feed_forward(z, params, f"{prefix}.feed_forward")
    return z, routes[1:]


def pairwise_loss(users: Array, positives: Array, negatives: Array) -> float:
    """Eq. 8 as a mean over targets; each argument [T, d]."""
    losses = []
    for user, positive, negative in zip(users, positives, negatives, strict=True):
        difference = user @ positive - user @ negative
        losses.append(math.log(1 + math.exp(-difference)))
    return sum(losses) / len(losses)
