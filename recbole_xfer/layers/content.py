"""The content of items and histories: the vectors by which nearest neighbours are found, without training.

Symbols in comments: N items, B windows, L positions, D width of all modalities side by side.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.layers.items import FeatureTables
from recbole_xfer.layers.projection import PriceEmbedding

RATE = 10.0
"""The factors of a start are learned this much faster than other parameters: with Adam, by this many learning rates."""

SCALE = 0.3
"""The cosines of content in a start, relative to learned cosines: a start without overconfident probabilities."""

ALIGNED = 16
"""The width is padded to a multiple of it: products of unaligned rows depend on the place of a row in its batch."""


class Content(nn.Module):
    """Each modality of an item as a vector of length 1, or zero where the item lacks it, side by side.

    Texts and pictures are the standardised vectors; a price is ANT's waves (Eq. 3) without their mean over items.

    Args:
        config: reads ``price_weight``, ``price_size`` and ``price_frequency``, if there are prices.
        features: of the items of training, whose mean of the price waves is kept.
    """

    price_center: Tensor
    weight: Tensor

    def __init__(self, config: Any, features: FeatureTables) -> None:
        super().__init__()
        self.sizes = {name: features.sizes().get(name, config["price_size"]) for name in features.modalities}
        self.padding = -sum(self.sizes.values()) % ALIGNED
        self.width = sum(self.sizes.values()) + self.padding
        weights = torch.tensor([float(config["price_weight"]) if name == "price" else 1.0 for name in self.sizes])
        self.register_buffer("weight", weights / weights.sum(), persistent=False)
        if "price" in self.sizes:
            self.price_waves = PriceEmbedding(config["price_size"], config["price_frequency"])
            waves = self.price_waves(features.price[features.price_present])
            self.register_buffer("price_center", waves.mean(dim=0))

    def forward(self, features: FeatureTables, ids: Tensor) -> Tensor:
        """Items [N] to their content, [N, D]."""
        parts = torch.cat([self._part(name, features, ids) for name in self.sizes], dim=-1)
        return F.pad(parts, (0, self.padding))

    def _part(self, name: str, features: FeatureTables, ids: Tensor) -> Tensor:
        vectors = features.rows(name, ids)
        if name == "price":
            vectors = self.price_waves(vectors) - self.price_center
        return F.normalize(vectors, dim=-1) * features.present(name, ids)[:, None]

    def of_histories(self, items: Tensor, decay: float) -> Tensor:
        """The content of the history at every position: a decayed sum of that of its items.

        Each modality has length 1 again, times its weight: a product with an item's content is a mean of cosines.

        Args:
            items: content of the items of windows, zero at padding, [B, L, D].
            decay: weight of an item relative to the next one.

        Returns:
            [B, L, D]
        """
        position = torch.arange(items.shape[1], device=items.device)
        back = position[:, None] - position
        weight = torch.where(back >= 0, decay ** back.clamp(min=0).to(items.dtype), 0)  # [L, L]
        *parts, padding = (weight @ items).split([*self.sizes.values(), self.padding], dim=-1)
        weighted = [share * F.normalize(part, dim=-1) for share, part in zip(self.weight, parts, strict=True)]
        return torch.cat([*weighted, padding], dim=-1)


class ContentStart(nn.Module):
    """Ranks by content beside learned vectors, whose share starts at zero: a model then starts as ContentKNN.

    A score is share * cos(user, item) + the sum over modalities m of factor_m * cos_m(history, item). Share and factors
    are learned; they are on the side of the user, so that items have vectors of their own.

    Args:
        config: reads ``decay`` and what :class:`Content` reads.
        features: of the items of training.
    """

    def __init__(self, config: Any, features: FeatureTables) -> None:
        super().__init__()
        self.content = Content(config, features)
        self.decay = config["decay"]
        self.share = nn.Parameter(torch.zeros(1))
        self.factor = nn.Parameter(torch.full((len(self.content.sizes),), SCALE / RATE))

    def items(self, features: FeatureTables, ids: Tensor, vectors: Tensor) -> Tensor:
        """Items [N] with learned vectors [N, d] to the vectors by which they are ranked, [N, d + D]."""
        return torch.cat([F.normalize(vectors, dim=-1), self.content(features, ids)], dim=-1)

    def users(self, states: Tensor, histories: Tensor) -> Tensor:
        """States [..., d] and contents of histories [..., D] to the vectors of users, [..., d + D]."""
        factors = RATE * self.factor.clamp(min=0)
        *parts, padding = histories.split([*self.content.sizes.values(), self.content.padding], dim=-1)
        scaled = [factor * part for factor, part in zip(factors, parts, strict=True)]
        return torch.cat([RATE * self.share * F.normalize(states, dim=-1), *scaled, padding], dim=-1)

    def histories(self, items: Tensor) -> Tensor:
        """Items of windows, [B, L, d + D], to the content of the history at every position, [B, L, D]."""
        return self.content.of_histories(items[..., -self.content.width :], self.decay)
