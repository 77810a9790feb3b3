"""RETR: recommender transformers with behaviour pathways (Yao et al.).

Symbols in comments: B windows, L positions, T targets, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.collectives import mean
from recbole_xfer.data.dataset import NEGATIVES, TARGETS, TransferDataset
from recbole_xfer.hooks import Inspection
from recbole_xfer.layers.encoder import CausalEncoder, init_as_sasrec
from recbole_xfer.layers.losses import precise
from recbole_xfer.layers.pathway import PathwayEncoder, kept_fractions
from recbole_xfer.model.base import DotProductRecommender, candidate_sampler, has_sparse_tables


class RETR(DotProductRecommender):
    """A causal transformer whose attention is routed through a user's pivotal behaviours (Eq. 1 to 8).

    With ``pathway: False`` it is SASRec; without ``repeat_bias``, and with the weights of RecBole's SASRec, it gives
    RecBole's scores.

    Deviation: the loss is a mean over targets, not their sum, so that it does not depend on the batch size. Deviation:
    Z^0 is X_s normalised and with dropout, as in SASRec, where section 3.1 has X_s itself.
    """

    shares_batches: ClassVar[bool] = True
    explainable: ClassVar = True

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        self.loss_type = config["loss_type"]
        width = config["hidden_size"]
        sparse = has_sparse_tables(config)
        self.item_embedding = nn.Embedding(self.n_items, width, padding_idx=0, sparse=sparse)  # E_I
        self.position_embedding = nn.Embedding(self.max_seq_length, width)  # P_s
        self.encoder = PathwayEncoder(config) if config["pathway"] else CausalEncoder(config)
        init_as_sasrec(self, config["initializer_range"])
        self.candidates = candidate_sampler(config, dataset)

    @torch.no_grad()
    def load_sasrec(self, weights: Mapping[str, Tensor]) -> None:
        """Loads the parameters of RecBole's SASRec of the same sizes; routers keep theirs."""
        self.item_embedding.weight.copy_(weights["item_embedding.weight"])
        self.position_embedding.weight.copy_(weights["position_embedding.weight"])
        self.encoder.load_sasrec(weights)

    def embed(self, items: Tensor) -> Tensor:
        """X_s = E_s + P_s: items [B, L] to [B, L, d]."""
        return self.item_embedding(items) + self.position_embedding.weight[: items.shape[1]]

    def encode(self, items: Tensor) -> Tensor:
        """Items [B, L] to states Z^L [B, L, d]; an item k scores e_k Z^L_t."""
        return self.encoder(self.embed(items), items > 0)

    def encode_at(self, position: Tensor, items: Tensor) -> Tensor:
        """See :meth:`~recbole_xfer.model.base.VectorRecommender.encode_at`."""
        return self.encoder.at(position, self.embed(items), items > 0)

    def inspect(self, items: Tensor) -> Inspection:
        """See :meth:`~recbole_xfer.hooks.Hooks.inspect`."""
        return self.encoder.inspect(self.embed(items))

    def epoch_scalars(self) -> dict[str, float]:
        """The fraction of behaviours that each block kept."""
        return kept_fractions(self)

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Eq. 8, or cross-entropy over all items or sampled ones, at every position with a target."""
        items, targets = interaction[self.ITEM_SEQ], interaction[TARGETS]  # [B, L]
        real = targets > 0
        users = self.encode(items)[real]  # [T, d]
        if self.loss_type == "CE":
            return self.cross_entropy(users, items, targets)
        ahead = self.item_embedding(targets[real]) - self.item_embedding(interaction[NEGATIVES][real])
        return -mean(F.logsigmoid(precise((users * ahead).sum(dim=-1))))
