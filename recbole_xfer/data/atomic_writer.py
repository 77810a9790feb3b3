"""Writes RecBole's atomic files, with a clear error where a table cannot be written.

By pyarrow, which is fast for large tables. Quotation marks are letters: the format has no rule for them.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbole_xfer.config.values import domain_problem
from recbole_xfer.data.atomic import READ_AS_MISSING
from recbole_xfer.errors import XferError
from recbole_xfer.files import replacing_folders

NUMBERS = ("timestamp", "price", "rating")
"""Columns that are written as floats."""

NOT_TEXT = re.compile("[\0\ud800-\udfff]")
"""Characters that a text file cannot contain."""

ROWS_AT_A_TIME, BATCHES_AT_A_TIME = 2**17, 4
"""Rows that a thread turns into text at once, and threads."""


def write_domain(
    output: Path, name: str, interactions: pd.DataFrame | pa.Table, items: pd.DataFrame | pa.Table | None
) -> Path:
    """Writes ``<output>/<name>/<name>.inter`` and, with items, ``<name>.item``; keeps the folder's other files.

    The folder is written beside and replaced whole. Vectors of an earlier preparation stay aligned, because they are
    matched by item id. Arrow tables need the least memory, above all with dictionaries of ids.

    Args:
        interactions: ``user_id``, ``item_id``, ``timestamp`` (seconds) and optional columns. Rows are sorted by
            time; rows of equal time keep their order.
        items: ``item_id``, unique, and optional columns such as ``text`` (may be missing) and ``price`` (not
            negative; NaN if unknown).

    Returns:
        The domain's folder.

    Raises:
        XferError: if the name is invalid, there is no interaction, a column is missing, a token is empty or cannot be
            read back, a number is infinite, a timestamp is missing, a price is negative, or an item is repeated.
    """
    check_domain_name(name)
    interactions = _checked(interactions, f"{name}.inter", ["user_id", "item_id", "timestamp"])
    if not len(interactions):
        raise XferError(f"The domain {name} has no interactions. Check the input and its filters.")
    times = interactions["timestamp"].to_numpy()
    if (times[1:] < times[:-1]).any():
        interactions = interactions.take(np.argsort(times, kind="stable"))

    if items is not None:
        items = _checked(items, f"{name}.item", ["item_id"])
        counts = pc.value_counts(_decoded(items["item_id"]))
        repeated = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        if len(repeated):
            raise XferError(f"{name}.item: item '{repeated[0]}' is listed twice. Keep one of its rows.")
    with replacing_folders(output) as temporary:
        (temporary / name).mkdir()
        if items is not None:
            _write(temporary / name / f"{name}.item", items)
        _write(temporary / name / f"{name}.inter", interactions)
    return Path(output) / name


def write_table(path: Path, table: pd.DataFrame | pa.Table) -> None:
    """Writes another file in the format of atomic files, such as a list of addresses; raises as ``write_domain``."""
    _write(path, _checked(table, path.name, []))


def check_domain_name(name: str) -> None:
    """Raises XferError if a domain cannot have this name."""
    problem = domain_problem(name)
    if problem is not None:
        raise XferError(f"This cannot be the name of a domain: {problem}.")


def is_writable(tokens: pa.Array) -> pa.Array:
    """Whether each id can be written to an atomic file and read back; missing ones cannot."""
    wrong = pc.equal(pc.utf8_trim_whitespace(tokens), "")
    for mask in _unwritable(tokens).values():
        wrong = pc.or_(wrong, mask)
    wrong = pc.or_(wrong, pc.is_in(tokens, pa.array(READ_AS_MISSING, tokens.type)))
    return pc.fill_null(pc.invert(wrong), False)


def _checked(table: pd.DataFrame | pa.Table, file: str, needed: list[str]) -> pa.Table:
    """``table`` with the needed columns first and every column ready to be written: a number or strings."""
    names = list(table.column_names if isinstance(table, pa.Table) else map(str, table.columns))
    missing = [column for column in needed if column not in names]
    if missing:
        raise XferError(f"{file}: column {missing[0]} is missing (columns: {', '.join(names)}).")
    columns = {}
    for name in needed + [column for column in names if column not in needed]:
        where = f"{file}, column {name}"
        if name in NUMBERS:
            columns[name] = _checked_numbers(table[name], where, name in needed, 0 if name == "price" else -np.inf)
        elif name == "text":
            columns[name] = _clean_texts(table[name])
        else:
            columns[name] = _checked_strings(table[name], where, required=name.endswith("_id"))
    return pa.table(columns)


def _clean_texts(column: pd.Series | pa.ChunkedArray) -> pa.Array:
    """Texts on one line, without characters that a file cannot contain; empty texts are missing."""
    texts = column.to_pylist() if isinstance(column, pa.ChunkedArray) else column.astype("string")
    cleaned = (None if text is None or text is pd.NA else " ".join(NOT_TEXT.sub(" ", text).split()) for text in texts)
    return pa.array([text or None for text in cleaned], pa.large_string())


def _checked_strings(column: pd.Series | pa.ChunkedArray, where: str, required: bool) -> pa.ChunkedArray:
    """The column as strings, dictionaries unchanged.

    Raises:
        XferError: for the first value that would be read back differently.
    """
    if not isinstance(column, pa.ChunkedArray):
        column = pa.chunked_array([_strings(column, where)])
    distinct = _distinct(column)
    problems = _unwritable(distinct)
    if required:
        problems["is empty"] = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(distinct), ""), True)
        missing = pa.array(READ_AS_MISSING, distinct.type)
        problems["is read back as a missing value"] = pc.is_in(distinct, missing)
    for problem, mask in problems.items():
        if pc.any(mask).as_py():
            value = distinct[pc.index(pc.fill_null(mask, False), True).as_py()].as_py()
            rows = pc.is_null(column) if value is None else pc.equal(_decoded(column), value)
            row, value = pc.index(rows, True).as_py(), value or ""
            raise XferError(f"{where}, row {row + 1}: the value {value!r} {problem}. Change it or remove the row.")
    return column


def _distinct(column: pa.ChunkedArray) -> pa.Array:
    """The distinct values of a column of strings."""
    if not pa.types.is_dictionary(column.type):
        return pc.unique(_decoded(column))
    if column.num_chunks == 1 and not column.null_count:
        codes, values = column.chunk(0).indices.to_numpy(), column.chunk(0).dictionary
        return values.filter(pa.array(np.bincount(codes, minlength=len(values)) > 0))
    return pc.unique(_decoded(pc.unique(column)))


def _unwritable(strings: pa.Array) -> dict[str, pa.Array]:
    """By what is wrong with them, the strings that contain a character that ends a field or a file cannot contain."""
    return {
        "contains a tab or a line break, which ends a field": pc.match_substring_regex(strings, r"[\t\r\n]"),
        "contains a character that a text file cannot": pc.match_substring(strings, "\0"),
    }


def _strings(column: pd.Series, where: str) -> pa.Array:
    values = column.astype("string").reset_index(drop=True)
    try:
        return pa.array(values, pa.large_string(), from_pandas=True)
    except UnicodeEncodeError:
        row = values.str.contains("[\ud800-\udfff]", na=False).idxmax()
        raise XferError(
            f"{where}, row {row + 1}: the value {values[row]!r} contains a character that a text file cannot. "
            f"Change it or remove the row."
        ) from None


def _checked_numbers(column: pd.Series | pa.ChunkedArray, where: str, required: bool, lowest: float) -> pa.Array:
    """The column as integers if all numbers are, otherwise as floats; NaN is missing."""
    if isinstance(column, pa.ChunkedArray):
        numbers = pc.cast(column, pa.float64()).to_numpy()
    else:
        numbers = column.astype(np.float64).to_numpy()
    missing = np.isnan(numbers)
    wrong = ~((np.isfinite(numbers) & (numbers >= lowest)) | (missing & (not required)))
    if wrong.any():
        row = int(wrong.argmax())
        bound = "a finite number" if lowest == -np.inf else f"a finite number of at least {lowest:g}"
        raise XferError(f"{where}, row {row + 1}: {numbers[row]} is not {bound}. Correct it or remove the row.")
    whole = (missing | (np.mod(numbers, 1) == 0)).all() and (np.abs(numbers[~missing]) < 2**53).all()
    numbers = np.where(missing, 0, numbers).astype(np.int64) if whole else numbers
    return pa.array(numbers, mask=missing if missing.any() else None)


def _decoded(column: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The column as strings with 64-bit offsets."""
    return pc.cast(column, pa.large_string())


def _fields(column: pa.Array) -> pa.Array:
    """The column as it is written; floats as Python writes them."""
    if pa.types.is_floating(column.type):
        numbers = (None if number is None else repr(number) for number in column.to_pylist())
        return pa.array(numbers, pa.large_string())
    return _decoded(column)


def _write(path: Path, table: pa.Table) -> None:
    batches = iter(table.to_batches(max_chunksize=ROWS_AT_A_TIME))
    with path.open("wb") as file, ThreadPoolExecutor(BATCHES_AT_A_TIME) as pool:
        file.write("\t".join(f"{name}:{_type_of(name)}" for name in table.column_names).encode() + b"\n")
        while group := list(islice(batches, BATCHES_AT_A_TIME)):
            for lines in pool.map(_lines, group):
                file.write(lines)


def _lines(batch: pa.RecordBatch) -> pa.Buffer:
    """The rows as text, one line each."""
    tab, end, nothing = (pa.scalar(text, pa.large_string()) for text in ("\t", "\n", ""))
    lines = pc.binary_join_element_wise(*(pc.fill_null(_fields(column), nothing) for column in batch.columns), tab)
    return pc.binary_join_element_wise(lines, nothing, end).buffers()[2]


def _type_of(column: str) -> str:
    if column in NUMBERS:
        return "float"
    return "token_seq" if column == "text" else "token"
