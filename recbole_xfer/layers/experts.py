"""Several causal encoders of one size in one computation: the experts of a mixture.

Symbols in comments: K encoders, B windows, L positions, d width, h heads. Parameters have the names and shapes of
:class:`~recbole_xfer.layers.encoder.CausalEncoder`'s, with K in front.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.layers.dropout import Dropout, attention
from recbole_xfer.layers.encoder import activation


class Experts(nn.Module):
    """K encoders like :class:`~recbole_xfer.layers.encoder.CausalEncoder`, each with its own parameters and dropout.

    Args:
        config: as for :class:`~recbole_xfer.layers.encoder.CausalEncoder`, and ``initializer_range``.
        count: K.
    """

    def __init__(self, config: Any, count: int) -> None:
        super().__init__()
        self.norm = Norm(config, count)
        self.dropout = Dropout(config["hidden_dropout_prob"])
        self.layers = nn.Sequential()
        for _ in range(config["n_layers"]):
            self.layers.append(SelfAttention(config, count))
            self.layers.append(FeedForward(config, count))

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """Embedded windows to the hidden states of each encoder.

        Args:
            x: positions added, [B, L, d].
            seen: positions (columns) to which each attends, bool, [B or 1, L, L].

        Returns:
            [K, B, L, d]
        """
        y = self.dropout(self.norm(x.flatten(0, 1).expand(len(self.norm.weight), -1, -1)))
        layers: list[Any] = list(self.layers)
        for attend, feed_forward in zip(layers[::2], layers[1::2], strict=True):
            y = feed_forward(attend(y, seen))
        return y.unflatten(1, x.shape[:2])


class SelfAttention(nn.Module):
    """Multi-head self-attention, followed by a residual and layer normalisation, in K encoders."""

    def __init__(self, config: Any, count: int) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.heads = config["n_heads"]
        self.query_key_value = Linear(config, count, width, 3 * width)
        self.out = Linear(config, count, width, width)
        self.attention_dropout = config["attn_dropout_prob"]
        self.dropout = Dropout(config["hidden_dropout_prob"])
        self.norm = Norm(config, count)

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        """[K, B * L, d] to the same; ``seen`` as for :class:`Experts`."""
        windows = x.shape[1] // seen.shape[-1]
        shape = len(x), windows, seen.shape[-1], 3, self.heads, x.shape[-1] // self.heads
        q, k, v = self.query_key_value(x).view(shape).permute(3, 0, 1, 4, 2, 5)  # [K, B, h, L, d/h]
        mixed = attention(q, k, v, seen[:, None], self.attention_dropout if self.training else 0.0)
        return self.norm(x + self.dropout(self.out(mixed.transpose(2, 3).reshape(x.shape))))


class FeedForward(nn.Module):
    """Two linear layers at each position, followed by a residual and layer normalisation, in K encoders."""

    def __init__(self, config: Any, count: int) -> None:
        super().__init__()
        width, inner = config["hidden_size"], config["inner_size"]
        self.first = Linear(config, count, width, inner)
        self.second = Linear(config, count, inner, width)
        self.activation = activation(config["hidden_act"])
        self.dropout = Dropout(config["hidden_dropout_prob"])
        self.norm = Norm(config, count)

    def forward(self, x: Tensor) -> Tensor:
        """[K, B * L, d] to the same."""
        return self.norm(x + self.dropout(self.second(self.activation(self.first(x)))))


class Linear(nn.Module):
    """K linear layers."""

    def __init__(self, config: Any, count: int, size_in: int, size_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, size_out, size_in))
        self.bias = nn.Parameter(torch.zeros(count, size_out))
        nn.init.normal_(self.weight, std=config["initializer_range"])

    def forward(self, x: Tensor) -> Tensor:
        """[K, N, in] to [K, N, out]"""
        return torch.baddbmm(self.bias[:, None], x, self.weight.transpose(1, 2))


class Norm(nn.Module):
    """K layer normalisations."""

    def __init__(self, config: Any, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(count, config["hidden_size"]))
        self.bias = nn.Parameter(torch.zeros(count, config["hidden_size"]))
        self.eps = float(config["layer_norm_eps"])

    def forward(self, x: Tensor) -> Tensor:
        """[K, N, d] to the same."""
        one_by_one = zip(x, self.weight, self.bias, strict=True)  # faster than one followed by scale and shift
        return torch.stack(
            [F.layer_norm(part, weight.shape, weight, bias, self.eps) for part, weight, bias in one_by_one]
        )
