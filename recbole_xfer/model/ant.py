"""ANT: multi-modality meets re-learning, against negative transfer in sequential recommendation (Peng et al.).

Symbols in comments: N items, B windows, L positions, T targets, d width.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.data.dataset import TARGETS, TransferDataset
from recbole_xfer.errors import XferError
from recbole_xfer.layers.encoder import CausalEncoder, last_states
from recbole_xfer.layers.items import FeatureTables
from recbole_xfer.layers.losses import chunked_cosine_cross_entropy, cosine_cross_entropy, precise
from recbole_xfer.layers.projection import ExpertProjection, PriceEmbedding

POSITION_RANGE = 0.02
"""Standard deviation of new position embeddings, as in SASRec; PyTorch's default of 1 drowns the items."""


class ItemRepresentation(nn.Module):
    """IRL of section 4.1: item vectors from text, image and price."""

    def __init__(self, config: Any, features: FeatureTables) -> None:
        super().__init__()
        self.features = features
        self.beta = config["fusion_weight"] if config["fusion"] else 0.0
        self.price_embedding = PriceEmbedding(config["price_size"], config["price_frequency"])
        sizes = features.sizes() | {"price": config["price_size"]}
        self.projections = nn.ModuleDict(
            {
                name: ExpertProjection(
                    sizes[name],
                    config["hidden_size"],
                    config["projection_heads"],
                    whiten=name != "price",
                    mixture=config["mixture_of_experts"],
                    dropout=config["projection_dropout"],
                )
                for name in features.modalities
            }
        )

    def forward(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Items [N] to their representations [N, d] and the transformed embedding z [N, d] of each modality."""
        z = {name: self._transformed(name, ids) for name in self.features.modalities}
        item = torch.stack(list(z.values())).sum(dim=0)
        if self.beta and "text" in z and "image" in z:
            item = item + self.beta * z["text"] * z["image"]  # Eq. 8 and 9
        return item, z

    def _transformed(self, name: str, ids: Tensor) -> Tensor:
        """Eq. 4 to 7; a missing modality is zero behind the projection, since a shift would make it a constant."""
        vectors = self.features.rows(name, ids)
        if name == "price":
            vectors = self.price_embedding(vectors)  # Eq. 3
        return self.projections[name](vectors) * self.features.present(name, ids)[:, None]


class ANT(SequentialRecommender):
    """Pre-trained on other domains, re-learned on the target (Eq. 1 to 19).

    Eq. 1 and 2, the text and image vectors, are made before (``recbole-xfer encode``). The parameters of Eq. 10 are
    ``item_representation``; of Eq. 12, ``user_model`` and ``position_embedding``.

    Deviation: a missing text, image or price gives zero after its projection, and an item without text or image is
    left out of Eq. 14. Deviation: new position embeddings are drawn with standard deviation 0.02, not 1.
    Deviation: sums over a batch are means, so that lambda does not depend on the batch size.
    """

    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        self.temperature = config["temperature"]
        self.alignment_weight = float(config["alignment_weight"])
        self.negatives = config["negatives"]
        self.chunk = config["catalogue_chunk"]
        if self.negatives not in ("full", "in_batch"):
            raise XferError(f"negatives={self.negatives} must be 'full' or 'in_batch'.")
        self.config = config
        self.features = FeatureTables(dataset.features)
        self.item_representation = ItemRepresentation(config, self.features)
        self.position_embedding = self._new_positions()
        self.user_model = CausalEncoder(config)
        self.item_embedding = nn.Embedding(self.n_items, config["hidden_size"]) if config["item_embedding"] else None
        if self.item_embedding is not None:
            nn.init.normal_(self.item_embedding.weight, std=POSITION_RANGE)
        self._catalogue: Tensor | None = None

    def _new_positions(self) -> nn.Embedding:
        positions = nn.Embedding(self.max_seq_length, self.config["hidden_size"])
        nn.init.normal_(positions.weight, std=POSITION_RANGE)
        return positions

    # --- items and users -------------------------------------------------------------------------------------------

    def encode_items(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Items [N] to their vectors [N, d] (Eq. 9, or Eq. 18 with item embeddings) and each modality's z [N, d]."""
        item, z = self.item_representation(ids)
        if self.item_embedding is not None:
            item = item + self.item_embedding(ids)  # Eq. 18
        return item, z

    def encode_users(self, embedded: Tensor) -> Tensor:
        """Embedded histories M (Eq. 11) to intents at every position (Eq. 12): [B, L, d] to [B, L, d]."""
        return self.user_model(embedded + self.position_embedding.weight[: embedded.shape[1]])

    # --- training --------------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> Tensor | tuple[Tensor, ...]:
        """Eq. 13 or 16, and lambda times Eq. 14 where it is asked for (Eq. 15).

        Every item that the step needs is encoded once, into a table that histories and candidates are looked up in.
        """
        items, targets = interaction[self.ITEM_SEQ], interaction[TARGETS]  # [B, L]
        real = targets > 0
        whole = self.negatives == "full" and self.n_items <= self.chunk
        ids = torch.arange(1, self.n_items, device=items.device) if whole else _different(items, targets)
        table, z = self.encode_items(ids)  # [N, d]
        row = torch.zeros(self.n_items, dtype=torch.long, device=items.device)
        row[ids] = torch.arange(len(ids), device=items.device)

        embedded = F.embedding(row[items], table) * (items > 0)[..., None]
        users = self.encode_users(embedded)[real]  # [T, d]
        target = targets[real]  # [T]
        if self.negatives == "in_batch":
            loss = self._in_batch_loss(users, table, row, items, targets)
        elif whole:
            loss = cosine_cross_entropy(users, table, row[target], self.temperature)
        else:
            chunks = torch.arange(1, self.n_items, device=items.device).split(self.chunk)
            encode = lambda ids: self.encode_items(ids)[0]  # noqa: E731
            loss = chunked_cosine_cross_entropy(users, table[row[target]], encode, chunks, self.temperature)
        if self.alignment_weight and {"text", "image"} <= z.keys():
            return loss, self.alignment_weight * self._alignment_loss(z, ids)
        return loss

    def _in_batch_loss(self, users: Tensor, table: Tensor, row: Tensor, items: Tensor, targets: Tensor) -> Tensor:
        """Eq. 13 with the batch's targets as candidates; what stands in a user's own window is no negative."""
        real = targets > 0
        target = targets[real]
        candidates, own = target.unique(return_inverse=True)  # [C], [T]
        column = torch.full_like(row, len(candidates))  # a last column takes what is no candidate
        column[candidates] = torch.arange(len(candidates), device=row.device)
        in_window = torch.zeros(len(items), len(candidates) + 1, dtype=torch.bool, device=row.device)
        in_window.scatter_(1, column[torch.cat([items, targets], dim=1)], True)
        excluded = in_window[real.nonzero()[:, 0], :-1]  # [T, C]
        excluded[torch.arange(len(own), device=row.device), own] = False
        return cosine_cross_entropy(users, table[row[candidates]], own, self.temperature, excluded)

    def _alignment_loss(self, z: dict[str, Tensor], ids: Tensor) -> Tensor:
        """Eq. 14 over the step's items that have a text and an image."""
        both = self.features.present("text", ids) & self.features.present("image", ids)
        text, image = z["text"][both], z["image"][both]
        if not len(text):
            return z["text"].sum() * 0
        return cosine_cross_entropy(image, text, torch.arange(len(text), device=text.device), self.temperature)

    # --- ranking ---------------------------------------------------------------------------------------------------

    def train(self, mode: bool = True) -> ANT:
        """Switches the mode; the catalogue encoded for an evaluation pass is forgotten."""
        self._catalogue = None
        return super().train(mode)

    @torch.no_grad()
    def catalogue(self) -> Tensor:
        """Vectors of all items by id, [n_items, d]; row 0, the padding, is zero. Encoded once an evaluation pass."""
        if self._catalogue is None or self.training:
            ids = torch.arange(1, self.n_items, device=self.position_embedding.weight.device)
            parts = [precise(self.encode_items(chunk)[0]) for chunk in ids.split(self.chunk)]
            self._catalogue = F.pad(torch.cat(parts), (0, 0, 1, 0))
        return self._catalogue

    @torch.no_grad()
    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Histories [B, L] of given lengths [B] to unit user vectors [B, d]."""
        catalogue = self.catalogue()
        states = last_states(item_seq, item_seq_len, lambda items: self.encode_users(catalogue[items]))
        return F.normalize(precise(states), dim=-1)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Eq. 17 for every item, [B, n_items]."""
        users = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return users @ F.normalize(self.catalogue(), dim=-1).T

    def predict(self, interaction: Interaction) -> Tensor:
        """Eq. 17 for one item each, [B]."""
        users = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        items = F.normalize(self.catalogue()[interaction[self.ITEM_ID]], dim=-1)
        return (users * items).sum(dim=-1)

    # --- adaptation (section 4.4) ----------------------------------------------------------------------------------

    def adapt(self, pretrained: Mapping[str, Tensor], adaptation: str) -> None:
        """Takes over a pre-trained model.

        ``relearn`` keeps the user intent model, frozen, and learns new item representations and position embeddings;
        ``finetune`` keeps everything and trains the item representations; both train item embeddings (Eq. 19).

        Raises:
            XferError: if ``adaptation`` is neither, or a parameter that is kept has another shape.
        """
        kept = {"relearn": ("user_model.",), "finetune": ("user_model.", "position_embedding.", "item_representation.")}
        if adaptation not in kept:
            raise XferError(f"adaptation={adaptation} must be relearn, finetune or scratch.")
        taken = {name: value for name, value in pretrained.items() if name.startswith(kept[adaptation])}
        own = {name: value for name, value in self.state_dict().items() if name.startswith(kept[adaptation])}
        for name in own.keys() | taken.keys():
            theirs, ours = (tuple(s[name].shape) if name in s else "none" for s in (taken, own))
            if theirs != ours:
                raise XferError(
                    f"The pre-trained model does not fit: {name} has the shape {theirs}, this configuration {ours}. "
                    f"Use the sizes and modalities it was pre-trained with, or --adaptation=relearn."
                )
        self.load_state_dict(taken, strict=False)
        self.user_model.requires_grad_(False)
        self.position_embedding.requires_grad_(adaptation == "relearn")


def _different(*ids: Tensor) -> Tensor:
    """The different item ids in some tensors, without the padding, [N]."""
    different = torch.cat([part.flatten() for part in ids]).unique()
    return different[different > 0]
