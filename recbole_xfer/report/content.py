"""Reads what ``compare`` and ``transfer`` wrote about a study: its tables, curves and runs."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, Field, ValidationError

from recbole_xfer.comparison.layout import Layout
from recbole_xfer.comparison.table import Change
from recbole_xfer.config.plain import reason_of
from recbole_xfer.errors import XferError
from recbole_xfer.trainer.run_records import Measured

FILES = "study.json", "transfer.json"
"""Names of the files of a study."""


class Score(BaseModel):
    """A metric of a row: mean and standard deviation over seeds."""

    mean: float
    spread: float


class Against(BaseModel):
    """The changes of the rows of a table from their baselines."""

    changes: dict[str, Change]


class Cell(BaseModel):
    """A cell of a matrix of transfer, and the row of the table that it shows."""

    source: str
    adaptation: str
    row: str


class Table(BaseModel):
    """A table of results.

    Attributes:
        name: what distinguishes it from the others of its study.
        metric: the one that is shown alone.
        measured: how, as text.
        summary: of each row, the metrics of all targets, domains and groups.
        runs: each with the label of its row.
        layouts: the tables as they are printed.
        matrix: the cells of a matrix, row by row; empty for other tables.
    """

    name: str = Field(alias="table")
    dataset: str
    metric: str
    measured: str
    verdict: str
    summary: dict[str, dict[str, Score]]
    runs: list[Measured]
    layouts: list[Layout]
    against: Against | None = None
    matrix: list[Cell] = []


class Point(BaseModel):
    """A point of a curve: a row at a fraction of the users."""

    row: str
    train_share: float
    mean: float
    spread: float


class CurveContent(BaseModel):
    """A curve over the fraction of users trained."""

    curve: str
    metric: str
    measured: str
    points: list[Point]
    layout: Layout


class Content(BaseModel):
    """The content of a study's file.

    Attributes:
        failures: of runs and tables, in one sentence each.
    """

    tables: list[Table]
    curves: list[CurveContent] = []
    failures: list[str] = []


def files_of_study(folder: Path) -> list[Path]:
    """The files of a study in a folder; empty if it is not the folder of one."""
    return [path for path in (folder / name for name in FILES) if path.is_file()]


def read_content(path: Path) -> Content:
    """Reads a study's file.

    Raises:
        XferError: if it is not json, or lacks a value or has one of another type.
    """
    try:
        return Content.model_validate_json(path.read_bytes(), strict=True)
    except (OSError, ValidationError) as error:
        reason = reason_of(error) if isinstance(error, ValidationError) else error
        raise XferError(
            f"{path} cannot be read ({reason}). Write it again with the command that wrote it, which trains no "
            f"finished run again."
        ) from error
