"""Random atomic files, tables and JSON, and what is compared after they are read."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import strategies as st

from recbole_xfer.data.atomic import AtomicFormat, read_atomic_file
from recbole_xfer.errors import XferError
from recbole_xfer.prepare.reading import TextFormat, read_table
from recbole_xfer.prepare.table import prepare_table

WORDS = st.text(st.characters(codec="utf-8", exclude_characters='"\t\r\n\0'), max_size=8)
"""A field of a file. Quotation marks have a meaning of their own in some formats."""

NUMBERS = st.one_of(st.integers(-(10**12), 10**12), st.floats(-1e9, 1e9)).map(str)
ODD = st.sampled_from(
    ["", "NA", "nan", "inf", "-inf", "1e400", "0x10", "1_000", "1,5", " 7 ", "٣", "True", "-", "#", "\0"]
)
ENCODINGS = st.sampled_from(["utf-8", "utf-8", "latin-1", "utf-16", "utf-8-sig", "cp1252", "koi8-r", "no-such"])


# --- atomic files ----------------------------------------------------------------------------------------------------


@st.composite
def atomic_files(draw: st.DrawFn) -> tuple[bytes, str]:
    """The bytes of an .inter or .item file, mostly well-formed, and an encoding."""
    types = draw(
        st.lists(st.sampled_from(["token", "token", "float", "token_seq", "float_seq"]), min_size=2, max_size=4)
    )
    header = "\t".join(f"column{number}:{kind}" for number, kind in enumerate(types))
    numbers = st.one_of(NUMBERS, NUMBERS, NUMBERS, ODD, WORDS)
    row = st.tuples(*(numbers if kind == "float" else st.one_of(WORDS, ODD) for kind in types)).map("\t".join)
    rows = draw(st.lists(st.one_of(row, row, row, row, row, st.text("a1\t ", max_size=5)), max_size=12))
    ending = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    text = ending.join([header, *rows]) + draw(st.sampled_from(["", ending]))
    encoding = draw(ENCODINGS)
    return _damaged(draw, text.encode(_known(encoding), errors="replace")), encoding


def check_atomic_file(given_file: tuple[bytes, str], folder: Path) -> bool:
    """Compares what is read with the lines of the file, split at tabs."""
    content, encoding = given_file
    path = folder / "D.inter"
    path.write_bytes(content)
    try:
        frame = read_atomic_file(path, form=AtomicFormat(encoding=encoding))
    except XferError:
        return False
    text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding).replace("\r\n", "\n")
    header, *lines = text.split("\n") if "\n" in text else text.split("\r")
    rows = [line.split("\t") for line in lines if line.strip(" ")]
    assert len(frame) == len(rows), f"{len(frame)} rows are read, the file has {len(rows)}"
    for number, column in enumerate(header.split("\t")):
        name, _, kind = column.rpartition(":")
        for value, row in zip(frame[name], rows, strict=True):
            field = row[number] if number < len(row) else ""
            if not pd.isna(value):
                # pandas rounds the last digit of a float differently from Python
                right = np.isclose(float(field), value, rtol=1e-12, atol=0) if kind == "float" else field == value
                assert right, f"{field!r} is read as {value!r}"
            elif kind == "float":
                assert field.strip() in ("", "NA") or np.isnan(float(field)), f"{field!r} is missing"
    return True


# --- tables ----------------------------------------------------------------------------------------------------------


@st.composite
def tables(draw: st.DrawFn) -> tuple[str, bytes, dict[str, Any]]:
    """A file of separated values, its suffix, and options of ``prepare table``."""
    suffix, separator = draw(st.sampled_from([(".csv", ","), (".tsv", "\t"), (".txt", "::"), (".csv", ";")]))
    word = WORDS.map(lambda text: text.replace(separator, ""))
    times = st.one_of(NUMBERS, NUMBERS, st.dates().map(str), st.datetimes().map(str), ODD, word)
    rating = st.one_of(st.integers(1, 5).map(str), NUMBERS, ODD)
    row = st.tuples(st.integers(1, 9).map(str) | word, st.integers(1, 9).map(str) | word, times, rating)
    rows = draw(st.lists(st.one_of(row, row, row, st.lists(word, max_size=6).map(tuple)), max_size=12))
    text = "\n".join(separator.join(fields) for fields in [("user", "item", "time", "rating"), *rows])
    encoding = draw(ENCODINGS)
    columns = {"user": "user", "item": "item"}
    columns |= {role: role for role in draw(st.sets(st.sampled_from(["time", "rating"])))}
    options = {
        "columns": columns,
        "form": TextFormat(separator, encoding=encoding, quotes=draw(st.booleans())),
        "time_format": draw(st.sampled_from([None, None, None, "%Y-%m-%d", "%d.%m.%Y", "%q"])),
    }
    return suffix, _damaged(draw, text.encode(_known(encoding), errors="replace")), options


def check_table(table: tuple[str, bytes, dict[str, Any]], folder: Path) -> bool:
    """Prepares a table; compares the users and items that are written with the lines of the table."""
    suffix, content, options = table
    path = folder / f"table{suffix}"
    path.write_bytes(content)
    try:
        [domain] = prepare_table(folder, path, name="D", **options)
    except XferError:
        return False
    form = options["form"]
    lines = content.decode(form.encoding).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    rows = [line.split(form.separator) for line in lines[1:] if line.strip(" ")]
    written = read_atomic_file(domain / "D.inter")
    pairs = sorted((fields[0], fields[1]) for fields in rows)
    found = sorted(zip(written["user_id"], written["item_id"], strict=True))
    assert found == pairs, f"{found} is written, the table has {pairs}"
    return True


# --- JSON ------------------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), WORDS, st.just('"'), st.just("\t")
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3))
RECORDS = st.fixed_dictionaries(
    {"user": st.integers(1, 9) | VALUES, "item": st.integers(1, 9) | VALUES}, optional={"time": st.integers() | VALUES}
)
REGULAR = st.fixed_dictionaries({"user": st.integers(1, 9), "item": WORDS, "time": st.integers(1, 10**9)})


@st.composite
def json_files(draw: st.DrawFn) -> tuple[list[Any] | None, bytes]:
    """Records, one a line or as one list; None instead of the records if the file is damaged."""
    record = draw(st.sampled_from([REGULAR, st.one_of(RECORDS, RECORDS, RECORDS, RECORDS, RECORDS, VALUES)]))
    records = draw(st.lists(record, max_size=8))
    lines = draw(st.booleans())
    text = (
        "\n".join(map(json.dumps, records)) if lines else json.dumps(records, indent=draw(st.sampled_from([None, 1])))
    )
    content = text.encode()
    damaged = _damaged(draw, content)
    return (records if damaged == content else None), damaged


def check_json(file: tuple[list[Any] | None, bytes], folder: Path) -> bool:
    """Reads and prepares JSON; several records give as many rows."""
    records, content = file
    path = folder / "table.json"
    path.write_bytes(content)
    with contextlib.suppress(XferError):
        table = read_table(path, TextFormat())
        if records is not None and len(records) > 1:
            assert len(table) == len(records), f"{len(table)} rows are read, the file has {len(records)}"
    try:
        prepare_table(folder, path, {"user": "user", "item": "item", "time": "time"}, name="D")
    except XferError:
        return False
    return True


def _damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """The content, in one case of four with bytes replaced, inserted or removed."""
    if not draw(st.sampled_from([False, False, False, True])):
        return content
    start = draw(st.integers(0, len(content)))
    end = draw(st.integers(start, len(content)))
    inserted = draw(st.binary(max_size=6)).replace(b'"', b"'")
    return content[:start] + inserted + content[end if draw(st.booleans()) else start :]


def _known(encoding: str) -> str:
    return "utf-8" if encoding == "no-such" else encoding
