"""Gives random inputs to the readers of files, tables and keys, and checks that each is read right or rejected.

    python -m benchmarks.fuzz --minutes=30
    python -m benchmarks.fuzz --minutes=5 --only=keys

Each kind of input gets an equal part of the time. Prints for each kind how many inputs were accepted, rejected and
failed, and the smallest input of each failure. Ends with status 1 after a failure. An input that needs more than a
minute ends the program.

tests/fuzz runs the same checks on 200 inputs of each kind.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import faulthandler
import io
import json
import logging
import math
import os
import re
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pydantic.fields import FieldInfo
from recbole.utils import get_model

from recbole_xfer.cli.keys import separate
from recbole_xfer.config import properties
from recbole_xfer.config import value_types as t
from recbole_xfer.config.config import XferConfig, known_keys
from recbole_xfer.config.schema import KEYS, kind_of
from recbole_xfer.config.values import parse_value
from recbole_xfer.data.atomic import AtomicFormat, read_atomic_file
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build
from recbole_xfer.hooks import hooks_of
from recbole_xfer.prepare.reading import TextFormat, read_table
from recbole_xfer.prepare.table import prepare_table
from recbole_xfer.stages import train_and_evaluate
from recbole_xfer.testing.data import SIZES, write_small

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
        check: whether an input is accepted; rejections are XferError. Raises if an accepted one is not read right. Gets
            an empty folder.
    """

    name: str
    inputs: st.SearchStrategy[Any]
    check: Callable[[Any, Path], bool]


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


# --- keys ------------------------------------------------------------------------------------------------------------

MODELS = ("SASRec", "BPR", "Pop", "FM", "ANT", "RETR", "SyNCRec", "RecGURU", "UniSRec", "S3Rec", "TPSASRec")
OF_TWO_DOMAINS = ("RecGURU", "SyNCRec")
DISTRIBUTED = {"local_rank", "nproc", "world_size", "ip", "port", "group_offset", "offset"}
"""Keys with which RecBole waits for other processes."""
FIXED = DISTRIBUTED | {
    "model", "dataset", "tp_model", "data_path", "checkpoint_dir", "gpu_id", "use_gpu", "worker", "epochs",
    "log_wandb", "save_step",
}  # fmt: skip
"""Keys that the check sets, or that would only make it slow."""
CHEAP = {
    **SIZES, "topk": [5, 10], "MAX_ITEM_LIST_LENGTH": 6, "train_batch_size": 64, "user_batch_size": 16,
    "autoencoder_epochs": 1, "adversarial_epochs": 1, "pretrain_epochs": 1, "critic_size": 8, "paths": 4,
    "embedding_size": 8, "show_progress": False, "item_attribute": "text",
}  # fmt: skip
"""Values that keep a run short; each is set for the models that know it."""
LARGE = 1000
"""Integers above it are accepted, but a model of this size is not built."""

PLAIN_TEXT = st.text(st.sampled_from("abcXYZ019.,:-_+*#&|[]{}()<>'\\ %?ä@/~"), max_size=10)
"""Text of the command line; without tags, dates and anchors of yaml."""
ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 300), st.integers(), st.floats(), PLAIN_TEXT,
        st.sampled_from(["full", "uni100", "NDCG@10", "LS", "RO", "user", "CE", "gelu", "text", "[5,inf)", "1e-3"]),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*KEYS, "x"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
COLUMNS = st.sampled_from(["user_id", "item_id", "timestamp", "text", "price"])
INTERVALS = st.sampled_from(["[0,inf)", "[2,inf)", "(1,20]", "[0,3];[5,inf)"])
METRIC_NAMES = st.sampled_from(["Recall", "NDCG", "MRR", "Hit", "MAP", "Precision", "ItemCoverage", "GiniIndex"])
EXAMPLES: dict[Any, st.SearchStrategy[Any]] = {
    t.Name: COLUMNS,
    t.Text: COLUMNS,
    t.FilePath: st.sampled_from(["a", "b/c"]),
    t.Metrics: METRIC_NAMES | st.lists(METRIC_NAMES, min_size=1, max_size=3, unique=True),
    t.MetricOfRank: METRIC_NAMES.map(lambda name: f"{name}@10"),
    t.Interval: INTERVALS,
    t.Filter: st.dictionaries(st.sampled_from(["timestamp", "price"]), INTERVALS, max_size=1),
    t.Clipping: st.fixed_dictionaries({"max_norm": st.floats(0.1, 10)}),
    t.Buckets: st.just({"price": {"method": "ED", "bucket": 3}}),
    t.Ratios: st.sampled_from([[8, 1, 1], [0.5, 0.25, 0.25], [1, 1, 1]]),
    t.Mode: st.sampled_from(["full", "uni5", "pop3", {"valid": "uni2", "test": "full"}]),
    t.GpuIds: st.just(""),
    t.Encoding: st.sampled_from(["utf-8", "latin-1", "utf-16"]),
    t.Tokens: st.lists(COLUMNS),
    t.NormType: st.sampled_from([1.0, 2.0, float("inf")]),
    t.Columns: st.just({"inter": ["user_id", "item_id", "timestamp"]}),
}
"""Valid values of types from which they cannot be derived, and those of columns that the data has."""


OF_KEYS: dict[str, st.SearchStrategy[Any]] = {
    "eval_args": st.fixed_dictionaries(
        {},
        optional={
            "split": st.sampled_from([{"LS": "valid_and_test"}, {"RS": [8, 1, 1]}, {"HU": [8, 1, 1]}, {"NU": 0.3}]),
            "mode": st.sampled_from(["full", "uni5", "pop3"]),
            "group_by": st.sampled_from(["user", "none"]),
            "order": st.sampled_from(["TO", "RO"]),
        },
    ),
    "train_neg_sample_args": st.none()
    | st.fixed_dictionaries(
        {"distribution": st.sampled_from(["uniform", "popularity"]), "sample_num": st.integers(1, 2)}
    ),
    "hidden_size": st.sampled_from([8, 16, 24]),
    "n_heads": st.sampled_from([1, 2, 4]),
    "single_domain": st.none(),
    "item_attribute": st.just("text"),
    "pretrained": st.none(),
    "adaptation": st.none() | st.just("scratch"),
    "source": st.none(),
    "overlap_file": st.none(),
    "additional_feat_suffix": st.none(),
    "benchmark_filename": st.none(),
    "augmentation": st.none() | st.just(["item_drop"]),
    **{key: st.just(value) for key, value in {"USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id"}.items()},
}
"""Valid values of keys that depend on other keys, on the model or on the data."""


def valid_for(key: str, model: str) -> st.SearchStrategy[Any]:
    """Valid values of a key in a model."""
    name = key.removeprefix(properties.STAGE_PREFIX)
    if name == "loss_type":
        return st.sampled_from(hooks_of(get_model(model)).loss_types)
    return OF_KEYS[name] if name in OF_KEYS else valid(kind_of(key, model))


def valid(kind: Any) -> st.SearchStrategy[Any]:
    """Valid values of a type of configuration values; numbers are mostly small."""
    if kind in EXAMPLES:
        return EXAMPLES[kind]
    if get_origin(kind) in (Union, UnionType):
        return st.one_of([valid(part) for part in get_args(kind)])
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is Annotated:
        base, *notes = get_args(kind)
        fields = [note for note in notes if isinstance(note, FieldInfo)]
        limits = {name: value for field in fields for part in field.metadata for name, value in vars_of(part).items()}
        if base in (int, float):
            return small(base, limits)
        if get_origin(base) is list:
            low, high = limits.get("min_length", 0), limits.get("max_length", 3)
            return st.lists(valid(get_args(base)[0]), min_size=low, max_size=high)
        if base is Any and fields and fields[0].description:
            return st.sampled_from([name for name in re.split(", | or ", fields[0].description) if name])
        return valid(base)
    if get_origin(kind) is dict:
        return st.dictionaries(COLUMNS, valid(get_args(kind)[1]), min_size=1, max_size=1)
    return {bool: st.booleans(), NoneType: st.none(), str: COLUMNS, int: st.integers(1, 8)}.get(kind, ANYTHING)


def vars_of(part: Any) -> dict[str, Any]:
    """The limits that a part of a type's metadata sets, such as ``ge`` or ``max_length``."""
    names = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length")
    return {name: getattr(part, name) for name in names if getattr(part, name, None) is not None}


def small(base: type, limits: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Numbers within limits, near the lower one."""
    low = limits.get("ge", limits.get("gt", 0))
    if base is int:
        step = limits.get("multiple_of", 1)
        high = min(limits.get("le", low + 8), limits.get("lt", low + 9) - 1)
        return (
            st.integers(low, high).map(lambda number: number // step * step or step)
            if step > 1
            else st.integers(low, high)
        )
    high = min(limits.get("le", low + 2.0), limits.get("lt", low + 2.0))
    return st.floats(low, high, exclude_min="gt" in limits, exclude_max="lt" in limits, width=32)


@st.composite
def keys(draw: st.DrawFn) -> tuple[str, dict[str, Any], bool, bool]:
    """A model, values by key, whether they come from a command line, and whether the model is trained.

    Of 20 values, 17 are valid, two are of another number or length, and one is anything.
    """
    model = draw(st.sampled_from(MODELS))
    known = sorted(known_keys(model, "D") - FIXED)
    own = sorted(set(properties.defaults(model, "D")) & set(known)) or known
    names = st.sampled_from(own) | st.sampled_from(known)
    values: dict[str, Any] = {}
    for name in draw(st.lists(names, min_size=1, max_size=4, unique=True)):
        kind, chance = kind_of(name, model), draw(st.integers(0, 19))
        if kind is None or chance == 7:  # Hypothesis often draws the first and the last number
            values[name] = draw(ANYTHING)
        elif chance in (11, 13):
            values[name] = draw(st.sampled_from([0, 1, -1, 2.5, [], "", None, 10**12, float("inf"), [0], [1, 1, 1]]))
        else:
            values[name] = draw(valid_for(name, model))
    if draw(st.integers(0, 19)) == 7:
        values[draw(PLAIN_TEXT)] = draw(ANYTHING)
    return model, values, draw(st.booleans()), draw(st.integers(0, 7)) == 5


@cache
def data_of_keys() -> Path:
    """A folder with two small domains, for this process."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    for number, name in enumerate(("D", "E")):
        write_small(Path(folder.name), name, users=24, items=14, seed=number)
    return Path(folder.name)


def check_keys(given_keys: tuple[str, dict[str, Any], bool, bool], folder: Path) -> bool:
    """Builds the data and a small model with values of Python or the words of a command line; may train it."""
    model, values, from_words, trained = given_keys
    for value in values.values():
        if isinstance(value, int):
            assert parse_value(str(value)) == value
    dataset, known = "D+E" if model in OF_TWO_DOMAINS else "D", known_keys(model, "D")
    places = {"data_path": str(data_of_keys()), "checkpoint_dir": str(folder / "saved")}
    try:
        if from_words:
            words = [part for key, value in values.items() for part in (f"--{key}", str(value))]
            others, values = separate(words, lambda name: name == "--output")
            assert len(others) + 2 * len(values) <= len(words)
            assert all(isinstance(value, str) for value in values.values())
        cheap = {key: value for key, value in CHEAP.items() if key in known}
        config = XferConfig(model, dataset, overrides={**cheap, "epochs": 1, **values, **places, "use_gpu": False})
        assert config["model"] == model
        large = is_large({key: config[key] for key in values})
        if trained and not large:
            with inside(folder):
                result = train_and_evaluate(config, None)
            assert all(math.isfinite(value) for value in result.test.values())
        elif not large:
            assert build(config).config["model"] == model
    except XferError:
        return False
    return True


def is_large(value: Any) -> bool:
    """Whether a value has an integer above :data:`LARGE`."""
    if isinstance(value, (list, tuple, Mapping)):
        return any(map(is_large, value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, int) and value > LARGE


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Works in a folder, for RecBole's files of TensorBoard."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


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


def run(kind: Kind, inputs: int, number: int | None = None) -> Counter[bool]:
    """Checks some inputs; returns how many were accepted (True) and rejected (False).

    Args:
        number: the seed of the inputs; None for inputs that are always the same.

    Raises:
        Exception: what the check of the smallest failing input raises; its notes show the input.
    """
    counts = Counter[bool]()

    def check(value: Any) -> None:
        faulthandler.dump_traceback_later(SLOW, exit=True)
        try:
            with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
                counts[kind.check(value, Path(folder))] += 1
        finally:
            faulthandler.cancel_dump_traceback_later()

    test = settings(
        max_examples=inputs, derandomize=number is None, deadline=timedelta(seconds=SLOW), database=None,
        phases=[Phase.generate, Phase.shrink], suppress_health_check=list(HealthCheck),
    )(given(kind.inputs)(check))  # fmt: skip
    (test if number is None else seed(number)(test))()
    return counts


def run_for(kind: Kind, seconds: float) -> tuple[Counter[bool], int]:
    """Checks ever new inputs for a time; prints each failure; returns the counts of :func:`run` and of failures."""
    end, counts, failures, number = time.monotonic() + seconds, Counter[bool](), 0, 0
    while time.monotonic() < end:
        try:
            counts += run(kind, ROUND, number)
        except Exception as error:
            failures += 1
            print(f"{kind.name}, seed {number}:", "".join(traceback.format_exception(error)), sep="\n", flush=True)
        number += 1
    return counts, failures


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
        counts, failures = run_for(kind, 60 * options.minutes / len(kinds))
        failed = failed or failures > 0
        print(
            f"{kind.name}: {counts.total()} inputs, {counts[True]} accepted, {counts[False]} rejected, "
            f"{failures} failures, {time.monotonic() - start:.0f} s",
            flush=True,
        )
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
