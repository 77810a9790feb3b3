"""Reads and writes RecBole's atomic files, with a clear error where a file or a table is wrong.

Reading is by pandas: pyarrow.csv rejects rows without their last values, reads on to the end of the file where a
quotation mark does not close, and rounds numbers of many digits differently.
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

from recbole_xfer.config.values import split_domains
from recbole_xfer.errors import XferError
from recbole_xfer.files import replacing

TYPES = ("token", "float", "token_seq", "float_seq")
"""Types of columns, as in the header of an atomic file."""

NUMBERS = ("timestamp", "price", "rating")
"""Columns that are written as floats."""

# What pandas.read_csv turns into NaN by default, as its documentation lists it.
READ_AS_MISSING = "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null"


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
            header, or a float is infinite or not a number.
    """
    types = read_header(path, form)
    wanted = [name for name in types if columns is None or name in columns]
    _check_lengths(path, len(types), form)
    try:
        frame = pd.read_csv(
            path,
            sep=form.separator,
            names=list(types),
            header=0,
            usecols=wanted,
            dtype={name: np.float64 if types[name] == "float" else str for name in wanted},
            encoding=form.encoding,
            low_memory=False,  # one pass, so that equal tokens share one object
        )
    except UnicodeError:
        raise _encoding_error(path, form.encoding) from None
    except (ValueError, pd.errors.ParserError) as error:
        raise _located(path, wanted, types, form, error) from None
    if frame.empty:
        raise XferError(f"{path} has a header and no rows.")
    for name in wanted:
        if types[name] == "float" and np.isinf(frame[name].to_numpy()).any():
            row = int(np.isinf(frame[name].to_numpy()).argmax())
            raise XferError(f"{path}, line {row + 2}: column '{name}' is infinite. Correct or remove the row.")
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


def _check_lengths(path: Path, columns: int, form: AtomicFormat) -> None:
    """Raises XferError for the first row that is longer than the header; pandas cuts it where columns are chosen.

    Rows are parsed only if the number of separators differs between lines.
    """
    if _is_regular(path, columns, form.separator.encode()):
        return
    with open(path, encoding=form.encoding, errors="replace", newline="") as file:
        rows = csv.reader(file, delimiter=form.separator)
        try:
            longer = next((row for row in rows if len(row) > columns), None)
        except csv.Error:  # such as a quotation mark that does not close, which pandas reports
            return
        if longer:
            raise XferError(
                f"{path}, line {rows.line_num}: there are {len(longer)} values for the {columns} columns of the "
                f"header. Remove the extra values, or add their columns to the header."
            )


def _is_regular(path: Path, columns: int, separator: bytes) -> bool:
    """Whether every line has exactly the separators that this number of columns needs."""
    line = separator * (columns - 1) + b"\n"  # a line without its values
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


def _located(path: Path, wanted: list[str], types: dict[str, str], form: AtomicFormat, error: Exception) -> XferError:
    """The parser's error, with the line and column of the first value that is not a number."""
    try:
        text = pd.read_csv(
            path, sep=form.separator, names=list(types), header=0, dtype=str, encoding=form.encoding,
            keep_default_na=False, index_col=False,
        )  # fmt: skip
    except pd.errors.ParserError:
        return XferError(f"{path} cannot be read: {error}. Every line needs one value for each column.")
    for name in wanted:
        if types[name] != "float":
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


# --- writing -----------------------------------------------------------------------------------------------------


def write_domain(output: Path, name: str, interactions: pd.DataFrame, items: pd.DataFrame | None) -> Path:
    """Writes ``<output>/<name>/<name>.inter`` and, with items, ``<name>.item``; keeps the folder's other files.

    Vectors of an earlier preparation stay aligned, because they are matched by item id. A field with a quotation
    mark is written in quotation marks, because RecBole reads the files with the defaults of ``pandas.read_csv``.

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
    if not name or name != Path(name).name or name.startswith(".") or len(split_domains(name)) > 1:
        raise XferError(f"'{name}' cannot be the name of a domain: it must be the name of a folder, without '+'.")
    interactions = _checked(interactions, f"{name}.inter", ["user_id", "item_id", "timestamp"])
    if interactions.empty:
        raise XferError(f"The domain {name} has no interactions. Check the input and its filters.")
    interactions = interactions.sort_values("timestamp", kind="stable")

    folder = Path(output) / name
    if items is not None:
        items = _checked(items, f"{name}.item", ["item_id"])
        repeated = items["item_id"][items["item_id"].duplicated()]
        if len(repeated):
            raise XferError(f"{name}.item: item '{repeated.iloc[0]}' is listed twice. Keep one of its rows.")
        _write(folder / f"{name}.item", items)
    _write(folder / f"{name}.inter", interactions)
    return folder


def _checked(table: pd.DataFrame, file: str, needed: list[str]) -> pd.DataFrame:
    """A copy of ``table``, with the needed columns first and every column ready to be written."""
    missing = [column for column in needed if column not in table]
    if missing:
        raise XferError(f"{file}: column {missing[0]} is missing (columns: {', '.join(map(str, table.columns))}).")
    table = table[needed + [column for column in table if column not in needed]].reset_index(drop=True)
    for column in table:
        if column in NUMBERS:
            table[column] = table[column].astype(np.float64)
            known = table[column] if column in needed else table[column].dropna()
            _check_numbers(known, file, lowest=0 if column == "price" else -np.inf)
            continue
        values = table[column].astype("string")
        if column == "text":
            table[column] = values.str.split().str.join(" ").replace("", pd.NA)
            continue
        _check_strings(values, f"{file}, column {column}", required=str(column).endswith("_id"))
        table[column] = values
    return table


def _check_strings(values: pd.Series, where: str, required: bool) -> None:
    """Raises XferError for the first value that would be read back differently."""
    distinct = values.drop_duplicates()
    problems = {"contains a tab or a line break, which ends a field": distinct.str.contains(r"[\t\r\n]", na=False)}
    if required:
        problems["is empty"] = distinct.fillna("").str.strip() == ""
        problems["is read back as a missing value"] = distinct.isin(READ_AS_MISSING.split("|"))
    for problem, mask in problems.items():
        if mask.any():
            row = mask.idxmax()
            value = "" if pd.isna(values[row]) else values[row]
            raise XferError(f"{where}, row {row + 1}: the value {value!r} {problem}. Change it or remove the row.")


def _check_numbers(values: pd.Series, file: str, lowest: float = -np.inf) -> None:
    wrong = values[~(np.isfinite(values) & (values >= lowest))]
    if len(wrong):
        bound = "a finite number" if lowest == -np.inf else f"a finite number of at least {lowest:g}"
        raise XferError(
            f"{file}, column {values.name}, row {wrong.index[0] + 1}: {wrong.iloc[0]} is not {bound}. "
            f"Correct it or remove the row."
        )


def _write(path: Path, table: pd.DataFrame) -> None:
    header = [f"{column}:{_type_of(str(column))}" for column in table]
    for column in table.columns.intersection(NUMBERS):
        values = table[column].dropna()
        if (values.mod(1) == 0).all() and (values.abs() < 2**53).all():
            table[column] = table[column].astype("Int64")
    with replacing(path) as temporary:
        table.to_csv(temporary, sep="\t", header=header, index=False, lineterminator="\n")


def _type_of(column: str) -> str:
    if column in NUMBERS:
        return "float"
    return "token_seq" if column == "text" else "token"
