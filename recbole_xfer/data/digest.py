"""Digests of the data of a run; they show whether it has changed since training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from recbole_xfer.data.features import ItemFeatures


def tables_digest(dataset: Any) -> str:
    """Returns a digest of the tokens and columns of a dataset before its split, and of the parts that files give."""
    columns = [column.to_numpy() for name in dataset.feat_name_list for _, column in getattr(dataset, name).items()]
    flat = [part for column in columns for part in _flat(column)]
    if dataset.config["benchmark_filename"] is not None:
        flat.append(dataset.parts)
    return _digest([*flat, *(tokens.astype(str, copy=False) for tokens in dataset.field2id_token.values())])


def features_digest(dataset: Any) -> str:
    """Returns a digest of the vectors and prices that a model has read."""
    features = dataset.__dict__.get("features") or ItemFeatures(None, None, None)
    tables = (features.text, features.image, dataset.__dict__.get("word_drop"))
    arrays = [None if table is None else table.values for table in tables]
    return _digest(np.empty(0) if array is None else array for array in (features.price, *arrays))


def _flat(column: np.ndarray) -> list[np.ndarray]:
    """A column as arrays of plain values; a column of lists as their lengths and their entries."""
    if column.dtype != object:
        return [column]
    cells = [np.atleast_1d(cell) for cell in column]
    return [np.array([len(cell) for cell in cells]), np.concatenate(cells)]


def _digest(arrays: Iterable[np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for array in arrays:
        digest.update(f"{array.dtype}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
