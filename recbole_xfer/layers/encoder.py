"""The causal transformer encoder of SASRec, as RecBole builds it, on whole windows.

Symbols in comments: B windows, L positions, d width, h heads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.hooks import Inspection
from recbole_xfer.layers.dropout import Dropout, attention, attention_weights

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu, "relu": F.relu, "swish": F.silu, "tanh": torch.tanh, "sigmoid": torch.sigmoid,
}  # fmt: skip
"""By RecBole's names."""


def activation(name: str) -> Callable[[Tensor], Tensor]:
    """One of :data:`ACTIVATIONS`."""
    return ACTIVATIONS[name]


def init_as_sasrec(module: nn.Module, deviation: float) -> None:
    """Initialises all weights as RecBole's SASRec does: normal with this standard deviation, biases zero."""
    for part in module.modules():
        if isinstance(part, (nn.Linear, nn.Embedding)):
            nn.init.normal_(part.weight, std=deviation)
        if isinstance(part, nn.Linear) and part.bias is not None:
            nn.init.zeros_(part.bias)


TINY = 1e-9
"""The smallest attention that a position pays to its route, by which what it reads is divided."""


class SelfAttention(nn.Module):
    """Multi-head self-attention, causal without a mask, followed by a residual and layer normalisation.

    Windows are padded on the right, so that by causal attention a real position never attends to padding.

    Attributes:
        routed: what a route acts on (RETR, Eq. 7). ``query``: the query of a position off the route is zero, so that it
            attends evenly. ``input``: its query is that of a zero input, which is the bias of the projection. ``key``:
            no position attends to it; a position that attends to nothing keeps only its residual.
    """

    routed = "query"

    def __init__(self, width: int, heads: int, dropout: float, attention_dropout: float, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_dropout = attention_dropout
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, route: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """[B, L, d] to [B, L, d]; a position is off the route where ``route`` [B, L] is 0.

        Where ``mask`` (bool, [B, L, L] or [B, 1, L]) is given, it says which positions (columns) each attends to.
        """
        query, key, value = self._heads(self.query_key_value(x), 3)
        return self._mixed(x, self._routed(query, route), key, value, route, None if mask is None else mask[:, None])

    def at(self, position: Tensor, x: Tensor, route: Tensor | None = None) -> Tensor:
        """What :meth:`forward` gives at one position [B] of each window, [B, 1, d], without the other queries."""
        own, width = states_at(x, position)[:, None], x.shape[-1]
        weight, bias = self.query_key_value.weight, self.query_key_value.bias
        query = self._heads(F.linear(own, weight[:width], bias[:width]), 1)[0]
        key, value = self._heads(F.linear(x, weight[width:], bias[width:]), 2)
        query = self._routed(query, None if route is None else states_at(route, position)[:, None])
        seen = torch.arange(x.shape[1], device=x.device) <= position[:, None]  # [B, L]
        return self._mixed(own, query, key, value, route, seen[:, None, None])

    def _mixed(
        self, x: Tensor, query: Tensor, key: Tensor, value: Tensor, route: Tensor | None, seen: Tensor | None
    ) -> Tensor:
        """The attention's output for x, [B, L, d], from queries at its positions, [B, h, L, d/h]."""
        share = self.attention_dropout if self.training else 0.0
        if route is None or self.routed != "key":
            mixed = attention(query, key, value, seen, share)
        else:  # a further entry of the values adds up the attention that is paid to the route
            routed = F.pad(value, (0, 1), value=1.0) * route[:, None, :, None]
            mixed = attention(query, key, routed, seen, share)
            paid = mixed[..., -1:]
            some = paid > TINY  # without it, a position that attends to nothing would have a huge gradient
            mixed = some * mixed[..., :-1] / paid.where(some, 1)
        return self.norm(x + self.dropout(self.out(mixed.transpose(1, 2).reshape(x.shape))))

    def weights(self, x: Tensor, route: Tensor | None = None) -> Tensor:
        """Attention weights of each position (row) for all positions, [B, h, L, L].

        Rows sum to 1, but for those that attend to nothing.
        """
        query, key, _ = self._heads(self.query_key_value(x), 3)
        weights = attention_weights(self._routed(query, route), key)
        if route is None or self.routed != "key":
            return weights
        weights = weights * route[:, None, None]
        return weights / weights.sum(dim=-1, keepdim=True).clamp(min=TINY)

    def _routed(self, query: Tensor, route: Tensor | None) -> Tensor:
        """Queries [B, h, L, d/h] with those off the route [B, L] replaced."""
        if route is None or self.routed == "key":
            return query
        if self.routed == "query":
            return query * route[:, None, :, None]
        bias = self.query_key_value.bias[: self.out.in_features].view(1, self.heads, 1, -1)
        return bias + (query - bias) * route[:, None, :, None]

    def _heads(self, projected: Tensor, parts: int) -> Tensor:
        """Projections side by side, [B, L, parts * d], by part and head, [parts, B, h, L, d/h]."""
        return projected.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4)


class FeedForward(nn.Module):
    """Two linear layers at each position, followed by a residual and layer normalisation."""

    def __init__(self, width: int, inner: int, act: str, dropout: float, eps: float) -> None:
        super().__init__()
        self.first = nn.Linear(width, inner)
        self.second = nn.Linear(inner, width)
        self.activation = activation(act)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, d] to [B, L, d]"""
        return self.norm(x + self.dropout(self.second(self.activation(self.first(x)))))


class CausalEncoder(nn.Module):
    """SASRec without its embeddings: normalisation and dropout of the input, then the layers.

    With RecBole's SASRec weights it gives RecBole's output at the last position of every prefix.

    Args:
        config: reads ``hidden_size``, ``n_layers``, ``n_heads``, ``inner_size``, ``hidden_act``, ``layer_norm_eps``,
            ``hidden_dropout_prob`` and ``attn_dropout_prob``.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, eps, dropout = config["hidden_size"], float(config["layer_norm_eps"]), config["hidden_dropout_prob"]
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = Dropout(dropout)
        self.layers = nn.Sequential()
        for _ in range(config["n_layers"]):
            self.layers.append(SelfAttention(width, config["n_heads"], dropout, config["attn_dropout_prob"], eps))
            self.layers.append(FeedForward(width, config["inner_size"], config["hidden_act"], dropout, eps))

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Embedded windows, positions added, to hidden states: [B, L, d] to [B, L, d].

        ``real`` [B, L] is not needed: padding is on the right, where a causal encoder does not look.
        """
        return self.layers(self.dropout(self.norm(x)))

    def at(self, position: Tensor, x: Tensor, real: Tensor | None = None) -> Tensor:
        """What :meth:`forward` gives at one position [B] of each window, [B, d]; the last block computes no other."""
        attention: Any = self.layers[-2]
        return self.layers[-1](attention.at(position, self.layers[:-2](self.dropout(self.norm(x)))))[:, 0]

    def inspect(self, x: Tensor) -> Inspection:
        """How an embedded history [1, L, d] is read."""
        weights = self._last_weights(self.layers[:-2](self.norm(x)), None)
        return Inspection(weights.new_zeros((0, x.shape[1])), weights)

    def _last_weights(self, tokens: Tensor, route: Tensor | None) -> Tensor:
        """Attention weights of the last item in the last block, which reads tokens [1, L, d]: mean over heads, [L]."""
        attention: Any = self.layers[-2]
        return attention.weights(tokens, route)[0, :, -1].mean(dim=0)

    @torch.no_grad()
    def load_sasrec(self, weights: Mapping[str, Tensor]) -> None:
        """Loads the parameters of RecBole's SASRec of the same sizes, under its names."""
        self._load(self.norm, weights, "LayerNorm")
        layers: list[Any] = list(self.layers)
        for number, (attend, feed_forward) in enumerate(zip(layers[::2], layers[1::2], strict=True)):
            attends, feeds = (f"trm_encoder.layer.{number}.{part}" for part in ("multi_head_attention", "feed_forward"))
            self._load(attend.query_key_value, weights, *(f"{attends}.{part}" for part in ("query", "key", "value")))
            self._load(attend.out, weights, f"{attends}.dense")
            self._load(attend.norm, weights, f"{attends}.LayerNorm")
            self._load(feed_forward.first, weights, f"{feeds}.dense_1")
            self._load(feed_forward.second, weights, f"{feeds}.dense_2")
            self._load(feed_forward.norm, weights, f"{feeds}.LayerNorm")

    @staticmethod
    def _load(layer: Any, weights: Mapping[str, Tensor], *names: str) -> None:
        for part in ("weight", "bias"):
            getattr(layer, part).copy_(torch.cat([weights[f"{name}.{part}"] for name in names]))


ROWS = 256
"""Histories that :func:`in_groups` encodes at a time."""


def in_groups(items: Tensor, lengths: Tensor, encode: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Encodes histories of similar length together, without the padding; all together where a graph is recorded.

    Args:
        items: item ids, padded on the right, [B, L].
        lengths: [B].
        encode: item ids [b, l], and which rows they are [b], to vectors [b, d].

    Returns:
        [B, d]
    """
    if torch.compiler.is_compiling():  # a graph has no loops over its data
        return encode(items, torch.arange(items.shape[0], device=items.device))
    order = lengths.argsort()
    longest = [int(lengths[rows[-1:]].sum()) or 1 for rows in order.split(ROWS)]  # a process may have no rows
    parts = [encode(items[rows, :length], rows) for rows, length in zip(order.split(ROWS), longest, strict=True)]
    return torch.cat(parts)[order.argsort()]


def last_states(item_seq: Tensor, lengths: Tensor, encode_at: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The state of each history's last item.

    Args:
        item_seq: item ids, padded on the right, [B, L].
        lengths: [B], at least 1.
        encode_at: a position of each window [b] and item ids [b, l] to the states at these positions, [b, d].

    Returns:
        [B, d]
    """
    return in_groups(item_seq, lengths, lambda items, rows: encode_at(lengths[rows] - 1, items))


def states_at(states: Tensor, position: Tensor) -> Tensor:
    """States [B, L, ...] at one position [B] of each window, [B, ...]."""
    return states[torch.arange(states.shape[0], device=states.device), position]
