"""The command line: ``recbole-xfer run|pretrain|adapt|compare|evaluate|report|tune|explain|prepare|encode|demo``.

Every key of the configuration is an option, ``--key=value``. Values are read as yaml and never evaluated.
"""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recbole_xfer.errors import XferError
from recbole_xfer.log import show_messages
from recbole_xfer.prepare import SOURCES, encode
from recbole_xfer.prepare.summary import describe

KEYS = "--key=value"
KEYS_HELP = """Every key of the configuration can be given as --key=value, such as --learning_rate=1e-3 or
--topk='[5, 10]'; properties/ lists the keys with their defaults."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb; returns the exit status: 0, 2 for a mistake in the input, 130 when interrupted."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and arguments[0].startswith("--") and arguments[0] != "--help":
        arguments.insert(0, "run")  # as run_recbole.py: options without a verb
    warnings.filterwarnings("ignore", category=FutureWarning, module="recbole")
    show_messages()
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    try:
        if rest and not options.takes_keys:
            raise XferError(f"'{rest[0]}' is no option of this command. See --help.")
        options.verb(options, _keys(rest))
    except XferError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:  # what a model of RecBole needs and RecBole does not install
        sentence = f"This needs the Python module {error.name}; install the package that brings it."
        print(f"error: {sentence}", file=sys.stderr)
        return 2
    except OSError as error:  # a folder that cannot be written, a full disk: the message names it
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("Interrupted. The same command goes on where this one stopped.", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="recbole-xfer", description="Transfer learning for RecBole.", epilog=KEYS_HELP
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    _add_training(verbs)
    _add_measuring(verbs)
    _add_data(verbs)
    return parser


def _add(verbs: Any, name: str, function: Any, text: str, takes_keys: bool = True) -> argparse.ArgumentParser:
    """One more verb, which calls the function; with ``takes_keys`` its other options are keys."""
    epilog = KEYS_HELP if takes_keys else None
    verb = verbs.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=epilog)
    verb.set_defaults(verb=function, takes_keys=takes_keys)
    if takes_keys:
        verb.add_argument(
            "--config_files", action="append", default=[], metavar="FILES", help="yaml files, separated by spaces"
        )
    return verb


def _add_training(verbs: Any) -> None:
    """run, pretrain, adapt, tune"""
    run = _add(verbs, "run", _run, "train a model, after pre-training where --source is given, and evaluate it")
    run.add_argument("--model", help="a model of RecBole or of this package, such as ANT")
    run.add_argument("--dataset", help="a domain, or several joined by +")
    run.add_argument("--source", help="domains to pre-train on, joined by +")
    run.add_argument("--adaptation", help="relearn, finetune or scratch")
    pretrain = _add(verbs, "pretrain", _pretrain, "pre-train a model on source domains")
    pretrain.add_argument("--model", help="such as ANT")
    pretrain.add_argument("--source", help="domains to pre-train on, joined by +")
    adapt = _add(verbs, "adapt", _run, "adapt a pre-trained model to a dataset and evaluate it")
    adapt.add_argument("--model", help="such as ANT")
    adapt.add_argument("--dataset", help="the target")
    adapt.add_argument("--pretrained", required=True, metavar="FOLDER", help="what pretrain left")
    adapt.add_argument("--adaptation", default="relearn", help="relearn (default) or finetune")
    tune = _add(verbs, "tune", _tune, "search the best configuration on the validation split with Ray Tune")
    tune.add_argument(
        "--space", type=Path, metavar="FILE", help="yaml of key: values, or RecBole's hyper file; see docs"
    )
    tune.add_argument("--trials", type=int, help="configurations to draw; all of a grid where not given")
    tune.add_argument("--output", type=Path, default=Path("best.yaml"), metavar="FILE", help="the best configuration")
    tune.add_argument("--cpus_per_trial", type=float, default=1, metavar="N", help="CPU cores of a trial (default 1)")
    tune.add_argument("--gpus_per_trial", type=float, metavar="N", help="GPUs of a trial, such as 0.5 (default 1)")


def _add_measuring(verbs: Any) -> None:
    """compare, evaluate, report, explain"""
    compare = _add(verbs, "compare", _compare, "run several models on one target and print a table")
    compare.add_argument(
        "file", type=Path, help="yaml with dataset, rows, seeds and more keys; see properties/demo.yaml"
    )
    compare.add_argument("--result", type=Path, metavar="FILE", help="also write the table as json")
    evaluate = _add(
        verbs, "evaluate", _evaluate, "measure finished runs of one target again, such as with --mask_history=True"
    )
    evaluate.add_argument("folders", nargs="+", metavar="FOLDER", help="what the runs left")
    evaluate.add_argument("--result", type=Path, metavar="FILE", help="also write the table as json")
    report = _add(
        verbs, "report", _report, "draw runs: gaps, losses and validation by epoch, results by group", takes_keys=False
    )
    report.add_argument("folders", nargs="+", metavar="RUN", help="what the runs left")
    report.add_argument(
        "--output", type=Path, default=Path("report"), metavar="FOLDER", help="for a page and its pictures as PNG"
    )
    explain = _add(verbs, "explain", _explain, "draw why a run of RETR ranks as it does for a user", takes_keys=False)
    explain.add_argument("--run", dest="folder", required=True, metavar="FOLDER", help="what a run of RETR left")
    explain.add_argument("--user", required=True, help="the user's token")
    explain.add_argument("--beside", metavar="FOLDER", help="another run on the same data, such as one without pathway")
    explain.add_argument(
        "--output", type=Path, default=Path("explanation.html"), metavar="FILE", help="a page; a PNG goes beside it"
    )


def _add_data(verbs: Any) -> None:
    """prepare, encode, demo"""
    prepare = _add(verbs, "prepare", _prepare, "turn raw data into RecBole's atomic files", takes_keys=False)
    sources = prepare.add_subparsers(metavar="SOURCE", required=True)
    for source in SOURCES.values():
        subparser = sources.add_parser(source.name, help=source.help, description=source.help)
        source.add_arguments(subparser)
        subparser.set_defaults(source=source)
    encode.add_arguments(_add(verbs, "encode", _encode, "turn item texts into vectors", takes_keys=False))
    demo = _add(
        verbs, "demo", _demo, "the embedded default: supermarket departments, a table of five models", takes_keys=False
    )
    demo.add_argument("--data_path", type=Path, default=Path("dataset"), help="where the departments go")
    demo.add_argument("--result", type=Path, default=Path("result.json"), metavar="FILE", help="the table as json")


def _keys(rest: list[str]) -> dict[str, str]:
    """``--key=value`` and ``--key value`` as a dictionary."""
    keys: dict[str, str] = {}
    words = iter(rest)
    for word in words:
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise XferError(f"'{word}' is no option. Write keys as {KEYS}.")
        keys[key] = value if equals else next(words, "")
        if not equals and (not keys[key] or keys[key].startswith("--")):
            raise XferError(f"The option '{word}' has no value. Write it as {word}=VALUE.")
    return keys


def _files(options: argparse.Namespace) -> list[str]:
    return " ".join(options.config_files).split()


def _overrides(options: argparse.Namespace, keys: dict[str, str]) -> dict[str, Any]:
    named = ("model", "dataset", "source", "adaptation", "pretrained")
    given = {name: getattr(options, name, None) for name in named}
    return {**{name: value for name, value in given.items() if value is not None}, **keys}


def _run(options: argparse.Namespace, keys: dict[str, str]) -> None:
    from recbole_xfer.quick_start import run

    _print_result(run(config_files=_files(options), overrides=_overrides(options, keys)))


def _print_result(result: Any) -> None:
    """Both splits' metrics, what was ranked and how, and where the run is."""
    from recbole_xfer.evaluation.domain_ranking import by_domain

    title, caption = escape(f"{result.label} on {result.dataset}"), escape(result.caption())
    table = Table(title=title, caption=caption, caption_justify="left")
    table.add_column("split")
    for metric in by_domain(result.test)[None]:
        table.add_column(metric, justify="right")
    for split, metrics in (("validation", result.valid), ("test", result.test_by_part())):
        for domain, row in by_domain(metrics).items():  # no row in RecBole's pre-training of S3Rec
            table.add_row(
                escape(f"{split}, {domain}") if domain else split, *(f"{value:.4f}" for value in row.values())
            )
    Console().print(table)
    print(f"{result.folder}/result.json")


def _pretrain(options: argparse.Namespace, keys: dict[str, str]) -> None:
    from recbole_xfer.quick_start import pretrain

    print(pretrain(config_files=_files(options), overrides=_overrides(options, keys)))


def _compare(options: argparse.Namespace, keys: dict[str, str]) -> None:
    from recbole_xfer.quick_start import compare

    print_comparison(compare(options.file, keys, _files(options)), options.result)


def _evaluate(options: argparse.Namespace, keys: dict[str, str]) -> None:
    from recbole_xfer.quick_start import evaluate

    spaced = [word for word in options.folders if word.startswith("--")]  # argparse takes what has a space for a folder
    folders = [word for word in options.folders if word not in spaced]
    print_comparison(evaluate(folders, keys | _keys(spaced), _files(options)), options.result)


def print_comparison(comparison: Any, result_file: Path | None) -> None:
    """The table and the verdict on standard output, and both in a file."""
    from recbole_xfer.files import replacing
    from recbole_xfer.trainer.run_folder import as_json

    for table in filter(None, (comparison.table(), comparison.joint and comparison.joint.table())):
        needed = Console(width=1000).measure(table).maximum  # a narrow terminal breaks lines, and cuts no number
        Console(width=max(Console().width, needed)).print(table)
    if comparison.verdict():
        print(comparison.verdict())
    if result_file:
        with replacing(result_file) as temporary:
            temporary.write_text(as_json(comparison.as_dict()), encoding="utf-8")
        print(f"Also in {result_file}")


def _tune(options: argparse.Namespace, keys: dict[str, str]) -> None:
    from recbole_xfer.files import replacing
    from recbole_xfer.search.search import tune

    search = tune(
        options.space,
        options.trials,
        config_files=_files(options),
        overrides=_overrides(options, keys),
        cpus_per_trial=options.cpus_per_trial,
        gpus_per_trial=options.gpus_per_trial,
    )
    Console().print(search.table())
    with replacing(options.output) as temporary:
        temporary.write_text(search.best_yaml(), encoding="utf-8")
    print(f"The best configuration is in {options.output}; all trials are in {search.folder}/search.json")
    _print_result(search.result)


def _explain(options: argparse.Namespace, keys: dict[str, str]) -> None:
    from recbole_xfer.report.explain import explain, write

    for path in write(explain(options.folder, options.user, options.beside), options.output):
        print(path)


def _report(options: argparse.Namespace, keys: dict[str, str]) -> None:
    from recbole_xfer.report.report import report, write

    drawn = report(options.folders)
    print("\n".join(drawn.lines()))
    for path in write(drawn, options.output):
        print(path)


def _prepare(options: argparse.Namespace, keys: dict[str, str]) -> None:
    for folder in options.source.run(options):
        print(describe(folder))


def _encode(options: argparse.Namespace, keys: dict[str, str]) -> None:
    for path in encode.run(options):
        print(path)


def _demo(options: argparse.Namespace, keys: dict[str, str]) -> None:
    from recbole_xfer.demo import demo

    print_comparison(demo(options.data_path), options.result)
