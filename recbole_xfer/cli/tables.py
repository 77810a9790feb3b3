"""Prints results as tables, and draws them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from recbole_xfer.config.plain import as_json
from recbole_xfer.evaluation.domain_ranking import by_domain
from recbole_xfer.files import replacing

WEB_FONT = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)


def print_table(table: Table) -> None:
    """Prints a table; one that is wider than the terminal is turned on its side, so that no number is cut."""
    width = Console().width
    parts = [table] if width_of([table]) <= width else on_its_side(table, width)
    Console(width=max(width, width_of(parts))).print(*parts)


def print_folding(table: Table) -> None:
    """Prints a table; where it is wider than the terminal, its texts continue on the next line."""
    Console().print(table, highlight=False)


def on_its_side(table: Table, width: int) -> list[Table]:
    """A table with its rows as columns, in parts that fit a width; each part has at least one of the rows.

    Args:
        table: of text with markup. Its first column names the rows; an empty name repeats the previous one.
        width: in characters.
    """
    names, *columns = ([str(cell) for cell in (column.header, *column.cells)] for column in table.columns)
    heads: list[str] = []
    for name in names:
        heads.append(name or heads[-1])
    parts: list[list[int]] = [[]]
    for row in range(1, len(heads)):
        if parts[-1] and width_of([_side(heads, columns, [*parts[-1], row])]) > width:
            parts.append([])
        parts[-1].append(row)
    tables = [_side(heads, columns, rows) for rows in parts]
    tables[0].title, tables[-1].caption, tables[-1].caption_justify = table.title, table.caption, "left"
    return tables


def _side(heads: Sequence[str], columns: Sequence[Sequence[str]], rows: Sequence[int]) -> Table:
    """Some rows of a table as columns, which are as wide as their cells and the longest word of their heads."""
    side = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    side.add_column(heads[0], no_wrap=True)
    for row in rows:
        words = [*heads[row].split(), *(column[row] for column in columns)]
        side.add_column(heads[row], justify="right", width=max(Text.from_markup(word).cell_len for word in words))
    for column in columns:
        side.add_row(column[0], *(column[row] for row in rows))
    return side


def print_result(result: Any) -> None:
    """Prints both splits' metrics, how they were measured, and the run's file of results."""
    title, caption = escape(f"{result.label} on {result.dataset}"), escape(result.caption())
    table = Table(title=title, caption=caption, caption_justify="left")
    table.add_column("split")
    for metric in by_domain(result.test)[None]:
        table.add_column(metric, justify="right")
    for split, metrics in (("validation", result.valid), ("test", result.test_by_part())):
        for domain, row in by_domain(metrics).items():  # RecBole's pre-training of S3Rec has no metrics
            name = escape(f"{split}, {domain}") if domain else split
            table.add_row(name, *(f"{value:.4f}" for value in row.values()))
    print_table(table)
    print(f"{result.folder}/result.json")


def print_comparison(comparison: Any, result_file: Path | None = None) -> None:
    """Prints a comparison's tables and verdict; also writes them as json."""
    _print_parts(_parts(comparison))
    write_json(comparison, result_file)


def print_estimate(plan: Any, workers: int | None) -> None:
    """Prints what a study will run, and how long it takes; raises XferError if a row could not be measured."""
    from recbole_xfer.study.estimate import estimate

    found = estimate(plan, workers or 1)
    print_folding(found.table())
    print(found.sentence())
    found.check()


def print_study(
    study: Any,
    result_file: Path | None,
    folder: Path | None,
    name: str = "study",
    picture: Path | None = None,
    report: bool = False,
) -> None:
    """Prints the tables and verdicts of a study; also writes them as json, and in all formats into a folder.

    Args:
        study: its tables are comparisons.
        result_file: for json.
        folder: for the files.
        name: of the files, without their suffix.
        picture: for what is printed, as SVG.
        report: whether the report is written into the folder, too.
    """
    parts = [part for comparison in study.tables for part in _parts(comparison)]
    parts += [curve.layout().for_console() for curve in study.curves]
    _print_parts(parts)
    write_json(study, result_file)
    if folder:
        from recbole_xfer.study.write import write

        print(f"Also in {', '.join(map(str, write(study, folder, name)))}")
        if report:
            print(f"Drawn in {write_report(folder)}")
        else:
            print(f"Draw it: recbole-xfer report {shlex.quote(str(folder))}")
    if picture:
        with replacing(picture) as temporary:
            temporary.write_text(svg(parts), encoding="utf-8")
        print(f"Drawn in {picture}")


def write_report(folder: Path) -> Path:
    """Writes the report on a study into its folder; returns the page."""
    from recbole_xfer.report.report import report, write

    page, *_ = write(report([folder]), folder)
    return page


def _parts(comparison: Any) -> list[Table | str]:
    """The tables of a comparison, and its verdict if there is one."""
    tables = [comparison.table(), *([comparison.joint.table()] if comparison.joint else [])]
    return [*tables, *filter(None, [comparison.verdict()])]


def _print_parts(parts: Iterable[Table | str]) -> None:
    for part in parts:
        if isinstance(part, Table):
            print_table(part)
        else:
            print(part)


def write_json(content: Any, file: Path | None) -> None:
    """Writes what a verb measured as json, such as a comparison or a study."""
    if file:
        with replacing(file) as temporary:
            temporary.write_text(as_json(content.as_dict()), encoding="utf-8")
        print(f"Also in {file}")


def width_of(tables: Iterable[Table]) -> int:
    """How many characters wide the widest table is."""
    return max(Console(width=1000).measure(table).maximum for table in tables)


def svg(parts: Iterable[Table | str]) -> str:
    """Tables and sentences as the picture of a terminal; equal ones give equal pictures, without a web font."""
    parts = list(parts)
    width = width_of(part for part in parts if isinstance(part, Table))
    console = Console(width=width, record=True, file=StringIO())
    for part in parts:
        if isinstance(part, Table):
            console.print(part)
        else:
            console.print(f"\n{part}\n", markup=False, highlight=False)
    return WEB_FONT.sub("", console.export_svg(title="recbole-xfer", unique_id="recbole-xfer"))
