"""NOVA: non-invasive self-attention for side information fusion in sequential recommendation (Liu et al., AAAI 2021).

Symbols in comments: N items, B windows, L positions, d width, M modalities.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from recbole.utils import InputType
from torch import Tensor, nn

from recbole_xfer.data.dataset import TARGETS, TransferDataset
from recbole_xfer.layers.dropout import Dropout, attention
from recbole_xfer.layers.encoder import FeedForward, init_as_sasrec
from recbole_xfer.layers.projection import FeatureEmbedding
from recbole_xfer.model.base import (
    ContentRecommender,
    DotProductRecommender,
    candidate_sampler,
    has_sparse_tables,
    look_up,
)


class Fusor(nn.Module):
    """F: fuses the representation of an item with its side information.

    Args:
        kind: ``add`` sums; ``concat`` projects all side by side; ``gating`` sums, each times its own gate.
        parts: how many are fused.
        width: d.
    """

    def __init__(self, kind: str, parts: int, width: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "concat":
            self.project = nn.Linear(parts * width, width)
        if kind == "gating":
            self.gate = nn.Linear(width, 1, bias=False)  # W^F

    def forward(self, parts: Tensor) -> Tensor:
        """[B, L, parts, d] to [B, L, d]"""
        if self.kind == "concat":
            return self.project(parts.flatten(-2))
        return (self.gate(parts).sigmoid() * parts if self.kind == "gating" else parts).sum(dim=-2)


class NonInvasiveAttention(nn.Module):
    """Multi-head self-attention, followed by a residual and layer normalisation; side information is in no value.

    Args:
        config: reads ``fusor`` and what :class:`~recbole_xfer.layers.encoder.CausalEncoder` reads.
        parts: how many representations are fused.
    """

    def __init__(self, config: Any, parts: int) -> None:
        super().__init__()
        width = config["hidden_size"]
        self.heads = config["n_heads"]
        self.attention_dropout = config["attn_dropout_prob"]
        self.fusor = Fusor(config["fusor"], parts, width)
        self.query_key = nn.Linear(width, 2 * width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(config["hidden_dropout_prob"])
        self.norm = nn.LayerNorm(width, eps=float(config["layer_norm_eps"]))

    def forward(self, x: Tensor, side: Tensor) -> Tensor:
        """Items [B, L, d] with side information [B, L, M + 1, d] to [B, L, d]."""
        fused = self.fusor(torch.cat([x[..., None, :], side], dim=-2))
        query, key = self.query_key(fused).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        value = self.value(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        mixed = attention(query, key, value, share=self.attention_dropout if self.training else 0.0)
        return self.norm(x + self.dropout(self.out(mixed.transpose(1, 2).flatten(2))))


class NOVA(ContentRecommender, DotProductRecommender):
    """A transformer over item embeddings, whose attention alone reads texts, pictures, prices and positions.

    Queries and keys are those of F(item, side information), in every layer anew; values are those of the items. So side
    information decides how much of an item is read, and never what is read. Items are ranked by their embeddings.

    Deviation: the attention is causal and trained at all positions, where NOVA-BERT masks items and looks both ways.
    Deviation: side information is vectors and prices, through a linear layer, where the paper embeds categories; a
    missing one is zero. The sigma of the gates is read as the sigmoid.

    Args:
        config: reads ``fusor``, ``hidden_size``, ``n_layers``, ``initializer_range`` and what the layers read.
    """

    input_type = InputType.POINTWISE
    shares_batches: ClassVar[bool] = True

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        width, eps, dropout = config["hidden_size"], float(config["layer_norm_eps"]), config["hidden_dropout_prob"]
        self.item_embedding = nn.Embedding(self.n_items, width, sparse=has_sparse_tables(config))
        self.position_embedding = nn.Embedding(self.max_seq_length, width)
        self.side = FeatureEmbedding(config, self.features)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.dropout = Dropout(dropout)
        parts = 2 + len(self.features.modalities)  # with the item and its position
        self.attentions = nn.ModuleList(NonInvasiveAttention(config, parts) for _ in range(config["n_layers"]))
        self.feed_forwards = nn.ModuleList(
            FeedForward(width, config["inner_size"], config["hidden_act"], dropout, eps) for _ in self.attentions
        )
        init_as_sasrec(self, config["initializer_range"])
        self.candidates = candidate_sampler(config, dataset)

    def encode_items(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Items [N] to their modalities side by side, [N, M * d]."""
        return self.side(self.features, ids).transpose(0, 1).flatten(1), {}

    def encode(self, items: Tensor) -> Tensor:
        """Windows [B, L] to the state at every position, [B, L, d], with modalities from the catalogue."""
        return self.encode_states(items, self.catalogue()[items])

    def encode_states(self, items: Tensor, modalities: Tensor) -> Tensor:
        """Windows [B, L] whose items have modalities [B, L, M * d] to states, [B, L, d]."""
        x = self.dropout(self.norm(self.item_embedding(items)))
        position = self.position_embedding.weight[: items.shape[1]].expand_as(x)
        side = torch.cat([position, modalities], dim=-1).unflatten(-1, (-1, x.shape[-1]))
        for attend, feed_forward in zip(self.attentions, self.feed_forwards, strict=True):
            x = feed_forward(attend(x, side))
        return x

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Cross-entropy of the next item at every position with a target."""
        items, targets = interaction[self.ITEM_SEQ], interaction[TARGETS]  # [B, L]
        ids = items.unique()
        ids = ids[ids > 0]
        modalities = look_up(items, ids, self.encode_items(ids)[0])
        return self.cross_entropy(self.encode_states(items, modalities)[targets > 0], items, targets)
