"""Encodes the texts and the pictures of a domain's items into vectors, and keeps what is already encoded."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_xfer.config.values import split_domains
from recbole_xfer.data.atomic import read_header
from recbole_xfer.data.atomic_writer import check_domain_name
from recbole_xfer.data.domain_folder import check_domain
from recbole_xfer.data.vectors import read_metadata, write_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.files import locked, remove_leftovers, replacing
from recbole_xfer.log import logger
from recbole_xfer.prepare.options import PACKAGED, PACKAGED_IMAGE, Pooling
from recbole_xfer.prepare.picture_inputs import ImageRecipe, find_pictures
from recbole_xfer.prepare.pictures import FOLDER
from recbole_xfer.prepare.reuse import Previous, Result, join, read_dropped
from recbole_xfer.prepare.shards import CUT, Inputs, Recipe, Work, one_after_another, shards
from recbole_xfer.prepare.text_inputs import TextRecipe, find_texts

NAMED = 5
"""Items that a message names; the file lists all."""


def run(args: argparse.Namespace) -> list[Path]:
    """Encodes each named domain, with ``--drop_words`` a second time without some words; returns the files."""
    shared = {key: getattr(args, key) for key in ("device", "half", "overwrite", "ray")}
    texts = {key: getattr(args, key) for key in ("encoder", "pooling", "max_length")}
    size = {} if args.batch_size is None else {"batch_size": args.batch_size}
    paths = []
    for name in split_domains(args.dataset):
        folder = args.data_path / name
        modalities = args.modalities or available(folder, name)
        if "text" in modalities:
            paths += [
                encode_texts(folder, name, drop_words=fraction, **texts, **size, **shared)
                for fraction in dict.fromkeys((None, args.drop_words))
            ]
        if "image" in modalities:
            paths.append(
                encode_pictures(folder, name, encoder=args.image_encoder, workers=args.workers, **size, **shared)
            )
    return paths


def available(folder: Path, name: str) -> tuple[str, ...]:
    """The modalities that a domain has; texts if it has none, so that the error names what is missing."""
    check_domain_name(name)
    path = folder / f"{name}.item"
    pictures = ("image",) if (folder / FOLDER).is_dir() else ()
    without_text = bool(pictures) and not (path.is_file() and "text" in read_header(path))
    return pictures if without_text else ("text", *pictures)


def encode_texts(
    folder: Path,
    name: str,
    *,
    encoder: str = PACKAGED,
    pooling: Pooling = "mean",
    batch_size: int = 128,
    device: str = "auto",
    max_length: int | None = None,
    drop_words: float | None = None,
    half: bool = True,
    overwrite: bool = False,
    ray: bool = False,
) -> Path:
    """Writes ``<folder>/<name>.text.parquet``; an item without text has no row.

    With ``drop_words``, writes ``<folder>/<name>.word_drop.parquet`` for UniSRec's augmentation by word drop. For the
    arguments see :class:`TextRecipe` and :func:`encode`.

    Raises:
        XferError: if the item file is missing or has no text, or the encoder or the device cannot be used.
    """
    recipe = TextRecipe(encoder, pooling, max_length, batch_size, device, drop_words)
    folder = _checked(folder, name)
    inputs = find_texts(folder, name, drop_words)
    return encode(folder, name, inputs, recipe, half=half, overwrite=overwrite, ray=ray)


def encode_pictures(
    folder: Path,
    name: str,
    *,
    encoder: str = PACKAGED_IMAGE,
    batch_size: int | None = None,
    device: str = "auto",
    workers: int | None = None,
    half: bool = True,
    overwrite: bool = False,
    ray: bool = False,
) -> Path:
    """Writes ``<folder>/<name>.image.parquet`` from the pictures in ``<folder>/images``.

    An item with several pictures has the mean of their vectors. Pictures that cannot be read are dropped and listed in
    ``<name>.image.dropped.tsv``. For the arguments see :class:`ImageRecipe` and :func:`encode`.

    Raises:
        XferError: if there are no pictures of the items, or the encoder or the device cannot be used.
    """
    recipe = ImageRecipe(encoder, batch_size, device, workers)
    folder = _checked(folder, name)
    inputs = find_pictures(folder, name)
    return encode(folder, name, inputs, recipe, half=half, overwrite=overwrite, ray=ray)


def _checked(folder: Path, name: str) -> Path:
    check_domain_name(name)
    check_domain(Path(folder))
    return Path(folder)


def encode(
    folder: Path,
    name: str,
    inputs: Inputs,
    recipe: Recipe,
    *,
    half: bool = True,
    overwrite: bool = False,
    ray: bool = False,
) -> Path:
    """Writes the vectors of a domain's inputs; encodes each distinct value once, and only new and changed ones.

    An interrupted run is resumed by the next identical run. One process at a time encodes a domain.

    Args:
        half: store float16 instead of float32.
        overwrite: encode again even if nothing changed.
        ray: encode on Ray, on the cluster that the environment variable RAY_ADDRESS names, or on this machine.
    """
    path = folder / f"{name}.{recipe.kind}.parquet"
    unfinished = folder / f".{path.stem}.encoding"  # of this run, and of earlier runs with other inputs or settings
    files = recipe.find()
    settings = json.dumps({**recipe.settings(), "revision": files.revision, "half": half})
    with locked(folder):
        previous = Previous() if overwrite else Previous.read(path, settings)
        if previous.digests == dict(zip(inputs.items, inputs.digests, strict=True)):
            remove_leftovers(folder, path.name)  # of a run that was killed at its end
            logger.info(f"{path} is up to date.")
        else:
            new = previous.new_values(inputs)
            cache = unfinished / digest_of(settings, new["digest"])
            work = _on_ray() if ray else one_after_another
            made = shards(recipe, files, new["value"].tolist(), cache, f"{name}: {recipe.kind}", work)
            kind = np.dtype(np.float16 if half else np.float32)
            result = join(inputs, previous, new["digest"].tolist(), made, kind)
            _write(path, inputs, recipe, settings, result)
            logger.info(f"{path}: vectors of {result.has.sum():,} items; {len(new):,} distinct inputs were encoded.")
        report(path)
        shutil.rmtree(unfinished, ignore_errors=True)
    return path


def _write(path: Path, inputs: Inputs, recipe: Recipe, settings: str, result: Result) -> None:
    table = pd.DataFrame({"item_id": inputs.items, "digest": inputs.digests, "note": result.notes})
    dropped = table[~table["note"].isin(["", CUT])]
    if result.vectors is None or not result.has.any():
        item, _, note = dropped.iloc[0]
        raise XferError(f"{inputs.source}: none can be encoded. The first is that of item '{item}': {note}.")
    metadata = {
        "digest": digest_of(settings, inputs.items, inputs.digests),
        "settings": settings,
        "facts": json.dumps(result.facts),
        "dropped": json.dumps(dropped.to_numpy().tolist()),
        **json.loads(settings),
        **result.facts,
        CUT: str((table["note"] == CUT).sum()),
    }
    table, vectors = table[result.has], result.vectors if result.has.all() else result.vectors[result.has]
    write_vectors(
        path,
        table["item_id"],
        vectors,
        encoder=recipe.encoder,
        source=f"{table['digest'].nunique()} different {inputs.source}",
        metadata={key: str(value) for key, value in metadata.items()},
        columns={column: table[column] for column in ("digest", "note")},
    )


def report(path: Path) -> None:
    """Says how many inputs were cut, and names items with values that cannot be encoded; a file lists all of these."""
    metadata = read_metadata(path)
    dropped = read_dropped(metadata)
    if metadata[CUT] != "0":
        logger.info(f"{path}: {metadata[CUT]} texts have more than {metadata['max_length']} tokens and were cut.")
    listed = path.with_suffix(".dropped.tsv")
    if not dropped:
        listed.unlink(missing_ok=True)
        return
    lines = "".join(f"{item}\t{note}\n" for item, _, note in dropped)
    with replacing(listed) as temporary:
        temporary.write_text(f"item_id:token\treason:token_seq\n{lines}", encoding="utf-8")
    first = "; ".join(f"{item}: {note}" for item, _, note in dropped[:NAMED])
    logger.warning(f"{path}: a part of {len(dropped):,} items was dropped ({first}). {listed} lists them.")


def digest_of(settings: str, *columns: Sequence[str]) -> str:
    """Equal for equal settings and columns."""
    digest = hashlib.blake2b(settings.encode(), digest_size=8)
    for column in columns:
        digest.update("\n".join(["", *column]).encode())
    return digest.hexdigest()


def _on_ray() -> Work:
    from recbole_xfer.prepare.ray_encoding import on_ray  # Ray takes seconds to import

    return on_ray
