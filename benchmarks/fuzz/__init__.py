"""Gives random inputs to the readers of files, tables, pictures and keys; each must be read right or be rejected.

    python -m benchmarks.fuzz --minutes=30
    python -m benchmarks.fuzz --minutes=5 --only=keys

Each kind of input gets an equal part of the time. Prints for each kind how many inputs were accepted, rejected and
failed, and the smallest input of each failure. Ends with status 1 after a failure. An input that needs more than a
minute ends the program.

tests/fuzz runs the same checks on 200 inputs of each kind.
"""

from __future__ import annotations

import contextlib
import faulthandler
import io
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from benchmarks.fuzz.amazon import amazon_files, check_amazon
from benchmarks.fuzz.files import atomic_files, check_atomic_file, check_json, check_table, json_files, tables
from benchmarks.fuzz.keys import check_keys, keys
from benchmarks.fuzz.pictures import check_picture, pictures

SLOW = 60
"""Seconds after which an input counts as a hang."""

ROUND = 500
"""Inputs with one seed."""


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


KINDS = (
    Kind("files", atomic_files(), check_atomic_file),
    Kind("tables", tables(), check_table),
    Kind("json", json_files(), check_json),
    Kind("amazon", amazon_files(), check_amazon),
    Kind("pictures", pictures(), check_picture),
    Kind("keys", keys(), check_keys),
)


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


def run_for(kind: Kind, seconds: float, number: int = 0) -> tuple[Counter[bool], int]:
    """Checks ever new inputs for a time; prints each failure; returns the counts of :func:`run` and of failures."""
    end, counts, failures = time.monotonic() + seconds, Counter[bool](), 0
    while time.monotonic() < end:
        try:
            counts += run(kind, ROUND, number)
        except Exception as error:
            failures += 1
            print(f"{kind.name}, seed {number}:", "".join(traceback.format_exception(error)), sep="\n", flush=True)
        number += 1
    return counts, failures
