"""LightSANs' encoder (Fan et al., SIGIR 2021), as RecBole has it, for windows of any length.

Symbols in comments: B windows, L positions, d width, h heads, k interests.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from recbole.model.layers import LightTransformerEncoder
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.layers.dropout import Dropout


class LightEncoder(nn.Module):
    """Low-rank self-attention with decoupled positions. It is bidirectional: a state sees the whole window.

    RecBole's layers attend to padding. So windows of one length are encoded together, without padding, and a window's
    states do not depend on the other windows of the batch.

    Args:
        config: reads ``k_interests`` and what :class:`~recbole_xfer.layers.encoder.CausalEncoder` reads.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        width, eps, dropout = config["hidden_size"], float(config["layer_norm_eps"]), config["hidden_dropout_prob"]
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = Dropout(dropout)
        self.encoder = LightTransformerEncoder(
            n_layers=config["n_layers"],
            n_heads=config["n_heads"],
            k_interests=config["k_interests"],
            hidden_size=width,
            seq_len=config["MAX_ITEM_LIST_LENGTH"],
            inner_size=config["inner_size"],
            hidden_dropout_prob=dropout,
            attn_dropout_prob=config["attn_dropout_prob"],
            hidden_act=config["hidden_act"],
            layer_norm_eps=eps,
        )

    def forward(self, x: Tensor, positions: Tensor, real: Tensor) -> Tensor:
        """Items of windows [B, L, d], positions [L, d], and where items are, bool [B, L], to states [B, L, d]."""
        x, lengths = self.dropout(self.norm(x)), real.sum(dim=1)
        if torch.compiler.is_compiling():  # a graph has no loops over its data
            for layer in self.encoder.layer:
                x = layer.feed_forward(attend(layer.multi_head_attention, x, positions, real))
            return x
        if not len(x):
            return x  # a process without rows
        order, parts = lengths.argsort(stable=True), []
        sizes, counts = lengths.unique(return_counts=True)
        for size, rows in zip(sizes.tolist(), order.split(counts.tolist()), strict=True):
            states = self.encoder(x[rows, :size], positions[:size], output_all_encoded_layers=False)[-1]
            parts.append(F.pad(states, (0, 0, 0, x.shape[1] - size)))
        return torch.cat(parts)[order.argsort()]


def attend(layer: Any, x: Tensor, positions: Tensor, real: Tensor) -> Tensor:
    """RecBole's ``LightMultiHeadAttention`` in evaluation, in which padding takes no part; arguments as above."""
    absent, split, root = ~real[..., None], layer.transpose_for_scores, math.sqrt(layer.attention_head_size)
    value = layer.value(x)  # [B, L, d]
    keys = _interests(layer.key(x), layer.attpooling_key.theta, absent)
    values = _interests(value, layer.attpooling_value.theta, absent)
    scores = split(layer.query(x)) @ split(keys).mT / root  # [B, h, L, k]
    mixed = scores.masked_fill(absent[:, None], -torch.inf).softmax(dim=-2) @ split(values)
    place = layer.pos_ln(positions)[None]
    scores = split(layer.pos_q_linear(place)) * layer.pos_scaling @ split(layer.pos_k_linear(place)).mT / root
    weights = scores.masked_fill(absent[:, None], -torch.inf).softmax(dim=-2)  # [B, h, L, L]
    mixed = mixed + weights @ split(value.masked_fill(absent, 0))
    return layer.LayerNorm(layer.dense(mixed.transpose(1, 2).flatten(2)) + x)


def _interests(x: Tensor, theta: Tensor, absent: Tensor) -> Tensor:
    """Items [B, L, d] to latent interests [B, k, d], without those at ``absent`` positions, [B, L, 1]."""
    return (x @ theta).masked_fill(absent, -torch.inf).softmax(dim=-2).mT @ x
