"""Reading RecBole's atomic files: quickly, and with a clear sentence where one is wrong."""

from __future__ import annotations

import csv
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.utils import FeatureType

from recbole_xfer.errors import XferError


@dataclass(frozen=True)
class AtomicFormat:
    """How the atomic files of a dataset are written; as RecBole does where nothing is said."""

    separator: str = "\t"
    encoding: str = "utf-8"
    item_id: str = "item_id"

    @classmethod
    def of(cls, config: Any) -> AtomicFormat:
        """As the keys of a configuration say."""
        return cls(config["field_separator"], config["encoding"] or "utf-8", config["ITEM_ID_FIELD"])


RECBOLES = AtomicFormat()


def read_header(path: Path, written: AtomicFormat = RECBOLES) -> dict[str, FeatureType]:
    """The columns of an atomic file and their types.

    Raises:
        XferError: if the file is missing or empty, is not in its encoding, or its header does not give every column a
            name of its own and a type.
    """
    if not path.is_file():
        raise XferError(f"{path} is missing. See dataset/README.md for the files that a dataset needs.")
    # spreadsheets begin UTF-8 with a mark, which is no part of the first name
    encoding = "utf-8-sig" if written.encoding == "utf-8" else written.encoding
    try:
        with open(path, encoding=encoding) as file:
            line = file.readline().rstrip("\r\n")
    except (UnicodeError, LookupError):
        raise _not_text(path, written.encoding) from None
    if not line:
        raise XferError(f"{path} is empty. Its first line must name the columns, such as user_id:token.")
    fields: dict[str, FeatureType] = {}
    for column in line.split(written.separator):
        name, _, kind = column.rpartition(":")
        if not name:
            raise XferError(
                f"{path}: column '{column}' of the header has no type. Write it as '{column}:token' "
                f"(or float, token_seq, float_seq), with columns separated by {written.separator!r}."
            )
        if ":" in name:
            raise XferError(
                f"{path}: the header '{line}' is not separated by {written.separator!r}. Separate columns so, or name "
                f"what separates them with --field_separator."
            )
        if name in fields:
            raise XferError(f"{path}: the header has the column '{name}' twice. Rename or remove one.")
        try:
            fields[name] = FeatureType(kind)
        except ValueError:
            raise XferError(
                f"{path}: column '{name}' has the unknown type '{kind}'. Use token, float, token_seq or float_seq."
            ) from None
    return fields


def read_atomic_file(
    path: Path, columns: Collection[str] | None = None, written: AtomicFormat = RECBOLES
) -> pd.DataFrame:
    """An atomic file as a frame: tokens and sequences as text, floats as float64; missing values are NaN.

    Args:
        columns: those to read; all where not given.

    Raises:
        XferError: if the file is missing, empty, has no rows, is not in its encoding, a row is longer than the header,
            or a float is not a number or infinite.
    """
    types = read_header(path, written)
    wanted = [name for name in types if columns is None or name in columns]
    _check_lengths(path, len(types), written)
    try:
        frame = pd.read_csv(
            path,
            sep=written.separator,
            names=list(types),
            header=0,
            usecols=wanted,
            dtype={name: np.float64 if types[name] == FeatureType.FLOAT else str for name in wanted},
            encoding=written.encoding,
            low_memory=False,  # one pass, so that equal tokens share one object
        )
    except UnicodeError:
        raise _not_text(path, written.encoding) from None
    except (ValueError, pd.errors.ParserError) as error:
        raise _located(path, wanted, types, written, error) from None
    if frame.empty:
        raise XferError(f"{path} has a header and no rows.")
    for name in wanted:
        if types[name] == FeatureType.FLOAT and np.isinf(frame[name].to_numpy()).any():
            row = int(np.isinf(frame[name].to_numpy()).argmax())
            raise XferError(f"{path}, line {row + 2}: column '{name}' is infinite. Correct or remove the row.")
    return frame[wanted]


def read_item_column(path: Path, column: str, written: AtomicFormat = RECBOLES) -> pd.Series | None:
    """A column of an .item file by item token, the first value of each; None where the file or column is missing.

    Raises:
        XferError: as :func:`read_atomic_file`, or if the file has no column of item tokens.
    """
    types = read_header(path, written) if path.is_file() else {}
    if column not in types:
        return None
    if written.item_id not in types:
        raise XferError(f"{path} has no column '{written.item_id}', only {', '.join(types)}. Rename the column.")
    frame = read_atomic_file(path, [written.item_id, column], written)
    return frame.drop_duplicates(written.item_id).set_index(written.item_id)[column]


def _not_text(path: Path, encoding: str) -> XferError:
    """The error of a file that cannot be decoded, with the first such line."""
    data = path.read_bytes()
    try:
        data.decode(encoding)
    except LookupError:
        return XferError(f"encoding={encoding} is none that Python knows. Use one such as utf-8 or latin-1.")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        return XferError(
            f"{path}, line {line}: this is not {encoding} text. Save the file as UTF-8, or name its encoding, such as "
            f"--encoding=latin-1."
        )
    return XferError(f"{path} cannot be read as {encoding} text.")


def _check_lengths(path: Path, columns: int, written: AtomicFormat) -> None:
    """Raises XferError for the first row that is longer than the header; pandas would cut it where columns are chosen.

    Rows are looked at only where a line has another number of separators than the header.
    """
    if _is_regular(path, columns, written.separator.encode()):
        return
    with open(path, encoding=written.encoding, errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter=written.separator)
        try:
            longer = next((row for row in rows if len(row) > columns), None)
        except csv.Error:  # such as a quotation mark that opens and does not close, of which pandas tells
            return
        if longer:
            raise XferError(
                f"{path}, line {rows.line_num}: there are {len(longer)} values for the {columns} columns of the "
                f"header. Remove what is too much, or name its column."
            )


def _is_regular(path: Path, columns: int, separator: bytes) -> bool:
    """Whether all lines have as many separators as so many columns need."""
    line = separator * (columns - 1) + b"\n"  # what is left of a line without its values
    values = bytes(set(range(256)).difference(line))
    rest = b""
    with open(path, "rb") as file:
        for piece in iter(partial(file.read, 2**20), b""):
            left = rest + piece.translate(None, values)
            lines, more = divmod(len(left), len(line))
            rest = line[:more]
            if left != line * lines + rest:
                return False
    return rest in (b"", line[:-1])


def _located(
    path: Path, wanted: list[str], types: dict[str, FeatureType], written: AtomicFormat, error: Exception
) -> XferError:
    """The error of the parser, with the line and column of the first value that is not a number."""
    try:
        text = pd.read_csv(
            path, sep=written.separator, names=list(types), header=0, dtype=str, encoding=written.encoding,
            keep_default_na=False, index_col=False,
        )  # fmt: skip
    except pd.errors.ParserError:
        return XferError(f"{path} cannot be read: {error}. Every line needs one value for each column.")
    for name in wanted:
        if types[name] != FeatureType.FLOAT:
            continue
        column = text[name].str.strip()
        wrong = pd.to_numeric(column, errors="coerce").isna() & (column != "")
        if wrong.any():
            row = int(np.argmax(wrong.to_numpy()))
            return XferError(
                f"{path}, line {row + 2}: '{column.iloc[row]}' in column '{name}' is not a number. "
                f"Write plain numbers such as 12.99, and leave a missing value empty."
            )
    return XferError(f"{path} cannot be read: {error}.")


def split_sequences(column: pd.Series, separator: str, kind: type, path: Path) -> list[np.ndarray]:
    """Cells such as ``'a b c'`` of a column of a file as arrays; an empty cell is an empty array.

    Raises:
        XferError: if a part of a cell is not of the kind.
    """
    cells: list[np.ndarray] = []
    try:
        for cell in column.fillna(""):
            cells.append(np.array([kind(part) for part in cell.split(separator) if part]))
    except ValueError as error:
        raise XferError(
            f"{path}, line {len(cells) + 2}: '{cell}' in column '{column.name}' is no list of numbers ({error}). "
            f"Write plain numbers, separated by {separator!r}."
        ) from None
    return cells
