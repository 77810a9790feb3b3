"""Reads RecBole's atomic files, with a clear error where a file is wrong.

Quotation marks are letters: the format has no rule for them. Reading is by pandas: pyarrow.csv rejects rows without
their last values, and rounds numbers of many digits differently.
"""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_xfer.errors import XferError
from recbole_xfer.files import nul_error

TYPES = ("token", "float", "token_seq", "float_seq")
"""Types of columns, as in the header of an atomic file."""

# What pandas.read_csv turns into NaN by default, as its documentation lists it.
READ_AS_MISSING = (
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND",
    "1.#QNAN", "<NA>", "N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip


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
                raise nul_error(path, number)
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
