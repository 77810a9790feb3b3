"""NOVA's equations, literally, in NumPy float64.

Paper: Liu et al., "Non-invasive Self-attention for Side Information Fusion in Sequential Recommendation", AAAI 2021,
with causal attention.
"""

import math
from collections.abc import Sequence

import numpy as np

from tests.reference.sasrec import Array, Parameters, feed_forward, layer_norm, softmax


def fuse(kind: str, parts: Sequence[Array], p: Parameters) -> Array:
    """F of an item's representation and its side information, [d] each, to [d]."""
    if kind == "concat":
        return p["fusor.project.weight"] @ np.concatenate(parts) + p["fusor.project.bias"]
    total = np.zeros(len(parts[0]))
    for part in parts:
        gate = 1 / (1 + math.exp(-float(p["fusor.gate.weight"][0] @ part))) if kind == "gating" else 1.0
        total += gate * part
    return total


def attend(x: Array, side: Sequence[Sequence[Array]], p: Parameters, kind: str, n_heads: int) -> Array:
    """Non-invasive attention of items x [L, d], each with its side information [M + 1, d]; returns [L, d]."""
    length, d = x.shape
    width = d // n_heads
    fused = [fuse(kind, [x[t], *side[t]], p) for t in range(length)]
    query = [p["query.weight"] @ each + p["query.bias"] for each in fused]
    key = [p["key.weight"] @ each + p["key.bias"] for each in fused]
    value = [p["value.weight"] @ item + p["value.bias"] for item in x]
    read = np.zeros((length, d))
    for head in range(n_heads):
        part = slice(head * width, (head + 1) * width)
        for t in range(length):
            scores = np.array([query[t][part] @ key[s][part] / math.sqrt(width) for s in range(t + 1)])
            for s, weight in enumerate(softmax(scores)):
                read[t, part] += weight * value[s][part]
    return layer_norm(x + read @ p["out.weight"].T + p["out.bias"], p["norm.weight"], p["norm.bias"])


def nova(
    items: Array, side: Sequence[Sequence[Array]], norm: tuple[Array, Array], layers: Sequence[Parameters], kind: str
) -> Array:
    """States [L, d] of the embeddings [L, d] of a history's items, with two heads.

    Args:
        items: embeddings.
        side: position and modalities of each item.
        norm: weight and bias of the input's normalisation.
        layers: the parameters of each.
        kind: of the fusor.
    """
    x = layer_norm(items, *norm)
    for p in layers:
        x = feed_forward(attend(x, side, p, kind, 2), p, "feed_forward")
    return x
