"""The verbs that train: run, pretrain, adapt, tune."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recbole_xfer.cli.verb import Parser, Verb, add_address, files

NAMED = ("model", "dataset", "source", "adaptation", "pretrained")
"""Options that are keys of the configuration."""


def add_model_and_dataset(parser: Parser, dataset_help: str = "a domain, or several joined by +") -> None:
    """Adds the options of RecBole's own script, under the same names."""
    parser.add_argument("-m", "--model", metavar="NAME", help="a model of RecBole or of this package, such as ANT")
    parser.add_argument("-d", "--dataset", metavar="NAME", help=dataset_help)


def add_run_options(parser: Parser) -> None:
    """Adds the options of run."""
    add_model_and_dataset(parser)
    parser.add_argument("--source", metavar="NAMES", help="domains to pre-train on, joined by +")
    parser.add_argument("--adaptation", metavar="WAY", help="relearn, finetune, scratch, or auto, which joins them")


def add_pretrain_options(parser: Parser) -> None:
    """Adds the options of pretrain."""
    add_model_and_dataset(parser, "not read, so that the options of run can stay")
    parser.add_argument("--source", metavar="NAMES", help="domains to pre-train on, joined by +")


def add_adapt_options(parser: Parser) -> None:
    """Adds the options of adapt."""
    add_model_and_dataset(parser, "the target domain")
    parser.add_argument("--pretrained", required=True, metavar="FOLDER", help="the folder that pretrain printed")
    parser.add_argument("--adaptation", default="relearn", metavar="WAY", help="relearn (default), finetune or auto")


def add_tune_options(parser: Parser) -> None:
    """Adds the options of tune."""
    add_run_options(parser)
    add = parser.add_argument
    add("--space", type=Path, metavar="FILE", help="yaml of 'key: values', or RecBole's hyper file; see docs/tuning.md")
    add("--trials", type=int, metavar="N", help="configurations to draw (default: all of a grid)")
    add("--output", type=Path, default=Path("best.yaml"), metavar="FILE", help="for the best configuration")
    add("--cpus_per_trial", type=float, default=1, metavar="N", help="CPU cores per trial (default 1)")
    add("--gpus_per_trial", type=float, metavar="N", help="GPUs per trial, such as 0.5 (default 1)")
    add_address(parser)


def overrides(options: argparse.Namespace, keys: dict[str, str]) -> dict[str, Any]:
    """The keys of the command line, those with an option of their own included."""
    given = {name: getattr(options, name, None) for name in NAMED}
    return {**{name: value for name, value in given.items() if value is not None}, **keys}


def run(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Trains and evaluates one model; prints its metrics."""
    from recbole_xfer.cli.tables import print_result
    from recbole_xfer.quick_start import run

    print_result(run(config_files=files(options), overrides=overrides(options, keys)))


def pretrain(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Pre-trains a model; prints its folder."""
    from recbole_xfer.quick_start import pretrain

    print(pretrain(config_files=files(options), overrides=overrides(options, keys)))


def tune(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Searches a configuration; prints the trials and the best one's metrics, and writes its keys."""
    from recbole_xfer.cli.tables import print_result, print_table
    from recbole_xfer.files import replacing
    from recbole_xfer.search.search import tune

    search = tune(
        options.space,
        options.trials,
        config_files=files(options),
        overrides=overrides(options, keys),
        cpus_per_trial=options.cpus_per_trial,
        gpus_per_trial=options.gpus_per_trial,
    )
    print_table(search.table())
    with replacing(options.output) as temporary:
        temporary.write_text(search.best_yaml(), encoding="utf-8")
    print(f"The best configuration is in {options.output}; all trials are in {search.folder}/search.json")
    print_result(search.result)


VERBS = (
    Verb(
        "run",
        "train a model and evaluate it; with --source, pre-train it first",
        (
            "recbole-xfer run -m SASRec -d Shop",
            "recbole-xfer run -m ANT -d Shop --source=Food+Home --adaptation=relearn --epochs=50",
        ),
        add_run_options,
        run,
        shared=True,
    ),
    Verb(
        "pretrain",
        "pre-train a model on source domains",
        ("recbole-xfer pretrain -m ANT --source=Food+Home --pretrain_epochs=20",),
        add_pretrain_options,
        pretrain,
        shared=True,
    ),
    Verb(
        "adapt",
        "adapt a pre-trained model to a target domain and evaluate it",
        ("recbole-xfer adapt -m ANT -d Shop --pretrained=saved/ANT-Food-pretrained-1a2b3c4d --adaptation=finetune",),
        add_adapt_options,
        run,
        shared=True,
    ),
    Verb(
        "tune",
        "search for the best configuration on the validation split with Ray Tune",
        (
            "recbole-xfer tune -m ANT -d Shop --trials=20",
            "recbole-xfer tune -m SASRec -d Shop --space=space.yaml --output=best.yaml",
        ),
        add_tune_options,
        tune,
    ),
)
