"""Small encoders of random weights, and pictures."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import timm
import torch
from PIL import Image
from timm.models import save_for_hf

IMAGE_MODEL = "test_efficientnet"
"""A model of timm for tests: 160 x 160 pixels, 256 features."""


def write_timm_model(folder: Path) -> str:
    """Writes a small model of timm as the hub stores it."""
    torch.manual_seed(0)
    save_for_hf(timm.create_model(IMAGE_MODEL, num_classes=10).eval(), folder, safe_serialization=True)
    return str(folder)


def picture(seed: int = 0, size: tuple[int, int] = (40, 30), form: str = "JPEG") -> bytes:
    """The content of a file with a random picture."""
    content = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(content, form)
    return content.getvalue()
