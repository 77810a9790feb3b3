"""What models share: a ranking by dot products with item embeddings, or with item vectors computed from features.

Symbols in comments: N items, B windows, L positions, T targets, C candidates, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.data.batches import WindowDataLoader
from recbole_xfer.data.dataset import TARGETS, TransferDataset
from recbole_xfer.errors import XferError
from recbole_xfer.layers.encoder import last_states
from recbole_xfer.layers.items import FeatureTables
from recbole_xfer.layers.losses import chunked_cosine_cross_entropy, cosine_cross_entropy

EMBEDDING_RANGE = 0.02
"""Standard deviation of new embeddings, as in SASRec; PyTorch's default of 1 drowns what comes from features."""


@dataclass(frozen=True)
class Step:
    """A training step's windows with every item that they need, encoded once.

    Attributes:
        items: windows, [B, L]; 0 is padding.
        targets: the item behind each position, [B, L]; 0 is none.
        ids: the items that were encoded, [N].
        table: their vectors, [N, d].
        parts: vectors of their parts, such as each modality's, [N, d].
        row: row of the table of each item id, [n_items].
        users: states at the positions with a target, [T, d].
    """

    items: Tensor
    targets: Tensor
    ids: Tensor
    table: Tensor
    parts: dict[str, Tensor]
    row: Tensor
    users: Tensor


class DotProductRecommender(SequentialRecommender):
    """Scores items by the dot product of their embeddings and the state at a history's last item.

    A subclass defines :meth:`encode`.
    """

    loader: ClassVar = WindowDataLoader
    """Makes the batches that the model is trained on."""
    item_embedding: nn.Embedding

    def encode(self, items: Tensor) -> Tensor:
        """Windows [B, L] to the state at every position, [B, L, d]."""
        raise NotImplementedError

    @property
    def item_table(self) -> nn.Embedding:
        """The embeddings that are ranked."""
        return self.item_embedding

    @torch.no_grad()
    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Histories [B, L] of given lengths [B] to users [B, d]."""
        return last_states(item_seq, item_seq_len, self.encode)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of all items, [B, n_items]."""
        users = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return users @ self.item_table.weight.T

    def predict(self, interaction: Interaction) -> Tensor:
        """The score of one item each, [B]."""
        users = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return (users * self.item_table(interaction[self.ITEM_ID])).sum(dim=-1)


class FeatureRecommender(SequentialRecommender):
    """Scores items by the cosine of their vectors and the user's state; trained at the positions of windows.

    Each item is encoded once a step, and the catalogue once an evaluation pass.

    A subclass defines :meth:`encode_items` and :meth:`encode_states`, and says what an adaptation keeps.

    Args:
        config: reads ``temperature``, ``negatives``, ``catalogue_chunk``, ``item_embedding`` and ``hidden_size``.
    """

    input_type = InputType.POINTWISE
    loader: ClassVar = WindowDataLoader

    kept: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """For each adaptation, how the names of the parameters begin that are taken from the pre-trained model."""
    frozen: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """For each adaptation, how the names of the parameters begin that are not trained."""
    encoder_keys: ClassVar[tuple[str, ...]] = ("n_heads", "hidden_act", "layer_norm_eps")
    """Keys that change what an encoder computes, and no shape of its parameters."""

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        self.temperature = config["temperature"]
        self.negatives = config["negatives"]
        self.chunk = config["catalogue_chunk"]
        self.width = config["hidden_size"]
        self.features = FeatureTables(dataset.features)
        self.position_embedding = self._new_embedding(self.max_seq_length)
        self.item_embedding = self._new_embedding(self.n_items) if config["item_embedding"] else None
        self._catalogue: Tensor | None = None

    def _new_embedding(self, count: int) -> nn.Embedding:
        embedding = nn.Embedding(count, self.width)
        nn.init.normal_(embedding.weight, std=EMBEDDING_RANGE)
        return embedding

    @property
    def inductive(self) -> bool:
        """Whether items are known by their features alone, so that others than in training can be ranked."""
        return self.item_embedding is None

    # --- items and users -------------------------------------------------------------------------------------------

    def encode_items(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Items [N] to their vectors [N, d], and to the vectors [N, d] of their parts."""
        raise NotImplementedError

    def encode_states(self, embedded: Tensor, real: Tensor) -> Tensor:
        """Items of windows with their positions, [B, L, d], to states at every position, [B, L, d]; see below."""
        raise NotImplementedError

    def encode_users(self, embedded: Tensor, real: Tensor) -> Tensor:
        """Items of windows, [B, L, d], to states at every position, [B, L, d].

        Args:
            embedded: the items' vectors, zero at padding.
            real: where there are items, bool [B, L]; of use to an encoder that also looks ahead.
        """
        return self.encode_states(embedded + self.position_embedding.weight[: embedded.shape[1]], real)

    # --- training --------------------------------------------------------------------------------------------------

    def encode_step(self, interaction: Interaction) -> Step:
        """Encodes every item that the step needs once, into a table that histories and candidates are looked up in."""
        items, targets = interaction[self.ITEM_SEQ], interaction[TARGETS]
        ids = torch.arange(1, self.n_items, device=items.device) if self._whole else _different(items, targets)
        table, parts = self.encode_items(ids)
        row = torch.zeros(self.n_items, dtype=torch.long, device=items.device)
        row[ids] = torch.arange(len(ids), device=items.device)
        users = self.encode_users(self.look_up(items, row, table), items > 0)[targets > 0]
        return Step(items, targets, ids, table, parts, row, users)

    @property
    def _whole(self) -> bool:
        """Whether a step encodes the whole catalogue."""
        return self.negatives == "full" and self.n_items <= self.chunk

    @staticmethod
    def look_up(items: Tensor, row: Tensor, table: Tensor) -> Tensor:
        """Windows [B, L] looked up in a step's table, zero at padding, [B, L, d]."""
        return F.embedding(row[items], table) * (items > 0)[..., None]

    def next_item_loss(self, step: Step) -> Tensor:
        """Cross-entropy of the next item among the whole catalogue, or the batch's targets."""
        if self.negatives == "in_batch":
            return self._in_batch_loss(step)
        target = step.targets[step.targets > 0]
        if self._whole:
            return cosine_cross_entropy(step.users, step.table, step.row[target], self.temperature)
        chunks = torch.arange(1, self.n_items, device=target.device).split(self.chunk)
        encode = lambda ids: self.encode_items(ids)[0]  # noqa: E731
        return chunked_cosine_cross_entropy(step.users, target, encode, chunks, self.temperature)

    def _in_batch_loss(self, step: Step) -> Tensor:
        """The batch's targets as candidates; what stands in a user's own window is no negative."""
        real = step.targets > 0
        candidates, own = step.targets[real].unique(return_inverse=True)  # [C], [T]
        column = torch.full_like(step.row, len(candidates))  # a last column takes what is no candidate
        column[candidates] = torch.arange(len(candidates), device=own.device)
        in_window = torch.zeros(len(step.items), len(candidates) + 1, dtype=torch.bool, device=own.device)
        in_window.scatter_(1, column[torch.cat([step.items, step.targets], dim=1)], True)
        excluded = in_window[real.nonzero()[:, 0], :-1]  # [T, C]
        excluded[torch.arange(len(own), device=own.device), own] = False
        return cosine_cross_entropy(step.users, step.table[step.row[candidates]], own, self.temperature, excluded)

    # --- ranking ---------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> FeatureRecommender:
        """Switches the mode; the catalogue encoded for an evaluation pass is forgotten."""
        self._catalogue = None
        return super().train(mode)

    @torch.no_grad()
    def catalogue(self) -> Tensor:
        """Vectors of all items by id, [n_items, d]; row 0, the padding, is zero. Encoded once an evaluation pass."""
        if self._catalogue is None or self.training:
            ids = torch.arange(1, self.n_items, device=self.position_embedding.weight.device)
            parts = [self.encode_items(chunk)[0] for chunk in ids.split(self.chunk)]
            self._catalogue = F.pad(torch.cat(parts), (0, 0, 1, 0))
        return self._catalogue

    def embed(self, items: Tensor) -> Tensor:
        """Windows [B, L] with their positions, [B, L, d], from the catalogue."""
        return self.catalogue()[items] + self.position_embedding.weight[: items.shape[1]]

    @torch.no_grad()
    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Histories [B, L] of given lengths [B] to unit user vectors [B, d]."""
        encode = lambda items: self.encode_users(self.catalogue()[items], items > 0)  # noqa: E731
        return F.normalize(last_states(item_seq, item_seq_len, encode), dim=-1)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Cosine with every item, [B, n_items]."""
        users = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return users @ F.normalize(self.catalogue(), dim=-1).T

    def predict(self, interaction: Interaction) -> Tensor:
        """Cosine with one item each, [B]."""
        users = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        items = F.normalize(self.catalogue()[interaction[self.ITEM_ID]], dim=-1)
        return (users * items).sum(dim=-1)

    # --- adaptation ------------------------------------------------------------------------------------------------

    def adapt(self, pretrained: Mapping[str, Tensor], adaptation: str) -> None:
        """Takes over the parts of a pre-trained model that ``kept`` names, and stops training those in ``frozen``.

        Raises:
            XferError: if a parameter that is kept has another shape.
        """
        kept = self.kept[adaptation]
        taken = {name: value for name, value in pretrained.items() if name.startswith(kept)}
        own = {name: value for name, value in self.state_dict().items() if name.startswith(kept)}
        for name in own.keys() | taken.keys():
            theirs, ours = (tuple(s[name].shape) if name in s else "none" for s in (taken, own))
            if theirs != ours:
                without = [other for other, names in self.kept.items() if not name.startswith(names)]
                raise XferError(
                    f"The pre-trained model does not fit: {name} has the shape {theirs}, this configuration {ours}. "
                    f"Use the sizes and modalities it was pre-trained with"
                    f"{''.join(f', or --adaptation={other}' for other in without)}."
                )
        self.load_state_dict(taken, strict=False)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.startswith(self.frozen[adaptation]))


def _different(*ids: Tensor) -> Tensor:
    """The different item ids in some tensors, without the padding, [N]."""
    different = torch.cat([part.flatten() for part in ids]).unique()
    return different[different > 0]
