"""Reads and writes item vectors; a row belongs to an item by its id, never by its position.

Three formats are read, for a domain ``Name`` and a modality, ``text``, ``image`` or ``word_drop`` (texts without some
of their words):

* ``Name.text.parquet``: columns ``item_id`` and ``vector``, written by this package.
* ``Name.text.npy`` and ``Name.text.ids``: a matrix, and one item id per line.
* ``Name.feat1CLS`` (text), ``Name.feat2CLS`` (word drop) or ``Name.feat3CLS`` (image) and ``Name.item2index``: raw
  float32 rows, and lines ``id <tab> row``, as UniSRec and ANT publish them.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recbole_xfer.errors import XferError
from recbole_xfer.files import replacing

MEMORY_LIMIT = 2**30
"""Bytes above which a table is kept in a file instead of in memory."""

BLOCK = 2**16
"""Rows that are read, checked and written at a time."""

WORD_DROP = "word_drop"
"""Name of the vectors of texts without some of their words, in file names and in models."""

RAW_SUFFIX = {"text": "feat1CLS", WORD_DROP: "feat2CLS", "image": "feat3CLS"}

Blocks = Iterator[np.ndarray]


@dataclass(frozen=True)
class VectorTable:
    """Vectors of items, by item id.

    Attributes:
        values: [N, D] float32 or float16, zero if an item has no vector; a memory-mapped array if large.
        present: whether the item has a vector, bool [N].
        encoder: the encoder of the vectors; "unknown" if the file does not name it.
        source: the data that was encoded.
    """

    values: np.ndarray
    present: np.ndarray
    encoder: str = "unknown"
    source: str = "unknown"


@dataclass(frozen=True)
class _VectorFile:
    """An opened file: the id of each row, and the rows block by block, [n, D] each."""

    ids: pd.Index
    blocks: Blocks
    encoder: str = "unknown"
    source: str = "unknown"


def find_vectors(folder: Path, name: str, modality: str) -> Path | None:
    """Finds the file with a domain's vectors of a modality: parquet, else npy, else raw, else None."""
    for suffix in (f"{modality}.parquet", f"{modality}.npy", RAW_SUFFIX[modality]):
        path = Path(folder) / f"{name}.{suffix}"
        if path.is_file():
            return path
    return None


def vector_files(folder: Path, name: str, modality: str) -> list[Path]:
    """The files of a domain's vectors of a modality: :func:`find_vectors`, and the item ids beside it; or none."""
    path = find_vectors(folder, name, modality)
    companions = {".parquet": [], ".npy": [".ids"]}
    return [] if path is None else [path, *map(path.with_suffix, companions.get(path.suffix, [".item2index"]))]


def vector_ids(path: Path) -> pd.Index:
    """Returns the item id of each row of a file of vectors.

    Raises:
        XferError: if the file cannot be read.
    """
    return _open(path).ids


def allocate(shape: tuple[int, int], dtype: np.dtype, memory_limit: int = MEMORY_LIMIT) -> np.ndarray:
    """Allocates zeros, above ``memory_limit`` bytes in a temporary file that disappears with the array.

    Raises:
        XferError: if the temporary folder has too little space.
    """
    size = shape[0] * shape[1] * np.dtype(dtype).itemsize
    if size <= memory_limit:
        return np.zeros(shape, dtype)
    folder = tempfile.gettempdir()
    if shutil.disk_usage(folder).free < size:  # checked now: a full disk ends the process later
        raise XferError(
            f"{folder} has too little space for {size / 2**30:.1f} GiB of vectors. Free some space, or set TMPDIR to a "
            f"folder on a larger disk."
        )
    with tempfile.TemporaryFile(prefix="recbole-xfer-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)


def read_vectors(path: Path, item_tokens: np.ndarray, memory_limit: int = MEMORY_LIMIT) -> VectorTable:
    """Reads the vectors of a file, aligned to ``item_tokens`` by item id.

    Args:
        path: one of the three formats, by its suffix.
        item_tokens: id of each item, [N]; the first is the padding item, which has no vector.
        memory_limit: bytes above which the table is kept in a temporary file.

    Raises:
        XferError: if the file cannot be read or lacks a column, no item id matches, an id is repeated, the vectors have
            different lengths, or a value is not finite.
    """
    path = Path(path)
    file = _open(path)
    if file.ids.has_duplicates:
        raise XferError(f"{path}: item '{file.ids[file.ids.duplicated()][0]}' has two vectors. Keep one of its rows.")
    targets = pd.Index(item_tokens[1:]).get_indexer(file.ids) + 1  # 0 where the item is unknown here
    if len(item_tokens) > 1 and not targets.any():
        raise XferError(
            f"{path} has vectors of other items: no id matches. Its first id is '{next(iter(file.ids), '')}'; an id "
            f"of the dataset is '{item_tokens[1]}'. Encode this dataset's items."
        )
    values, start = None, 0
    for block in _explaining(path, file.blocks):
        ids = file.ids[start : start + len(block)]
        _check_finite(block, ids, str(path))
        if values is None:
            values = allocate((len(item_tokens), block.shape[1]), block.dtype, memory_limit)
        rows = targets[start : start + len(block)]
        values[rows[rows > 0]] = block[rows > 0]
        start += len(block)
    if values is None or not values.size:
        raise XferError(f"{path} has no vectors. Make it again, for example with `recbole-xfer encode`.")
    present = np.zeros(len(item_tokens), dtype=bool)
    present[targets[targets > 0]] = True
    return VectorTable(values, present, file.encoder, file.source)


def write_vectors(
    path: Path,
    item_ids: Sequence[str],
    vectors: np.ndarray,
    *,
    encoder: str,
    source: str,
    metadata: Mapping[str, str] | None = None,
    columns: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Writes a parquet file with the columns ``item_id`` (string) and ``vector`` (fixed_size_list[D]).

    Args:
        item_ids: one id per row, unique, [N].
        vectors: [N, D] float16 or float32; a memory-mapped array is written block by block.
        encoder: name of the encoder, for the schema's metadata.
        source: description of the encoded data, for the schema's metadata.
        metadata: more entries of the schema's metadata.
        columns: more columns of strings by name, one value per row.

    Raises:
        XferError: if lengths differ, an id is repeated, a value is not finite, or the file cannot be written.
    """
    ids = pd.Index(item_ids, dtype=object)
    if vectors.ndim != 2 or len(ids) != len(vectors) or not vectors.size:
        raise XferError(
            f"{path}: {len(ids)} item ids do not fit vectors of shape {vectors.shape}. Pass one id per vector."
        )
    if vectors.dtype not in (np.float16, np.float32):
        raise XferError(f"{path}: the vectors are {vectors.dtype}. Convert them to float16 or float32.")
    if ids.has_duplicates:
        raise XferError(f"{path}: item '{ids[ids.duplicated()][0]}' is repeated. Pass one vector per item.")
    dimension = vectors.shape[1]
    keys = {"encoder": encoder, "dimension": str(dimension), "source": source} | dict(metadata or {})
    column = pa.list_(pa.from_numpy_dtype(vectors.dtype), dimension)
    columns = dict(columns or {})
    fields = [("item_id", pa.string()), ("vector", column), *((name, pa.string()) for name in columns)]
    schema = pa.schema(fields, metadata=keys)
    with replacing(path) as temporary, pq.ParquetWriter(temporary, schema, use_dictionary=False) as writer:
        for start in range(0, len(ids), BLOCK):
            block = np.ascontiguousarray(vectors[start : start + BLOCK])
            names = ids[start : start + BLOCK]
            _check_finite(block, names, str(path))
            rows = pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), dimension)
            others = [pa.array(values[start : start + BLOCK], pa.string()) for values in columns.values()]
            writer.write_batch(pa.record_batch([pa.array(names, pa.string()), rows, *others], schema=schema))


def read_columns(path: Path, names: Sequence[str]) -> pd.DataFrame | None:
    """Returns columns of strings of a parquet file of vectors; None if it lacks one.

    Raises:
        XferError: if the file cannot be read.
    """
    file = _parquet(path)
    if not set(names) <= set(file.schema_arrow.names):
        return None
    try:
        table = file.read(columns=list(names))
        return pd.DataFrame({name: table[name].cast(pa.string()).to_pandas() for name in names})
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def read_metadata(path: Path) -> dict[str, str]:
    """Returns the metadata of a parquet file of vectors: encoder, dimension, source and more.

    Raises:
        XferError: if the file cannot be read.
    """
    metadata = _parquet(path).schema_arrow.metadata or {}
    try:
        return {key.decode(): value.decode() for key, value in metadata.items()}
    except UnicodeDecodeError as error:
        raise _unreadable(path, error) from error


def _open(path: Path) -> _VectorFile:
    readers: dict[str, Callable[[Path], _VectorFile]] = {".parquet": _open_parquet, ".npy": _open_npy}
    readers |= {f".{suffix}": _open_raw for suffix in RAW_SUFFIX.values()}
    if path.suffix not in readers:
        raise XferError(f"{path} has an unknown format. Name it {', '.join('*' + suffix for suffix in readers)}.")
    return readers[path.suffix](path)


def _parquet(path: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _open_parquet(path: Path) -> _VectorFile:
    file = _parquet(path)
    for column in ("item_id", "vector"):
        if column not in file.schema_arrow.names:
            raise XferError(
                f"{path} has no column '{column}' (columns: {', '.join(file.schema_arrow.names)}). "
                f"It needs item_id and vector."
            )
    kind = file.schema_arrow.field("vector").type
    lists = pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not (lists and pa.types.is_floating(kind.value_type)):
        raise XferError(f"{path}: column 'vector' is {kind}, but must be lists of float16 or float32.")
    try:
        ids = file.read(columns=["item_id"])["item_id"].cast(pa.string())
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    metadata = read_metadata(path)
    index = pd.Index(ids.to_pandas(), dtype=object)
    known = {key: metadata[key] for key in ("encoder", "source") if key in metadata}
    return _VectorFile(index, _parquet_blocks(path, file, index), **known)


def _parquet_blocks(path: Path, file: pq.ParquetFile, ids: pd.Index) -> Blocks:
    kind, start = file.schema_arrow.field("vector").type, 0
    dimension = kind.list_size if pa.types.is_fixed_size_list(kind) else None
    try:
        for batch in file.iter_batches(batch_size=BLOCK, columns=["vector"]):
            vectors = batch.column(0)
            lengths = np.asarray(pc.fill_null(pc.list_value_length(vectors), 0))
            dimension = dimension or int(lengths.max(initial=0))
            if (lengths != dimension).any():
                row = int((lengths != dimension).argmax())
                raise _unequal_lengths(path, ids[start + row], lengths[row], dimension)
            matrix = vectors.flatten().to_numpy(zero_copy_only=False).reshape(len(batch), dimension)
            yield matrix.astype(np.float32) if matrix.dtype == np.float64 else matrix
            start += len(batch)
    except pa.ArrowInvalid as error:
        if "had size=0" not in str(error):
            raise
        raise _unequal_lengths(path, ids[_readable_rows(file)], 0, dimension) from error


def _readable_rows(file: pq.ParquetFile) -> int:
    """Counts the rows before the first missing vector of a fixed-size column, which pyarrow before 26 cannot read."""
    count = 0
    with suppress(pa.ArrowInvalid):
        for _ in file.iter_batches(batch_size=1, columns=["vector"]):
            count += 1
    return count


def _unequal_lengths(path: Path, item: str, length: int, expected: int | None) -> XferError:
    return XferError(
        f"{path}: the vectors have different lengths: that of item '{item}' has {length} values, others have "
        f"{expected}. Remove the rows of items without a vector."
    )


def _open_npy(path: Path) -> _VectorFile:
    companion = path.with_suffix(".ids")
    ids = _read_lines(companion, path)
    try:
        matrix = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if matrix.ndim != 2 or matrix.dtype.kind != "f":
        raise XferError(
            f"{path} contains {matrix.dtype} of shape {matrix.shape}, but must be a matrix of float16 or float32."
        )
    if len(matrix) != len(ids):
        raise XferError(f"{path} has {len(matrix)} rows, but {companion} has {len(ids)} lines. Both need one per item.")
    return _VectorFile(pd.Index(ids, dtype=object), _matrix_blocks(matrix))


def _open_raw(path: Path) -> _VectorFile:
    companion = path.with_suffix(".item2index")
    fields = [line.split("\t") for line in _read_lines(companion, path)]
    ids = np.full(len(fields), None, dtype=object)
    for number, field in enumerate(fields, start=1):
        row = int(field[1]) if len(field) == 2 and field[1].isdecimal() else -1
        if not 0 <= row < len(ids) or ids[row] is not None:
            raise XferError(
                f"{companion}, line {number} is invalid. Write the item id, a tab and its row in the vector file, a "
                f"number from 0 to {len(ids) - 1} that no other line has."
            )
        ids[row] = field[0]
    row_size, rest = divmod(path.stat().st_size, 4 * max(len(ids), 1))
    if rest or not row_size:
        raise XferError(
            f"{path} has {path.stat().st_size} bytes, which does not give float32 vectors of equal length for the "
            f"{len(ids)} items of {companion}. Check that both files are complete and belong together."
        )
    matrix = np.memmap(path, dtype=np.float32, mode="r", shape=(len(ids), row_size))
    return _VectorFile(pd.Index(ids), _matrix_blocks(matrix), encoder="as published", source=path.name)


def _matrix_blocks(matrix: np.ndarray) -> Blocks:
    dtype = np.float16 if matrix.dtype == np.float16 else np.float32
    for start in range(0, len(matrix), BLOCK):
        yield np.asarray(matrix[start : start + BLOCK], dtype=dtype)


def _read_lines(companion: Path, path: Path) -> list[str]:
    try:
        return companion.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise XferError(f"{path} needs {companion}, with the item id of each row: {error}.") from error


def _check_finite(block: np.ndarray, ids: Any, where: str) -> None:
    finite = np.isfinite(block).all(axis=1)
    if not finite.all():
        raise XferError(
            f"{where}: the vector of item '{ids[int(np.argmin(finite))]}' has a value that is NaN or infinite. "
            f"Encode the item again, or remove its row."
        )


def _explaining(path: Path, blocks: Blocks) -> Blocks:
    """Yields the blocks; raises XferError if reading them fails."""
    try:
        yield from blocks
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> XferError:
    return XferError(f"{path} cannot be read: {str(error).splitlines()[0]}. The file may be incomplete. Make it again.")
