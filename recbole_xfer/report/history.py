"""Runs as their folders describe them, and what they logged as means over the runs of a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_xfer.comparison.table import distinct_labels
from recbole_xfer.config.values import split_domains
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import Result
from recbole_xfer.report.content import Table
from recbole_xfer.trainer.run_folder import RunFolder
from recbole_xfer.trainer.run_identity import UNIMPORTANT


@dataclass(frozen=True)
class Run:
    """A run, read from its folder.

    Attributes:
        label: of its row in a table.
        keys: its configuration, without keys that change no result.
        history: a record of each epoch (see :class:`~recbole_xfer.trainer.trainer.XferTrainer`).
        best_epoch: None while the run is not finished.
        result: None if nothing was measured on a test split.
    """

    label: str
    folder: Path
    keys: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    best_epoch: int | None
    result: Result | None

    @property
    def domains(self) -> list[str]:
        """The domains of the dataset."""
        return split_domains(self.keys["dataset"])

    def scalars(self, *phases: str | None) -> pd.DataFrame:
        """The scalars that training logged in these phases, one row per epoch."""
        records = [record for record in self.history if record["phase"] in phases]
        return pd.DataFrame([record["train"] for record in records])


def read_run(folder: Path) -> Run:
    """Reads a run; its label ignores other runs.

    Raises:
        XferError: if the folder is not one of a run, or a file in it is damaged.
    """
    files = RunFolder(folder)
    keys, values = files.config(), files.result() or {}
    result = Result.from_dict(values) if "test" in values else None
    return Run(
        label=result.label if result else keys["model"],
        folder=folder,
        keys={key: value for key, value in keys.items() if key not in UNIMPORTANT},
        history=files.epochs(),
        best_epoch=values.get("best_epoch"),
        result=result,
    )


def labelled(runs: Sequence[Run]) -> list[Run]:
    """The runs in order of their labels, which are those of a comparison."""
    labels = distinct_labels([run.label for run in runs], [run.keys for run in runs])
    named = [replace(run, label=label) for run, label in zip(runs, labels, strict=True)]
    return sorted(named, key=lambda run: (run.label, run.keys["seed"]))


def runs_of(table: Table, places: Sequence[Path]) -> tuple[list[Run], dict[str, str]]:
    """The runs of a study's table whose folders can be read, and what is wrong with the other folders.

    Args:
        table: whose runs name their folders.
        places: folders from which they were named, perhaps; the first one that has a run's folder counts.
    """
    runs, problems = [], {}
    for measured in table.runs:
        result = Result.from_dict(measured.model_dump(exclude_unset=True))
        if not result.folder:  # an ensemble, which was not trained
            continue
        folder = next((path for path in (place / result.folder for place in places) if path.is_dir()), None)
        if folder is None:
            problems[result.folder] = f"{result.folder} has moved or is gone"
            continue
        try:
            run = read_run(folder)
        except XferError as error:
            problems[result.folder] = str(error).rstrip(".")
            continue
        runs.append(replace(run, label=result.label, result=replace(result, label=run.label)))
    return runs, problems


def notes_on(runs: Sequence[Run]) -> list[str]:
    """What runs lack."""
    notes = []
    for run in runs:
        if run.best_epoch is None:
            notes.append(f"{run.folder} is not finished. Run its command again to resume it.")
        if not run.history:
            notes.append(f"{run.folder} has no {RunFolder.EPOCHS}, so its training cannot be drawn. Train it again.")
    return notes


def over_runs(series: Sequence[pd.Series]) -> pd.DataFrame:
    """Mean and standard deviation over runs at each epoch, of the runs that have a value there.

    Args:
        series: of each run, by epoch.

    Returns:
        columns ``x``, ``mean`` and ``spread``, which is 0 where one run has a value.
    """
    known = [one.dropna() for one in series if one.notna().any()]
    if not known:
        return pd.DataFrame(columns=["x", "mean", "spread"])
    values = pd.concat(known)
    over = values.groupby(level=0).agg(mean="mean", spread="std").fillna({"spread": 0.0})
    return over.rename_axis("x").reset_index()


def by_label(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each row."""
    rows: dict[str, list[Run]] = {}
    for run in runs:
        rows.setdefault(run.label, []).append(run)
    return rows
