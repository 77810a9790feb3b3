"""CARCA: context and attribute-aware sequential recommendation via cross-attention (Rashed et al., RecSys 2022).

Symbols in comments: N items, B windows, L positions, T targets, C candidates, d width, h heads.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.collectives import mean
from recbole_xfer.data.dataset import NEGATIVES, TARGETS, TransferDataset
from recbole_xfer.layers.dropout import attention
from recbole_xfer.layers.encoder import CausalEncoder, in_groups, init_as_sasrec
from recbole_xfer.layers.losses import FEWEST_ROWS, TILE, precise
from recbole_xfer.layers.projection import FeatureEmbedding
from recbole_xfer.model.base import ContentRecommender, candidate_sampler, look_up

Profile = tuple[Tensor, Tensor]
"""Keys and values of the items of histories, [B, h, L, d/h] each."""


class CARCA(ContentRecommender):
    """Every candidate reads the whole history by cross-attention, so that a score is not a product of two vectors.

    An item is z = W [e; q] + b of its embedding e and its attributes q, which are text, image and price through a
    linear layer. Self-attention over the items of a history gives the profile. A candidate z_c attends to it, and
    scores w (z_c * A(z_c)) + b'. The product is the residual connection; w starts at 1, so that the score starts as a
    dot product. The loss is the paper's binary cross-entropy with one negative for each target (``BCE``), or
    cross-entropy over all items or sampled ones, as ANT's authors train it (``CE``).

    Deviation: there are no contexts of interactions, such as their time. Positions take their place; the paper has
    none. Deviation: the blocks are SASRec's, with their order of normalisation and their activation, and queries, keys
    and values are linear. Deviation: the profile is causal also where a candidate is ranked, as in training at all
    positions.
    """

    input_type = InputType.PAIRWISE
    loss_types: ClassVar[tuple[str, ...]] = ("BCE", "CE")
    shares_batches: ClassVar[bool] = True

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        width = config["hidden_size"]
        self.loss_type = config["loss_type"]
        self.heads = config["n_heads"]
        self.attention_dropout = config["attn_dropout_prob"]
        self.item_embedding = nn.Embedding(self.n_items, width)
        self.position_embedding = nn.Embedding(self.max_seq_length, width)
        self.attributes = FeatureEmbedding(config, self.features)
        self.join = nn.Linear(2 * width, width)
        self.encoder = CausalEncoder(config)
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.score = nn.Linear(width, 1)
        init_as_sasrec(self, config["initializer_range"])
        nn.init.ones_(self.score.weight)
        self.candidates = candidate_sampler(config, dataset)

    def encode_items(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Items [N] to z, [N, d]; a missing text, image or price adds nothing to q."""
        q = self.attributes(self.features, ids).sum(dim=0)
        return self.join(torch.cat([self.item_embedding(ids), q], dim=-1)), {}

    def encode(self, items: Tensor) -> Tensor:
        """Windows [B, L] to the states of their profiles, [B, L, d], with items from the catalogue."""
        return self.encode_states(self.catalogue()[items])

    def encode_states(self, embedded: Tensor) -> Tensor:
        """Items of windows to the states of their profiles, [B, L, d] to the same."""
        return self.encoder(embedded + self.position_embedding.weight[: embedded.shape[1]])

    def profile(self, states: Tensor) -> Profile:
        """States [B, L, d] as keys and values."""
        key, value = self.key_value(states).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return key, value

    def scores(self, candidates: Tensor, profile: Profile, seen: Tensor | None = None) -> Tensor:
        """Scores of candidates for histories, [B, C].

        Args:
            candidates: their z, [B, C, d], or [1, C, d] where all histories have the same.
            profile: of the histories.
            seen: where there are items, bool [B, L]; None if candidate t attends to the items up to position t.
        """
        key, value = profile
        query = self.query(candidates).unflatten(-1, (self.heads, -1)).transpose(1, 2).expand(len(key), -1, -1, -1)
        share = self.attention_dropout if self.training else 0.0
        mixed = attention(query, key, value, None if seen is None else seen[:, None, None], share)
        return self.score(candidates * mixed.transpose(1, 2).flatten(2)).squeeze(-1)

    # --- training --------------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The loss at every position with a target."""
        items, targets = interaction[self.ITEM_SEQ], interaction[TARGETS]  # [B, L]
        if self.loss_type == "CE":
            return self._cross_entropy(items, targets)
        return self._binary_cross_entropy(items, targets, interaction[NEGATIVES])

    def _binary_cross_entropy(self, items: Tensor, targets: Tensor, negatives: Tensor) -> Tensor:
        """That of the targets and of a negative for each, [B, L]."""
        ids, table, profile = self._encoded(items, torch.cat([targets, negatives]))
        own, other = (self.scores(look_up(some, ids, table), profile)[targets > 0] for some in (targets, negatives))
        return -mean(F.logsigmoid(precise(own)) + F.logsigmoid(-precise(other)))

    def _cross_entropy(self, items: Tensor, targets: Tensor) -> Tensor:
        """That of the targets among all items, or among sampled candidates."""
        if self.candidates is None:
            candidates, correction = torch.arange(1, self.n_items, device=items.device), None
            target = targets[targets > 0] - 1
        else:
            candidates, target, correction = self.candidates(targets)
        ids, table, profile = self._encoded(items, candidates)
        logits = self.scores_at_all_positions(look_up(candidates, ids, table), profile)[targets > 0]  # [T, C]
        if correction is not None:
            kept = logits.gather(1, correction.certain)
            logits = (logits - correction.log_q).scatter(1, correction.certain, kept)
        return mean(F.cross_entropy(logits, target, reduction="none"))

    def _encoded(self, items: Tensor, others: Tensor) -> tuple[Tensor, Tensor, Profile]:
        """The ids of the items of windows and of others, ascending, [N], their z, [N, d], and the windows' profile."""
        ids = torch.cat([items.flatten(), others.flatten()]).unique()
        ids = ids[ids > 0]
        table = self.encode_items(ids)[0]
        return ids, table, self.profile(self.encode_states(look_up(items, ids, table)))

    def scores_at_all_positions(self, candidates: Tensor, profile: Profile) -> Tensor:
        """Scores [B, L, C] of candidates [C, d] for the history up to each position.

        Neither the weight of an item before normalisation nor what a candidate reads there depends on the position, so
        that a softmax over each prefix is a ratio of cumulative sums: two matrix products, and no [L, L] by candidate.
        """
        query, reads = (
            vectors.unflatten(-1, (self.heads, -1)).transpose(0, 1)  # [h, C, d/h]
            for vectors in (self.query(candidates), candidates * self.score.weight)
        )
        key, value = profile
        logits = precise(key @ query.mT / math.sqrt(query.shape[-1]))  # [B, h, L, C]
        weight = (logits - logits.detach().amax(dim=2, keepdim=True)).exp()
        read = F.dropout(weight, self.attention_dropout, self.training) * precise(value @ reads.mT)
        total = weight.cumsum(dim=2).clamp(min=torch.finfo(weight.dtype).tiny)  # may underflow before the largest one
        return (read.cumsum(dim=2) / total).sum(dim=1) + self.score.bias

    # --- ranking ---------------------------------------------------------------------------------------------------

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of all items, [B, n_items]."""
        return self._ranked(interaction, self._tiles)

    def predict(self, interaction: Interaction) -> Tensor:
        """The score of one item per row, [B]."""
        item = self.catalogue()[interaction[self.ITEM_ID]][:, None]  # [B, 1, d]
        return self._ranked(interaction, lambda rows, *history: self.scores(item[rows], *history)).squeeze(-1)

    @torch.no_grad()
    def _ranked(self, interaction: Interaction, score: Callable[[Tensor, Profile, Tensor], Tensor]) -> Tensor:
        """Scores [B, C]: those of ``score`` for some rows, their profiles, and where there are items, [b, C]."""

        def of_rows(items: Tensor, rows: Tensor) -> Tensor:
            return score(rows, self.profile(self.encode(items)), items > 0)

        return in_groups(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], of_rows)

    def _tiles(self, rows: Tensor, profile: Profile, seen: Tensor) -> Tensor:
        """Scores of all items, [b, n_items]; memory is bounded by the weights and the sums of a tile of items."""
        of_one = max(len(seen), 1) * max(self.heads * seen.shape[1], self.query.out_features)
        size = max(FEWEST_ROWS, TILE.get(seen.device.type, TILE["cuda"]) // of_one)
        tiles = self.catalogue()[None].split(size, dim=1)
        return torch.cat([self.scores(tile, profile, seen) for tile in tiles], dim=1)
