"""The verbs that bring a finished run into use: refit."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_xfer.cli.verb import Parser, Verb, files


def add_refit_options(parser: Parser) -> None:
    """Adds the options of refit."""
    parser.add_argument("folder", metavar="FOLDER", help="the folder of a finished run")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for the new model and its data")


def refit(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Trains a run's configuration on everything; prints what the folder has."""
    from recbole_xfer.config.values import read_yaml_files
    from recbole_xfer.quick_start import refit
    from recbole_xfer.serving.whole import summary
    from recbole_xfer.trainer.run_folder import RunFolder

    folder = refit(options.folder, options.output, {**read_yaml_files(files(options)), **keys})
    print(summary(RunFolder(folder)))


VERBS = (
    Verb(
        "refit",
        "train a finished run again on all interactions, for as many steps as validation chose",
        ("recbole-xfer refit saved/ANT-Shop-relearn-1a2b3c4d --output=live",),
        add_refit_options,
        refit,
    ),
)
