"""Reading RecBole's atomic files: quickly, and with a clear sentence where one is wrong."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from recbole.utils import FeatureType

from recbole_xfer.errors import XferError


def read_header(path: Path, separator: str = "\t", encoding: str = "utf-8") -> dict[str, FeatureType]:
    """The columns of an atomic file and their types.

    Raises:
        XferError: if the file is missing or empty, or its header does not give every column a type.
    """
    if not path.is_file():
        raise XferError(f"{path} is missing. See dataset/README.md for the files that a dataset needs.")
    with open(path, encoding=encoding) as file:
        line = file.readline().rstrip("\r\n")
    if not line:
        raise XferError(f"{path} is empty. Its first line must name the columns, such as user_id:token.")
    fields = {}
    for column in line.split(separator):
        name, _, kind = column.rpartition(":")
        if not name:
            raise XferError(
                f"{path}: column '{column}' of the header has no type. Write it as '{column}:token' "
                f"(or float, token_seq, float_seq), with columns separated by {separator!r}."
            )
        try:
            fields[name] = FeatureType(kind)
        except ValueError:
            raise XferError(
                f"{path}: column '{name}' has the unknown type '{kind}'. Use token, float, token_seq or float_seq."
            ) from None
    return fields


def read_atomic_file(
    path: Path, columns: Collection[str] | None = None, separator: str = "\t", encoding: str = "utf-8"
) -> pd.DataFrame:
    """An atomic file as a frame: tokens and sequences as text, floats as float64; missing values are NaN.

    Args:
        columns: those to read; all where not given.

    Raises:
        XferError: if the file is missing, empty, has no rows, or a float is not a number or infinite.
    """
    types = read_header(path, separator, encoding)
    wanted = [name for name in types if columns is None or name in columns]
    dtype = {f"{name}:{types[name].value}": str for name in wanted}
    try:
        frame = pd.read_csv(
            path,
            sep=separator,
            usecols=list(dtype),
            dtype=dtype | {key: np.float64 for key in dtype if key.endswith(":float")},
            encoding=encoding,
            low_memory=False,  # one pass, so that equal tokens share one object
        )
    except (ValueError, pd.errors.ParserError) as error:
        raise _located(path, wanted, types, separator, encoding, error) from None
    frame.columns = pd.Index([column.rpartition(":")[0] for column in frame.columns])
    if frame.empty:
        raise XferError(f"{path} has a header and no rows.")
    for name in wanted:
        if types[name] == FeatureType.FLOAT and np.isinf(frame[name].to_numpy()).any():
            row = int(np.isinf(frame[name].to_numpy()).argmax())
            raise XferError(f"{path}, line {row + 2}: column '{name}' is infinite. Correct or remove the row.")
    return frame[wanted]


def _located(
    path: Path,
    wanted: list[str],
    types: dict[str, FeatureType],
    separator: str,
    encoding: str,
    error: Exception,
) -> XferError:
    """The error of the parser, with the line and column of the first value that is not a number."""
    try:
        text = pd.read_csv(path, sep=separator, dtype=str, encoding=encoding, keep_default_na=False)
    except pd.errors.ParserError:
        return XferError(f"{path} cannot be read: {error}. Every line needs one value for each column.")
    for name in wanted:
        if types[name] != FeatureType.FLOAT:
            continue
        column = text[f"{name}:float"].str.strip()
        wrong = pd.to_numeric(column, errors="coerce").isna() & (column != "")
        if wrong.any():
            row = int(np.argmax(wrong.to_numpy()))
            return XferError(
                f"{path}, line {row + 2}: '{column.iloc[row]}' in column '{name}' is not a number. "
                f"Write plain numbers such as 12.99, and leave a missing value empty."
            )
    return XferError(f"{path} cannot be read: {error}.")


def split_sequences(column: pd.Series, separator: str, kind: type) -> list[np.ndarray]:
    """Cells such as ``'a b c'`` as arrays; an empty cell is an empty array."""
    return [np.array([kind(part) for part in cell.split(separator) if part]) for cell in column.fillna("")]
