"""Tables of item features on the model's device, or in memory-mapped files when they are large."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recbole_xfer.data.features import ItemFeatures
from recbole_xfer.data.vectors import VectorTable


class FeatureTables(nn.Module):
    """Text, image and price of the items, by item id.

    The tables are data: they move with the module and are not saved with it. A table in a memory-mapped file stays
    there, and only requested rows are copied. Saved are the lowest and the highest price of training, by which the
    model continues to scale prices, also those of other items.
    """

    price: Tensor
    price_bounds: Tensor

    def __init__(self, features: ItemFeatures) -> None:
        super().__init__()
        self.modalities = features.modalities
        self.mapped: dict[str, np.memmap] = {}
        for name in ("text", "image"):
            table: VectorTable | None = getattr(features, name)
            if table is not None:
                self.add(name, table)
        self.prices = features.price
        if self.prices is not None:
            bounds = np.array([np.nanmin(self.prices), np.nanmax(self.prices)])
            self.register_buffer("price_bounds", torch.from_numpy(bounds))
            self._add_buffers("price", scale_prices(self.prices, *bounds), features.present("price"))

    def add(self, name: str, table: VectorTable) -> None:
        """Adds a table of vectors, for :meth:`rows` and :meth:`present` under this name."""
        if isinstance(table.values, np.memmap):
            self.mapped[name] = table.values
        self._add_buffers(name, None if name in self.mapped else table.values, table.present)

    def _add_buffers(self, name: str, values: np.ndarray | None, present: np.ndarray) -> None:
        self.register_buffer(f"{name}_present", torch.from_numpy(present), persistent=False)
        if values is not None:
            self.register_buffer(name, torch.from_numpy(values).float(), persistent=False)

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        if self.prices is not None:
            bounds = state.setdefault(f"{prefix}price_bounds", self.price_bounds)  # adaptations and old runs have none
            self.price.copy_(torch.from_numpy(scale_prices(self.prices, *bounds.tolist())))
        super()._load_from_state_dict(state, prefix, *rest)

    def sizes(self) -> dict[str, int]:
        """Width of the text and of the image vectors, where there are any."""
        tables = {name: self.mapped.get(name, getattr(self, name, None)) for name in ("text", "image")}
        return {name: table.shape[1] for name, table in tables.items() if table is not None}

    def rows(self, name: str, ids: Tensor) -> Tensor:
        """Vectors [N, D], or scaled prices [N], of items [N]."""
        if name in self.mapped:
            values = np.ascontiguousarray(self.mapped[name][ids.cpu().numpy()])
            return torch.from_numpy(values).to(ids.device).float()
        return getattr(self, name)[ids]

    def present(self, name: str, ids: Tensor) -> Tensor:
        """Which of the items have the modality, bool [N]."""
        return getattr(self, f"{name}_present")[ids]


def scale_prices(price: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scales prices so that low becomes 0 and high 100; a missing price becomes 0 (and is masked by the caller)."""
    span = high - low if high > low else 1.0
    return np.nan_to_num((price - low) / span * 100)
