"""A transformers model as a function from texts to vectors."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import AutoModel, AutoTokenizer

from recbole_xfer.device import has_fast_bfloat16, move
from recbole_xfer.prepare.model_files import quiet, unreadable
from recbole_xfer.prepare.shards import CUT

UNLIMITED = 10**6
"""Tokenizers without a limit of their own report a number above this."""

MOST_TOKENS = {"cpu": 2048, "cuda": 2**16}
"""Tokens of a batch at most; on a CPU, the values of so many stay in its cache."""

DEFAULT_LENGTH = 512
"""Tokens that are read if neither the tokenizer nor the model has a limit."""


class TextEncoder:
    """Encodes texts with a model of transformers.

    Args:
        folder: the model's files.
        pooling: ``mean`` of all tokens' states, or ``cls``, the state of the first token.
        device: ``auto`` uses a GPU if there is one.
        max_length: tokens of a text that are read; None reads as many as the encoder does.
        batch_size: texts per batch at most.

    Attributes:
        facts: what decides the vectors beside the settings, for the metadata.

    Raises:
        XferError: if the encoder cannot be loaded or the device cannot be used.
    """

    def __init__(self, folder: Path, pooling: str, device: str, max_length: int | None, batch_size: int) -> None:
        self.tokenizer, self.model = _load(folder)
        self.device = move(self.model.eval(), device)
        self.half = has_fast_bfloat16(self.device)
        self.pooling, self.batch_size = pooling, batch_size
        self.most_tokens = MOST_TOKENS.get(self.device.type, MOST_TOKENS["cuda"])
        self.unit_length = "Normalize" in _text_of(folder / "modules.json")
        longest = longest_input(self.tokenizer, self.model)
        if max_length is None:  # as in sentence-transformers
            max_length = json.loads(_text_of(folder / "sentence_bert_config.json") or "{}").get("max_seq_length")
        self.max_length = min(max_length or longest, longest)
        self.facts = {"max_length": str(self.max_length), "precision": "bfloat16" if self.half else "float32"}

    @torch.inference_mode()
    def __call__(self, texts: list[str], progress: tqdm) -> tuple[np.ndarray, list[str]]:
        """Returns the vectors [N, D] float32 of the texts in their order, and a note for each text.

        A batch holds texts of equal numbers of tokens, so that nothing is computed for padding, and the vector of a
        text does not depend on longer ones.
        """
        tokens, notes = self._tokens(texts)
        vectors = np.full((len(texts), self.model.config.hidden_size), np.nan, np.float32)
        # around all batches, since leaving it forgets the parameters that it converted
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            for rows in batches_of_equal_length(list(map(len, tokens)), self.batch_size, self.most_tokens):
                ids = torch.tensor([tokens[row] for row in rows], device=self.device)
                if ids.numel():
                    states = self.model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
                    vectors[rows] = self._pooled(states.float()).cpu().numpy()
                progress.update(len(rows))
        return vectors, notes

    def _tokens(self, texts: list[str]) -> tuple[list[list[int]], list[str]]:
        """The first tokens of each text, and which texts were cut."""
        tokens = self.tokenizer(texts, truncation=True, max_length=self.max_length)["input_ids"]
        full = [row for row, found in enumerate(tokens) if len(found) == self.max_length]
        notes = ["" if found else "no word that the encoder knows" for found in tokens]
        if full:  # these end here, or are cut
            more = self.tokenizer([texts[row] for row in full], truncation=True, max_length=self.max_length + 1)
            for row, found in zip(full, more["input_ids"], strict=True):
                notes[row] = CUT if len(found) > self.max_length else ""
        return tokens, notes

    def _pooled(self, states: Tensor) -> Tensor:
        """States [B, L, D] to vectors [B, D]."""
        vectors = states[:, 0] if self.pooling == "cls" else states.mean(dim=1)
        return F.normalize(vectors, dim=-1) if self.unit_length else vectors


def batches_of_equal_length(lengths: list[int], batch_size: int, most_tokens: int) -> Iterator[np.ndarray]:
    """Yields the indices of each batch, longest first; all of a batch have one length."""
    sizes = np.array(lengths)
    order = np.argsort(-sizes, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(sizes[order])) + 1):
        size = max(1, min(batch_size, most_tokens // max(1, sizes[rows[0]])))
        for start in range(0, len(rows), size):
            yield rows[start : start + size]


def longest_input(tokenizer: Any, model: Any) -> int:
    """Returns the number of tokens that tokenizer and model read."""
    table = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    positions = getattr(model.config, "max_position_embeddings", None)
    if isinstance(table, torch.nn.Embedding):  # positions of RoBERTa begin after that of padding
        positions = table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    limits = [limit for limit in (tokenizer.model_max_length, positions) if limit and limit < UNLIMITED]
    return min(limits, default=DEFAULT_LENGTH)


def _text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _load(folder: Path) -> tuple[Any, Any]:
    """Returns the tokenizer and the model."""
    quiet()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        return tokenizer, AutoModel.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers, tokenizers and safetensors raise errors of many kinds
        raise unreadable(str(folder), error) from error
