"""SASRec's encoder, literally, in NumPy float64, for the papers that build on it.

Paper: Kang and McAuley, "Self-Attentive Sequential Recommendation", as RecBole implements it.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Parameters = Mapping[str, Array]

LAYER_NORM_EPS = 1e-12


def softmax(x: Array) -> Array:
    """Softmax over a vector [n]."""
    exponentials = np.exp(x - x.max())
    return exponentials / exponentials.sum()


def layer_norm(x: Array, weight: Array, bias: Array) -> Array:
    """Layer normalisation of each row of x [L, d]; weight and bias [d]."""
    mean = x.mean(axis=1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=1, keepdims=True)
    return (x - mean) / np.sqrt(variance + LAYER_NORM_EPS) * weight + bias


def gelu(x: Array) -> Array:
    """GELU, x times the standard normal distribution function, element by element."""
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def self_attention(
    x: Array,
    parameters: Parameters,
    name: str,
    n_heads: int,
    route: Array | None = None,
    causal: bool = True,
    acts_on: str = "query",
) -> Array:
    """Multi-head self-attention of x [L, d], with residual and normalisation; returns [L, d].

    `name` is the prefix of the layer's parameters in `parameters`, see `sasrec`; `route` [L] multiplies queries, the
    inputs of queries, or the attention paid to a position, which is then divided by its sum.
    """

    def dense(inputs: Array, part: str) -> Array:
        return inputs @ parameters[f"{name}.{part}.weight"].T + parameters[f"{name}.{part}.bias"]

    length, d = x.shape
    width = d // n_heads
    route = np.ones(length) if route is None else route
    query, key, value = dense(x, "query"), dense(x, "key"), dense(x, "value")
    if acts_on == "query":
        query = query * route[:, None]
    if acts_on == "input":
        query = dense(x * route[:, None], "query")
    context = np.zeros((length, d))
    for head in range(n_heads):
        part = slice(head * width, (head + 1) * width)
        for t in range(length):
            attended = range(t + 1 if causal else length)
            scores = np.array([query[t, part] @ key[s, part] / math.sqrt(width) for s in attended])
            weights = softmax(scores)
            if acts_on == "key":
                weights = weights * route[: len(weights)]
                weights = weights / weights.sum() if weights.any() else weights
            for s, weight in enumerate(weights):
                context[t, part] += weight * value[s, part]
    return layer_norm(
        dense(context, "dense") + x, parameters[f"{name}.LayerNorm.weight"], parameters[f"{name}.LayerNorm.bias"]
    )


def feed_forward(x: Array, parameters: Parameters, name: str) -> Array:
    """The feed-forward part of a layer, with residual and normalisation: [L, d] to [L, d]; `name` as above."""
    inner = gelu(x @ parameters[f"{name}.dense_1.weight"].T + parameters[f"{name}.dense_1.bias"])
    outer = inner @ parameters[f"{name}.dense_2.weight"].T + parameters[f"{name}.dense_2.bias"]
    return layer_norm(outer + x, parameters[f"{name}.LayerNorm.weight"], parameters[f"{name}.LayerNorm.bias"])


def sasrec(M: Array, params: Parameters, n_heads: int) -> Array:
    """States [L, d] at every position of one unpadded sequence of item vectors M [L, d], without dropout.

    The names in `params` are those of RecBole's SASRec (its state_dict); inner is the feed-forward width:
      position_embedding.weight [at least L, d], LayerNorm.weight and .bias [d], and for layer l = 0, 1, ...
      trm_encoder.layer.l.multi_head_attention.{query,key,value,dense}.weight [d, d] and .bias [d],
      trm_encoder.layer.l.multi_head_attention.LayerNorm.{weight,bias} [d],
      trm_encoder.layer.l.feed_forward.dense_1.weight [inner, d] and .bias [inner],
      trm_encoder.layer.l.feed_forward.dense_2.weight [d, inner] and .bias [d],
      trm_encoder.layer.l.feed_forward.LayerNorm.{weight,bias} [d].
    A weight is [output, input], as in torch. The first item of the sequence has position 0.
    """
    x = M + params["position_embedding.weight"][: len(M)]
    x = layer_norm(x, params["LayerNorm.weight"], params["LayerNorm.bias"])
    layer = 0
    while f"trm_encoder.layer.{layer}.feed_forward.dense_1.weight" in params:
        x = self_attention(x, params, f"trm_encoder.layer.{layer}.multi_head_attention", n_heads)
        x = feed_forward(x, params, f"trm_encoder.layer.{layer}.feed_forward")
        layer += 1
    return x


def recbole_names(encoder: Any, positions: Any) -> dict[str, Array]:
    """The parameters of our CausalEncoder and its position embeddings, as `sasrec` reads them."""

    def numpy(tensor: Any) -> Array:
        return tensor.detach().double().numpy()

    names = {"position_embedding.weight": numpy(positions.weight)}
    names |= {f"LayerNorm.{part}": numpy(getattr(encoder.norm, part)) for part in ("weight", "bias")}
    for number, (attention, forward) in enumerate(zip(encoder.layers[::2], encoder.layers[1::2], strict=True)):
        prefix = f"trm_encoder.layer.{number}"
        for part in ("weight", "bias"):
            thirds = np.split(numpy(getattr(attention.query_key_value, part)), 3)
            for name, third in zip(("query", "key", "value"), thirds, strict=True):
                names[f"{prefix}.multi_head_attention.{name}.{part}"] = third
            names[f"{prefix}.multi_head_attention.dense.{part}"] = numpy(getattr(attention.out, part))
            names[f"{prefix}.multi_head_attention.LayerNorm.{part}"] = numpy(getattr(attention.norm, part))
            names[f"{prefix}.feed_forward.dense_1.{part}"] = numpy(getattr(forward.first, part))
            names[f"{prefix}.feed_forward.dense_2.{part}"] = numpy(getattr(forward.second, part))
            names[f"{prefix}.feed_forward.LayerNorm.{part}"] = numpy(getattr(forward.norm, part))
    return names
