"""The verbs that serve a finished run: export."""

from __future__ import annotations

import argparse
from pathlib import Path

from recbole_xfer.cli.verb import Parser, Verb, files


def add_export_options(parser: Parser) -> None:
    """Adds the options of export."""
    add = parser.add_argument
    add("folder", metavar="FOLDER", help="the folder of a finished run")
    add("--output", type=Path, required=True, metavar="FOLDER", help="a new folder, or an export to replace")
    kinds = "flat (default, exact), hnsw (approximate) or none"
    add("--index", default="flat", metavar="KIND", help=f"of faiss, where it is installed: {kinds}")


def export(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Exports a run; prints the new folder."""
    from recbole_xfer.config.values import read_yaml_files
    from recbole_xfer.quick_start import export

    print(export(options.folder, options.output, {**read_yaml_files(files(options)), **keys}, options.index))


VERBS = (
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
