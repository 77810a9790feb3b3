"""Writes a study: its tables as Markdown, LaTeX and CSV, and every number as json."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from recbole_xfer.comparison.layout import latex, markdown
from recbole_xfer.config.plain import as_json
from recbole_xfer.files import replacing
from recbole_xfer.study.study import Study


def write(study: Study, folder: Path, name: str = "study") -> list[Path]:
    """Writes ``study.md``, ``study.tex``, ``study.csv`` and ``study.json``, or under another name; returns their paths.

    The csv file has a line for each table, row and metric. The json file also has every run: its seed, its folder, and
    all of its metrics.
    """
    of_curves = [curve.layout() for curve in study.curves]
    layouts = [layout for table in study.tables for layout in table.layouts()] + of_curves
    parts = [part for table in study.tables for part in (markdown(table.layouts()), table.verdict()) if part]
    parts += [markdown([layout]) for layout in of_curves]
    pages = [f"{part.rstrip()}\n" for part in (*parts, *study.failures)]
    records = [record for table in study.tables for record in table.records()]
    tables = [{"table": table.name or table.results[0].dataset, **table.as_dict()} for table in study.tables]
    curves = [curve.as_dict() for curve in study.curves]
    texts = {
        ".md": "\n".join(pages),
        ".tex": latex(layouts),
        ".csv": pd.DataFrame(records).to_csv(index=False, lineterminator="\n"),
        ".json": as_json({"tables": tables, "curves": curves, "failures": list(study.failures)}),
    }
    paths = [folder / f"{name}{suffix}" for suffix in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return paths
