"""The verbs that bring a finished run into use: refit, update."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_xfer.cli.verb import Parser, Verb, files


def add_refit_options(parser: Parser) -> None:
    """Adds the options of refit."""
    add_run(parser)
    add_output(parser, "for the new model and its data")


def add_update_options(parser: Parser) -> None:
    """Adds the options of update."""
    add_run(parser)
    parser.add_argument("-d", "--dataset", metavar="NAME", help="of the new data (default: as in the run)")
    parser.add_argument("--data_path", metavar="FOLDER", help="has the new data (default: as in the run)")
    add_output(parser, "for the new model and its data")


def add_run(parser: Parser) -> None:
    """Adds the folder of a finished run."""
    parser.add_argument("folder", metavar="FOLDER", help="the folder of a finished run")


def add_output(parser: Parser, help_text: str) -> None:
    """Adds ``--output``, which is required."""
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help=help_text)


def refit(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Trains a run's configuration on everything; prints what the folder has."""
    from recbole_xfer.config.values import read_yaml_files
    from recbole_xfer.quick_start import refit
    from recbole_xfer.serving.whole import summary

    print(summary(refit(options.folder, options.output, {**read_yaml_files(files(options)), **keys})))


def update(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Trains a model further on new data; prints what the folder has."""
    from recbole_xfer.config.values import read_yaml_files
    from recbole_xfer.quick_start import update
    from recbole_xfer.serving.whole import summary

    data = {"dataset": options.dataset, "data_path": options.data_path}
    given = {key: value for key, value in data.items() if value is not None}
    print(summary(update(options.folder, options.output, {**read_yaml_files(files(options)), **keys, **given})))


VERBS = (
    Verb(
        "refit",
        "train a finished run again on all interactions, for as many steps as validation chose",
        ("recbole-xfer refit saved/ANT-Shop-relearn-1a2b3c4d --output=live",),
        add_refit_options,
        refit,
    ),
    Verb(
        "update",
        "train a finished model further on data with more interactions, users and items",
        (
            "recbole-xfer update live --data_path=today --output=live2",
            "recbole-xfer update live --dataset=Shop-2024 --epochs=3 --output=live2",
        ),
        add_update_options,
        update,
    ),
)
