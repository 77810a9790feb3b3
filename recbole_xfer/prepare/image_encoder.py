"""A model of timm or transformers as a function from pictures to vectors."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn
from tqdm import tqdm

from recbole_xfer.device import has_fast_bfloat16, move
from recbole_xfer.prepare.decoding import PictureError, ahead, read_picture
from recbole_xfer.prepare.model_files import quiet, unreadable

Prepare = Callable[[Image.Image], Tensor]
"""From a picture to a tensor [3, H, W], as the model was trained."""

BATCH = {"cpu": 8, "cuda": 64}
"""Default pictures per batch; on a CPU, the values of eight stay in its cache."""


class ImageEncoder:
    """Encodes pictures with a model of timm or transformers, whichever the folder holds.

    Args:
        name: the architecture, if the folder holds only weights.
        folder: the model's files.
        device: ``auto`` uses a GPU if there is one.
        batch_size: pictures per batch; None chooses by the device.
        workers: threads that read pictures; None is one for each CPU core.

    Attributes:
        facts: what decides the vectors beside the settings, for the metadata.

    Raises:
        XferError: if the encoder cannot be loaded or the device cannot be used.
    """

    def __init__(self, name: str, folder: Path, device: str, batch_size: int | None, workers: int | None) -> None:
        try:
            self.model, self.prepare, preprocessing = _load(name, folder)
        except Exception as error:  # timm, transformers and safetensors raise errors of many kinds
            raise unreadable(str(folder), error) from error
        self.device = move(self.model.eval(), device)
        self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.half = has_fast_bfloat16(self.device)
        self.batch_size = batch_size or BATCH.get(self.device.type, BATCH["cuda"])
        self.workers = workers or os.cpu_count() or 1
        self.facts = {"preprocessing": preprocessing, "precision": "bfloat16" if self.half else "float32"}
        self.dimension = self._vectors([self.prepare(Image.new("RGB", (64, 64)))]).shape[1]

    def __call__(self, values: list[list[str]], progress: tqdm) -> tuple[np.ndarray, list[str]]:
        """Returns the mean vector [N, D] float32 of each item's pictures, and a note about those that are dropped.

        While the model computes a batch, threads read the next pictures.
        """
        notes: list[list[str]] = [[] for _ in values]
        sums, counts = np.zeros((len(values), self.dimension), np.float32), np.zeros(len(values), np.float32)
        with ThreadPoolExecutor(self.workers) as pool:
            loaded = self._loaded(pool, values, notes, progress)
            while batch := list(islice(loaded, self.batch_size)):
                owners, pictures = zip(*batch, strict=True)
                np.add.at(sums, list(owners), self._vectors(pictures))
                np.add.at(counts, list(owners), 1)
        with np.errstate(invalid="ignore"):  # an item without any picture has NaN
            return sums / counts[:, None], ["; ".join(reasons) for reasons in notes]

    def _loaded(
        self, pool: ThreadPoolExecutor, values: list[list[str]], notes: list[list[str]], progress: tqdm
    ) -> Iterator[tuple[int, Tensor]]:
        """Yields the index of the item and the tensor of each picture; notes why others are dropped."""
        owners = [owner for owner, paths in enumerate(values) for _ in paths]
        paths = [path for paths in values for path in paths]
        numbers = [number for paths in values for number in range(1, len(paths) + 1)]
        for owner, number, picture in zip(
            owners, numbers, ahead(pool, self._read, paths, 2 * self.batch_size + self.workers), strict=True
        ):
            if isinstance(picture, str):  # no name of a file: the note is that of all items with equal pictures
                notes[owner].append(picture if len(values[owner]) == 1 else f"picture {number}: {picture}")
            else:
                yield owner, picture
            progress.update(1 / len(values[owner]))

    def _read(self, path: str) -> Tensor | str:
        """The tensor of a picture, or the reason why there is none."""
        try:
            return self.prepare(read_picture(path))
        except PictureError as error:
            return str(error)

    @torch.inference_mode()
    def _vectors(self, pictures: Sequence[Tensor]) -> np.ndarray:
        """Tensors [3, H, W] to vectors [B, D] float32."""
        batch = torch.stack(list(pictures)).to(self.device, memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            return self.model(batch).float().cpu().numpy()


class Pooled(nn.Module):
    """A model of transformers whose output is the mean of its last states, [B, D]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = getattr(model, "vision_model", model)  # of models of texts and pictures, such as CLIP

    def forward(self, pictures: Tensor) -> Tensor:
        """Pictures [B, 3, H, W] to vectors [B, D]."""
        states = self.model(pixel_values=pictures).last_hidden_state  # [B, L, D] or [B, D, H, W]
        return states.mean(dim=1) if states.dim() == 3 else states.mean(dim=(2, 3))


def _load(name: str, folder: Path) -> tuple[nn.Module, Prepare, str]:
    """Returns the model without its classifier, its preprocessing, and this as text."""
    quiet()
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"architecture": name}
    return _load_timm(config, folder) if "architecture" in config else _load_transformers(folder)


def _load_timm(config: dict[str, Any], folder: Path) -> tuple[nn.Module, Prepare, str]:
    architecture, weights = config["architecture"], _weights(folder)
    if "pretrained_cfg" not in config:  # weights of another package, whose names differ and whose order is equal
        weights = dict(zip(timm.create_model(architecture).state_dict(), weights.values(), strict=True))
    settings = {**config.get("pretrained_cfg", {}), "state_dict": weights, "source": "", "custom_load": False}
    arguments = {**(config.get("model_args") or {}), "pretrained": True, "num_classes": 0}
    model: Any = timm.create_model(architecture, pretrained_cfg_overlay=settings, **arguments)
    model.pretrained_cfg = {key: value for key, value in model.pretrained_cfg.items() if key != "state_dict"}
    data = resolve_model_data_config(model)
    return model, create_transform(**data, is_training=False), json.dumps(data)


def _weights(folder: Path) -> dict[str, Tensor]:
    """Parameters by name, from safetensors or from a pickle of tensors that runs no code."""
    if (folder / "model.safetensors").is_file():
        return load_file(folder / "model.safetensors")
    [path] = [path for path in folder.iterdir() if path.suffix in (".bin", ".pth")]
    return torch.load(path, map_location="cpu", weights_only=True)


def _load_transformers(folder: Path) -> tuple[nn.Module, Prepare, str]:
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    model = Pooled(AutoModel.from_pretrained(folder, local_files_only=True))

    def prepare(picture: Image.Image) -> Tensor:
        return processor(images=picture, return_tensors="pt")["pixel_values"][0]

    return model, prepare, json.dumps(processor.to_dict(), default=str)
