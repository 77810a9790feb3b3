"""Reads a table of separated values, JSON or Parquet, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import re
import zlib
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow

from recbole_xfer.errors import XferError, did_you_mean

SEPARATORS = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".item": "\t", ".user": "\t"}
ATOMIC_TYPE = re.compile(r":(token|float)(_seq)?$")


@dataclass(frozen=True)
class TextFormat:
    """The format of a file of separated values."""

    separator: str | None = None
    """None: a comma for .csv, a tab for .tsv and RecBole's atomic files."""
    header: bool = True
    """Whether the first line names the columns; otherwise they are named '1', '2', ...."""
    encoding: str = "utf-8"
    quotes: bool = True
    """Whether quotation marks enclose fields, as in csv; otherwise they are ordinary characters."""


def read_table(path: Path, form: TextFormat) -> pd.DataFrame:
    """Reads a table; its index begins with 1, and the types in the header of an atomic file are removed.

    Values of separated files stay strings; an empty value is missing. JSON is one object per line, or one list of
    objects. Two other shapes are read: an object of lists, ``{"user": [item, ...]}``, becomes the columns ``user``
    and ``item``; an object of objects, ``{"id": {...}}``, becomes its columns and ``index``.

    Raises:
        XferError: if the file does not exist, is empty or cannot be read, or the separator is unknown.
    """
    path = Path(path)
    if not path.is_file():
        raise XferError(f"The file {path} does not exist.")
    gzipped = path.suffix == ".gz"
    suffix = path.with_suffix("").suffix if gzipped else path.suffix
    try:
        with gzip.open(path) if gzipped else path.open("rb") as file:
            if suffix in (".json", ".jsonl"):
                table = _read_json(path, file)
            elif suffix == ".parquet":
                table = pd.read_parquet(pyarrow.BufferReader(file.read()))
            else:
                table = _read_separated(path, file, suffix, form)
    except LookupError:
        raise XferError(
            f"--encoding={form.encoding} is unknown to Python. Use an encoding such as utf-8 or latin-1."
        ) from None
    except pd.errors.EmptyDataError:
        table = pd.DataFrame()
    except (pd.errors.ParserError, pyarrow.ArrowInvalid, UnicodeError, EOFError, OSError, zlib.error) as error:
        hint = " Name its encoding with --encoding." if isinstance(error, UnicodeError) else ""
        raise XferError(f"{path} cannot be read: {error}.{hint}") from error
    if table.empty:
        raise XferError(f"{path} is empty: it has no rows.")
    table.index = pd.RangeIndex(1, len(table) + 1)
    return table.rename(columns=lambda column: ATOMIC_TYPE.sub("", str(column)))


def check_column(table: pd.DataFrame, column: str, path: Path) -> None:
    """Raises XferError, with the columns, if the table has no such column."""
    if column not in table:
        raise XferError(f"{path} has no column '{column}' (columns: {', '.join(table)}){did_you_mean(column, table)}")


def _read_separated(path: Path, file: BufferedIOBase, suffix: str, form: TextFormat) -> pd.DataFrame:
    separator = form.separator or SEPARATORS.get(suffix)
    if separator is None:
        raise XferError(f"{path}: the separator does not follow from the file's name. Set --separator.")
    table = pd.read_csv(
        file,
        sep=re.escape(separator) if len(separator) > 1 else separator,
        engine="python" if len(separator) > 1 else "c",
        header=0 if form.header else None,
        encoding=form.encoding,
        dtype=str,
        keep_default_na=False,
        na_values=[""],
        quoting=csv.QUOTE_MINIMAL if form.quotes and len(separator) == 1 else csv.QUOTE_NONE,
    )
    if not isinstance(table.index, pd.RangeIndex):  # pandas reads extra columns as an index
        raise XferError(f"{path} has rows with more fields than its header. Check the separator.")
    return table if form.header else table.rename(columns=lambda position: str(position + 1))


def _read_json(path: Path, file: BufferedIOBase) -> pd.DataFrame:
    first = file.readline()
    if first.strip() == b"{" or first.lstrip()[:1] == b"[":
        return _to_table(path, _parse(path, first + file.read()))
    lines = enumerate(itertools.chain([first], file), start=1)
    records = [_parse(f"{path}, line {number}", line) for number, line in lines if line.strip()]
    return _to_table(path, records[0] if len(records) == 1 else records)


def _parse(where: Path | str, text: bytes) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise XferError(f"{where}: invalid JSON: {error}.") from error


def _to_table(path: Path, document: Any) -> pd.DataFrame:
    """Converts a JSON document: a list of objects, an object of lists, an object of objects, or one object."""
    if isinstance(document, dict):
        values = document.values()
        if values and all(isinstance(value, list) for value in values):
            lists = [(key, value) for key, value in document.items() if value]
            return pd.DataFrame(lists, columns=["user", "item"]).explode("item")
        if values and all(isinstance(value, dict) for value in values):
            document = [{"index": key, **value} for key, value in document.items()]
        else:
            document = [document]
    if not isinstance(document, list) or not all(isinstance(record, dict) for record in document):
        raise XferError(f'{path}: every record must be a JSON object, such as {{"user": 1, "item": 2}}.')
    return pd.DataFrame.from_records(document)
