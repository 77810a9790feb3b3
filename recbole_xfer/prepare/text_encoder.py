"""A transformers model as a function from texts to vectors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer
from transformers.utils import cached_file
from transformers.utils.logging import disable_progress_bar

from recbole_xfer.device import has_fast_bfloat16
from recbole_xfer.errors import XferError


class TextEncoder:
    """Encodes texts with a model from the Hugging Face hub or from a local folder.

    Args:
        encoder: a name on the hub, or a folder, which is read without network.
        pooling: ``mean`` of all tokens' states, or ``cls``, the state of the first token.
        device: ``auto`` uses a GPU if there is one.
        max_length: tokens of a text that are read.
        batch_size: texts per batch.

    Attributes:
        dimension: D of the vectors.

    Raises:
        XferError: if the encoder cannot be loaded or the device cannot be used.
    """

    def __init__(self, encoder: str, pooling: str, device: str, max_length: int, batch_size: int) -> None:
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self.tokenizer, self.model, self.unit_length = _load(encoder)
        try:
            self.device = torch.device(device)
            self.model.eval().to(self.device)
        except (RuntimeError, AssertionError) as error:
            raise XferError(f"The device '{device}' cannot be used here ({error}). Try --device=cpu.") from error
        self.pooling, self.batch_size = pooling, batch_size
        self.max_length = min(max_length, self.tokenizer.model_max_length)
        self.dimension: int = self.model.config.hidden_size

    @torch.inference_mode()
    def __call__(self, texts: list[str], progress: tqdm) -> np.ndarray:
        """Returns the vectors [N, D] float32 of the texts, in their order; batches hold texts of similar length."""
        tokens = self.tokenizer(texts, truncation=True, max_length=self.max_length)["input_ids"]
        order = np.argsort([-len(row) for row in tokens], kind="stable")
        vectors = np.empty((len(texts), self.dimension), np.float32)
        for start in range(0, len(texts), self.batch_size):
            rows = order[start : start + self.batch_size]
            batch = self.tokenizer.pad({"input_ids": [tokens[row] for row in rows]}, return_tensors="pt")
            with torch.autocast(self.device.type, torch.bfloat16, enabled=has_fast_bfloat16(self.device)):
                states = self.model(**batch.to(self.device)).last_hidden_state
            vectors[rows] = self._pooled(states.float(), batch["attention_mask"]).cpu().numpy()
            progress.update(len(rows))
        return vectors

    def _pooled(self, states: Tensor, mask: Tensor) -> Tensor:
        """States [B, L, D] and mask [B, L] to vectors [B, D]."""
        if self.pooling == "cls":
            vectors = states[:, 0]
        else:
            vectors = (states * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        return F.normalize(vectors, dim=-1) if self.unit_length else vectors


def _load(encoder: str) -> tuple[Any, Any, bool]:
    """Returns the tokenizer, the model, and whether its vectors are scaled to length 1."""
    if not sys.stderr.isatty():
        disable_progress_bar()
    local = Path(encoder).is_dir()
    try:
        tokenizer = AutoTokenizer.from_pretrained(encoder, local_files_only=local)
        model = AutoModel.from_pretrained(encoder, local_files_only=local)
        modules = cached_file(
            encoder, "modules.json", local_files_only=local, _raise_exceptions_for_missing_entries=False
        )
    except Exception as error:  # transformers, tokenizers, safetensors and the hub raise errors of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise XferError(
            f"The encoder '{encoder}' cannot be loaded: {reason} Name a model on the Hugging Face hub, or a local "
            f"folder with one (config.json, model.safetensors, tokenizer.json). The default encoder needs no network."
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model, modules is not None and "Normalize" in Path(modules).read_text(encoding="utf-8")
