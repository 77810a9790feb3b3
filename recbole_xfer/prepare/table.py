"""Any table of interactions and, optionally, of items; the user names their columns."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import infer_dtype
from pandas.tseries.api import guess_datetime_format

from recbole_xfer.data.atomic import READ_AS_MISSING
from recbole_xfer.data.atomic_writer import check_domain_name, write_domain
from recbole_xfer.errors import XferError, did_you_mean
from recbole_xfer.files import replacing_folders
from recbole_xfer.log import logger
from recbole_xfer.prepare.dropped import Dropped
from recbole_xfer.prepare.options import PLAIN, PRICE_FORMATS
from recbole_xfer.prepare.pictures import MOST, add_named_pictures, add_pictures, is_old_picture
from recbole_xfer.prepare.reading import TextFormat, check_column, read_table
from recbole_xfer.prepare.summary import Summary, describe
from recbole_xfer.prepare.texts import joined
from recbole_xfer.prepare.times import MILLISECONDS

CURRENCY = re.compile(r"^([$€£¥₹]|[A-Z]{3}\b)\s*|\s*([$€£¥₹]|\b[A-Z]{3})$")
DATE_FORMATS = ("ISO8601", "%m %d, %Y")
AS_NAMED = TextFormat()


@dataclass(frozen=True)
class ItemTable:
    """A table of items and how to read it."""

    path: Path
    columns: Mapping[str, str]
    """Its columns by role: ``item`` and optionally ``text`` (``a+b`` joins two columns), ``price``
    and ``image`` (paths below the folder of pictures, or addresses)."""
    price_format: str = PLAIN
    """A key of PRICE_FORMATS; all except the first allow a currency sign and thousands separators."""
    skip_unreadable_prices: bool = False
    """Whether a price that cannot be read is missing and counted, instead of an error."""
    all_items: bool = False
    """Whether to keep items without interactions, which can be scored by their features."""
    header: bool | None = None
    """Whether the first line of separated values names the columns; None: as in the interactions."""
    encoding: str | None = None
    """Of text files; None: as in the interactions."""


def run(args: argparse.Namespace) -> list[Summary]:
    """Writes the domains; returns what is in each."""
    if (args.items is None) != (args.item_columns is None):
        raise XferError("--items and --item_columns belong together. Set both or neither.")
    items = None
    if args.items is not None:
        roles = parse_roles(args.item_columns, "--item_columns", ("item", "text", "price", "image"), ("item",))
        header = {None: None, "first": True, "none": False}[args.items_header]
        items = ItemTable(
            args.items,
            roles,
            args.price_format,
            args.skip_unreadable_prices,
            args.all_items,
            header=header,
            encoding=args.items_encoding,
        )
    folders = prepare_table(
        args.output,
        args.input,
        parse_roles(args.columns, "--columns", ("user", "item", "time", "rating"), ("user", "item")),
        items,
        name=args.name,
        domain_column=args.domain_column,
        form=_text_format(args),
        time_format=args.time_format,
        images=args.images,
        skip_missing_ids=args.skip_missing_ids,
    )
    return [describe(folder) for folder in folders]


def _text_format(args: argparse.Namespace) -> TextFormat:
    r"""The format of text files; a shell passes ``--separator '\t'`` as two letters, which mean a tab."""
    separator = args.separator and args.separator.replace(r"\t", "\t")
    return TextFormat(separator, args.header == "first", args.encoding, args.quotes == "csv")


def parse_roles(pairs: list[str], option: str, known: tuple[str, ...], needed: tuple[str, ...]) -> dict[str, str]:
    """Parses ``["user=reviewerID", ...]`` into a dictionary.

    Raises:
        XferError: if a pair has no '=', a role is unknown or repeated, or a needed role is missing.
    """
    roles: dict[str, str] = {}
    for pair in pairs:
        role, equals, column = pair.partition("=")
        if not equals or not column:
            raise XferError(f"{option}: '{pair}' is invalid. Write ROLE=COLUMN, such as {needed[0]}=name.")
        if role not in known:
            names = ", ".join(known)
            raise XferError(f"{option}: unknown role '{role}' (roles: {names}){did_you_mean(role, known)}")
        if role in roles:
            raise XferError(f"{option}: the role '{role}' is repeated. Name one column for it.")
        roles[role] = column
    for role in needed:
        if role not in roles:
            raise XferError(f"{option}: the role '{role}' is missing. Add {role}=COLUMN.")
    return roles


def prepare_table(
    output: Path,
    interactions: Path | Sequence[Path],
    columns: Mapping[str, str],
    items: ItemTable | None = None,
    *,
    name: str | None = None,
    domain_column: str | None = None,
    form: TextFormat = AS_NAMED,
    time_format: str | None = None,
    images: Path | None = None,
    skip_missing_ids: bool = False,
) -> list[Path]:
    """Writes one domain, or with ``domain_column`` one per value of this column.

    Items without interactions are left out by default, so that models rank the items of the data, as papers report
    it. An item that the item table does not list is kept, without text and price. Of several rows for one item, the
    first counts.

    Args:
        output: the folder that holds the domains.
        interactions: a file that ``read_table`` reads, or several of equal columns, such as the files of a split.
        columns: its columns by role: ``user``, ``item`` and optionally ``time`` and ``rating``. Times are seconds
            or milliseconds since 1970, dates (UTC by default), or positions; without times, the rows' order counts.
        items: texts and prices of the items.
        name: name of the domain; with ``domain_column``, the domains are named ``<name>-<value>``.
        domain_column: a column of the interactions. If the item table has it too, an item is looked up among the
            items of its domain.
        form: format of separated values, in both files.
        time_format: format of dates, as for ``strptime``.
        images: a folder with ``<item>.jpg`` or ``<item>/*.jpg``.
        skip_missing_ids: whether rows without a user or an item are left out and counted, instead of an error.

    Returns:
        The folders of the domains.

    Raises:
        XferError: if a file, a column or a value is missing or invalid; it names the row, counted from 1.
    """
    if name is None and domain_column is None:
        raise XferError("The domain has no name. Set --name, or split the interactions with --domain_column.")
    paths = [Path(path) for path in ([interactions] if isinstance(interactions, str | Path) else interactions)]
    table = pd.concat(
        [_interactions(path, columns, domain_column, form, time_format, skip_missing_ids) for path in paths],
        ignore_index=True,
    )
    if "time" not in columns:
        table["timestamp"] = np.arange(1.0, len(table) + 1)
    domains = table.pop("domain")
    names = {value: "-".join(filter(None, [name, value])) for value in domains.unique()}
    _check_names(output, names.values(), keeps_items=items is None)
    catalogue = None if items is None else _catalogue(items, domain_column, form, skip_missing_ids)

    named = names.values() if items is not None and "image" in items.columns else ()
    with replacing_folders(output, is_old_picture(names.values() if images else (), named)) as temporary:
        for value, rows in table.groupby(domains, sort=False):
            listed = catalogue
            if catalogue is not None and domain_column in catalogue:
                listed = catalogue[catalogue[domain_column].astype(str) == value]
            _write(temporary, names[str(value)], rows, listed, items, images)
    return [Path(output) / domain for domain in names.values()]


def _interactions(
    path: Path,
    columns: Mapping[str, str],
    domain_column: str | None,
    form: TextFormat,
    time_format: str | None,
    skip_missing_ids: bool,
) -> pd.DataFrame:
    """The interactions of a file, with a column ``domain``; arguments as for :func:`prepare_table`."""
    raw = _read(path, form, [columns["user"], columns["item"]], skip_missing_ids)
    domain = "" if domain_column is None else _tokens(raw, domain_column, path)
    return interactions_of(raw, columns, path, time_format).assign(domain=domain)


def _check_names(output: Path, domains: Iterable[str], keeps_items: bool) -> None:
    """Checks the names of domains, and warns of items of an earlier preparation that are kept."""
    for domain in domains:
        check_domain_name(domain)
        old = Path(output) / domain / f"{domain}.item"
        if keeps_items and old.is_file():
            logger.warning(f"{old} of an earlier preparation is kept. Remove it, or name --items to write it again.")


def _catalogue(items: ItemTable, domain_column: str | None, form: TextFormat, skip_missing_ids: bool) -> pd.DataFrame:
    """The rows of the item table."""
    header = form.header if items.header is None else items.header
    own = replace(form, header=header, encoding=items.encoding or form.encoding)
    catalogue = _read(items.path, own, [items.columns["item"]], skip_missing_ids)
    if domain_column is not None and items.all_items:
        check_column(catalogue, domain_column, items.path)  # the only source of an unused item's domain
    return catalogue


def _read(path: Path, form: TextFormat, ids: Sequence[str], skip_missing_ids: bool) -> pd.DataFrame:
    """Reads a table; with ``skip_missing_ids`` the rows that have an id in these columns."""
    raw = read_table(path, form)
    return _with_ids(raw, ids, path) if skip_missing_ids else raw


def _write(
    folder: Path,
    name: str,
    rows: pd.DataFrame,
    listed: pd.DataFrame | None,
    items: ItemTable | None,
    images: Path | None,
) -> None:
    """Writes a domain: its interactions, the items that are listed, and their pictures."""
    described = None if listed is None or items is None else items_of(listed, items, rows["item_id"])
    domain = write_domain(folder, name, rows, described)
    used = set(rows["item_id"]).union([] if described is None else described["item_id"])
    root = None if images is None else Path(images)
    if listed is not None and items is not None and "image" in items.columns:
        add_named_pictures(domain, root, _picture_names(listed, items, used))
    elif root is not None:
        add_pictures(domain, root, used)


def interactions_of(
    raw: pd.DataFrame, columns: Mapping[str, str], path: Path, time_format: str | None = None
) -> pd.DataFrame:
    """Returns the interactions of a table that was read from ``path``; see :func:`prepare_table`."""
    table = pd.DataFrame({"user_id": _ids(raw, columns["user"], path), "item_id": _ids(raw, columns["item"], path)})
    table["timestamp"] = raw.index.to_numpy(np.float64)
    if "time" in columns:
        check_column(raw, columns["time"], path)
        table["timestamp"] = _seconds(raw[columns["time"]], path, time_format)
    if "rating" in columns:
        check_column(raw, columns["rating"], path)
        table["rating"] = pd.to_numeric(raw[columns["rating"]], errors="coerce").astype(np.float64)
        wrong = ~np.isfinite(table["rating"])
        _reject(raw[columns["rating"]], wrong, path, "is not a number. Correct it, or leave out rating=COLUMN")
    return table


def items_of(listed: pd.DataFrame, source: ItemTable, used: pd.Series) -> pd.DataFrame:
    """Returns the item table of one domain: the rows of ``listed`` for the items in ``used``, or for all items."""
    columns, path = source.columns, source.path
    ids = _ids(listed, columns["item"], path)
    is_used = ids.isin(used.unique())
    if not is_used.any():
        raise XferError(
            f"{path}, column {columns['item']}: no item, such as '{next(iter(ids), '')}', is among the items of the "
            f"interactions, such as '{used.iloc[0]}'. Check the columns that are named for item."
        )
    ids = ids if source.all_items else ids[is_used]
    repeated = ids.duplicated()
    if repeated.any():
        dropped = Dropped(path)
        dropped.add("rows repeat an item, of which the first row counts", ids[repeated].iloc[0], repeated.sum())
        dropped.report()
    ids = ids[~repeated]
    listed = listed.loc[ids.index]
    items = pd.DataFrame({"item_id": ids})
    if "text" in columns:
        parts = columns["text"].split("+")
        for part in parts:
            check_column(listed, part, path)
        items["text"] = [joined(list(_words(row))) for row in zip(*(listed[part] for part in parts), strict=True)]
    if "price" in columns:
        check_column(listed, columns["price"], path)
        items["price"] = _amounts(listed[columns["price"]], source)
    return items


def _picture_names(listed: pd.DataFrame, source: ItemTable, used: Collection[str]) -> dict[str, list[str]]:
    """The paths and addresses of pictures by item, from the first row of each item."""
    check_column(listed, source.columns["image"], source.path)
    names: dict[str, list[str]] = {}
    ids = _ids(listed, source.columns["item"], source.path)
    for item, cell in zip(ids, listed[source.columns["image"]], strict=True):
        if item in used and item not in names:
            names[item] = list(_words(cell))[:MOST]
    return names


def _tokens(raw: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """The values of a column as strings, all of which must be there."""
    check_column(raw, column, path)
    _reject(raw[column], raw[column].isna(), path, "is missing. Fill it in or remove the row")
    return raw[column].astype(str)


def _ids(raw: pd.DataFrame, column: str, path: Path) -> pd.Series:
    """The ids of users or items as strings, all of which can be read back."""
    check_column(raw, column, path)
    hint = "Fill it in, remove the row, or leave out such rows with --skip_missing_ids"
    _reject(raw[column], raw[column].isna(), path, f"is missing. {hint}")
    _reject(raw[column], _is_missing(raw[column]), path, f"would be read as a missing value. {hint}")
    values = raw[column]
    if pd.api.types.is_float_dtype(values):
        _reject(values, values % 1 != 0, path, "is not an id. Write ids as texts or whole numbers")
        values = values.astype(np.int64)  # Parquet of pandas has whole numbers as floats where some were missing
    elif infer_dtype(values) not in ("string", "integer"):
        nested = values.map(lambda value: isinstance(value, dict | list | np.ndarray))
        _reject(values, nested, path, "is not an id but several values. Write one text or number in each row")
    return values.astype(str)


def _is_missing(ids: pd.Series) -> pd.Series:
    """Whether there is no id: nothing, blanks, or a word such as NA."""
    return ids.isna() | ids.astype(str).str.strip().eq("") | ids.isin(READ_AS_MISSING)


def _with_ids(raw: pd.DataFrame, columns: Sequence[str], path: Path) -> pd.DataFrame:
    """The rows that have an id in these columns; the others are counted and logged."""
    dropped = Dropped(path)
    for column in columns:
        check_column(raw, column, path)
        missing = _is_missing(raw[column])
        if missing.any():
            dropped.add(f"rows have no {column} and are left out", f"row {missing.idxmax()}", missing.sum())
            raw = raw[~missing]
    dropped.report()
    if raw.empty:
        raise XferError(f"{path} has no row with {' and '.join(columns)}.")
    return raw


def _seconds(values: pd.Series, path: Path, time_format: str | None) -> pd.Series:
    """Returns numbers (milliseconds as seconds) or dates as seconds since 1970, as fails for the fewest rows."""
    readings = []
    if time_format is None and not pd.api.types.is_datetime64_any_dtype(values):
        numbers = pd.to_numeric(values, errors="coerce").astype(np.float64)
        readings.append(numbers.where(~(numbers >= MILLISECONDS), numbers / 1000))
    if not readings or readings[0].isna().any():
        for date_format in [time_format] if time_format else DATE_FORMATS:
            try:
                dates = pd.to_datetime(values, errors="coerce", utc=True, format=date_format)
            except ValueError as error:
                raise XferError(
                    f"--time_format={time_format} is invalid: {error}. Use codes such as %Y-%m-%d."
                ) from error
            readings.append((dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1))
    best = min(readings, key=lambda reading: reading.isna().sum())
    expected = f"a date of the format {time_format}" if time_format else "a number or a date such as 2015-06-23"
    wrong = ~np.isfinite(best)
    example = _format_like(values[wrong.idxmax()]) if wrong.any() else ""
    _reject(values, wrong, path, f"is not {expected}. Set another format of dates with --time_format{example}")
    return best


def _format_like(value: Any) -> str:
    """The end of a sentence that suggests the format of a date, if pandas recognizes one."""
    text = str(value).strip()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of days and months that cannot be told apart
        found = guess_datetime_format(text, dayfirst="/" not in text)
    return f", such as '{found}'" if found else ""


def _amounts(values: pd.Series, source: ItemTable) -> pd.Series:
    """Returns prices as floats; an empty price is NaN."""
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
            f"is not a price such as {source.price_format}. Set another format with --price_format {others}, or "
            "treat such prices as missing with --skip_unreadable_prices"
        )
        _reject(values, wrong, source.path, problem)
    elif wrong.any():
        dropped = Dropped(source.path)
        dropped.add("prices cannot be read and are treated as missing", values[wrong].iloc[0], wrong.sum())
        dropped.report()
    return amounts.mask(wrong)


def _reject(values: pd.Series, wrong: pd.Series, path: Path, problem: str) -> None:
    """Raises XferError for the first wrong value, with its file, column and row."""
    if wrong.any():
        row = wrong.idxmax()
        value = "" if values.isna()[row] else f"{str(values[row]).strip()[:60]!r} "
        raise XferError(f"{path}, column {values.name}, row {row}: {value or 'the value '}{problem}.")


def _words(value: Any) -> Iterator[str]:
    """Yields the texts in a cell: those of a list one after another, none if missing."""
    if isinstance(value, list | tuple | np.ndarray):
        for part in value:
            yield from _words(part)
    elif not pd.isna(value):
        yield str(value)
