"""Reports on studies and runs: test tables, curves, matrices, groups, the course of training, and separability.

Draws what the folders of studies and runs contain (``study.json``, ``config.yaml``, ``epochs.json``, ``result.json``);
trains and evaluates nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from recbole_xfer.comparison.table import Comparison
from recbole_xfer.config.plain import plain
from recbole_xfer.errors import XferError
from recbole_xfer.probing.separability import read_separability
from recbole_xfer.report.content import FILES, Content, Table, files_of_study, read_content
from recbole_xfer.report.history import Run, labelled, notes_on, read_run, runs_of
from recbole_xfer.report.looks import Looks
from recbole_xfer.report.page import Section, write_page
from recbole_xfer.report.paper import write_pictures
from recbole_xfer.report.picture import Picture
from recbole_xfer.report.results import (
    curve_picture,
    farthest_change,
    groups_picture,
    influence_picture,
    lengths_picture,
    matrix_picture,
    varied_keys,
)
from recbole_xfer.report.screen import interactive
from recbole_xfer.report.separability import separability_picture
from recbole_xfer.report.training import (
    game_picture,
    gap_picture,
    of_each_row,
    routes_picture,
    training_picture,
)
from recbole_xfer.trainer.run_folder import RunFolder

SEPARABILITY = "separability.json"
"""In a study's folder: what ``separability --json`` wrote."""


@dataclass(frozen=True)
class Part:
    """The runs of a table, and the table if any of them is finished."""

    table: Table | None
    runs: Sequence[Run]

    @property
    def name(self) -> str:
        """That of the table."""
        return self.table.name if self.table else self.runs[0].keys["dataset"]


@dataclass(frozen=True)
class Chapter:
    """Sections of a page under one title, each with a picture or without."""

    title: str
    sections: Sequence[tuple[Section, Picture | None]]


@dataclass(frozen=True)
class Report:
    """What is on the page of a report.

    Attributes:
        notes: on what could not be read.
    """

    title: str
    chapters: Sequence[Chapter]
    runs: Sequence[Run]
    notes: Sequence[str]

    def pictures(self) -> list[Picture]:
        """All pictures, from top to bottom."""
        return [picture for chapter in self.chapters for _, picture in chapter.sections if picture]

    def lines(self) -> list[str]:
        """All findings, below the titles of their chapters and sections."""
        found = list(self.notes)
        for chapter in self.chapters:
            for section, _ in chapter.sections:
                if section.sentences:
                    found += [f"{chapter.title}, {section.title}:", *section.sentences]
        return found


def report(folders: Iterable[str | Path]) -> Report:
    """Draws studies and runs.

    Args:
        folders: of studies, as ``compare`` and ``transfer`` write them, and of runs on one target, finished or not.

    Raises:
        XferError: if a folder has neither, a study's file is damaged, the runs cannot be compared, or there is nothing
            to draw.
    """
    paths = [Path(folder) for folder in folders]
    studies = [path for path in paths if files_of_study(path)]
    runs = [_run(path) for path in paths if path not in studies]
    contents, parts, notes = [], [], notes_on(runs)
    for folder in studies:
        found = [read_content(file) for file in files_of_study(folder)]
        made, problems = _parts(found, folder)
        contents += found
        parts += made
        notes += [*problems, *(failure for content in found for failure in content.failures)]
    if runs:
        parts.append(_part(labelled(runs)))
    chapters = [chapter for chapter in _Book(contents, parts, studies).chapters() if chapter.sections]
    if not chapters:
        reason = "There is nothing to draw: no run has a test result, or more than one epoch of training."
        raise XferError(" ".join([reason, *notes]))
    drawn = {run.folder: run for part in parts for run in part.runs}
    datasets = dict.fromkeys(part.table.dataset if part.table else part.name for part in parts)
    return Report(f"Report on {', '.join(datasets)}", chapters, list(drawn.values()), notes)


def home_of(folders: Sequence[str | Path]) -> Path:
    """Where the report on folders is written: into the folder of a study that is alone, else into ``report``."""
    only = Path(folders[0])
    return only if len(folders) == 1 and files_of_study(only) else Path("report")


def _run(folder: Path) -> Run:
    """The run in a folder that is not one of a study."""
    if not folder.is_dir():
        raise XferError(f"The folder {folder} does not exist. Name the folder of a study or of a run.")
    if not (folder / RunFolder.CONFIG).is_file():
        raise XferError(
            f"{folder} is neither the folder of a study ({' or '.join(FILES)} is missing) nor of a run "
            f"({RunFolder.CONFIG} is missing). Name what compare or transfer wrote with --output, or folders of runs, "
            f"such as saved/*."
        )
    return read_run(folder)


def _part(runs: Sequence[Run]) -> Part:
    """Runs on one target, and the table of those with a result."""
    results = [replace(run.result, label=run.label) for run in runs if run.result]
    if not results:
        return Part(None, runs)
    content = {"table": results[0].dataset, **Comparison(results).as_dict()}
    return Part(Table.model_validate(plain(content)), runs)


def _parts(contents: Sequence[Content], folder: Path) -> tuple[list[Part], list[str]]:
    """The tables of a study with their runs, and notes on what their runs lack."""
    parts: list[Part] = []
    lost: dict[str, str] = {}
    for table in (table for content in contents for table in content.tables):
        runs, problems = runs_of(table, [Path(), folder.parent])
        parts.append(Part(table, runs))
        lost |= problems
    found = {str(run.folder): run for part in parts for run in part.runs}
    lost |= {folder: f"{folder} has no {RunFolder.EPOCHS}" for folder, run in found.items() if not run.history}
    if not lost:
        return parts, []
    first, *others = lost.values()
    more = f" The same holds for {len(others)} others." if others else ""
    count = len(lost.keys() | found.keys())
    return parts, [f"The training of {len(lost)} of {count} runs is not drawn: {first}.{more}"]


class _Book:
    """Makes the chapters of a report."""

    def __init__(self, contents: Sequence[Content], parts: Sequence[Part], studies: Sequence[Path]) -> None:
        self.curves = [curve for content in contents for curve in content.curves]
        self.parts, self.studies = parts, studies
        self.tables = [part.table for part in parts if part.table]
        labels = [label for table in self.tables for label in table.summary]
        self.looks = Looks([*labels, *(run.label for part in parts for run in part.runs)])
        self.names: set[str] = set()

    def chapters(self) -> Iterator[Chapter]:
        """All chapters, also those without a section."""
        yield Chapter("Test results", [(section, None) for table in self.tables for section in _tables(table)])
        yield Chapter("How much target data", self._of_curves())
        yield Chapter("Transfer to the target", self._of_matrices())
        yield self._of_tables("Groups", "groups", lambda table, name: groups_picture(table, name, self.looks))
        yield self._of_tables("Lengths", "lengths", lambda table, name: lengths_picture(table, name, self.looks))
        yield self._of_keys()
        yield self._of_runs(
            "Training", "training", lambda runs, title, name: training_picture(runs, title, name, self.looks)
        )
        yield self._of_rows("Transfer between domains", "transfer", gap_picture)
        yield self._of_rows("Representations of users", "game", game_picture)
        yield self._of_runs("Routes", "routes", lambda runs, title, name: routes_picture(runs, title, name, self.looks))
        yield Chapter("Separability", self._of_separability())

    def _name(self, *parts: str) -> str:
        """A name of a file that no other picture has."""
        name = re.sub(r"[^\w.+]+", "-", "-".join(filter(None, parts))).strip("-")
        names = [name, *(f"{name}-{number}" for number in range(2, len(self.names) + 3))]
        free = next(one for one in names if one not in self.names)
        self.names.add(free)
        return free

    def _of_curves(self) -> list[tuple[Section, Picture | None]]:
        several = len(self.curves) > 1
        pictures = [
            curve_picture(curve, self._name("curve", curve.curve if several else ""), self.looks)
            for curve in self.curves
        ]
        return [(Section.of(curve.layout), picture) for curve, picture in zip(self.curves, pictures, strict=True)]

    def _of_matrices(self) -> list[tuple[Section, Picture | None]]:
        tables = [table for table in self.tables if table.matrix and table.against]
        farthest, several = farthest_change(tables), len(tables) > 1
        return [
            _shown(matrix_picture(table, self._name("matrix", table.name if several else ""), farthest))
            for table in tables
        ]

    def _of_tables(self, title: str, kind: str, draw: Callable[[Table, str], Picture | None]) -> Chapter:
        """A picture of each table that has one."""
        several = len(self.tables) > 1
        pictures = [draw(table, self._name(kind, table.name if several else "")) for table in self.tables]
        return Chapter(title, [_shown(picture) for picture in pictures if picture])

    def _different(self) -> list[Part]:
        """The parts with runs; of tables that measure the same runs, the first one."""
        found: dict[tuple[Path, ...], Part] = {}
        for part in self.parts:
            found.setdefault(tuple(run.folder for run in part.runs), part)
        return [part for folders, part in found.items() if folders]

    def _of_runs(self, title: str, kind: str, draw: Callable[[Sequence[Run], str, str], Picture | None]) -> Chapter:
        """A picture of the runs of each table."""
        parts = self._different()
        several = len(parts) > 1
        pictures = [draw(part.runs, part.name, self._name(kind, part.name if several else "")) for part in parts]
        return Chapter(title, [_shown(picture) for picture in pictures if picture])

    def _of_rows(self, title: str, kind: str, draw: Callable[[Sequence[Run], str, str], Picture | None]) -> Chapter:
        """A picture of each row of each table that has one."""
        parts = self._different()
        pictures = [
            picture for part in parts for picture in of_each_row(part.runs, part.name if len(parts) > 1 else "", draw)
        ]
        several = len(pictures) > 1
        named = [replace(one, name=self._name(kind, one.title if several else "")) for one in pictures]
        return Chapter(title, [_shown(picture) for picture in named])

    def _of_keys(self) -> Chapter:
        pictures = [
            influence_picture(part.runs, key, part.table, key, self.looks)
            for part in self.parts
            if part.table
            for key in varied_keys([run for run in part.runs if run.result])
        ]
        named = [replace(one, name=self._name("influence", one.name)) for one in pictures if one]
        return Chapter("Influence of keys", [_shown(picture) for picture in named])

    def _of_separability(self) -> list[tuple[Section, Picture | None]]:
        files = [folder / SEPARABILITY for folder in self.studies]
        found = [read_separability(file) for file in files if file.is_file()]
        pictures = [separability_picture(measured) for measured in found]
        return [_shown(replace(picture, name=self._name(picture.name))) for picture in pictures]


def _tables(table: Table) -> list[Section]:
    """The sections of a table: it and, where rows ask for it, that of joint and single-domain training."""
    first, *others = table.layouts
    verdict = [table.verdict] if table.verdict else []
    return [Section.of(first, verdict), *map(Section.of, others)]


def _shown(picture: Picture) -> tuple[Section, Picture]:
    """A picture as a section of its chapter."""
    return Section(picture.title, picture.sentences, caption=picture.caption, level=3), picture


def write(report: Report, folder: Path) -> list[Path]:
    """Writes ``report.html``, which contains all pictures, and each picture as a PNG and a PDF; returns all paths."""
    rows = [
        (run.label, run.keys["dataset"], run.folder, run.keys["seed"], "" if run.best_epoch is None else run.best_epoch)
        for run in report.runs
    ]
    sections = [Section(sentences=report.notes)]
    for chapter in report.chapters:
        sections.append(Section(chapter.title))
        for section, picture in chapter.sections:
            sections.append(replace(section, figure=interactive(picture)) if picture else section)
    columns = ("model", "dataset", "folder", "seed", "best epoch")
    sections.append(Section("Runs", columns=columns, rows=rows, names=3, folded=True))
    return write_page(folder / "report.html", report.title, sections) + write_pictures(report.pictures(), folder)
