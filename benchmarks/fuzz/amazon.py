"""Random files of Amazon's layouts, mostly well-formed."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from recbole_xfer.data.atomic import read_atomic_file
from recbole_xfer.errors import XferError
from recbole_xfer.prepare.amazon import prepare_amazon

IDS = st.sampled_from(["B000000001", "B000000002", "B000000003"]) | st.text(max_size=3)
USERS = st.sampled_from(["A1", "A2", "A3"]) | st.text(max_size=3)
NUMBERS = st.integers(1, 2**31) | st.floats() | st.sampled_from([0, -1, 1e300, 1588687728923, 2**70])
ANYTHING: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5) | st.just("<b>&amp;</b> long " * 1000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
PRICES = ANYTHING | st.sampled_from(["$12.99", "$8.99 - $25.00", "$1,250.00", "-$1", "NaN", ".a{b:c}", "$" + "9" * 500])
TIMES = st.integers(1, 10**9) | st.integers(1, 10**9) | NUMBERS
REVIEWS = st.one_of(
    st.fixed_dictionaries({"reviewerID": USERS, "asin": IDS, "unixReviewTime": TIMES, "overall": st.integers(1, 5)}),
    st.fixed_dictionaries({"user_id": USERS, "parent_asin": IDS, "timestamp": TIMES}, optional={"rating": ANYTHING}),
)
PRODUCTS = st.fixed_dictionaries(
    {"asin": IDS},
    optional={
        "title": ANYTHING, "category": st.lists(ANYTHING, max_size=3) | ANYTHING, "categories": ANYTHING,
        "brand": ANYTHING, "store": ANYTHING, "price": PRICES, "imageURL": ANYTHING,
        "imageURLHighRes": st.lists(st.just("http://x/1.jpg") | ANYTHING, max_size=3),
        "images": ANYTHING | st.lists(st.dictionaries(st.just("large"), ANYTHING), max_size=3),
    },
)  # fmt: skip
CSV_ROWS = st.tuples(USERS, IDS, NUMBERS.map(str), TIMES.map(str)).map(",".join) | st.text(max_size=8)


@st.composite
def json_lines(draw: st.DrawFn, records: st.SearchStrategy[Any]) -> bytes:
    """Records, one a line; sometimes a half line, another value or other bytes among them."""
    other = ANYTHING.map(json.dumps) | st.binary(max_size=8).map(lambda part: part.decode("latin-1"))
    half = records.map(lambda record: json.dumps(record)[: len(json.dumps(record)) // 2])
    line = records.map(json.dumps)
    return "\n".join(draw(st.lists(st.one_of(line, line, line, half, other), min_size=4, max_size=10))).encode(
        "utf-8", "replace"
    )


@st.composite
def amazon_files(draw: st.DrawFn) -> tuple[str, bytes, bytes | None, dict[str, Any]]:
    """A name and the bytes of a file of interactions, those of a file of metadata, and options."""
    if draw(st.booleans()):
        name, content = "X.json", draw(json_lines(REVIEWS))
    else:
        header = draw(st.sampled_from([*["user_id,parent_asin,rating,timestamp"] * 4, "", "parent_asin,user_id"]))
        name, content = (
            "X.csv",
            "\n".join([header, *draw(st.lists(CSV_ROWS, min_size=4, max_size=10))]).encode("utf-8", "replace"),
        )
    metadata = draw(st.none() | json_lines(PRODUCTS))
    if draw(st.booleans()):
        name, content = f"{name}.gz", gzip.compress(content)
        content = content[: draw(st.sampled_from([*[len(content)] * 5, len(content) // 2, 5]))]
    options = {
        "k_core": draw(st.sampled_from([1, 1, 1, 2])),
        "duplicates": draw(st.sampled_from(["keep", "same_time", "same_item"])),
    }
    return name, content, metadata, options


def check_amazon(given: tuple[str, bytes, bytes | None, dict[str, Any]], folder: Path) -> bool:
    """Prepares the files; compares what is written with the summary, and a second run with the first."""
    name, content, metadata, options = given
    (folder / name).write_bytes(content)
    if metadata is not None:
        (folder / "meta.json").write_bytes(metadata)
    paths = [folder / name], folder / "meta.json" if metadata is not None else None
    try:
        summary = prepare_amazon(folder / "out", *paths, name="X", **options)
    except XferError:
        return False
    log = read_atomic_file(summary.folder / "X.inter")
    assert (len(log), log["user_id"].nunique(), log["item_id"].nunique()) == (
        summary.interactions, summary.users, summary.items,
    )  # fmt: skip
    assert log["timestamp"].is_monotonic_increasing
    if metadata is not None:
        items = read_atomic_file(summary.folder / "X.item")
        assert items["item_id"].is_unique
        assert set(items["item_id"]) <= set(log["item_id"])
        assert items["price"].notna().sum() == summary.with_price
        assert (items["price"].dropna() >= 0).all()
    first = {path.name: path.read_bytes() for path in summary.folder.iterdir()}
    prepare_amazon(folder / "out", *paths, name="X", **options)
    assert {path.name: path.read_bytes() for path in summary.folder.iterdir()} == first
    return True
