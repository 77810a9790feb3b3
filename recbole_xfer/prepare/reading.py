"""Reads a table of separated values, JSON or Parquet, gzipped or not."""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow
from isal import igzip, igzip_lib
from pandas.api.types import infer_dtype
from pyarrow import parquet

from recbole_xfer.errors import XferError, did_you_mean
from recbole_xfer.files import WithoutNul, nul_error

ATOMIC = (".inter", ".item", ".user")
SEPARATORS = {".csv": ",", ".tsv": "\t"} | dict.fromkeys(ATOMIC, "\t")
INSTEAD_OF_COMMAS = (";", "\t")
"""What spreadsheets write to a .csv file where a comma is part of numbers."""
SPREADSHEETS = (".xls", ".xlsx", ".xlsm", ".xlsb", ".ods", ".numbers")
OTHER_COMPRESSIONS = (".zip", ".bz2", ".xz", ".zst", ".7z", ".tar", ".tgz")
UNPACKED_FREELY, UNPACKED_RATIO = 2**26, 100
"""A compressed file may unpack to so many bytes, or to so many times its size; only a zip bomb has more."""
MAGIC = b"\x1f\x8b"
"""The first bytes of a gzipped file."""
UNIT_SEPARATOR = "\x1f"
"""Stands for a separator of several characters."""

ATOMIC_TYPE = re.compile(r":(token|float)(_seq)?$")
QUOTED = re.compile(r'"[^"]*"?')
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class TextFormat:
    """The format of a file of separated values."""

    separator: str | None = None
    """None: a tab for .tsv and RecBole's atomic files. For .csv a comma or, if the first line has none outside
    quotation marks, the semicolon or tab that it has."""
    header: bool = True
    """Whether the first line names the columns; otherwise they are named '1', '2', ...."""
    encoding: str = "utf-8"
    quotes: bool = True
    """Whether quotation marks enclose fields, as in csv; otherwise, and in atomic files, they are letters."""


def read_table(path: Path, form: TextFormat) -> pd.DataFrame:
    """Reads a table; its index begins with 1, and the types in the header of an atomic file are removed.

    Values of separated files stay strings; an empty value is missing. JSON is one object per line, or one list of
    objects. Two other shapes are read: an object of lists, ``{"user": [item, ...]}``, becomes the columns ``user``
    and ``item``; an object of objects, ``{"id": {...}}``, becomes its columns and ``index``.

    Whole numbers stay exact, also where others of their column are missing.

    Raises:
        XferError: if the file does not exist, is empty or cannot be read, two columns have the same name, or the
            separator is unknown.
    """
    path = Path(path)
    if path.is_dir():
        raise XferError(f"{path} is a folder. Name its files, such as {path / 'part.csv'}.")
    if not path.is_file():
        raise XferError(f"The file {path} does not exist.")
    suffix = suffix_of(path)
    try:
        with opened(path) as file:
            if suffix in (".json", ".jsonl"):
                table = _read_json(path, file)
            elif suffix == ".parquet":
                table = _read_parquet(path, file)
            else:
                table = _read_separated(path, file, suffix, form)
    except LookupError:
        raise XferError(
            f"The encoding {form.encoding} is unknown to Python. Use one such as utf-8, cp1252 or latin-1."
        ) from None
    except pd.errors.EmptyDataError:
        table = pd.DataFrame()
    except (
        pd.errors.ParserError, pyarrow.ArrowInvalid, UnicodeError, EOFError, OSError, OverflowError, zlib.error
    ) as error:  # fmt: skip
        raise XferError(f"{path} cannot be read: {str(error).strip().rstrip('.')}.{_hint(error)}") from error
    if table.empty:
        raise XferError(f"{path} is empty: it has no rows.")
    table.index = pd.RangeIndex(1, len(table) + 1)
    table = table.rename(columns=lambda column: ATOMIC_TYPE.sub("", str(column)))
    repeated = table.columns[table.columns.duplicated()]
    if len(repeated):
        raise XferError(f"{path} has several columns '{repeated[0]}'. Rename them, so that each has a name of its own.")
    return table


def _hint(error: Exception) -> str:
    """What to do about a file that cannot be read."""
    if isinstance(error, UnicodeError):
        return (
            " Name its encoding, such as cp1252, with --encoding, or with --items_encoding if only the items have it."
        )
    if isinstance(error, pd.errors.ParserError):
        return " Correct the line, or set another --separator, or --quotes none."
    return " The file is cut off. Get or write it again." if isinstance(error, EOFError) else ""


def suffix_of(path: Path) -> str:
    """The suffix of a file's name, without that of its compression."""
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def opened(path: Path) -> io.BufferedReader:
    """Opens a file to read its bytes; decompresses a gzipped one, unless it is a zip bomb."""
    return io.BufferedReader(_Unpacked(path), 2**20) if path.suffix == ".gz" else path.open("rb")


def check_unpacked_size(path: Path, size: int) -> None:
    """Raises XferError if a compressed file unpacks to too many bytes."""
    limit = max(UNPACKED_FREELY, UNPACKED_RATIO * path.stat().st_size)
    if size > limit:
        raise XferError(
            f"{path} unpacks to more than {limit / 2**20:,.0f} MiB and {UNPACKED_RATIO} times its size, as only a zip "
            f"bomb does. If you trust it, unpack it first."
        )


class _Unpacked(io.RawIOBase):
    """The content of a gzipped file; raises XferError where it becomes too long."""

    def __init__(self, path: Path) -> None:
        self.path, self.file, self.size = path, igzip.IGzipFile(path, "rb"), 0
        with path.open("rb") as start:
            if start.read(2) not in (b"", MAGIC):
                raise gzip.BadGzipFile("Not a gzipped file")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            count = self.file.readinto(buffer)
        except igzip_lib.IsalError as error:  # type: ignore[misc]  # its stub declares an instance
            raise gzip.BadGzipFile(str(error)) from error
        self.size += count
        check_unpacked_size(self.path, self.size)
        return count

    def close(self) -> None:
        self.file.close()
        super().close()


def check_column(table: pd.DataFrame, column: str, path: Path) -> None:
    """Raises XferError, with the columns, if the table has no such column."""
    if column not in table:
        raise XferError(f"{path} has no column '{column}' (columns: {', '.join(table)}){did_you_mean(column, table)}")


def _read_separated(path: Path, file: io.BufferedReader, suffix: str, form: TextFormat) -> pd.DataFrame:
    if suffix in SPREADSHEETS:
        raise XferError(f"{path} is a spreadsheet. Save the sheet as .csv in UTF-8, and name that file.")
    if suffix in OTHER_COMPRESSIONS:
        raise XferError(f"{path} is compressed. Unpack it first; only .gz files are read as they are.")
    separator = form.separator or _usual_separator(file, suffix, form.encoding)
    if separator is None:
        raise XferError(f"{path}: the separator does not follow from the file's name. Set --separator.")
    quotes = form.quotes and len(separator) == 1 and suffix not in ATOMIC
    text: io.BufferedReader | io.StringIO = io.BufferedReader(WithoutNul(path, file), 2**20)
    if len(separator) > 1 or b"\0" in ",".encode(form.encoding):
        text, separator = _decoded(path, file, separator, form.encoding)
    table = pd.read_csv(
        text,
        sep=separator,
        header=0 if form.header else None,
        encoding=form.encoding,
        dtype=str,
        keep_default_na=False,
        na_values=[""],
        quoting=csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE,
    )
    if not isinstance(table.index, pd.RangeIndex):  # pandas reads extra columns as an index
        raise XferError(
            f"{path} has rows with more fields than its header, separated by {separator!r}. Set another --separator."
        )
    return table if form.header else table.rename(columns=lambda position: str(position + 1))


def _usual_separator(file: io.BufferedReader, suffix: str, encoding: str) -> str | None:
    """The separator that follows from a file's name and, for .csv, from its first line."""
    usual = SEPARATORS.get(suffix)
    if suffix != ".csv":
        return usual
    first = QUOTED.sub("", file.peek().decode(encoding, errors="ignore")).partition("\n")[0]
    return usual if "," in first else next((mark for mark in INSTEAD_OF_COMMAS if mark in first), usual)


def _decoded(path: Path, file: io.BufferedIOBase, separator: str, encoding: str) -> tuple[io.StringIO, str]:
    """The text and a separator of one character; with more, pandas is slow and strips blanks at ends of lines."""
    text = file.read().decode(encoding)
    if "\0" in text:
        raise nul_error(path, text.count("\n", 0, text.index("\0")) + 1)
    if len(separator) == 1:
        return io.StringIO(text), separator
    if UNIT_SEPARATOR in text:
        raise XferError(f"{path} has the character {UNIT_SEPARATOR!r}. Remove it, or use a separator of one character.")
    return io.StringIO(text.replace(separator, UNIT_SEPARATOR)), UNIT_SEPARATOR


def _read_parquet(path: Path, file: io.BufferedIOBase) -> pd.DataFrame:
    content = pyarrow.BufferReader(file.read())
    try:
        return parquet.read_table(content).to_pandas(integer_object_nulls=True)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:  # in pandas' own metadata
        raise XferError(f"{path} cannot be read: {error}. The file may be damaged. Make it again.") from error


def _read_json(path: Path, file: io.BufferedIOBase) -> pd.DataFrame:
    first = file.readline().removeprefix(BOM)
    if first.strip() == b"{" or first.lstrip()[:1] == b"[":
        return _to_table(path, _parse(path, first + file.read()))
    lines = enumerate(itertools.chain([first], file), start=1)
    records = [_parse(f"{path}, line {number}", line) for number, line in lines if line.strip()]
    return _to_table(path, records[0] if len(records) == 1 else records)


def _parse(where: Path | str, text: bytes) -> Any:
    try:
        document = json.loads(text)
        if b"\\ud" in text.lower():
            json.dumps(document, ensure_ascii=False).encode()
        return document
    except UnicodeDecodeError:
        raise
    except UnicodeEncodeError as error:
        raise XferError(f"{where}: a character is half of a surrogate pair ({error}). Correct the text.") from error
    except RecursionError as error:
        raise XferError(f"{where}: invalid JSON: its lists or objects are nested too deeply.") from error
    except ValueError as error:  # also a number of more digits than Python reads
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
    table = pd.DataFrame(document, dtype=object)
    whole = [name for name in table if table[name].hasnans and infer_dtype(table[name], skipna=True) == "integer"]
    return table.infer_objects().assign(**table[whole])  # as floats, whole numbers would lose digits
