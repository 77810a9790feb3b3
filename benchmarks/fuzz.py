"""Gives random inputs to the readers of files, tables and keys, and checks that each is read right or rejected.

    python -m benchmarks.fuzz --minutes=30
    python -m benchmarks.fuzz --minutes=5 --only=keys

Each kind of input gets an equal part of the time. Prints the inputs and failures of each kind, and the smallest input
of each failure. Ends with status 1 after a failure. An input that needs more than a minute ends the program.

tests/fuzz runs the same checks on 200 inputs of each kind.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import io
import json
import logging
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from recbole_xfer.cli.keys import separate
from recbole_xfer.config.config import XferConfig
from recbole_xfer.config.schema import KEYS
from recbole_xfer.config.values import parse_value
from recbole_xfer.data.atomic import AtomicFormat, read_atomic_file
from recbole_xfer.errors import XferError
from recbole_xfer.prepare.reading import TextFormat, read_table
from recbole_xfer.prepare.table import prepare_table

SLOW = 60
"""Seconds after which an input counts as a hang."""

ROUND = 500
"""Inputs with one seed."""

WORDS = st.text(st.characters(codec="utf-8", exclude_characters='"\t\r\n\0'), max_size=8)
"""A field of a file. Quotation marks have a meaning of their own in some formats."""

NUMBERS = st.one_of(st.integers(-(10**12), 10**12), st.floats(-1e9, 1e9)).map(str)
ODD = st.sampled_from(
    ["", "NA", "nan", "inf", "-inf", "1e400", "0x10", "1_000", "1,5", " 7 ", "٣", "True", "-", "#", "\0"]
)
ENCODINGS = st.sampled_from(["utf-8", "utf-8", "latin-1", "utf-16", "utf-8-sig", "cp1252", "koi8-r", "no-such"])


@dataclass(frozen=True)
class Kind:
    """A kind of input.

    Attributes:
        name: shown in the report.
        inputs: makes inputs.
        check: raises if an input is neither read right nor rejected with XferError; gets an empty folder.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any, Path], None]


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


def check_atomic_file(given_file: tuple[bytes, str], folder: Path) -> None:
    """Compares what is read with the lines of the file, split at tabs."""
    content, encoding = given_file
    path = folder / "D.inter"
    path.write_bytes(content)
    try:
        frame = read_atomic_file(path, form=AtomicFormat(encoding=encoding))
    except XferError:
        return
    header, *lines = content.decode("utf-8-sig" if encoding == "utf-8" else encoding).replace("\r\n", "\n").split("\n")
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
                assert not field.strip() or np.isnan(float(field)) or field.strip() == "NA", f"{field!r} is missing"


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


def check_table(table: tuple[str, bytes, dict[str, Any]], folder: Path) -> None:
    """Prepares a table; compares the users and items that are written with the lines of the table."""
    suffix, content, options = table
    path = folder / f"table{suffix}"
    path.write_bytes(content)
    try:
        [domain] = prepare_table(folder, path, name="D", **options)
    except XferError:
        return
    form = options["form"]
    lines = content.decode(form.encoding).replace("\r\n", "\n").replace("\r", "\n").split("\n")
    rows = [line.split(form.separator) for line in lines[1:] if line.strip(" ")]
    written = read_atomic_file(domain / "D.inter")
    pairs = sorted((fields[0], fields[1]) for fields in rows)
    found = sorted(zip(written["user_id"], written["item_id"], strict=True))
    assert found == pairs, f"{found} is written, the table has {pairs}"


# --- JSON ------------------------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), WORDS, st.just('"'), st.just("\t")
)
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3))
RECORDS = st.fixed_dictionaries(
    {"user": st.integers(1, 9) | VALUES, "item": st.integers(1, 9) | VALUES}, optional={"time": st.integers() | VALUES}
)


@st.composite
def json_files(draw: st.DrawFn) -> tuple[list[Any] | None, bytes]:
    """Records, one a line or as one list; None instead of the records if the file is damaged."""
    records = draw(st.lists(st.one_of(RECORDS, RECORDS, RECORDS, RECORDS, RECORDS, VALUES), max_size=8))
    lines = draw(st.booleans())
    text = (
        "\n".join(map(json.dumps, records)) if lines else json.dumps(records, indent=draw(st.sampled_from([None, 1])))
    )
    content = text.encode()
    damaged = _damaged(draw, content)
    return (records if damaged == content else None), damaged


def check_json(file: tuple[list[Any] | None, bytes], folder: Path) -> None:
    """Reads and prepares JSON; several records give as many rows."""
    records, content = file
    path = folder / "table.json"
    path.write_bytes(content)
    with contextlib.suppress(XferError):
        table = read_table(path, TextFormat())
        if records is not None and len(records) > 1:
            assert len(table) == len(records), f"{len(table)} rows are read, the file has {len(records)}"
    with contextlib.suppress(XferError):
        prepare_table(folder, path, {"user": "user", "item": "item", "time": "time"}, name="D")


# --- keys ------------------------------------------------------------------------------------------------------------

MODELS = ("SASRec", "BPR", "Pop", "FM", "ANT", "RETR", "SyNCRec", "RecGURU", "UniSRec")
DISTRIBUTED = {"local_rank", "nproc", "world_size", "ip", "port", "group_offset", "offset"}
"""Keys with which RecBole waits for other processes."""

PLAIN_TEXT = st.text(st.sampled_from("abcXYZ019.,:-_+*#&|[]{}()<>'\\ %?ä@/~"), max_size=10)
"""Text of the command line; without tags, dates and anchors of yaml."""
GIVEN = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 300), st.integers(), st.floats(), PLAIN_TEXT,
        st.sampled_from(["full", "uni100", "NDCG@10", "LS", "RO", "user", "CE", "gelu", "text", "[5,inf)", "1e-3"]),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*KEYS, "x"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
NAMES = st.sampled_from(sorted(set(KEYS) - DISTRIBUTED - {"model", "dataset"})) | PLAIN_TEXT


@st.composite
def keys(draw: st.DrawFn) -> tuple[str, dict[str, Any], bool]:
    """A model, values by key, and whether they come from a command line."""
    model = draw(st.sampled_from(MODELS))
    return model, draw(st.dictionaries(NAMES, GIVEN, min_size=1, max_size=3)), draw(st.booleans())


def check_keys(given_keys: tuple[str, dict[str, Any], bool], folder: Path) -> None:
    """Builds a configuration from Python's values or from the words of a command line."""
    model, values, from_words = given_keys
    with contextlib.suppress(XferError):
        if from_words:
            words = [part for key, value in values.items() for part in (f"--{key}", str(value))]
            others, values = separate(words, lambda name: name == "--output")
            assert len(others) + 2 * len(values) <= len(words)
            assert all(isinstance(value, str) for value in values.values())
        config = XferConfig(model, "D", overrides={**values, "use_gpu": False})
        assert config["model"] == model
    for value in values.values():
        if isinstance(value, int):
            assert parse_value(str(value)) == value


KINDS = (
    Kind("files", atomic_files(), check_atomic_file),
    Kind("tables", tables(), check_table),
    Kind("json", json_files(), check_json),
    Kind("keys", keys(), check_keys),
)


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


# --- running ---------------------------------------------------------------------------------------------------------


def run(kind: Kind, inputs: int, number: int | None = None) -> int:
    """Checks some inputs; returns how many.

    Args:
        number: the seed of the inputs; None for inputs that are always the same.

    Raises:
        Exception: what the check of the smallest failing input raises; its notes show the input.
    """
    count = 0

    def check(value: Any) -> None:
        nonlocal count
        count += 1
        faulthandler.dump_traceback_later(SLOW, exit=True)
        try:
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                kind.check(value, Path(folder))
        finally:
            faulthandler.cancel_dump_traceback_later()

    test = settings(
        max_examples=inputs, derandomize=number is None, deadline=timedelta(seconds=SLOW), database=None,
        phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
    )(given(kind.inputs)(check))  # fmt: skip
    (test if number is None else seed(number)(test))()
    return count


def run_for(kind: Kind, seconds: float) -> tuple[int, int]:
    """Checks ever new inputs for a time; prints each failure; returns the number of inputs and of failures."""
    end, inputs, failures, number = time.monotonic() + seconds, 0, 0, 0
    while time.monotonic() < end:
        try:
            inputs += run(kind, ROUND, number)
        except Exception as error:
            failures += 1
            inputs += ROUND
            print(f"{kind.name}, seed {number}:", "".join(traceback.format_exception(error)), sep="\n", flush=True)
        number += 1
    return inputs, failures


def main() -> int:
    """Checks all kinds; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=float, default=10, help="time for all kinds together")
    parser.add_argument("--only", choices=[kind.name for kind in KINDS], help="check one kind")
    options = parser.parse_args()
    kinds = [kind for kind in KINDS if options.only in (None, kind.name)]
    logging.disable(logging.WARNING)
    failed = False
    for kind in kinds:
        start = time.monotonic()
        inputs, failures = run_for(kind, 60 * options.minutes / len(kinds))
        failed = failed or failures > 0
        print(f"{kind.name}: {inputs} inputs, {failures} failures, {time.monotonic() - start:.0f} s", flush=True)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
