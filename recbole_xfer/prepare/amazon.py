"""Amazon reviews of 2018 and 2023, as the public site has them: ratings or reviews, metadata and a folder of pictures.

Files of interactions, each also gzipped:

* ``<Category>.csv``: item, user, rating and time, without a header (2018).
* ``<Category>.csv``, ``<Category>.train.csv``, ...: ``user_id``, ``parent_asin``, ``rating``, ``timestamp`` (2023).
* ``<Category>_5.json`` (2018) and ``<Category>.jsonl`` (2023): one review a line.

Metadata are ``meta_<Category>.json`` (2018) and ``meta_<Category>.jsonl`` (2023): one item a line.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from recbole_xfer.data.atomic_writer import check_domain_name, write_domain, write_table
from recbole_xfer.errors import XferError
from recbole_xfer.files import replacing_folders
from recbole_xfer.log import logger
from recbole_xfer.prepare.download import download
from recbole_xfer.prepare.dropped import Dropped
from recbole_xfer.prepare.interactions import Batch, Log
from recbole_xfer.prepare.options import AMAZON_ADDRESSES, AMAZON_FILES, Duplicates
from recbole_xfer.prepare.pictures import MOST, add_pictures, is_address, is_old_picture, write_addresses
from recbole_xfer.prepare.reading import opened, suffix_of
from recbole_xfer.prepare.records import Records
from recbole_xfer.prepare.summary import Summary
from recbole_xfer.prepare.texts import joined

BLOCK = 2**24
"""Bytes of a csv file that are parsed at once."""

ASIN = r"[0-9A-Z]{10}"
FIRST_LINES = 2**16
"""Bytes of a csv file by which its columns are recognized."""

PRICE = re.compile(r"(?:from )?\$? ?((?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d*)?|\.\d+)(?: ?- ?\$? ?[\d,.]+)?", re.IGNORECASE)
HIGHEST_PRICE = 1_000_000
SCRIPT = "getTime"
"""A title with this word is a script of the page, as the data's publishers say."""


class Review(msgspec.Struct, gc=False):
    """A line of a file of reviews, of 2018 or 2023."""

    reviewerID: str | None = None
    user_id: str | None = None
    asin: str | None = None
    parent_asin: str | None = None
    overall: float | None = None
    rating: float | None = None
    unixReviewTime: float | None = None
    timestamp: float | None = None


class Product(msgspec.Struct, gc=False):
    """A line of a file of metadata, of 2018 or 2023. Fields have any type, because each occurs with several."""

    asin: Any = None
    parent_asin: Any = None
    title: Any = None
    category: Any = None
    categories: Any = None
    brand: Any = None
    store: Any = None
    price: Any = None
    imageURLHighRes: Any = None
    imageURL: Any = None
    images: Any = None


def run(args: argparse.Namespace) -> list[Summary]:
    """Downloads the files where asked; writes the domain; returns what is in it."""
    reviews, metadata, name = args.reviews, args.metadata, args.name
    if args.download or args.category:
        if reviews or metadata or not (args.download and args.category):
            raise XferError(
                "Set --category and --download to download files, or name files with --reviews and --metadata."
            )
        reviews, metadata = _downloaded(args)
        name = name or args.category
    if not reviews or not name:
        raise XferError("Name the files of interactions with --reviews, and the domain with --name.")
    options = {"k_core": args.k_core, "duplicates": args.duplicates}
    return [prepare_amazon(args.output, reviews, metadata, args.images, name=name, **options)]


def prepare_amazon(
    output: Path,
    reviews: Sequence[Path],
    metadata: Path | None = None,
    images: Path | None = None,
    *,
    name: str,
    k_core: int = 1,
    duplicates: Duplicates = "keep",
) -> Summary:
    """Writes one domain: interactions, texts, prices, addresses of pictures, and pictures.

    What cannot be used is dropped, counted and logged. docs/data.md has the rules.

    Args:
        output: the folder that holds the domains.
        reviews: files of interactions, one after another; of interactions of equal time, those of earlier files come
            first, so that the published splits are kept.
        metadata: texts, prices and addresses of pictures.
        images: a folder with ``<item>.jpg`` or ``<item>/*.jpg``.
        name: name of the domain.
        k_core: users and items with fewer interactions are removed, until all have as many.
        duplicates: ``keep`` all; keep one interaction of each user, item and time (``same_time``), or of each user
            and item (``same_item``), the first.

    Raises:
        XferError: if a file is missing, damaged or of another kind, or no interaction remains.
    """
    check_domain_name(name)
    if k_core < 1:
        raise XferError(f"k_core={k_core} must be an integer of at least 1.")
    log = read_log([Path(path) for path in reviews])
    _filter(log, name, k_core, duplicates)
    used = log.used_items().to_pylist()
    with (
        ThreadPoolExecutor(1) as pool,
        replacing_folders(output, is_old_picture([name] if images else [], [name] if metadata else [])) as temporary,
    ):
        reading = pool.submit(read_products, Path(metadata), set(used)) if metadata is not None else None
        folder = write_domain(temporary, name, log.table(), None)
        products = reading.result() if reading else Products()
        items = products.table()
        if reading:
            write_table(folder / f"{name}.item", items)
        write_addresses(folder, products.pictures)
        if images is not None:
            add_pictures(folder, Path(images), set(used))
    return Summary(
        folder=Path(output) / name,
        users=log.count_users(),
        items=len(used),
        interactions=len(log),
        with_text=pc.sum(pc.not_equal(items["text"], "")).as_py() or 0,
        with_price=pc.sum(pc.is_finite(items["price"])).as_py() or 0,
        unlisted=len(used) - len(items) if metadata is not None else 0,
    )


def _downloaded(args: argparse.Namespace) -> tuple[list[Path], Path]:
    """Downloads the files of a category; returns those of interactions and of metadata.

    They lie as at their address, because files of several subsets have one name.
    """
    if not re.fullmatch(r"\w+", args.category):
        raise XferError(f"--category={args.category} is invalid. Write it as in the files' names, such as Gift_Cards.")
    address = args.address or AMAZON_ADDRESSES[args.edition]
    digests = {}
    for pair in args.sha256 or []:
        name, _, digest = pair.partition("=")
        if not re.fullmatch("[0-9a-fA-F]{64}", digest):
            raise XferError(f"--sha256: '{pair}' is invalid. Write FILE=DIGEST with 64 hexadecimal digits.")
        digests[name] = digest
    files = (AMAZON_FILES[args.edition][kind].format(args.category) for kind in (args.subset, "metadata"))
    reviews, metadata = (
        download(f"{address.rstrip('/')}/{file}", (args.downloads / args.edition / file).parent, digests)
        for file in files
    )
    return [reviews], metadata


# --- interactions ----------------------------------------------------------------------------------------------------


def read_log(paths: Sequence[Path]) -> Log:
    """Reads files of interactions.

    Raises:
        XferError: if a file is missing, damaged or of another kind, or has no valid row.
    """
    dropped = Dropped(", ".join(map(str, paths)))
    log = Log(dropped)
    for path in paths:
        log.add_file(_csv_batches(path, dropped) if suffix_of(path) == ".csv" else _review_batches(path, dropped))
    log.collect()
    dropped.report()
    if not len(log):
        raise XferError(f"{', '.join(map(str, paths))}: no row is valid. Check which files they are.")
    return log


def _review_batches(path: Path, dropped: Dropped) -> Iterator[Batch]:
    for reviews in Records(Review, dropped).read(path):
        yield (
            pa.array([review.reviewerID or review.user_id for review in reviews], pa.string()),
            pa.array([review.parent_asin or review.asin for review in reviews], pa.string()),
            pa.array([_first(review.unixReviewTime, review.timestamp) for review in reviews], pa.float64()),
            pa.array([_first(review.overall, review.rating) for review in reviews], pa.float64()),
        )


def _first(value: float | None, other: float | None) -> float | None:
    return other if value is None else value


def _csv_batches(path: Path, dropped: Dropped) -> Iterator[Batch]:
    columns, header = _csv_columns(path)

    def skip(row: pyarrow.csv.InvalidRow) -> str:
        dropped.add("rows have another number of fields and are dropped", row.text)
        return "skip"

    try:
        with opened(path) as file:
            reader = pyarrow.csv.open_csv(
                file,
                pyarrow.csv.ReadOptions(block_size=BLOCK, column_names=columns, skip_rows=int(header)),
                pyarrow.csv.ParseOptions(quote_char=False, invalid_row_handler=skip),
                pyarrow.csv.ConvertOptions(
                    include_columns=["user", "item", "time", "rating"],
                    column_types=dict.fromkeys(columns, pa.string()),
                    check_utf8=True,
                ),
            )
            for batch in reader:
                yield batch["user"], batch["item"], _numbers(batch["time"]), _numbers(batch["rating"])
    except (pa.ArrowInvalid, EOFError, OSError) as error:
        raise XferError(f"{path} is cut off, damaged or no csv file: {error}. Get the file again.") from error


def _csv_columns(path: Path) -> tuple[list[str], bool]:
    """The roles of the columns, from the header or the form of the ids, and whether there is a header."""
    if not path.is_file():
        raise XferError(f"The file {path} does not exist.")
    try:
        with opened(path) as file:
            lines = file.read(FIRST_LINES).decode("utf-8", errors="replace").splitlines()
    except (EOFError, OSError) as error:
        raise XferError(f"{path} is cut off or damaged: {error}. Get the file again.") from error
    names = lines[0].split(",") if lines else []
    roles = {"user_id": "user", "parent_asin": "item", "rating": "rating", "timestamp": "time"}
    if set(roles) <= set(names):
        if len(lines) == 1:
            raise XferError(f"{path} has a header and no rows. Get the file again.")
        return [roles.get(name, name) for name in names], True
    rows = [fields for fields in (line.split(",") for line in lines[: len(lines) - 1 or 1]) if len(fields) == 4]
    counts = [sum(re.fullmatch(ASIN, fields[column]) is not None for fields in rows) for column in (0, 1)]
    if not rows or counts[0] == counts[1]:
        raise XferError(
            f"{path}: the columns are not recognized. Write the header user_id,parent_asin,rating,timestamp, or use "
            f"`recbole-xfer prepare table`."
        )
    return ["item", "user", "rating", "time"] if counts[0] > counts[1] else ["user", "item", "rating", "time"], False


def _numbers(column: pa.Array) -> pa.Array:
    """Numbers of strings; null where a string is not a number."""
    try:
        return pc.cast(column, pa.float64())
    except pa.ArrowInvalid:
        is_number = pc.match_substring_regex(column, r"^[+-]?\d+(\.\d*)?([eE][+-]?\d{1,3})?$")
        return pc.cast(pc.if_else(is_number, column, pa.scalar(None, pa.string())), pa.float64())


def _filter(log: Log, name: str, k_core: int, duplicates: Duplicates) -> None:
    """Sorts the log and removes what the options name; logs how much."""
    log.sort()
    if duplicates != "keep":
        repeats = log.repeats(duplicates)
        logger.info(f"{name}: {repeats.sum():,} interactions repeat an earlier one ({duplicates}) and are dropped.")
        log.keep(~repeats)
    if k_core > 1:
        stays = log.core(k_core)
        logger.info(
            f"{name}: {(~stays).sum():,} of {len(stays):,} interactions are outside the {k_core}-core and are dropped."
        )
        log.keep(stays)
    if not len(log):
        raise XferError(f"The domain {name} has no interactions in its {k_core}-core. Set a smaller --k_core.")


# --- items -----------------------------------------------------------------------------------------------------------


@dataclass
class Products:
    """Items with their features, and addresses of pictures as (item, address)."""

    items: list[str] = field(default_factory=list)
    texts: list[pa.Array] = field(default_factory=list)
    prices: list[float] = field(default_factory=list)
    pictures: list[pa.RecordBatch] = field(default_factory=list)

    def table(self) -> pa.Table:
        """The columns of an ``.item`` file."""
        columns = {"item_id": pa.array(self.items, pa.string()), "text": pa.chunked_array(self.texts, pa.string())}
        return pa.table({**columns, "price": pa.array(self.prices, pa.float64())})


def read_products(path: Path, ids: set[str]) -> Products:
    """Reads the metadata of the items in ``ids``. Of several records of an item, the first counts.

    Raises:
        XferError: if the file is missing or damaged, or describes no item in ``ids``.
    """
    products, dropped, missing = Products(), Dropped(path), set(ids)
    for records in Records(Product, dropped).read(path):
        texts: list[str] = []
        addresses: list[tuple[str, str]] = []
        for record in records:
            item = record.parent_asin or record.asin
            if not isinstance(item, str):
                dropped.add("records have no item and are dropped", item)
            elif item in missing:
                missing.remove(item)
                products.items.append(item)
                texts.append(text_of(record, item, dropped))
                products.prices.append(price_of(record.price, item, dropped))
                addresses += [(item, address) for address in addresses_of(record)]
            elif item in ids:
                dropped.add("records repeat an item and are dropped; the first record counts", item)
        products.texts.append(pa.array(texts, pa.string()))
        products.pictures.append(pa.RecordBatch.from_pydict(
            {"item_id": [item for item, _ in addresses], "url": [url for _, url in addresses]},
            pa.schema([("item_id", pa.string()), ("url", pa.string())]),
        ))  # fmt: skip
    if not products.items:
        raise XferError(
            f"{path} describes none of the items, such as '{min(ids)}'. Check that the files belong together."
        )
    dropped.report()
    return products


def text_of(record: Product, item: str, dropped: Dropped) -> str:
    """Title, sub-categories and brand; a phrase that occurs before is left out.

    The first category is that of the file, so it says nothing about an item.
    """
    title = _strings(record.title)
    if title and SCRIPT in title[0]:
        dropped.add("titles are scripts and are ignored", item)
        title = []
    categories = _strings(record.category) or _strings(record.categories)
    return joined(title + categories[1:] + (_strings(record.brand) or _strings(record.store)), ", ")


def price_of(value: Any, item: str, dropped: Dropped) -> float:
    """The price in dollars, of a range the lower end; NaN if it is missing or cannot be read.

    A range covers the variants of an item, and "from $8.99" has only the lower end.
    """
    if value is None or value == "":
        return math.nan
    price = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        price = float(value)
    elif isinstance(value, str) and (match := PRICE.fullmatch(value.strip())):
        price = float(match[1].replace(",", ""))
    if not 0 <= price <= HIGHEST_PRICE:
        dropped.add("prices cannot be read and are missing", f"item {item}, {value!r}")
        return math.nan
    return price


def addresses_of(record: Product) -> list[str]:
    """Addresses of at most four pictures, the largest of each: 2018's lists, or 2023's list of sizes."""
    found = _strings(record.imageURLHighRes) or _strings(record.imageURL)
    if isinstance(record.images, list):
        for sizes in record.images:
            if isinstance(sizes, dict):
                found += _strings(sizes.get("hi_res") or sizes.get("large") or sizes.get("thumb"))[:1]
    found = [address for address in found if is_address(address)]
    return list(dict.fromkeys(found))[:MOST] if len(found) > 1 else found


def _strings(value: Any) -> list[str]:
    """The strings in a value: a string, or those of a list."""
    if isinstance(value, str):
        return [value]
    return [part for part in value if isinstance(part, str)] if isinstance(value, list) else []
