"""Estimates how long a study takes, from one training epoch and one validation of each row and dataset.

Leaves no files: epochs are measured in a temporary folder. The estimate is an upper bound, because training may stop
early; a search is counted as if ASHA stopped no trial.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.markup import escape
from rich.table import Table

from recbole_xfer import stages
from recbole_xfer.config.config import XferConfig
from recbole_xfer.config.joined import is_joined, member_configs
from recbole_xfer.errors import XferError, by_reason
from recbole_xfer.experiment import Experiment, build, fit, identified
from recbole_xfer.hooks import is_adapted
from recbole_xfer.log import logger
from recbole_xfer.search.space import draw, read_space
from recbole_xfer.study.plan import Cell, Row, StudyPlan
from recbole_xfer.trainer.phases import PhasedTrainer
from recbole_xfer.trainer.run_folder import RunFolder


@dataclass(frozen=True)
class Speed:
    """Seconds of one epoch, one validation, and of everything else in a run; and its number of epochs."""

    epoch: float
    validation: float
    rest: float
    epochs: int
    validations: int

    @property
    def run(self) -> float:
        """Seconds of a run that does not stop early."""
        return self.rest + self.epochs * self.epoch + self.validations * self.validation


@dataclass
class Planned:
    """The runs of a row of a table.

    Attributes:
        finished, missing: seeds.
        trials: of the search, before the runs.
        epochs: of a run, at most.
        seconds: of all missing runs.
        shared: the earlier table that has the same runs, if any.
        failure: why its speed could not be measured.
    """

    table: str
    label: str
    finished: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)
    trials: int = 0
    epochs: int = 0
    seconds: float = 0.0
    shared: str | None = None
    failure: str | None = None

    def to_run(self) -> str:
        """The text of the column of seeds to run."""
        return ", ".join(map(str, self.missing)) + (f" after {self.trials} trials" if self.trials else "")

    def time(self) -> str:
        """The text of the column of times."""
        if self.shared or self.failure:
            return "failed" if self.failure else f"as {self.shared}"
        return duration(self.seconds) if self.missing else ""


@dataclass(frozen=True)
class Estimate:
    """What a study runs, and how long it takes on a number of processes."""

    rows: Sequence[Planned]
    pretraining: float
    workers: int

    @property
    def seconds(self) -> float:
        """Seconds of the whole study."""
        return (self.pretraining + sum(row.seconds for row in self.rows)) / self.workers

    def table(self) -> Table:
        """The rows as a table for the console."""
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
        for name in ("table", "row", "finished seeds", "seeds to run"):
            table.add_column(name, overflow="fold")
        for name in ("epochs", "time"):
            table.add_column(name, justify="right")
        previous = None
        for row in self.rows:
            table.add_row(
                "" if row.table == previous else escape(row.table),
                escape(row.label),
                ", ".join(map(str, row.finished)),
                row.to_run(),
                str(row.epochs) if row.missing else "",
                escape(row.time()),
            )
            previous = row.table
        return table

    def check(self) -> None:
        """Raises XferError if a row could not be measured."""
        failures = [(f"{row.label} on {row.table}", row.failure) for row in self.rows if row.failure]
        if failures:
            raise XferError("\n  ".join(by_reason(failures, "cannot run")))

    def sentence(self) -> str:
        """Numbers of runs and the time of all, in words."""
        finished, missing = sum(len(row.finished) for row in self.rows), sum(len(row.missing) for row in self.rows)
        processes = f"{self.workers} processes" if self.workers > 1 else "one process"
        pretraining = f", {duration(self.pretraining)} of pre-training included" if self.pretraining else ""
        return (
            f"{missing} runs to do, {finished} finished: at most {duration(self.seconds)} in {processes}{pretraining}, "
            f"from one epoch and one validation of each row."
        )


def duration(seconds: float) -> str:
    """Such as ``45 s``, ``12 min`` or ``3.5 h``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def estimate(plan: StudyPlan, workers: int = 1) -> Estimate:
    """Finds the finished runs of a study, and measures one epoch and one validation of each row that has others."""
    torch.optim.Adam([torch.zeros(1)])  # imports for seconds, which no row must be charged with
    measurer = _Measurer(plan.seeds)
    rows = [
        measurer.planned(table.name, row, alone=number in {row.reference for row in table.rows})
        for table in plan.tables
        for number, row in enumerate(table.rows)
    ]
    return Estimate(rows, sum(measurer.pretrainings.values()), workers)


def _identity(row: Row) -> tuple:
    """Equal for rows with equal runs."""
    return tuple(Cell(row.label, keys).identity for keys in (row.keys, row.alone_keys)), row.space, row.trials


class _Measurer:
    """Measures each configuration once, whatever the number of tables and seeds that have it.

    Attributes:
        seeds: of each row.
        tables: the first one of each configuration.
        pretrainings: seconds of those that are missing, by folder.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.seeds = seeds
        self.tables: dict[tuple, str] = {}
        self.pretrainings: dict[str, float] = {}

    def planned(self, table: str, row: Row, alone: bool) -> Planned:
        """What a row of a table runs.

        Args:
            table: its name.
            row: of the table.
            alone: whether its model is also trained on single domains, which together have as many targets.
        """
        planned, identity = Planned(table, row.label), _identity(row)
        if identity in self.tables:
            planned.shared = self.tables[identity]
            return planned
        self.tables[identity] = table
        try:
            self._find(row, planned)
            if planned.missing:
                logger.info(f"Measuring one epoch of {row.label} on {table}")
                keys = {**row.keys, "seed": self.seeds[0]}
                speed = measured(XferConfig(overrides=keys))
                of_domains = measured(XferConfig(overrides={**keys, **row.alone_keys})) if row.alone_keys else speed
                planned.epochs, planned.trials = speed.epochs, self._trials(row)
                runs = len(planned.missing) + planned.trials
                planned.seconds = speed.run * runs + alone * of_domains.run * len(planned.missing)
        except XferError as error:
            planned.failure = str(error)
        return planned

    def _find(self, row: Row, planned: Planned) -> None:
        """Sorts the seeds of a row into those with a finished run and the others."""
        data = None
        for seed in self.seeds:
            keys = {**row.keys, "seed": seed}
            config = XferConfig(overrides=keys)
            adapted = is_adapted(config["adaptation"])
            pretrained = self._pretrained(config, keys) if adapted else None
            if row.space or (adapted and pretrained is None):  # the keys, or what is adapted, are not known yet
                planned.missing.append(seed)
                continue
            if data is None or config["overlap"] < 1:  # the seed hides other users
                data = build(config).config["data_digest"]
            folder = RunFolder(identified(config, data, pretrained)["run_dir"])
            (planned.finished if folder.test_result() else planned.missing).append(seed)

    def _pretrained(self, config: XferConfig, keys: Mapping[str, Any]) -> RunFolder | None:
        """The finished pre-training that a run adapts; None if it is missing, whose time is then measured."""
        if config["pretrained"]:
            return RunFolder(config["pretrained"])
        source = stages.source_config(config["model"], config["source"], [], keys)
        folder = stages.pretraining_folder(source)
        if folder.result():
            return folder
        if str(folder) not in self.pretrainings:
            self.pretrainings[str(folder)] = measured(source, "pretrain").run
        return None

    def _trials(self, row: Row) -> int:
        """How many configurations the search of a row tries."""
        if not row.space:
            return 0
        from recbole_xfer.search.search import default_space  # imports Ray, which takes seconds

        space = Path(row.space) if isinstance(row.space, str) else default_space(str(row.keys["model"]))
        return len(draw(read_space(space), row.trials, self.seeds[0]))


class _NoWriter:
    """Takes the place of TensorBoard's writer, and writes nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def measured(config: XferConfig, stage: str = "run") -> Speed:
    """Trains one epoch of each phase in a temporary folder, validates once, and times both.

    Joined models take as long as each of them.
    """
    if is_joined(config):
        members = [measured(member) for member in member_configs(config).values()]
        return Speed(0.0, 0.0, sum(member.run for member in members), max(member.epochs for member in members), 0)
    lengths = {key: min(1, config[key]) for key in config.final_config_dict if key.endswith("epochs") and config[key]}
    with tempfile.TemporaryDirectory() as folder:
        own = {"eval_step": 1, "checkpoint_dir": folder, "run_dir": None, "log_wandb": False, "show_progress": False}
        started = time.perf_counter()
        experiment = build(config.replace(**lengths, **own), stage=stage)
        experiment.trainer.tensorboard = _NoWriter()
        built = time.perf_counter()
        fit(experiment)
        trained = time.perf_counter()
        if experiment.valid_data is not None:
            experiment.trainer.evaluate(experiment.valid_data, load_best_model=False)
        validation = time.perf_counter() - trained
    history = experiment.trainer.history
    epochs = sum(_epochs(config, experiment, record["phase"]) for record in history)
    validations = config["epochs"] // config["eval_step"] if config["eval_step"] else 0
    epoch = max(0.0, trained - built - validation) / max(1, len(history))
    return Speed(epoch, validation, built - started + validation, epochs, validations)


def _epochs(config: XferConfig, experiment: Experiment, phase: str | None) -> int:
    """How many epochs a phase of a run has at most."""
    if phase != experiment.trainer.history[-1]["phase"]:
        return int(config[f"{phase}_epochs"] or config["pretrain_epochs"] or 1)
    trainer = replace(experiment, config=config).trainer  # some have one epoch, whatever the configuration says
    return int(config["epochs"]) if isinstance(trainer, PhasedTrainer) else trainer.epochs
