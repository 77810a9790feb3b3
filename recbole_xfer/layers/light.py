"""LightSANs' encoder (Fan et al., SIGIR 2021), as RecBole has it, for windows of any length.

Symbols in comments: B windows, L positions, d width.
"""

from __future__ import annotations

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
        order, parts = lengths.argsort(stable=True), []
        sizes, counts = lengths.unique(return_counts=True)
        for size, rows in zip(sizes.tolist(), order.split(counts.tolist()), strict=True):
            states = self.encoder(x[rows, :size], positions[:size], output_all_encoded_layers=False)[-1]
            parts.append(F.pad(states, (0, 0, 0, x.shape[1] - size)))
        return torch.cat(parts)[order.argsort()]
