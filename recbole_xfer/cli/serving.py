"""The verbs that put a finished run to use: recommend, refit, update, export."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from recbole_xfer.cli.verb import Parser, Verb, files


def add_run(parser: Parser) -> None:
    """Adds the folder of a finished run."""
    parser.add_argument("folder", metavar="FOLDER", help="the folder of a finished run")


def add_output(parser: Parser, help_text: str) -> None:
    """Adds ``--output``, which is required."""
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help=help_text)


def overrides(options: argparse.Namespace, keys: dict[str, str]) -> dict[str, Any]:
    """The keys of the files and of the command line."""
    from recbole_xfer.config.values import read_yaml_files

    return {**read_yaml_files(files(options)), **keys}


def add_recommend_options(parser: Parser) -> None:
    """Adds the options of recommend."""
    add_run(parser)
    add = parser.add_argument
    add("--k", type=int, default=10, metavar="N", help="items for each user (default 10)")
    add(
        "--output",
        type=Path,
        default=Path("recommendations.parquet"),
        metavar="FILE",
        help=".parquet, .csv or .jsonl (default recommendations.parquet)",
    )
    whom = parser.add_argument_group("to whom; by default, all users of the run's data")
    whom.add_argument("--histories", type=Path, metavar="FILE", help="users and items of histories, also of new users")
    whom.add_argument("--users", type=Path, metavar="FILE", help="ids of users of the data")
    whom.add_argument("--user", nargs="+", metavar="ID", help="some users of the data")
    whom.add_argument("--part", choices=("valid", "test"), help="histories before the targets that evaluation ranks")
    what = parser.add_argument_group("what; by default, all items that are not in the user's history")
    what.add_argument("--items", metavar="NAMES", help="items of these domains only, also new ones, by their features")
    what.add_argument("--domain", metavar="NAME", help="items of one of the run's domains")
    what.add_argument("--allowed", type=Path, metavar="FILE", help="ids of the only items to recommend")
    what.add_argument("--forbidden", type=Path, metavar="FILE", help="ids of items never to recommend")
    text = "search approximately with faiss; prints the measured recall"
    what.add_argument("--approximate", action="store_true", help=text)
    what.add_argument("--columns", nargs="+", default=[], metavar="NAME", help="columns of .item to add, such as text")


def recommend(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Writes recommendations; prints the file, and what was skipped."""
    from recbole_xfer.serving.recommend import Wish, write_recommendations

    wish = Wish(
        k=options.k,
        histories=options.histories,
        users=options.user or options.users,
        part=options.part,
        items=options.items,
        domain=options.domain,
        allowed=options.allowed,
        forbidden=options.forbidden,
        columns=options.columns,
        approximate=options.approximate,
    )
    written = write_recommendations(options.folder, options.output, wish, overrides(options, keys))
    print("\n".join(written))


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


def refit(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Trains a run's configuration on everything; prints what the folder has."""
    from recbole_xfer.quick_start import refit
    from recbole_xfer.serving.whole import summary

    print(summary(refit(options.folder, options.output, overrides(options, keys))))


def update(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Trains a model further on new data; prints what the folder has."""
    from recbole_xfer.quick_start import update
    from recbole_xfer.serving.whole import summary

    data = {"dataset": options.dataset, "data_path": options.data_path}
    given = {key: value for key, value in data.items() if value is not None}
    print(summary(update(options.folder, options.output, {**overrides(options, keys), **given})))


def add_export_options(parser: Parser) -> None:
    """Adds the options of export."""
    add_run(parser)
    add_output(parser, "a new folder, or an export to replace")
    kinds = "flat (default, exact), hnsw (approximate) or none"
    parser.add_argument("--index", default="flat", metavar="KIND", help=f"of faiss, where it is installed: {kinds}")


def export(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Exports a run; prints the new folder."""
    from recbole_xfer.quick_start import export

    print(export(options.folder, options.output, overrides(options, keys), options.index))


VERBS = (
    Verb(
        "recommend",
        "write the best items for users of a run's data, or for new histories",
        (
            "recbole-xfer recommend saved/ANT-Shop-1a2b3c4d --k=20 --output=recs.parquet",
            "recbole-xfer recommend saved/ANT-Shop-1a2b3c4d --histories=new.csv --output=recs.csv --columns text",
            "recbole-xfer recommend saved/ANT-Shop-1a2b3c4d --items=Shop --mask_history=False",
        ),
        add_recommend_options,
        recommend,
    ),
    Verb(
        "refit",
        "train a finished run again on all interactions, for as many steps as validation chose",
        ("recbole-xfer refit saved/ANT-Shop-relearn-1a2b3c4d --output=live",),
        add_refit_options,
        refit,
        shared=True,
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
        shared=True,
    ),
    Verb(
        "export",
        "write item vectors, the user encoder as ONNX and an index, served without this package",
        (
            "recbole-xfer export saved/ANT-Shop-1a2b3c4d --output=serving",
            "recbole-xfer export saved/ANT-Shop-1a2b3c4d --output=serving --index=hnsw --data_path=dataset",
        ),
        add_export_options,
        export,
    ),
)
