"""Renders the pages of docs/benchmarks from the measurements in benchmarks/results.

    python -m benchmarks.render            # writes the pages
    python -m benchmarks.render --check    # lists the pages that differ from their data, and exits with 1

A study is one json file with the keys of `Study`. A cell of a table is a text, a number, a pair [mean, standard
deviation over the seeds], or a change {"percent": 7.2, "p": 0.02}. Numbers are read as decimals, so that a page shows
each with the digits that the file has. Pages about all studies look their figures up with `Study.value`.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
from collections.abc import Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError, model_validator

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGES = ROOT / "benchmarks" / "results", ROOT / "docs" / "benchmarks"
SUMMARIES = ("index.md", "when_transfer_pays.md")  # pages about all studies
SIGNIFICANT = Decimal("0.05")

Text = Annotated[str, StringConstraints(min_length=1)]
Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{7,40}$")]


class ResultError(ValueError):
    """A result file is invalid; the message is one sentence."""


class Strict(BaseModel):
    """Rejects unknown keys."""

    model_config = ConfigDict(extra="forbid")


class Change(Strict):
    """A relative change in percent, with the p value of its test where one is given."""

    percent: Decimal | int
    p: Decimal | None = None

    @property
    def significant(self) -> bool:
        """Whether the test rejects equality."""
        return self.p is not None and self.p < SIGNIFICANT


Cell = str | int | Decimal | tuple[Decimal, Decimal] | Change | None


class Table(Strict):
    """Rows of measurements. Its own seeds, commands and commits replace those of the study."""

    title: Text
    note: str = ""
    columns: list[str]
    rows: list[list[Cell]]
    seeds: list[int] | None = None
    recorded: list[Commit] = []
    date: datetime.date | None = None
    commands: list[Text] = []

    @model_validator(mode="after")
    def _rows_fit_columns(self) -> Table:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"row {row[0]!r} has {len(row)} cells for {len(self.columns)} columns")
        return self


class Protocol(Strict):
    """How rankings were evaluated."""

    split: Text
    candidates: Text
    history: Text


class Study(Strict):
    """One question, the measurements that answer it, and their provenance."""

    topic: Literal["speed", "models", "transfer", "papers"]
    title: Text
    question: Text
    answer: Text
    tables: list[Table]
    commands: list[Text]
    commit: Commit | None  # the code that was measured, where it is known
    recorded: list[Commit]  # the commits that brought the figures into the repository
    date: datetime.date  # of the last of them
    hardware: Text
    versions: dict[str, str]
    seeds: list[int] | None
    protocol: Protocol | None
    notes: list[Text]
    picture: Text | None = None  # in docs/images

    def table(self, title: str) -> Table:
        """Returns the table of this title."""
        for table in self.tables:
            if table.title == title:
                return table
        raise ResultError(f"The study '{self.title}' has no table '{title}'.")

    def value(self, title: str, row: str | tuple[str, ...], column: str) -> Decimal:
        """Returns a number, the mean of a pair or the percent of a change; its first cells name a row."""
        table, first = self.table(title), [row] if isinstance(row, str) else list(row)
        cells = next((cells for cells in table.rows if cells[: len(first)] == first), None)
        if cells is None or column not in table.columns:
            raise ResultError(f"The table '{title}' of '{self.title}' has no cell at ('{row}', '{column}').")
        match cells[table.columns.index(column)]:
            case int() | Decimal() as number:
                return Decimal(number)
            case (mean, _):
                return mean
            case Change() as change:
                return Decimal(change.percent)
            case other:
                raise ResultError(f"The cell ('{row}', '{column}') of '{title}' is not a number: {other!r}.")


def read(path: Path) -> Study:
    """Reads a result file; raises ResultError if the file is invalid."""
    try:
        return Study.model_validate(json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal))
    except json.JSONDecodeError as error:
        raise ResultError(f"{path.name} is not valid json: {error}.") from None
    except ValidationError as error:
        first = error.errors()[0]
        place, reason = ".".join(map(str, first["loc"][:5])), first["msg"].removeprefix("Value error, ")
        if len(first["loc"]) > 5:  # a cell, with one error for each type that it might have
            reason = "a cell must be a text, a number, [mean, standard deviation], a change or null"
        raise ResultError(f"{path.name}: the key '{place}' is invalid: {reason}.") from None


def shown(cell: Cell) -> str:
    """Formats a cell as Markdown; a significant change is bold."""
    match cell:
        case None:
            return ""
        case str():
            return cell
        case (mean, spread):
            return f"{mean} ± {spread}"
        case Change():
            text = f"{cell.percent:+}%" + ("" if cell.p is None else f" (p = {cell.p})".lower())
            return f"**{text}**" if cell.significant else text
        case _:
            return f"{cell:,}"


def lines(table: Table) -> Iterator[str]:
    """Yields the lines of a table in Markdown."""
    yield f"| {' | '.join(table.columns)} |"
    yield "|" + "---|" * len(table.columns)
    for cells in table.rows:
        yield f"| {' | '.join(map(shown, cells))} |"


def gain(new: Decimal, old: Decimal) -> str:
    """Formats the relative change from old to new, in whole percent with its sign."""
    return f"{100 * (new / old - 1):+.0f}%"


def changes(studies: dict[str, Study], kind: str, without: str) -> list[Change]:
    """Returns all changes in the tables whose title has these words, without the rows of one model."""
    tables = (table for study in studies.values() for table in study.tables if kind in table.title.lower())
    rows = (row for table in tables for row in table.rows)
    return [cell for row in rows if row[0] != without for cell in row if isinstance(cell, Change)]


def render(results: Path = RESULTS) -> dict[str, str]:
    """Returns the text of each page by its file name."""
    studies = {path.stem: read(path) for path in sorted(results.glob("*.json"))}
    templates = Environment(  # Markdown, so nothing is escaped
        loader=FileSystemLoader(ROOT / "benchmarks" / "templates"), undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    templates.globals.update(lines=lines, gain=gain, studies=studies, changes=partial(changes, studies))
    page = templates.get_template("study.md")
    pages = {f"{name}.md": page.render(name=name, study=study) for name, study in studies.items()}
    return pages | {name: templates.get_template(name).render() for name in SUMMARIES}


def stale(pages: dict[str, str], folder: Path = PAGES) -> list[str]:
    """Returns the names of pages that are missing, differ from their data, or have no data."""
    found = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.md")}
    return sorted(name for name in pages.keys() | found.keys() if pages.get(name) != found.get(name))


def main() -> int:
    """Writes or checks the pages; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a page differs from its data")
    options = parser.parse_args()
    try:
        pages = render()
    except ResultError as error:
        print(error, file=sys.stderr)
        return 1
    differing = stale(pages)
    for name in differing:
        if options.check:
            print(f"docs/benchmarks/{name} differs from its data; run: python -m benchmarks.render", file=sys.stderr)
        elif name in pages:
            (PAGES / name).write_text(pages[name], encoding="utf-8")
        else:
            (PAGES / name).unlink()
    return 1 if options.check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
