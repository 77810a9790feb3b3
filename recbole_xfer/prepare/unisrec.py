"""Data in the layout that UniSRec and ANT publish: three split files, two index files, texts and vectors.

The files of a data set ``Name``, in one folder:

* ``Name.train.inter``, ``Name.valid.inter``, ``Name.test.inter``: a header, then ``user <tab> previous items
  <tab> item``, all as indices, previous items separated by spaces.
* ``Name.item2index``, ``Name.user2index``: ``id <tab> index``, without a header.
* ``Name.text`` (optional): a header, then ``item id <tab> text``.
* ``Name.feat1CLS`` (texts), ``Name.feat2CLS`` (texts without some words) and ``Name.feat3CLS`` (images), all optional:
  vectors as raw float32 numbers, one row per item, in the order of the item's index.
"""

from __future__ import annotations

import argparse
import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_xfer.data.atomic_writer import check_domain_name, write_domain
from recbole_xfer.data.parts import FILE, assemble, concatenate
from recbole_xfer.data.vectors import RAW_SUFFIX, read_vectors, write_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.files import WithoutNul, replacing_folders
from recbole_xfer.log import logger
from recbole_xfer.prepare.summary import Summary, describe
from recbole_xfer.prepare.unisrec_files import write_unisrec


def run(args: argparse.Namespace) -> list[Summary]:
    """Writes the domain, or with ``--write`` the published layout of one; returns what is in it."""
    if args.write:
        summary = describe(args.input)
        logger.info(f"{write_unisrec(args.output, args.input)} has the layout of UniSRec.")
        return [summary]
    if args.name is None:
        raise XferError("--name is missing. Set it to the name with which the files begin.")
    return [describe(prepare_unisrec(args.output, args.input, args.name, half=args.half))]


def prepare_unisrec(output: Path, folder: Path, name: str, half: bool = False) -> Path:
    """Writes one domain whose leave-one-out splits equal the published splits.

    Each user's sequence is assembled from the three split files; the timestamp is the position in it. If the files
    cut histories at a maximal length, only the items that they contain are assembled.

    Args:
        output: the folder that holds the domains.
        folder: with the published files.
        name: with which their names begin; the domain's name.
        half: store the vectors as float16 instead of float32.

    Raises:
        XferError: if a file is missing or invalid, or the splits of a user contradict each other.
    """
    check_domain_name(name)
    folder = Path(folder)
    item_ids = _read_index(folder / f"{name}.item2index")
    user_ids = _read_index(folder / f"{name}.user2index")
    tokens = np.append("[PAD]", item_ids)
    raw = {modality: folder / f"{name}.{suffix}" for modality, suffix in RAW_SUFFIX.items()}
    tables = {modality: read_vectors(path, tokens) for modality, path in raw.items() if path.exists()}

    interactions = _sequences([folder / f"{name}.{split}.inter" for split in ("train", "valid", "test")])
    interactions["user_id"] = _to_ids(interactions["user_id"], user_ids, folder / f"{name}.user2index")
    interactions["item_id"] = _to_ids(interactions["item_id"], item_ids, folder / f"{name}.item2index")
    items = pd.DataFrame({"item_id": item_ids})
    if (folder / f"{name}.text").exists():
        items["text"] = items["item_id"].map(_read_texts(folder / f"{name}.text", item_ids))

    with replacing_folders(output) as temporary:
        domain = write_domain(temporary, name, interactions, items)
        for modality, table in tables.items():
            vectors = table.values[1:]  # without the padding item
            write_vectors(
                domain / f"{name}.{modality}.parquet",
                item_ids.tolist(),
                vectors.astype(np.float16) if half else vectors,
                encoder=table.encoder,
                source=table.source,
            )
    return Path(output) / name


def _sequences(paths: list[Path]) -> pd.DataFrame:
    """Assembles sequences from the rows of the train, valid and test file, as (user, item, position) indices."""
    rows = concatenate(paths, _read_split)
    for path in paths[1:]:
        counts = rows["user"][rows[FILE] == path.name].value_counts().reindex(rows["user"].unique(), fill_value=0)
        if (counts != 1).any():
            raise XferError(
                f"{path}: user {(counts != 1).idxmax()} must have exactly one row. Remove the user from all files."
            )
    names = {"user": "user_id", "item": "item_id", "position": "timestamp"}
    return assemble(rows)[list(names)].rename(columns=names)


def _read_split(path: Path) -> pd.DataFrame:
    """The rows of a split file as indices."""
    table = _read_table(path, ["user", "before", "item"], header=0)
    try:
        return pd.DataFrame(
            {
                "user": table["user"].astype(np.int64),
                "before": [np.array(before.split(), dtype=np.int64) for before in table["before"]],
                "item": table["item"].astype(np.int64),
            }
        )
    except (ValueError, OverflowError) as error:
        raise XferError(f"{path}: users and items must be integers ({error}).") from error


def _read_index(path: Path) -> np.ndarray:
    """Ids (str) in the order of their indices, which must be 0, 1, 2, ..."""
    table = _read_table(path, ["id", "index"], header=None)
    index = pd.to_numeric(table["index"], errors="coerce").to_numpy()
    if not np.array_equal(np.sort(index), np.arange(len(index))):
        raise XferError(f"{path}: the indices must be 0 to {len(index) - 1}, each exactly once.")
    return table["id"].to_numpy()[np.argsort(index)]


def _read_texts(path: Path, item_ids: np.ndarray) -> pd.Series:
    texts = _read_table(path, ["item_id", "text"], header=0).drop_duplicates("item_id").set_index("item_id")["text"]
    if not texts.index.isin(item_ids).any():
        raise XferError(f"{path}: no item id, such as '{texts.index[0]}', is in the item2index file. Check --name.")
    return texts


def _to_ids(indices: pd.Series, ids: np.ndarray, path: Path) -> np.ndarray:
    outside = indices[(indices < 0) | (indices >= len(ids))]
    if len(outside):
        raise XferError(f"{path} has no index {outside.iloc[0]}, but the split files use it. Check --name.")
    return ids[indices.to_numpy()]


def _read_table(path: Path, columns: list[str], header: int | None) -> pd.DataFrame:
    """Reads a tab-separated file as strings, without quotation marks or missing values."""
    if not path.exists():
        raise XferError(f"The file {path} does not exist. Check --input and --name.")
    try:
        with path.open("rb") as file:
            text = io.BufferedReader(WithoutNul(path, file))
            table = pd.read_csv(text, sep="\t", header=header, dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise XferError(f"{path} cannot be read: {error}.") from error
    if table.empty or table.shape[1] != len(columns) or not isinstance(table.index, pd.RangeIndex):
        raise XferError(f"{path} must have rows of {len(columns)} columns, separated by tabs: {', '.join(columns)}.")
    return table.set_axis(columns, axis=1).fillna("")
