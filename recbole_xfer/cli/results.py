"""The verbs about results: compare, evaluate, ensemble, runs, report, explain."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_xfer.cli.verb import Parser, Verb, add_address, files, positive


def add_result(parser: Parser) -> None:
    """Adds ``--result``, for the table as a file."""
    parser.add_argument("--result", type=Path, metavar="FILE", help="also write the table as json")


def add_compare_options(parser: Parser) -> None:
    """Adds the options of compare."""
    add = parser.add_argument
    add("file", type=Path, help="yaml with dataset or datasets, rows, seeds and other keys; see docs/studies.md")
    add_result(parser)
    add("--output", type=Path, metavar="FOLDER", help="also write study.md, .tex, .csv, .json; report draws it")
    add_study_options(parser)


def add_study_options(parser: Parser) -> None:
    """Adds the options of verbs that run many models: how many at a time and where, or only an estimate."""
    add = parser.add_argument
    add("--workers", type=positive, metavar="N", help="runs at a time (default 1; on a cluster one per GPU or machine)")
    add_address(parser)
    add("--dry-run", action="store_true", help="only print what will run, and how long it takes")


def add_evaluate_options(parser: Parser) -> None:
    """Adds the options of evaluate."""
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="the folder of a finished run")
    add_result(parser)


def add_ensemble_options(parser: Parser) -> None:
    """Adds the options of ensemble."""
    parser.add_argument("folders", nargs="+", metavar="FOLDER", help="the folder of a finished run; at least two")
    add_result(parser)


def add_runs_options(parser: Parser) -> None:
    """Adds the options of runs."""
    help_text = "has one folder per run (default saved)"
    parser.add_argument("folder", nargs="?", type=Path, default=Path("saved"), metavar="FOLDER", help=help_text)


def add_report_options(parser: Parser) -> None:
    """Adds the options of report."""
    add = parser.add_argument
    add("folders", nargs="+", metavar="FOLDER", help="of a study that compare or transfer wrote, or of a run")
    place = "for a page, and its pictures as PNG and PDF (default: the folder of the only study, or report)"
    add("--output", type=Path, metavar="FOLDER", help=place)


def add_explain_options(parser: Parser) -> None:
    """Adds the options of explain."""
    add = parser.add_argument
    add("--run", dest="folder", required=True, metavar="FOLDER", help="the folder of a run, such as one of RETR")
    add("--user", required=True, metavar="TOKEN", help="the user, as in the data")
    add("--other", metavar="FOLDER", help="a second run on the same data, such as one without pathway")
    add("--output", type=Path, default=Path("explanation.html"), metavar="FILE", help="a page; a PNG has the same name")


def compare(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Runs a study; prints its tables and verdicts."""
    from recbole_xfer.cli.tables import print_estimate, print_study
    from recbole_xfer.study.plan import read_plan
    from recbole_xfer.study.study import run_study

    plan = read_plan(options.file, keys, files(options))
    if options.dry_run:
        print_estimate(plan, options.workers)
        return
    study = run_study(plan, options.workers)
    print_study(study, options.result, options.output)
    study.check()


def evaluate(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Evaluates finished runs again; prints their table."""
    from recbole_xfer.cli.tables import print_comparison
    from recbole_xfer.quick_start import evaluate

    print_comparison(evaluate(options.folders, keys, files(options)), options.result)


def ensemble(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Joins finished runs; prints the table of the runs and their ensemble."""
    from recbole_xfer.cli.tables import print_comparison
    from recbole_xfer.quick_start import ensemble

    print_comparison(ensemble(options.folders, keys, files(options)), options.result)


def runs(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Lists runs; prints their table."""
    from recbole_xfer.cli.tables import print_folding
    from recbole_xfer.report.runs import list_runs, runs_table

    found = list_runs(options.folder)
    if found:
        print_folding(runs_table(found))
    else:
        print(f"No run is in {options.folder}.")


def report(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Draws studies and runs; prints their findings and the files."""
    from recbole_xfer.report.report import home_of, report, write

    drawn = report(options.folders)
    print("\n".join(drawn.lines()))
    for path in write(drawn, options.output or home_of(options.folders)):
        print(path)


def explain(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Draws the explanation of a ranking; prints the files."""
    from recbole_xfer.report.explain import explain, write

    for path in write(explain(options.folder, options.user, options.other), options.output):
        print(path)


VERBS = (
    Verb(
        "compare",
        "run several models on one or more targets and print tables",
        (
            "recbole-xfer compare properties/demo.yaml",
            "recbole-xfer compare plan.yaml --seeds='[1, 2, 3]' --baseline=SASRec --output=study --workers=2",
            "recbole-xfer compare plan.yaml --train_share=0.01,0.03,0.1,0.3,1 --output=study",
            "recbole-xfer compare plan.yaml --only_rows='[SASRec, ANT]'",
            "recbole-xfer compare plan.yaml --dry-run",
        ),
        add_compare_options,
        compare,
    ),
    Verb(
        "evaluate",
        "evaluate finished runs of one target again, under other keys",
        ("recbole-xfer evaluate saved/ANT-Shop-1a2b3c4d saved/SASRec-Shop-5e6f7a8b --mask_history=True",),
        add_evaluate_options,
        evaluate,
    ),
    Verb(
        "ensemble",
        "join the scores of finished runs of one target, weighted on the validation split",
        (
            "recbole-xfer ensemble saved/ANT-Shop-1a2b3c4d saved/SASRec-Shop-5e6f7a8b",
            "recbole-xfer ensemble saved/ANT-Shop-1a2b3c4d saved/ContentKNN-Shop-9c0d1e2f --mask_history=True",
        ),
        add_ensemble_options,
        ensemble,
    ),
    Verb(
        "runs",
        "list runs, newest first: model, dataset, scores, seed and date",
        ("recbole-xfer runs", "recbole-xfer runs saved/search-ANT-Shop-1a2b3c4d"),
        add_runs_options,
        runs,
        accepts_keys=False,
    ),
    Verb(
        "report",
        "draw a study or runs: tables, curves, groups, training by epoch, domain gaps",
        (
            "recbole-xfer report study",
            "recbole-xfer report saved/ANT-Shop-1a2b3c4d saved/SASRec-Shop-5e6f7a8b --output=report",
        ),
        add_report_options,
        report,
        accepts_keys=False,
    ),
    Verb(
        "explain",
        "draw why a run of RETR or UniSRec ranks as it does for a user",
        ("recbole-xfer explain --run=saved/RETR-Shop-1a2b3c4d --user=A1 --output=explanation.html",),
        add_explain_options,
        explain,
        accepts_keys=False,
    ),
)
