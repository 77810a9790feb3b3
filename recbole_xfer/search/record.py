"""The record of a search: its configurations, the trials that ended, and ``search.json``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from recbole_xfer.config.config import XferConfig
from recbole_xfer.config.plain import as_json, plain
from recbole_xfer.config.values import short, write_yaml
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import Result
from recbole_xfer.files import replacing
from recbole_xfer.search.space import identity


@dataclass(frozen=True)
class Trial:
    """The validation result of one configuration.

    Attributes:
        keys: the searched keys of the configuration.
        score: best validation score so far.
        valid: metrics of the best epoch.
        epochs: number of epochs trained.
        best_epoch: counted from 0.
        folder: of the trial's run, with the parameters of the best epoch.
        finished: False if ASHA stopped the trial.
    """

    keys: dict[str, Any]
    score: float
    valid: dict[str, float]
    epochs: int
    best_epoch: int
    seconds: float
    folder: str
    finished: bool


@dataclass
class Search:
    """A search and everything that its trials need; ``search.json`` in its folder lists the trials that ended.

    Attributes:
        config: the configuration that all trials share.
        overrides: the user's keys for all trials, which win over ``config_files``.
        configurations: the searched keys of each trial.
        folder: where trials write their runs.
        cpus, gpus: of each trial.
        trials: those that ended.
        failures: messages of those that failed.
        result: of the best trial, on the test split.
    """

    config: XferConfig
    config_files: Sequence[str | Path]
    overrides: dict[str, Any]
    configurations: list[dict[str, Any]]
    folder: Path
    cpus: float
    gpus: float
    working_directory: Path = field(default_factory=Path.cwd)
    trials: list[Trial] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    result: Result | None = None

    @property
    def best(self) -> Trial:
        """The trial with the best validation score; of equal ones the first drawn."""
        return self.ranked()[0]

    def ranked(self) -> list[Trial]:
        """The trials that ended, best first."""
        order = {identity(keys): number for number, keys in enumerate(self.configurations)}
        sign = -1 if self.config["valid_metric_bigger"] else 1
        return sorted(self.trials, key=lambda trial: (sign * trial.score, order[identity(trial.keys)]))

    def missing(self) -> list[dict[str, Any]]:
        """Configurations without an ended trial."""
        ended = {identity(trial.keys) for trial in self.trials}
        return [keys for keys in self.configurations if identity(keys) not in ended]

    def read(self) -> None:
        """Reads the ended trials of an identical earlier search from ``search.json``.

        Raises:
            XferError: if the file is damaged.
        """
        path = self.folder / "search.json"
        if not path.is_file():
            return
        try:
            earlier = [Trial(**values) for values in json.loads(path.read_text(encoding="utf-8"))["trials"]]
        except (ValueError, TypeError, KeyError) as error:
            raise XferError(f"{path} is damaged: {error}. Remove it to search again.") from error
        wanted = {identity(keys) for keys in self.configurations}
        self.trials = [trial for trial in earlier if identity(trial.keys) in wanted]

    def write(self) -> None:
        """Writes ``search.json``."""
        with replacing(self.folder / "search.json") as temporary:
            values = {"metric": self.config["valid_metric"], "trials": [asdict(trial) for trial in self.ranked()]}
            temporary.write_text(as_json(values), encoding="utf-8")

    def best_yaml(self) -> str:
        """The complete best configuration, as the text of a file for ``--config_files``."""
        shared = {"model": self.config["model"], "dataset": self.config["dataset"]}
        values = {**shared, **self.config.external_config_dict, **self.best.keys}
        found = f"{self.config['valid_metric']} {self.best.score:.4f} on validation, best of {len(self.trials)} trials"
        return f"# {found}\n" + write_yaml(plain(values))

    def table(self, rows: int = 5) -> Table:
        """The best trials, for the console."""
        stopped = sum(not trial.finished for trial in self.trials)
        caption = f"{len(self.trials)} trials, {stopped} stopped early, {len(self.failures)} failed"
        title = escape(f"Best trials on validation: {self.config['model']} on {self.config['dataset']}")
        table = Table(title=title, caption=caption, caption_justify="left")
        for key in self.best.keys:
            table.add_column(key)
        for column in (self.config["valid_metric"], "best epoch", "epochs"):
            table.add_column(column, justify="right")
        for trial in self.ranked()[:rows]:
            values = (escape(short(value)) for value in trial.keys.values())
            table.add_row(*values, f"{trial.score:.4f}", str(trial.best_epoch), str(trial.epochs))
        return table
