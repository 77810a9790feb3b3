"""ANT: multi-modality meets re-learning, against negative transfer in sequential recommendation (Peng et al.).

Symbols in comments: N items, B windows, L positions, d width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.layers.encoder import CausalEncoder
from recbole_xfer.layers.items import SCALING, FeatureTables
from recbole_xfer.layers.losses import cosine_cross_entropy
from recbole_xfer.layers.projection import ExpertProjection, PriceEmbedding
from recbole_xfer.model.base import FeatureRecommender, Step
from recbole_xfer.processes import own


class ItemRepresentation(nn.Module):
    """IRL of section 4.1: item vectors from text, image and price."""

    def __init__(self, config: Any, features: FeatureTables) -> None:
        super().__init__()
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

    def forward(self, features: FeatureTables, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Items [N] to their representations [N, d] and each modality's transformed embedding z [N, d]."""
        z = {name: self._transformed(name, features, ids) for name in features.modalities}
        item = torch.stack(list(z.values())).sum(dim=0)
        if self.beta and "text" in z and "image" in z:
            item = item + self.beta * z["text"] * z["image"]  # Eq. 8 and 9
        return item, z

    def _transformed(self, name: str, features: FeatureTables, ids: Tensor) -> Tensor:
        """Eq. 4 to 7; a missing modality is zero after its projection, whose shift would make it a constant."""
        vectors = features.rows(name, ids)
        if name == "price":
            vectors = self.price_embedding(vectors)  # Eq. 3
        return self.projections[name](vectors) * features.present(name, ids)[:, None]


class ANT(FeatureRecommender):
    """Pre-trained on other domains, re-learned on the target (Eq. 1 to 19).

    Eq. 1 and 2 precede a run: ``recbole-xfer encode`` writes text vectors, and the user provides image vectors as
    ``<dataset>.image.parquet``. The parameters of Eq. 10 are ``item_representation``; of Eq. 12, ``user_model`` and
    ``position_embedding``. Eq. 13 and 16 are ``next_item_loss``, and Eq. 17 is the cosine that items are ranked by.

    Deviation: a missing text, image or price gives zero after its projection, and an item without text or image is
    left out of Eq. 14. Deviation: new embeddings of positions and items are drawn with standard deviation 0.02, not 1.
    Deviation: sums over a batch are means, so that lambda does not depend on the batch size. Deviation: NDCG@10 chooses
    the epoch, where the paper uses Recall@10. Deviation: histories of more than 50 items are trained whole, in several
    windows; the paper keeps the last 50. Above ``catalogue_chunk`` items, Eq. 14 covers the batch's items, not all.
    """

    shares_batches: ClassVar[bool] = True
    # Section 4.4; item embeddings are always trained (Eq. 19).
    kept: ClassVar = {
        "relearn": ("user_model.",),
        "finetune": ("user_model.", "position_embedding.", "item_representation.", "content_start.", *SCALING),
    }
    frozen: ClassVar = {"relearn": ("user_model.",), "finetune": ("user_model.", "position_embedding.")}

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        self.alignment_weight = float(config["alignment_weight"])
        self.item_representation = ItemRepresentation(config, self.features)
        self.user_model = CausalEncoder(config)

    def encode_items(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Items [N] to their vectors [N, d] (Eq. 9, or Eq. 18 with item embeddings) and each modality's z [N, d]."""
        item, z = self.item_representation(self.features, ids)
        if self.item_embedding is not None:
            item = item + self.item_embedding(ids)  # Eq. 18
        return item, z

    def encode_states(self, embedded: Tensor, real: Tensor) -> Tensor:
        """Histories M (Eq. 11) with positions to intents at every position (Eq. 12): [B, L, d] to [B, L, d]."""
        return self.user_model(embedded, real)

    def encode_at(self, position: Tensor, items: Tensor) -> Tensor:
        """See :meth:`~recbole_xfer.model.base.VectorRecommender.encode_at`."""
        return self.user_model.at(position, self.embed(items), items > 0)

    def calculate_loss(self, interaction: Interaction) -> Tensor | tuple[Tensor, ...]:
        """Eq. 13 or 16, and lambda times Eq. 14 where lambda is not 0 (Eq. 15)."""
        step = self.encode_step(interaction)
        loss = self.next_item_loss(step)
        if self.alignment_weight and {"text", "image"} <= step.parts.keys():
            return loss, self.alignment_weight * self._alignment_loss(step)
        return loss

    def _alignment_loss(self, step: Step) -> Tensor:
        """Eq. 14 over the step's items that have a text and an image."""
        both = self.features.present("text", step.ids) & self.features.present("image", step.ids)
        text, image = step.parts["text"][both], step.parts["image"][both]
        if not len(text):
            return step.table.sum() * 0
        rows = own(len(text))  # every process has all items of the batch
        return cosine_cross_entropy(
            image[rows], text, torch.arange(len(text), device=text.device)[rows], self.temperature
        )
