"""Writing one domain as RecBole's atomic files, and saying what is in it.

RecBole reads these files with ``pandas.read_csv`` as it is by default: a field that holds a quotation mark is
therefore written in quotation marks, and words that pandas takes for a missing value cannot be tokens.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_xfer.data.atomic import read_atomic_file
from recbole_xfer.errors import XferError
from recbole_xfer.files import replacing

NUMBERS = ("timestamp", "price", "rating")
# What pandas.read_csv turns into NaN by default, as its documentation lists it.
READ_AS_MISSING = "#N/A|#N/A N/A|#NA|-1.#IND|-1.#QNAN|-NaN|-nan|1.#IND|1.#QNAN|<NA>|N/A|NA|NULL|NaN|None|n/a|nan|null"


@dataclass(frozen=True)
class Summary:
    """What a prepared domain holds; ``items`` are those that occur in an interaction."""

    name: str
    users: int
    items: int
    interactions: int
    with_text: int
    with_price: int
    unlisted: int
    """Items of the interactions that the item file does not list."""

    def __str__(self) -> str:
        line = (
            f"{self.name}: {self.users:,} users, {self.items:,} items ({self.with_text:,} with text, "
            f"{self.with_price:,} with a price), {self.interactions:,} interactions"
        )
        return line + (f"; {self.unlisted:,} items are not in the item file" if self.unlisted else "")


def write_domain(output: Path, name: str, interactions: pd.DataFrame, items: pd.DataFrame | None) -> Path:
    """Writes ``<output>/<name>/<name>.inter`` and, with items, ``<name>.item``; other files there stay.

    Vectors of an earlier preparation stay too: they are matched by item id, so they are never misaligned.

    Args:
        interactions: ``user_id``, ``item_id``, ``timestamp`` (seconds), and any more columns. Rows are sorted by
            time; rows of equal time keep their order.
        items: ``item_id``, each once, and any of ``text`` (may be missing), ``price`` (not negative; NaN is
            unknown) and more columns.

    Returns:
        The domain's folder.

    Raises:
        XferError: if there is no interaction, a column is missing, a token is empty or cannot be written, a
            number is infinite, a timestamp is missing, a price is negative, or an item is listed twice.
    """
    if not name or name != Path(name).name or name.startswith(".") or "+" in name:
        raise XferError(f"'{name}' cannot be the name of a domain: it names a folder, and '+' joins domains.")
    interactions = _checked(interactions, f"{name}.inter", ["user_id", "item_id", "timestamp"])
    if interactions.empty:
        raise XferError(f"Domain {name} has no interactions, so there is nothing to write.")
    interactions = interactions.sort_values("timestamp", kind="stable")

    folder = Path(output) / name
    if items is not None:
        items = _checked(items, f"{name}.item", ["item_id"])
        repeated = items["item_id"][items["item_id"].duplicated()]
        if len(repeated):
            raise XferError(f"{name}.item: item '{repeated.iloc[0]}' is listed twice; keep one row of it.")
        _write(folder / f"{name}.item", items)
    _write(folder / f"{name}.inter", interactions)
    return folder


def describe(folder: Path) -> Summary:
    """Counts what the atomic files of ``folder`` hold.

    Raises:
        XferError: if the folder has no interaction file, or a file in it cannot be read.
    """
    folder = Path(folder)
    interactions = read_atomic_file(folder / f"{folder.name}.inter", ["user_id", "item_id"])
    taken = pd.Index(interactions["item_id"].unique())
    item_path = folder / f"{folder.name}.item"
    items = read_atomic_file(item_path) if item_path.exists() else pd.DataFrame({"item_id": taken})
    described = items[items["item_id"].isin(taken)]
    return Summary(
        name=folder.name,
        users=interactions["user_id"].nunique(),
        items=len(taken),
        interactions=len(interactions),
        with_text=int(described["text"].notna().sum()) if "text" in described else 0,
        with_price=int(described["price"].notna().sum()) if "price" in described else 0,
        unlisted=len(taken) - len(described),
    )


def _checked(table: pd.DataFrame, file: str, needed: list[str]) -> pd.DataFrame:
    """A copy of ``table`` with what is needed first, every column ready to be written."""
    missing = [column for column in needed if column not in table]
    if missing:
        raise XferError(f"{file}: column {missing[0]} is missing; the table has {', '.join(map(str, table.columns))}.")
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
    """Raises for the first value that would not be read back as it is."""
    distinct = values.drop_duplicates()
    problems = {"has a tab or a line break in it, which ends a field": distinct.str.contains(r"[\t\r\n]", na=False)}
    if required:
        problems["is empty"] = distinct.fillna("").str.strip() == ""
        problems["is read back as a missing value"] = distinct.isin(READ_AS_MISSING.split("|"))
    for problem, mask in problems.items():
        if mask.any():
            row = mask.idxmax()
            value = "" if pd.isna(values[row]) else values[row]
            raise XferError(f"{where}, row {row + 1}: the value {value!r} {problem}; change it or leave the row out.")


def _check_numbers(values: pd.Series, file: str, lowest: float = -np.inf) -> None:
    wrong = values[~(np.isfinite(values) & (values >= lowest))]
    if len(wrong):
        bound = "a finite number" if lowest == -np.inf else f"a finite number of at least {lowest:g}"
        raise XferError(
            f"{file}, column {values.name}, row {wrong.index[0] + 1}: {wrong.iloc[0]} is not {bound}; "
            "correct it or leave the row out."
        )


def _write(path: Path, table: pd.DataFrame) -> None:
    header = [f"{column}:{_field_type(str(column))}" for column in table]
    for column in table.columns.intersection(NUMBERS):
        values = table[column].dropna()
        if (values.mod(1) == 0).all() and (values.abs() < 2**53).all():
            table[column] = table[column].astype("Int64")
    with replacing(path) as temporary:
        table.to_csv(temporary, sep="\t", header=header, index=False, lineterminator="\n")


def _field_type(column: str) -> str:
    if column in NUMBERS:
        return "float"
    return "token_seq" if column == "text" else "token"
