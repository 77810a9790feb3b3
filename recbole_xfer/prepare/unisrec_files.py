"""Writes a domain in the layout that UniSRec and ANT publish; :mod:`recbole_xfer.prepare.unisrec` reads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_xfer.data.atomic import read_atomic_file
from recbole_xfer.data.vectors import RAW_SUFFIX, find_vectors, read_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.files import check_complete, replacing_folders
from recbole_xfer.log import logger

LONGEST_HISTORY = 50
"""Previous items in a row, as in the published files."""

FEWEST = 3
"""Interactions of a user: one item each to train, validate and test."""

HEADER = "user_id:token\titem_id_list:token_seq\titem_id:token\n"


def write_unisrec(output: Path, folder: Path) -> Path:
    """Writes the split files, index files, texts and vectors of a domain; returns their folder.

    The last item of each user is the test item, the last but one the validation item. Users with fewer than three
    interactions are left out and counted. Items have the order of the ``.item`` file, users that of their first
    interactions. An item without a vector has zeros.

    Args:
        output: the folder for the folder of the files.
        folder: the domain's folder.

    Raises:
        XferError: if a file of the domain is missing or invalid, or no user has enough interactions.
    """
    folder = Path(folder)
    name = folder.name
    check_complete(folder)
    log = read_atomic_file(folder / f"{name}.inter", ["user_id", "item_id", "timestamp"])
    if "timestamp" in log:
        log = log.sort_values("timestamp", kind="stable")
    many = log.groupby("user_id")["item_id"].transform("size") >= FEWEST
    if not many.any():
        raise XferError(f"{folder / name}.inter: no user has {FEWEST} interactions, which the three splits need.")
    if not many.all():
        left_out = log["user_id"][~many].nunique()
        logger.warning(f"{name}: {left_out:,} users with fewer than {FEWEST} interactions are left out.")
    log = log[many]
    listed = pd.DataFrame({"item_id": log["item_id"]})
    if (folder / f"{name}.item").is_file():
        listed = read_atomic_file(folder / f"{name}.item", ["item_id", "text"])
    items = pd.concat([listed["item_id"], log["item_id"]]).unique()
    users = log["user_id"].unique()
    with replacing_folders(output) as temporary:
        start = temporary / name / name
        start.parent.mkdir()
        _write_index(start.with_name(f"{name}.item2index"), items)
        _write_index(start.with_name(f"{name}.user2index"), users)
        sequences = pd.Series(pd.Index(items).get_indexer(log["item_id"])).groupby(
            pd.Index(users).get_indexer(log["user_id"])
        )
        _write_splits(start, [sequence.to_numpy() for _, sequence in sequences])
        if "text" in listed:
            texts = listed.dropna(subset="text")
            lines = [f"{item}\t{text}" for item, text in zip(texts["item_id"], texts["text"], strict=True)]
            start.with_name(f"{name}.text").write_text("\n".join(["item_id:token\ttext:token_seq", *lines]) + "\n")
        for modality, suffix in RAW_SUFFIX.items():
            _write_vectors(start.with_name(f"{name}.{suffix}"), folder, modality, items)
    return Path(output) / name


def _write_index(path: Path, ids: np.ndarray) -> None:
    path.write_text("".join(f"{token}\t{index}\n" for index, token in enumerate(ids)), encoding="utf-8")


def _write_splits(start: Path, sequences: Sequence[np.ndarray]) -> None:
    """Writes the three split files; the training rows of a user go from the longest history to the shortest."""
    name = start.name
    files = {split: start.with_name(f"{name}.{split}.inter").open("w") for split in ("train", "valid", "test")}
    try:
        for file in files.values():
            file.write(HEADER)
        for user, sequence in enumerate(sequences):
            words = list(map(str, sequence))
            for target in range(len(words) - 1, 0, -1):
                split = {len(words) - 1: "test", len(words) - 2: "valid"}.get(target, "train")
                before = " ".join(words[max(0, target - LONGEST_HISTORY) : target])
                files[split].write(f"{user}\t{before}\t{words[target]}\n")
    finally:
        for file in files.values():
            file.close()


def _write_vectors(path: Path, folder: Path, modality: str, items: np.ndarray) -> None:
    """Writes the domain's vectors of a modality, if it has them, as raw float32 numbers."""
    source = find_vectors(folder, folder.name, modality)
    if source is None:
        return
    table = read_vectors(source, np.append("[PAD]", items))
    missing = len(items) - int(table.present[1:].sum())
    if missing:
        logger.warning(f"{folder.name}: {missing:,} items have no {modality} vector; zeros are written.")
    table.values[1:].astype("<f4").tofile(path)
