"""ContentKNN: nearest neighbours of item content, without training."""

from __future__ import annotations

from typing import Any, ClassVar

from recbole.utils import InputType
from torch import Tensor

from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.layers.content import Content
from recbole_xfer.model.base import ContentRecommender, VectorRecommender


class ContentKNN(ContentRecommender, VectorRecommender):
    """Ranks items by their likeness to the history: what texts, pictures and prices tell without any training.

    A score is the mean over modalities of the cosine of the item's vector and the history's, which is the sum of its
    items' vectors of length 1 with weights ``decay ** steps back``. A missing modality adds nothing.

    Args:
        config: reads ``decay``, ``price_weight``, ``price_size`` and ``price_frequency``.
    """

    input_type = InputType.POINTWISE
    shares_batches: ClassVar[bool] = True  # it has no loss

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        self.decay = config["decay"]
        self.content = Content(config, self.features)

    @property
    def inductive(self) -> bool:
        """Items are known by their content alone."""
        return True

    def encode_items(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Items [N] to their content, [N, D]."""
        return self.content(self.features, ids), {}

    def encode(self, items: Tensor) -> Tensor:
        """Windows [B, L] to the content of the history at every position, [B, L, D]."""
        return self.content.of_histories(self.catalogue()[items], self.decay)

    def item_vectors(self, ids: Tensor | None = None) -> Tensor:
        """See :meth:`~recbole_xfer.model.base.VectorRecommender.item_vectors`."""
        return self.catalogue() if ids is None else self.catalogue()[ids]
