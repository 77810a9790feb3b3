"""Tables of item features on the model's device, or in memory-mapped files when they are large."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recbole_xfer.data.features import ItemFeatures
from recbole_xfer.data.vectors import BLOCK, VectorTable

TINY = 1e-12
"""Mean square of entries below which vectors are constant and not scaled."""

SCALING = ("features.text_", "features.image_")
"""Prefixes of the saved mean and scale of vectors, which an adaptation keeps with the layers that read vectors."""


class FeatureTables(nn.Module):
    """Text, image and price of the items, by item id.

    The tables are data: they move with the module and are not saved with it. A table in a memory-mapped file stays
    there, and only requested rows are copied. Saved are the mean and the scale of the vectors and the lowest and the
    highest price of training, by which the model continues to scale features, also those of other items.

    Args:
        features: of the items.
        scaling: ``standard`` subtracts the mean vector, and divides by the root mean square of the entries; ``scale``
            only divides; ``none`` keeps the vectors of the files.
    """

    text_present: Tensor
    price: Tensor
    price_present: Tensor
    price_bounds: Tensor

    def __init__(self, features: ItemFeatures, scaling: str) -> None:
        super().__init__()
        self.scaled_as: dict[str, str] = {}
        self.modalities = features.modalities
        self.mapped: dict[str, np.memmap] = {}
        for name in ("text", "image"):
            table: VectorTable | None = getattr(features, name)
            if table is not None:
                center, scale = center_and_scale(table, scaling)
                self.register_buffer(f"{name}_center", torch.from_numpy(center))
                self.register_buffer(f"{name}_scale", torch.tensor(scale))
                self.add(name, table, scaled_as=name)
        self.prices = features.price
        if self.prices is not None:
            bounds = np.array([np.nanmin(self.prices), np.nanmax(self.prices)])
            self.register_buffer("price_bounds", torch.from_numpy(bounds))
            self._add_buffers("price", scale_prices(self.prices, *bounds), features.present("price"))

    def add(self, name: str, table: VectorTable, scaled_as: str) -> None:
        """Adds a table of vectors, for :meth:`rows` and :meth:`present` under this name.

        Args:
            name: of the table.
            table: the vectors.
            scaled_as: the modality whose mean and scale they are scaled by.
        """
        self.scaled_as[name] = scaled_as
        if isinstance(table.values, np.memmap):
            self.mapped[name] = table.values
        self._add_buffers(name, None if name in self.mapped else table.values, table.present)

    def _add_buffers(self, name: str, values: np.ndarray | None, present: np.ndarray) -> None:
        self.register_buffer(f"{name}_present", torch.from_numpy(present), persistent=False)
        if values is not None:
            self.register_buffer(name, torch.from_numpy(values).float(), persistent=False)

    def _load_from_state_dict(self, state: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        for name, value in self.state_dict().items():
            state.setdefault(prefix + name, value)  # adaptations and old runs have none
        if self.prices is not None:
            bounds = state[f"{prefix}price_bounds"].tolist()
            self.price.copy_(torch.from_numpy(scale_prices(self.prices, *bounds)))
        super()._load_from_state_dict(state, prefix, *rest)

    def sizes(self) -> dict[str, int]:
        """Width of the text and of the image vectors, where there are any."""
        tables = {name: self.mapped.get(name, getattr(self, name, None)) for name in ("text", "image")}
        return {name: table.shape[1] for name, table in tables.items() if table is not None}

    def rows(self, name: str, ids: Tensor) -> Tensor:
        """Scaled vectors [N, D], or scaled prices [N], of items [N]."""
        if name in self.mapped:
            values = np.ascontiguousarray(self.mapped[name][ids.cpu().numpy()])
            rows = torch.from_numpy(values).to(ids.device).float()
        else:
            rows = getattr(self, name)[ids]
        if name not in self.scaled_as:
            return rows
        modality = self.scaled_as[name]
        return (rows - getattr(self, f"{modality}_center")) * getattr(self, f"{modality}_scale")

    def present(self, name: str, ids: Tensor) -> Tensor:
        """Which of the items have the modality, bool [N]."""
        return getattr(self, f"{name}_present")[ids]


def center_and_scale(table: VectorTable, scaling: str) -> tuple[np.ndarray, np.float32]:
    """Returns what is subtracted from vectors, [D], and by what the differences are then multiplied.

    Args:
        table: the vectors, of which those of items that have one count.
        scaling: ``standard``, ``scale`` or ``none``, see :class:`FeatureTables`.
    """
    rows, width = np.flatnonzero(table.present), table.values.shape[1]
    if scaling == "none":
        return np.zeros(width, np.float32), np.float32(1)
    total, squares = np.zeros(width), np.zeros(width)
    for first in range(0, len(rows), BLOCK):
        block = table.values[rows[first : first + BLOCK]].astype(np.float64)
        total += block.sum(axis=0)
        squares += np.square(block).sum(axis=0)
    count = max(len(rows), 1)
    center = total / count if scaling == "standard" else np.zeros(width)
    mean_square = (squares / count - np.square(center)).mean()
    scale = 1.0 if mean_square < TINY else mean_square**-0.5
    return center.astype(np.float32), np.float32(scale)


def scale_prices(price: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scales prices so that low becomes 0 and high 100; a missing price becomes 0 (and is masked by the caller)."""
    span = high - low if high > low else 1.0
    return np.nan_to_num((price - low) / span * 100)
