"""From recommendation-independent vectors to item representations: whitening, routing, price waves.

Symbols in comments: N items, D width of a vector, d width of an item representation, n_h projection heads,
M modalities.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.collectives import drawn
from recbole_xfer.layers.items import FeatureTables
from recbole_xfer.layers.losses import precise


class PriceEmbedding(nn.Module):
    """Sinusoidal waves of a price (ANT, Eq. 3), with the prices of the training items scaled to [0, 100]."""

    def __init__(self, size: int, frequency: float) -> None:
        super().__init__()
        exponent = torch.arange(size // 2, dtype=torch.float64) * 2 / size
        self.register_buffer("omega", frequency**-exponent, persistent=False)
        self.omega: Tensor

    def forward(self, scaled: Tensor) -> Tensor:
        """Scaled prices [N] to [..., sin(w_j p), cos(w_j p), ...], [N, d_p]."""
        angle = scaled.double()[:, None] * self.omega
        return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(1).to(scaled.dtype)


class ExpertProjection(nn.Module):
    """Mixture of projections of one modality (ANT, Eq. 4 to 7).

    Dropout on a vector is drawn once and shared by all heads, so that the heads are one matrix product.

    Args:
        size_in: D.
        size_out: d.
        heads: n_h.
        whiten: parametric whitening (v - b_k) W_k, Eq. 4; otherwise v W_k + b_k, Eq. 5.
        mixture: False replaces heads and routing by one projection (ANT-MoE of Table 4).
        dropout: proportion of dropped entries of the vectors before the projection.
    """

    def __init__(
        self, size_in: int, size_out: int, heads: int, whiten: bool, mixture: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.heads = heads if mixture else 1
        self.whiten = whiten
        self.dropout = nn.Dropout(dropout)
        self.weight = nn.Parameter(torch.empty(size_in, self.heads * size_out))  # W_1 to W_nh side by side
        self.shift = nn.Parameter(torch.empty(self.heads, size_in if whiten else size_out))
        self.mixture = mixture
        if mixture:
            self.route_mean = nn.Parameter(torch.empty(size_in, heads))  # B of Eq. 7
            self.route_deviation = nn.Parameter(torch.empty(size_in, heads))  # U of Eq. 7
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """PyTorch's default for linear layers, as in the paper's appendix; a whitening shift starts at zero."""
        bound = 1 / math.sqrt(self.weight.shape[0])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)
        if self.whiten:
            nn.init.zeros_(self.shift)

    def forward(self, v: Tensor) -> Tensor:
        """Vectors [N, D] to transformed embeddings z [N, d]."""
        projected = self.dropout(v) @ self.weight  # [N, n_h * d]
        if not self.mixture:
            return projected + self._shift()
        route = self._route(v).to(projected.dtype)
        mixed = torch.einsum("nh,nhd->nd", route, projected.unflatten(1, (self.heads, -1)))  # Eq. 6
        return mixed + route @ self._shift()  # mixes the shifts of all heads without a copy per item

    def _shift(self) -> Tensor:
        """The shift of each head after its projection, [n_h, d]; -b_k W_k in Eq. 4."""
        if not self.whiten:
            return self.shift
        weight = self.weight.unflatten(1, (self.heads, -1))  # [D, n_h, d]
        return -torch.einsum("hi,ihd->hd", self.shift, weight)

    def _route(self, v: Tensor) -> Tensor:
        """Softmax of Gaussian weights, drawn in training and the mean in evaluation, [N, n_h]."""
        alpha = v @ self.route_mean  # Eq. 7
        if self.training:
            deviation = F.softplus(v @ self.route_deviation)
            alpha = alpha + deviation * drawn(torch.empty_like(deviation), Tensor.normal_, shared=True)
        return precise(alpha).softmax(dim=-1)


class FeatureEmbedding(nn.Module):
    """Text, image and price of an item, each through a linear layer of its own.

    Args:
        config: reads ``hidden_size``, ``price_size`` and ``price_frequency``.
        features: of the items; a price is the waves of :class:`PriceEmbedding`.
    """

    def __init__(self, config: Any, features: FeatureTables) -> None:
        super().__init__()
        self.price_waves = PriceEmbedding(config["price_size"], config["price_frequency"])
        sizes = features.sizes() | {"price": config["price_size"]}
        self.layers = nn.ModuleDict(
            {name: nn.Linear(sizes[name], config["hidden_size"]) for name in features.modalities}
        )

    def forward(self, features: FeatureTables, ids: Tensor) -> Tensor:
        """Items [N] to their modalities, [M, N, d]; zero where an item lacks one."""
        return torch.stack([self._embedded(name, features, ids) for name in self.layers])

    def _embedded(self, name: str, features: FeatureTables, ids: Tensor) -> Tensor:
        vectors = features.rows(name, ids)
        if name == "price":
            vectors = self.price_waves(vectors)
        return self.layers[name](vectors) * features.present(name, ids)[:, None]
