"""Reads and writes RecBole's atomic files, with a clear error where a file or a table is wrong.

Quotation marks are letters: the format has no rule for them. Reading is by pandas: pyarrow.csv rejects rows without
their last values, and rounds numbers of many digits differently. Writing is by pyarrow, which is fast for large tables.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from recbole_xfer.config.values import domain_problem
from recbole_xfer.errors import XferError
from recbole_xfer.files import replacing_folders

TYPES = ("token", "float", "token_seq", "float_seq")
"""Types of columns, as in the header of an atomic file."""

NUMBERS = ("timestamp", "price", "rating")
"""Columns that are written as floats."""

# What pandas.read_csv turns into NaN by default, as its documentation lists it.
READ_AS_MISSING = (
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND",
    "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip

NOT_TEXT = re.compile("[\0\ud800-\udfff]")
"""Characters that a text file cannot contain."""

ROWS_AT_A_TIME, BATCHES_AT_A_TIME = 2**17, 4
"""Rows that a thread turns into text at once, and threads."""


@dataclass(frozen=True)
class AtomicFormat:
    """Separator, encoding and item column of a dataset's atomic files; the defaults are RecBole's."""

    separator: str = "\t"
    encoding: str = "utf-8"
    item_id: str = "item_id"

    @classmethod
    def of(cls, config: Any) -> AtomicFormat:
        """The format that a configuration names."""
        return cls(config["field_separator"], config["encoding"] or "utf-8", config["ITEM_ID_FIELD"])


RECBOLE_FORMAT = AtomicFormat()


# --- reading -----------------------------------------------------------------------------------------------------


def read_header(path: Path, form: AtomicFormat = RECBOLE_FORMAT) -> dict[str, str]:
    """Returns the columns of an atomic file and their types, of :data:`TYPES`.

    Raises:
        XferError: if the file is missing, is empty or has another encoding, or a column has no type, an unknown type
            or the name of another column.
    """
    if not path.is_file():
        raise XferError(f"The file {path} does not exist. See docs/data.md for the files that a dataset needs.")
    # spreadsheets begin UTF-8 with a mark, which is no part of the first name
    encoding = "utf-8-sig" if form.encoding == "utf-8" else form.encoding
    try:
        with open(path, encoding=encoding) as file:
            line = file.readline().rstrip("\r\n")
    except (UnicodeError, LookupError):
        raise _encoding_error(path, form.encoding) from None
    if not line:
        raise XferError(f"{path} is empty. Its first line must name the columns, such as user_id:token.")
    fields: dict[str, str] = {}
    for column in line.split(form.separator):
        name, _, kind = column.rpartition(":")
        if not name:
            raise XferError(
                f"{path}: column '{column}' of the header has no type. Write it as '{column}:token' "
                f"(or float, token_seq, float_seq), with columns separated by {form.separator!r}."
            )
        if ":" in name:
            raise XferError(
                f"{path}: the header '{line}' is not separated by {form.separator!r}. Use this separator, or name "
                f"yours with --field_separator."
            )
        if name in fields:
            raise XferError(f"{path}: the header has the column '{name}' twice. Rename or remove one.")
        if kind not in TYPES:
            raise XferError(
                f"{path}: column '{name}' has the unknown type '{kind}'. Use token, float, token_seq or float_seq."
            )
        fields[name] = kind
    return fields


def read_atomic_file(
    path: Path, columns: Collection[str] | None = None, form: AtomicFormat = RECBOLE_FORMAT
) -> pd.DataFrame:
    """Reads an atomic file: tokens and sequences as strings, floats as float64; missing values are NaN.

    Args:
        columns: the columns to read; all by default.

    Raises:
        XferError: if the file is missing, is empty, has no rows or has another encoding, a row is longer than the
            header, a line has a NUL character, or a float is infinite or not a number.
    """
    types = read_header(path, form)
    wanted = [name for name in types if columns is None or name in columns]
    rows = _count_rows(path, len(types), form)
    try:
        frame = pd.read_csv(
            path,
            sep=form.separator,
            names=list(types),
            header=0,
            usecols=wanted,
            dtype={name: np.float64 if types[name] == "float" else str for name in wanted},
            encoding=form.encoding,
            quoting=csv.QUOTE_NONE,
            low_memory=False,  # one pass, so that equal tokens share one object
        )
    except UnicodeError:
        raise _encoding_error(path, form.encoding) from None
    except (ValueError, pd.errors.ParserError) as error:
        wrong = _wrong_number(path, [name for name in wanted if types[name] == "float"], types, form)
        raise wrong or XferError(
            f"{path} cannot be read: {str(error).strip()}. Every line needs one value for each column."
        ) from None
    if len(frame) != rows:
        raise XferError(f"{path} has {rows:,} rows, but {len(frame):,} were read. Write one line for each row.")
    if frame.empty:
        raise XferError(f"{path} has a header and no rows.")
    numbers = {name: frame[name].to_numpy() for name in wanted if types[name] == "float"}
    for name, values in numbers.items():
        if np.isinf(values).any():
            row = int(np.isinf(values).argmax())
            raise XferError(f"{path}, line {row + 2}: column '{name}' is infinite. Correct or remove the row.")
        present = np.flatnonzero(~np.isnan(values))
        if len(present) and values[present[0]] in (0, 1):  # pandas reads a column of "True" and "False" as 1 and 0
            wrong = _wrong_number(path, [name], types, form, rows=int(present[0]) + 1)
            if wrong:
                raise wrong
    return frame[wanted]


def read_item_column(path: Path, column: str, form: AtomicFormat = RECBOLE_FORMAT) -> pd.Series | None:
    """Returns a column of an .item file by item token, the first value of each; None without the file or column.

    Raises:
        XferError: as :func:`read_atomic_file`, or if the file has no column of item tokens.
    """
    types = read_header(path, form) if path.is_file() else {}
    if column not in types:
        return None
    if form.item_id not in types:
        raise XferError(f"{path} has no column '{form.item_id}' (columns: {', '.join(types)}). Rename the column.")
    frame = read_atomic_file(path, [form.item_id, column], form)
    return frame.drop_duplicates(form.item_id).set_index(form.item_id)[column]


def split_sequences(column: pd.Series, separator: str, kind: type, path: Path) -> list[np.ndarray]:
    """Splits each cell of a column of a file, such as ``'a b c'``, into an array; an empty cell is an empty array.

    Raises:
        XferError: if a part of a cell cannot be converted to ``kind``.
    """
    cells: list[np.ndarray] = []
    try:
        for cell in column.fillna(""):
            cells.append(np.array([kind(part) for part in cell.split(separator) if part]))
    except ValueError as error:
        raise XferError(
            f"{path}, line {len(cells) + 2}: '{cell}' in column '{column.name}' is not a list of numbers ({error}). "
            f"Write plain numbers, separated by {separator!r}."
        ) from None
    return cells


def _encoding_error(path: Path, encoding: str) -> XferError:
    """The error for a file that cannot be decoded, with the first such line."""
    data = path.read_bytes()
    try:
        data.decode(encoding)
    except LookupError:
        return XferError(f"encoding={encoding} is unknown to Python. Use an encoding such as utf-8 or latin-1.")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return XferError(
            f"{path}, line {line}: the text is not {encoding}. Save the file as UTF-8, or name its encoding, such as "
            f"--encoding=latin-1."
        )
    return XferError(f"{path} cannot be read as {encoding} text.")


def _count_rows(path: Path, columns: int, form: AtomicFormat) -> int:
    """The number of rows, which are the lines after the header that are not blank.

    Lines are decoded only if their numbers of separators differ.

    Raises:
        XferError: for the first row that is longer than the header, because pandas cuts it where columns are chosen,
            or that has a NUL character, at which pandas cuts a value, or a carriage return, at which it cuts a row.
    """
    count = _count_regular_lines(path, columns, form.separator.encode())
    if count is not None:
        return count - 1
    blanks = " \t\r\n".replace(form.separator, "")
    rows = 0
    cut: dict[bool, int] = {}  # by whether a line ends with a carriage return only, the first such line
    with open(path, encoding=form.encoding, errors="replace", newline="") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(("\r", "\n")):
                cut.setdefault(line.endswith("\r"), number)
            values = line.count(form.separator) + 1
            if values > columns:
                raise XferError(
                    f"{path}, line {number}: there are {values} values for the {columns} columns of the header. Remove "
                    f"the extra values, or add their columns to the header."
                )
            if "\0" in line:
                raise XferError(f"{path}, line {number}: there is a NUL character. Remove it.")
            rows += line.strip(blanks) != ""
    if len(cut) == 2:
        raise XferError(f"{path}, line {cut[True]}: there is a carriage return inside the line. Remove it.")
    return rows - 1


def _count_regular_lines(path: Path, columns: int, separator: bytes) -> int | None:
    """The number of lines if each has exactly the separators that this number of columns needs, else None."""
    with open(path, "rb") as file:
        end = b"\r\n" if file.readline().endswith(b"\r\n") else b"\n"
        file.seek(0)
        line = separator * (columns - 1) + end  # a line without its values
        values = bytes(set(range(256)).difference(separator + b"\r\n\0"))
        rest, count, last = b"", 0, b""
        for piece in iter(partial(file.read, 2**20), b""):
            left = rest + piece.translate(None, values)
            lines, more = divmod(len(left), len(line))
            rest = line[:more]
            if left != line * lines + rest:
                return None
            count += lines
            last = piece[-1:]
    if columns == 1:
        return None  # a blank line is no row
    unfinished = b"" if last == b"\n" else separator * (columns - 1)
    return count + bool(unfinished) if rest == unfinished else None


def _wrong_number(
    path: Path, columns: list[str], types: dict[str, str], form: AtomicFormat, rows: int | None = None
) -> XferError | None:
    """The error for the first value of these columns (in the first rows) that is not a number; None without one."""
    try:
        text = pd.read_csv(
            path, sep=form.separator, names=list(types), header=0, usecols=columns, dtype=str, encoding=form.encoding,
            keep_default_na=False, index_col=False, quoting=csv.QUOTE_NONE, nrows=rows,
        )  # fmt: skip
    except pd.errors.ParserError:
        return None
    for name in columns:
        column = text[name].str.strip()
        wrong = pd.to_numeric(column, errors="coerce").isna() & ~column.isin(["", *READ_AS_MISSING])
        if wrong.any():
            row = int(np.argmax(wrong.to_numpy()))
            return XferError(
                f"{path}, line {row + 2}: '{column.iloc[row]}' in column '{name}' is not a number. "
                f"Write plain numbers such as 12.99, and leave a missing value empty."
            )
    return None


# --- writing -----------------------------------------------------------------------------------------------------


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
