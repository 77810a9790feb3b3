"""Helpers of the tests of ``recbole-xfer prepare``."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pandas as pd
import pytest

from recbole_xfer.data.atomic import read_atomic_file
from recbole_xfer.prepare import SOURCES

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("RECBOLE_XFER_DATA", ROOT.parent / "shared" / "data"))
LOG = {"user": "user", "item": "item", "time": "time"}


def real(name: str) -> Path:
    """Returns a folder of the real data; skips the test without it."""
    if not (REAL / name).is_dir():
        pytest.skip(f"the real data {name} is not in {REAL}")
    return REAL / name


def prepare(source: str, output: Path, *options: object) -> list[Path]:
    """Runs ``recbole-xfer prepare``; returns the folders."""
    parser = argparse.ArgumentParser()
    SOURCES[source].add_arguments(parser)
    summaries = SOURCES[source].run(parser.parse_args(["--output", str(output), *map(str, options)]))
    return [summary.folder for summary in summaries]


def table_file(folder: Path, content: str, name: str = "log.csv") -> Path:
    """Returns the path of a new file."""
    path = folder / name
    path.write_text(content)
    return path


def inter(folder: Path) -> pd.DataFrame:
    return read_atomic_file(folder / f"{folder.name}.inter")


def item(folder: Path) -> pd.DataFrame:
    return read_atomic_file(folder / f"{folder.name}.item")


def interactions(**columns: object) -> pd.DataFrame:
    table = {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [2.0, 1.0]}
    return pd.DataFrame(table | columns)
