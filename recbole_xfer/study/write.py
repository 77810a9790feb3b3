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
    all of its metrics. The points of curves, if there are any, are also written as ``curve.csv``.
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
        ".csv": _csv(pd.DataFrame(records)),
        ".json": as_json({"tables": tables, "curves": curves, "failures": list(study.failures)}),
    }
    files = {folder / f"{name}{suffix}": text for suffix, text in texts.items()}
    if study.curves:
        points = [curve.frame().assign(curve=curve.name, metric=curve.metric) for curve in study.curves]
        files[folder / "curve.csv"] = _csv(pd.concat(points))
    for path, text in files.items():
        with replacing(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return list(files)


def _csv(table: pd.DataFrame) -> str:
    return table.to_csv(index=False, lineterminator="\n")
