"""The verbs about data: prepare, fetch, encode, check, demo."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_xfer.cli.verb import Parser, Verb
from recbole_xfer.prepare import SOURCES
from recbole_xfer.prepare.options import add_encode_options, add_fetch_options


def add_prepare_options(parser: Parser) -> None:
    """Adds a command for each source, with the source's own options."""
    commands = parser.add_subparsers(metavar="SOURCE", required=True)
    for source in SOURCES.values():
        of_source = commands.add_parser(source.name, help=source.help, description=sentence(source.help))
        source.add_arguments(of_source)
        of_source.set_defaults(source=source)


def add_check_options(parser: Parser) -> None:
    """Adds the options of check."""
    add = parser.add_argument
    add("domains", nargs="+", metavar="DOMAIN", help="a domain with files in data_path, such as Shop")
    add("--json", type=Path, metavar="FILE", help="also write everything as json")
    add("--page", type=Path, metavar="FILE", help="also write an HTML page with pictures of items")


def add_demo_options(parser: Parser) -> None:
    """Adds the options of demo."""
    add = parser.add_argument
    add(
        "--data_path",
        type=Path,
        default=Path("dataset"),
        metavar="FOLDER",
        help="for the departments (default dataset)",
    )
    add("--result", type=Path, default=Path("result.json"), metavar="FILE", help="for the tables as json")
    add("--output", type=Path, default=Path("demo"), metavar="FOLDER", help="for tables and a report (default demo)")
    add("--picture", type=Path, metavar="FILE", help="also draw what is printed as SVG")


def sentence(text: str) -> str:
    """A help text as a sentence of its own."""
    return f"{text[0].upper()}{text[1:]}."


def prepare(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Prepares domains; prints a summary of each."""
    for summary in options.source.run(options):
        print(summary)


def fetch(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Downloads pictures of items; prints the folders."""
    from recbole_xfer.prepare import fetch

    for folder in fetch.run(options):
        print(folder)


def encode(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Encodes texts and pictures of items; prints the files."""
    from recbole_xfer.prepare import encode

    for path in encode.run(options):
        print(path)


def check(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Checks domains; prints one page."""
    from recbole_xfer.check import show
    from recbole_xfer.check.check import check
    from recbole_xfer.cli.tables import print_folding
    from recbole_xfer.config.plain import as_json
    from recbole_xfer.files import replacing

    checked = check(options.domains, keys)
    for table in show.facts_tables(checked):
        print_folding(table)
    print("\n".join(show.lines(checked)))
    for table in (*map(show.examples_table, checked.domains), show.models_table(checked)):
        print_folding(table)
    if options.json:
        with replacing(options.json) as temporary:
            temporary.write_text(as_json(checked.as_dict()), encoding="utf-8")
        print(options.json)
    if options.page:
        for path in show.write(checked, options.page):
            print(path)


def demo(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Runs the demo; prints its tables and verdicts."""
    from recbole_xfer.cli.tables import print_study
    from recbole_xfer.demo import demo

    study = demo(options.data_path)
    print_study(study, options.result, options.output, picture=options.picture, report=True)
    study.check()


VERBS = (
    Verb(
        "prepare",
        "turn raw data into RecBole's atomic files",
        (
            "recbole-xfer prepare toy --output=dataset",
            "recbole-xfer prepare table --name=Shop --input=log.csv --columns user=customer item=product time=date",
        ),
        add_prepare_options,
        prepare,
        accepts_keys=False,
    ),
    Verb(
        "fetch",
        "download pictures of items",
        ("recbole-xfer fetch --dataset=Shop", "recbole-xfer fetch --dataset=Shop --size=256 --per_host=2"),
        add_fetch_options,
        fetch,
        accepts_keys=False,
    ),
    Verb(
        "encode",
        "turn texts and pictures of items into vectors",
        ("recbole-xfer encode --dataset=Shop", "recbole-xfer encode --dataset=Food+Home --encoder=my/encoder"),
        add_encode_options,
        encode,
        accepts_keys=False,
    ),
    Verb(
        "check",
        "show what is in domains, what is suspicious, what they share, and which models can use them",
        ("recbole-xfer check Shop", "recbole-xfer check Books Toys --page=check.html --json=check.json"),
        add_check_options,
        check,
    ),
    Verb(
        "demo",
        "show on real supermarket data what texts and transfer are worth",
        ("recbole-xfer demo", "recbole-xfer demo --data_path=dataset --picture=demo.svg"),
        add_demo_options,
        demo,
        accepts_keys=False,
    ),
)
