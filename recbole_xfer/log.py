"""Prints this package's messages and progress; writes its messages and RecBole's to the log file of a run."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from recbole_xfer.processes import is_first

logger = logging.getLogger("recbole_xfer")

COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class PlainFormatter(logging.Formatter):
    """Formats messages without the colours that RecBole writes into its own."""

    def format(self, record: logging.LogRecord) -> str:
        return COLOUR.sub("", super().format(record))


def show_messages(stream: TextIO | None = None) -> None:
    """Prints this package's messages as plain text to standard error; standard output is for results.

    Of several processes only the first prints messages, RecBole's warnings included.

    Args:
        stream: instead of standard error.
    """
    if not is_first():
        logging.disable()
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(PlainFormatter("%(message)s"))
    logger.handlers = [handler]
    logger.setLevel(logging.INFO)


def progress_bar(shown: bool = True, **settings: Any) -> tqdm:
    """A progress bar on standard error; invisible if it is not wanted, or if standard error is not a terminal."""
    return tqdm(disable=None if shown and is_first() else True, dynamic_ncols=True, **settings)


@contextmanager
def logging_to(folder: Path) -> Iterator[None]:
    """Appends all log messages of the block to ``<folder>/<name of folder>.log``; those of the first process."""
    if not is_first():
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / f"{folder.name}.log", encoding="utf-8")
    handler.setFormatter(PlainFormatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()
