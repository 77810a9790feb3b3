"""Dropout that draws 16 bits per entry: on a CPU, random numbers take most of dropout's time."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import handle_torch_function, has_torch_function_unary

from recbole_xfer.layers.losses import precise

STATES = 2**16


class Dropout(nn.Dropout):
    """``nn.Dropout``, computed by :func:`dropout`."""

    def forward(self, x: Tensor) -> Tensor:
        """In training, sets a proportion of the entries to 0 and scales the others up; in evaluation, returns x."""
        return dropout(x, self.p) if self.training and self.p else x


def dropout(x: Tensor, share: float) -> Tensor:
    """``F.dropout`` in training, with the proportion rounded to 1/65536.

    Function modes see this function and :func:`attention`, as they see PyTorch's.
    """
    if has_torch_function_unary(x):
        return handle_torch_function(dropout, (x,), x, share)
    if x.device.type != "cpu":
        return F.dropout(x, share)
    dropped = min(round(share * STATES), STATES - 1)
    bits = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
    kept = (bits[: x.numel()].view(x.shape) >= dropped - STATES // 2).to(x.dtype)
    return x * kept.mul_(STATES / (STATES - dropped))


def attention(query: Tensor, key: Tensor, value: Tensor, seen: Tensor | None = None, share: float = 0.0) -> Tensor:
    """``F.scaled_dot_product_attention``, whose dropout on a CPU is :func:`dropout`.

    Args:
        query, key, value: [..., L, d] each.
        seen: positions (columns) to which each attends, bool, [..., L, L]; by default itself and the previous ones.
        share: proportion of the weights that is dropped.
    """
    if has_torch_function_unary(query):
        return handle_torch_function(attention, (query,), query, key, value, seen, share)
    if torch.compiler.is_compiling() and query.dim() > 4:  # more dimensions than ONNX's attention has
        return attention_weights(query, key, seen).to(value.dtype) @ value
    if not share or query.device.type != "cpu":
        return F.scaled_dot_product_attention(query, key, value, seen, dropout_p=share, is_causal=seen is None)
    return dropout(attention_weights(query, key, seen).to(value.dtype), share) @ value


def attention_weights(query: Tensor, key: Tensor, seen: Tensor | None = None) -> Tensor:
    """Weights of each position (row) for all positions, [..., L, L]; rows sum to 1. Arguments: :func:`attention`."""
    if seen is None:
        seen = torch.ones(query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device).tril()
    scores = precise(query / math.sqrt(query.shape[-1]) @ key.mT)
    return scores.add_(torch.zeros_like(seen, dtype=scores.dtype).masked_fill_(~seen, -torch.inf)).softmax(dim=-1)
