"""Tables of item features on the model's device, or left in memory-mapped files when they are large."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from recbole_xfer.data.features import ItemFeatures
from recbole_xfer.data.vectors import VectorTable


class FeatureTables(nn.Module):
    """Text, image and price of the items, by item id.

    The tables are data: they move with the module and are not saved with it. A table that the data layer keeps in a
    memory-mapped file stays there, and only the rows asked for travel.
    """

    def __init__(self, features: ItemFeatures) -> None:
        super().__init__()
        self.modalities = features.modalities
        self.mapped: dict[str, np.memmap] = {}
        for name in self.modalities:
            self.register_buffer(f"{name}_present", torch.from_numpy(features.present(name)), persistent=False)
        for name in ("text", "image"):
            table: VectorTable | None = getattr(features, name)
            if table is None:
                continue
            if isinstance(table.values, np.memmap):
                self.mapped[name] = table.values
            else:
                self.register_buffer(name, torch.from_numpy(table.values).float(), persistent=False)
        if features.price is not None:
            self.register_buffer("price", torch.from_numpy(scale_prices(features.price)).float(), persistent=False)

    def sizes(self) -> dict[str, int]:
        """Width of the text and image vectors that are there."""
        widths = {name: getattr(self, name).shape[1] for name in ("text", "image") if hasattr(self, name)}
        return widths | {name: table.shape[1] for name, table in self.mapped.items()}

    def rows(self, name: str, ids: Tensor) -> Tensor:
        """Vectors [N, D], or scaled prices [N], of items [N]."""
        if name in self.mapped:
            values = np.ascontiguousarray(self.mapped[name][ids.cpu().numpy()])
            return torch.from_numpy(values).to(ids.device).float()
        return getattr(self, name)[ids]

    def present(self, name: str, ids: Tensor) -> Tensor:
        """Which of the items have the modality, bool [N]."""
        return getattr(self, f"{name}_present")[ids]


def scale_prices(price: np.ndarray) -> np.ndarray:
    """Prices scaled to [0, 100] over the items at hand; a missing one becomes 0 (and is masked by the caller)."""
    low, high = np.nanmin(price), np.nanmax(price)
    span = high - low if high > low else 1.0
    return np.nan_to_num((price - low) / span * 100)
