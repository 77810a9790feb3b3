"""Any table of interactions, and of items, whose columns the user names."""

from __future__ import annotations

import argparse
import html
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_xfer.errors import XferError, nearest
from recbole_xfer.prepare.domain import write_domain
from recbole_xfer.prepare.reading import TextFormat, check_column, read_table

logger = logging.getLogger(__name__)

PLAIN = "1234.56"
# What a number may look like, and its sign for thousands, by the example that names the format.
PRICE_FORMATS = {
    PLAIN: (re.compile(r"\d+(\.\d*)?|\.\d+"), ","),
    "$1,234.56": (re.compile(r"(\d+|\d{1,3}(,\d{3})+)(\.\d*)?|\.\d+"), ","),
    "1.234,56": (re.compile(r"(\d+|\d{1,3}(\.\d{3})+)(,\d*)?|,\d+"), "."),
}
CURRENCY = re.compile(r"^[$€£¥₹]\s*|\s*[$€£¥₹]$")
DATE_FORMATS = ("ISO8601", "%m %d, %Y")
AS_NAMED = TextFormat()


@dataclass(frozen=True)
class ItemTable:
    """A table of items, and what to take from it."""

    path: Path
    columns: Mapping[str, str]
    """Its columns by role: ``item`` and perhaps ``text`` (``a+b`` joins two) and ``price``."""
    price_format: str = PLAIN
    """A key of PRICE_FORMATS; all but the first allow a currency sign and separators of thousands."""
    skip_unreadable_prices: bool = False
    """Leave a price that cannot be read missing, and say how many, instead of refusing the file."""
    all_items: bool = False
    """Keep the items that nobody took, too: they can be scored by their features alone."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The source's command line: the files, what their columns are and how values are written."""
    add = parser.add_argument
    add("--input", type=Path, required=True, metavar="FILE", help="interactions: .csv, .tsv, .json, .parquet (.gz)")
    add(
        "--columns",
        nargs="+",
        required=True,
        metavar="ROLE=COLUMN",
        help="what its columns are: user=... item=... and, if there, time=... rating=...",
    )
    add("--items", type=Path, metavar="FILE", help="items, in any of the same forms")
    add(
        "--item_columns",
        nargs="+",
        metavar="ROLE=COLUMN",
        help="what their columns are: item=... and, if there, text=... (title+brand joins columns), price=...",
    )
    add("--all_items", action="store_true", help="keep the items that nobody took, to be scored as new ones")
    add("--name", help="the domain's name; with --domain_column, what the domains' names begin with")
    add("--domain_column", metavar="COLUMN", help="split the interactions into one domain for each of its values")
    add("--separator", help="what separates the columns, where the file's name does not tell, such as '::'")
    add("--header", choices=["first", "none"], default="first", help="none: the columns are named 1, 2, ...")
    add("--encoding", default="utf-8", help="of text files, such as latin-1")
    add(
        "--quotes",
        choices=["csv", "none"],
        default="csv",
        help="none: quotation marks in text files are letters like others, and hold no field together",
    )
    add("--time_format", help="how dates are written, such as '%%d/%%m/%%Y'; not needed for 2015-06-23")
    add("--price_format", choices=list(PRICE_FORMATS), default=PLAIN, help="how prices are written")
    add("--skip_unreadable_prices", action="store_true", help="take a price that cannot be read for missing")


def run(args: argparse.Namespace) -> list[Path]:
    """Prepares what the command line asks for; the folders of the domains."""
    if (args.items is None) != (args.item_columns is None):
        raise XferError("--items and --item_columns go together: give both or neither.")
    items = None
    if args.items is not None:
        roles = parse_roles(args.item_columns, "--item_columns", ("item", "text", "price"), ("item",))
        items = ItemTable(args.items, roles, args.price_format, args.skip_unreadable_prices, args.all_items)
    return prepare_table(
        args.output,
        args.input,
        parse_roles(args.columns, "--columns", ("user", "item", "time", "rating"), ("user", "item")),
        items,
        name=args.name,
        domain_column=args.domain_column,
        form=TextFormat(args.separator, args.header == "first", args.encoding, args.quotes == "csv"),
        time_format=args.time_format,
    )


def parse_roles(pairs: list[str], option: str, known: tuple[str, ...], needed: tuple[str, ...]) -> dict[str, str]:
    """``["user=reviewerID", ...]`` as a dictionary.

    Raises:
        XferError: if a pair has no '=', a role is unknown or given twice, or a needed one is not given.
    """
    roles: dict[str, str] = {}
    for pair in pairs:
        role, equals, column = pair.partition("=")
        if not equals or not column:
            raise XferError(f"{option}: '{pair}' is not of the form ROLE=COLUMN, such as {needed[0]}=name.")
        if role not in known:
            raise XferError(f"{option}: '{role}' is no role; did you mean '{nearest(role, known, cutoff=0)}'?")
        if role in roles:
            raise XferError(f"{option}: '{role}' is given twice.")
        roles[role] = column
    for role in needed:
        if role not in roles:
            raise XferError(f"{option}: say which column is the {role}, as {role}=COLUMN.")
    return roles


def prepare_table(
    output: Path,
    interactions: Path,
    columns: Mapping[str, str],
    items: ItemTable | None = None,
    *,
    name: str | None = None,
    domain_column: str | None = None,
    form: TextFormat = AS_NAMED,
    time_format: str | None = None,
) -> list[Path]:
    """Writes one domain, or with ``domain_column`` one for each of its values.

    An item that nobody took is left out by default, so that the ranking is over the items of the data, as papers
    report it. An item that the item table does not list is kept, without text and price. Of several rows for one
    item the first counts.

    Args:
        output: the folder that holds the domains.
        interactions: a file that ``read_table`` reads.
        columns: its columns by role: ``user``, ``item`` and perhaps ``time`` and ``rating``. Times are seconds since
            1970, dates (UTC where they name no zone), or positions; without them the order of the rows counts.
        items: the items' texts and prices.
        name: the domain's name, or what the names begin with: ``<name>-<value>``.
        domain_column: a column of the interactions. Where the item table has it too, an item is looked up among the
            items of its domain.
        form: how separated values are written, in both files.
        time_format: how dates are written, as ``strptime`` has it.

    Returns:
        The folders of the domains.

    Raises:
        XferError: if a file, a column or a value is not as described here; it names the row, counted from 1.
    """
    if name is None and domain_column is None:
        raise XferError("Give the domain a name with --name, or split the interactions with --domain_column.")
    raw = read_table(interactions, form)
    table = interactions_of(raw, columns, interactions, time_format)
    domains = pd.Series("", index=raw.index)
    if domain_column is not None:
        domains = _tokens(raw, domain_column, interactions)
    catalogue = None
    if items is not None:
        catalogue = read_table(items.path, form)
        if domain_column is not None and items.all_items:
            check_column(catalogue, domain_column, items.path)  # only it tells whose the items are that nobody took

    folders = []
    for value, rows in table.groupby(domains, sort=False):
        described = None
        if items is not None and catalogue is not None:
            split = domain_column in catalogue
            listed = catalogue[catalogue[domain_column].astype(str) == value] if split else catalogue
            described = items_of(listed, items, rows["item_id"])
        folders.append(write_domain(output, "-".join(filter(None, [name, str(value)])), rows, described))
    return folders


def interactions_of(
    raw: pd.DataFrame, columns: Mapping[str, str], path: Path, time_format: str | None = None
) -> pd.DataFrame:
    """The interactions in a table that was read from ``path``; see :func:`prepare_table`."""
    table = pd.DataFrame(
        {"user_id": _tokens(raw, columns["user"], path), "item_id": _tokens(raw, columns["item"], path)}
    )
    table["timestamp"] = raw.index.to_numpy(np.float64)
    if "time" in columns:
        check_column(raw, columns["time"], path)
        table["timestamp"] = _seconds(raw[columns["time"]], path, time_format)
    if "rating" in columns:
        check_column(raw, columns["rating"], path)
        table["rating"] = pd.to_numeric(raw[columns["rating"]], errors="coerce").astype(np.float64)
        wrong = ~np.isfinite(table["rating"])
        _refuse(raw[columns["rating"]], wrong, path, "is not a number; correct it or leave rating out")
    return table


def items_of(listed: pd.DataFrame, source: ItemTable, taken: pd.Series) -> pd.DataFrame:
    """The item table of one domain: what ``listed`` says of the items in ``taken``, or of all of its items."""
    columns, path = source.columns, source.path
    ids = _tokens(listed, columns["item"], path)
    is_taken = ids.isin(taken.unique())
    if not is_taken.any():
        raise XferError(
            f"{path}, column {columns['item']}: none of the items, such as '{next(iter(ids), '')}', is in the "
            f"interactions, whose items are such as '{taken.iloc[0]}'; check which columns hold the items."
        )
    ids = ids if source.all_items else ids[is_taken]
    repeated = ids.duplicated()
    if repeated.any():
        logger.warning("%s: %d rows repeat an item; the first row of each item counts.", path, repeated.sum())
    ids = ids[~repeated]
    listed = listed.loc[ids.index]
    items = pd.DataFrame({"item_id": ids})
    if "text" in columns:
        parts = columns["text"].split("+")
        for part in parts:
            check_column(listed, part, path)
        items["text"] = [" ".join(_words(row)) for row in zip(*(listed[part] for part in parts), strict=True)]
    if "price" in columns:
        check_column(listed, columns["price"], path)
        items["price"] = _amounts(listed[columns["price"]], source)
    return items


def _tokens(raw: pd.DataFrame, column: str, path: Path) -> pd.Series:
    check_column(raw, column, path)
    _refuse(raw[column], raw[column].isna(), path, "is missing; fill it in or leave the row out")
    return raw[column].astype(str)


def _seconds(values: pd.Series, path: Path, time_format: str | None) -> pd.Series:
    """Numbers as they are, dates as seconds since 1970; the reading that fails for the fewest rows counts."""
    readings = []
    if time_format is None and not pd.api.types.is_datetime64_any_dtype(values):
        readings.append(pd.to_numeric(values, errors="coerce").astype(np.float64))
    if not readings or readings[0].isna().any():
        for date_format in [time_format] if time_format else DATE_FORMATS:
            dates = pd.to_datetime(values, errors="coerce", utc=True, format=date_format)
            readings.append((dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1))
    best = min(readings, key=lambda reading: reading.isna().sum())
    expected = f"a date written as {time_format}" if time_format else "a number or a date such as 2015-06-23"
    _refuse(values, ~np.isfinite(best), path, f"is not {expected}; --time_format names another way to write dates")
    return best


def _amounts(values: pd.Series, source: ItemTable) -> pd.Series:
    """Prices as floats; what is empty is NaN."""
    if pd.api.types.is_numeric_dtype(values):
        amounts = values.astype(np.float64)
        wrong = amounts.notna() & ~(np.isfinite(amounts) & (amounts >= 0))
    else:
        pattern, thousands = PRICE_FORMATS[source.price_format]
        text = values.astype("string").str.strip().replace("", pd.NA)
        if source.price_format != PLAIN:
            text = text.str.replace(CURRENCY, "", regex=True)
        wrong = ~text.str.fullmatch(pattern).fillna(True).astype(bool)
        text = text.mask(wrong).str.replace(thousands, "", regex=False).str.replace(",", ".", regex=False)
        amounts = text.astype("Float64").astype(np.float64)
    if not source.skip_unreadable_prices:
        others = " or ".join(f"'{form}'" for form in PRICE_FORMATS if form != source.price_format)
        problem = (
            f"is not a price such as {source.price_format}; --price_format {others} reads prices written so, and "
            "--skip_unreadable_prices takes what cannot be read for missing"
        )
        _refuse(values, wrong, source.path, problem)
    elif wrong.any():
        logger.warning("%s: %d prices cannot be read and are taken for missing.", source.path, wrong.sum())
    return amounts.mask(wrong)


def _refuse(values: pd.Series, wrong: pd.Series, path: Path, problem: str) -> None:
    """Raises for the first wrong value, with its file, column and row."""
    if wrong.any():
        row = wrong.idxmax()
        value = "" if values.isna()[row] else f"{str(values[row]).strip()[:60]!r} "
        raise XferError(f"{path}, column {values.name}, row {row}: {value or 'the value '}{problem}.")


def _words(value: Any) -> Iterator[str]:
    """The text in a cell: lists are joined, missing values say nothing, and '&amp;' is written '&'."""
    if isinstance(value, list | tuple | np.ndarray):
        for part in value:
            yield from _words(part)
    elif not pd.isna(value):
        yield html.unescape(str(value))
