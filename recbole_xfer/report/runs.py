"""Lists the runs in a folder, finished or not: what each trained, its scores, and its date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from recbole_xfer.config.values import is_number
from recbole_xfer.data.splits import users_text
from recbole_xfer.errors import XferError
from recbole_xfer.log import logger
from recbole_xfer.trainer.run_folder import RunFolder


@dataclass(frozen=True)
class Listed:
    """A run in a list.

    Attributes:
        folder: of the run.
        keys: its configuration.
        result: its result; None if it is not finished.
        time: at which its last file was written, in seconds since 1970.
    """

    folder: Path
    keys: Mapping[str, Any]
    result: Mapping[str, Any] | None
    time: float

    @property
    def metric(self) -> str:
        """The metric that chose the epoch."""
        return str(self.keys.get("valid_metric")).lower()

    @property
    def name(self) -> str:
        """What the run trained, such as ``ANT (relearn) on Toys``."""
        made = self.result or {"test": None}
        way = self.keys.get("adaptation") if "test" in made else made.get("verb", "pre-training")
        domain, dataset = self.keys.get("single_domain"), self.keys.get("dataset")
        data = f"{domain} of {dataset}" if domain else dataset
        share = self.keys.get("train_share", 1)
        users = f", {users_text(share)}" if share < 1 else ""
        return f"{self.keys.get('model')}{f' ({way})' if way else ''} on {data}{users}"

    def score(self, split: str) -> str:
        """The run's metric on ``valid`` or ``test``, as text; empty if it was not measured."""
        metrics = (self.result or {}).get(split)
        value = metrics.get(self.metric) if isinstance(metrics, Mapping) else None
        return f"{value:.4f}" if is_number(value) else ""

    def row(self) -> tuple[str, ...]:
        """The cells of a table."""
        date = f"{datetime.fromtimestamp(self.time):%Y-%m-%d\n%H:%M}"
        test = "unfinished" if self.result is None else self.score("test")
        valid = f"{self.score('valid')}\n{self.metric}"
        return tuple(map(escape, (f"{self.name}\n{self.folder}", valid, test, str(self.keys.get("seed")), date)))


def list_runs(folder: Path) -> list[Listed]:
    """The runs in a folder, newest first; a damaged one is only reported.

    Raises:
        XferError: if the folder does not exist.
    """
    if not folder.is_dir():
        raise XferError(f"The folder {folder} does not exist. Name the folder that has the runs (checkpoint_dir).")
    found = []
    for path in folder.glob(f"*/{RunFolder.CONFIG}"):
        run = RunFolder(path.parent)
        try:
            keys, result = run.config(), run.result()
        except XferError as error:
            logger.warning(str(error))
            continue
        written = (run.path / name for name in (RunFolder.CONFIG, RunFolder.EPOCHS, RunFolder.RESULT))
        time = max(file.stat().st_mtime for file in written if file.is_file())
        found.append(Listed(run.path, keys, result, time))
    return sorted(found, key=lambda run: (-run.time, str(run.folder)))


def runs_table(runs: Sequence[Listed]) -> Table:
    """The runs as a table for the console; two lines for each, so that 80 columns are enough."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.add_column("run", overflow="fold")
    for column in ("valid", "test", "seed"):
        table.add_column(column, justify="right")
    table.add_column("date")
    for run in runs:
        table.add_row(*run.row())
    return table
