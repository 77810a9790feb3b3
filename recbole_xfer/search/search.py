"""Search for the best configuration with Ray Tune.

Every trial trains in a process of its own and reports its validation score after each epoch, so that ASHA (Li et al.,
"A System for Massively Parallel Hyperparameter Tuning", 2020) can stop the weak ones. No trial reads the test split:
it is read once, by the saved model of the trial that validated best.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import ray
import torch
import yaml
from ray import tune as ray_tune
from ray.tune.schedulers import ASHAScheduler
from rich.markup import escape
from rich.table import Table

from recbole_xfer.config import properties
from recbole_xfer.config.config import XferConfig, known_keys
from recbole_xfer.config.plain import as_json, plain
from recbole_xfer.config.properties import STAGE_PREFIX
from recbole_xfer.config.schema import check_keys, check_values
from recbole_xfer.config.values import short, text_of
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import Result
from recbole_xfer.experiment import build, fit, load
from recbole_xfer.files import replacing
from recbole_xfer.log import logger, logging_to
from recbole_xfer.measure import measure
from recbole_xfer.search.space import Space, draw, name_of, read_space
from recbole_xfer.stages import starting_point
from recbole_xfer.trainer.run_folder import UNIMPORTANT, RunFolder

GRACE_EPOCHS = 5
"""No trial is stopped before; then ASHA decides each time a trial has trained REDUCTION times as long."""
REDUCTION = 3
"""One trial of so many goes on past each decision."""

NOT_SEARCHED = {
    "model", "dataset", "source", "pretrained", "adaptation", "data_path", "checkpoint_dir", "run_dir", "epochs",
    "eval_step", "eval_args", "metrics", "topk", "valid_metric", "mask_history", "rank_within_domain",
}  # fmt: skip
"""What all trials share."""


@dataclass(frozen=True)
class Trial:
    """What one configuration reached on the validation split.

    Attributes:
        keys: the configuration's searched keys.
        score: best validation score so far.
        valid: metrics of the best epoch.
        epochs: number of epochs trained.
        best_epoch: counted from 0.
        folder: where its run left the parameters of the best epoch.
        finished: False if ASHA stopped it.
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
    """A search with all that its trials need. ``search.json`` in its folder tells the trials that ended.

    Attributes:
        config: what all trials share.
        overrides: the user's keys for all trials that win over ``config_files``.
        configurations: the searched keys of each trial.
        folder: where trials leave their runs.
        cpus, gpus: what each trial gets.
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
        """The trial that validated best; of equal ones the first drawn."""
        return self.ranked()[0]

    def ranked(self) -> list[Trial]:
        """The trials that ended, best first."""
        order = {name_of(keys): number for number, keys in enumerate(self.configurations)}
        sign = -1 if self.config["valid_metric_bigger"] else 1
        return sorted(self.trials, key=lambda trial: (sign * trial.score, order[name_of(trial.keys)]))

    def missing(self) -> list[dict[str, Any]]:
        """Configurations that have not ended."""
        ended = {name_of(trial.keys) for trial in self.trials}
        return [keys for keys in self.configurations if name_of(keys) not in ended]

    def read(self) -> None:
        """Takes over the trials that an earlier, equal search ended."""
        path = self.folder / "search.json"
        if not path.is_file():
            return
        try:
            earlier = [Trial(**values) for values in json.loads(path.read_text(encoding="utf-8"))["trials"]]
        except (ValueError, TypeError, KeyError) as error:
            raise XferError(f"{path} is damaged: {error}. Remove it to search again.") from error
        wanted = {name_of(keys) for keys in self.configurations}
        self.trials = [trial for trial in earlier if name_of(trial.keys) in wanted]

    def write(self) -> None:
        """Writes ``search.json``."""
        with replacing(self.folder / "search.json") as temporary:
            values = {"metric": self.config["valid_metric"], "trials": [asdict(trial) for trial in self.ranked()]}
            temporary.write_text(as_json(values), encoding="utf-8")

    def best_yaml(self) -> str:
        """The best configuration, whole: the text of a file for ``--config_files``."""
        shared = {"model": self.config["model"], "dataset": self.config["dataset"]}
        values = {**shared, **self.config.external_config_dict, **self.best.keys}
        found = f"{self.config['valid_metric']} {self.best.score:.4f} on validation, best of {len(self.trials)} trials"
        return f"# {found}\n" + yaml.safe_dump(plain(values), sort_keys=False, allow_unicode=True)

    def table(self, rows: int = 5) -> Table:
        """The best trials, for the console."""
        stopped = sum(not trial.finished for trial in self.trials)
        caption = f"{len(self.trials)} trials, {stopped} stopped early, {len(self.failures)} failed"
        title = escape(f"Best on validation: {self.config['model']} on {self.config['dataset']}")
        table = Table(title=title, caption=caption, caption_justify="left")
        for key in self.best.keys:
            table.add_column(key)
        for column in (self.config["valid_metric"], "best epoch", "epochs"):
            table.add_column(column, justify="right")
        for trial in self.ranked()[:rows]:
            values = (escape(short(value)) for value in trial.keys.values())
            table.add_row(*values, f"{trial.score:.4f}", str(trial.best_epoch), str(trial.epochs))
        return table


def tune(
    space_file: str | Path | None = None,
    trials: int | None = None,
    config_files: Iterable[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
    cpus_per_trial: float = 1,
    gpus_per_trial: float | None = None,
) -> Search:
    """Searches the best configuration on the validation split, and measures it once on the test split.

    An equal call goes on with a search that was interrupted, or adds to one that ended.

    Args:
        space_file: see :func:`recbole_xfer.search.space.read_space`; the model's in properties/space where None.
        trials: how many configurations to draw; all of a space without intervals where None.
        config_files: yaml files of keys that all trials share.
        overrides: keys that all trials share and that win over the files, ``model`` and ``dataset`` among them.
        cpus_per_trial: CPU cores, and threads, of each trial.
        gpus_per_trial: GPUs of each trial, or the part of one; 1 where None and there is a GPU.

    Raises:
        XferError: for mistakes in the space, the configuration or the data, or if all trials fail.
    """
    search = prepare(space_file, trials, list(config_files), overrides or {}, cpus_per_trial, gpus_per_trial)
    configurations = search.missing()
    if len(configurations) < len(search.configurations):
        ended = len(search.configurations) - len(configurations)
        logger.info(f"Going on with {search.folder}: {ended} of {len(search.configurations)} trials have ended.")
    if configurations:
        run_trials(search, configurations)
    if not search.trials:
        log = search.folder / f"{search.folder.name}.log"
        raise XferError(f"All trials failed, see {log}. The first said: {search.failures[0]}")
    for folder in search.folder.glob("*/"):
        RunFolder(folder).remove_state()
    search.result = measure_best(search)
    return search


def prepare(
    space_file: str | Path | None,
    trials: int | None,
    config_files: Sequence[str | Path],
    overrides: Mapping[str, Any],
    cpus: float,
    gpus: float | None,
) -> Search:
    """Checks space, configuration, data and model before any trial, and pre-trains where all trials can share that."""
    config = XferConfig(config_files=config_files, overrides=overrides)
    space = read_space(Path(space_file) if space_file else default_space(config["model"]))
    check_space(space, config, overrides)
    if config["run_dir"]:
        raise XferError("The key 'run_dir' names one run, and a search has many. Use checkpoint_dir.")
    configurations = draw(space, trials, config["seed"])
    own = [key for key in space if changes_pretraining(config, key)]
    if own and config["source"] and not config["pretrained"] and config["adaptation"] not in (None, "scratch"):
        pretrained = None
        logger.info(f"Each trial pre-trains: {', '.join(own)} acts there too. --pretrained=FOLDER is one for all.")
    else:
        pretrained = starting_point(config, config_files, overrides)
    experiment = build(config, pretrained)
    if experiment.valid_data is None or not 1 <= config["eval_step"] <= config["epochs"]:
        raise XferError("A search needs validation after some epochs. Change eval_args, eval_step or epochs.")
    folder = experiment.folder.path.with_name(f"tune-{experiment.folder.name}")
    shared = {**overrides, **({"pretrained": str(pretrained)} if pretrained else {})}
    gpus = float(config["device"].type == "cuda") if gpus is None else gpus
    search = Search(config, config_files, shared, configurations, folder, cpus, gpus)
    if config["resume"]:
        search.read()
    return search


def default_space(model: str) -> Path:
    """Our space of a model; raises XferError where there is none."""
    path = properties.folder() / "space" / f"{model}.yaml"
    if not path.is_file():
        raise XferError(f"There is no search space for {model} here. Name a file of your own with --space=FILE.")
    return path


def check_space(space: Space, config: XferConfig, overrides: Mapping[str, Any]) -> None:
    """Raises XferError for keys that are unknown, that all trials must share, or that have a value already."""
    check_keys(space, known_keys(config["model"], config["dataset"]))
    for key, domain in space.items():
        for value in domain.examples():
            check_values({key: value}, config["model"], config.final_config_dict)
        if key in NOT_SEARCHED:
            raise XferError(f"The key '{key}' cannot be searched, for all trials share it. Search once for each value.")
        if key in overrides:
            raise XferError(f"The key '{key}' is both in the space and fixed by --{key}. Leave it out of one.")


def changes_pretraining(config: XferConfig, key: str) -> bool:
    """Whether a searched key also acts on the pre-training, and is not replaced there by ``pretrain_<key>``."""
    return key not in UNIMPORTANT and (key.startswith(STAGE_PREFIX) or STAGE_PREFIX + key not in config)


def measure_best(search: Search) -> Result:
    """The best trial's saved model on the test split."""
    best, config = search.best, search.config
    experiment = load(best.folder, {key: config[key] for key in ("show_progress", "gpu_id")})
    with experiment.folder.logging():
        result = measure(experiment, best.valid, best.seconds, best.best_epoch)
    experiment.folder.finish(result.as_dict())
    return result


def run_trials(search: Search, configurations: list[dict[str, Any]]) -> None:
    """Trains the configurations, as many at a time as the machine has room for; ended ones join ``search.trials``."""
    logger.info(f"{len(configurations)} trials of {search.config['model']} on {search.config['dataset']}")
    search.folder.mkdir(parents=True, exist_ok=True)
    trainable = ray_tune.with_parameters(train, search=search)
    scheduler = ASHAScheduler(
        time_attr="epochs",
        max_t=search.config["epochs"] + 1,  # a trial that comes to its last epoch ends by itself
        grace_period=min(GRACE_EPOCHS, search.config["epochs"] + 1),
        reduction_factor=REDUCTION,
    )
    with TemporaryDirectory(prefix=".ray-", dir=search.folder) as storage, local_ray(search):
        ray_tune.Tuner(
            ray_tune.with_resources(trainable, {"cpu": search.cpus, "gpu": search.gpus}),
            param_space={"keys": ray_tune.grid_search(configurations)},
            tune_config=ray_tune.TuneConfig(
                metric="score", mode="max" if search.config["valid_metric_bigger"] else "min", scheduler=scheduler
            ),
            run_config=ray_tune.RunConfig(
                name="trials", storage_path=str(Path(storage).resolve()), verbose=0, callbacks=[Collector(search)]
            ),
        ).fit()


@contextmanager
def local_ray(search: Search) -> Iterator[None]:
    """A Ray of this machine alone; its processes end with the block, after an error or Ctrl-C too."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints tables of its own at any verbosity
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C is to raise KeyboardInterrupt here too
    root = str(Path(__file__).resolve().parents[2])  # workers find the package in a clone as well
    try:
        ray.init(
            address="local",
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
            object_store_memory=100 * 2**20,  # bytes; trials share next to nothing
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, [root, os.getenv("PYTHONPATH")]))}},
        )
        for kind, wanted in (("CPU", search.cpus), ("GPU", search.gpus)):
            there = ray.cluster_resources().get(kind, 0)
            if not 0 <= wanted <= there or (kind == "CPU" and not wanted):
                raise XferError(f"--{kind.lower()}s_per_trial={wanted:g} does not fit: there are {there:g} {kind}s.")
        yield
    finally:
        ray.shutdown()


def train(config: dict[str, Any], search: Search) -> None:
    """One trial, in a process of Ray: trains, and reports its best validation score after each epoch, or its failure.

    Args:
        config: the trial's ``keys``; the name is Ray's.
        search: what it shares with the other trials.
    """
    os.chdir(search.working_directory)  # Ray changed it, and the user's paths may be relative
    torch.set_num_threads(max(1, int(search.cpus)))
    try:
        train_and_report(config["keys"], search)
    except Exception as error:
        with logging_to(search.folder):
            logger.exception(text_of(config["keys"]))
        kind = "" if isinstance(error, XferError) else f"{type(error).__name__}: "
        ray_tune.report({"score": math.nan, "failure": f"{kind}{error}"})


def train_and_report(keys: Mapping[str, Any], search: Search) -> None:
    """Trains one configuration without a look at the test split."""
    overrides = {**search.overrides, **keys, "show_progress": False, "gpu_id": tuple(ray.get_gpu_ids())}
    config = XferConfig(config_files=search.config_files, overrides=overrides)
    pretrained = starting_point(config, search.config_files, overrides)
    experiment = build(config.replace(checkpoint_dir=str(search.folder)), pretrained)
    started = time.time()

    def report(epoch: int, finished: bool = False) -> None:
        trainer = experiment.trainer
        ray_tune.report(
            {
                "score": float(trainer.best_valid_score),
                "valid": {name: float(value) for name, value in (trainer.best_valid_result or {}).items()},
                "epochs": epoch + 1,
                "best_epoch": trainer.best_epoch,
                "seconds": round(time.time() - started, 1),
                "folder": str(experiment.folder),
                "finished": finished,
            }
        )

    with experiment.folder.logging():
        fit(experiment, on_epoch=lambda epoch, _: report(epoch))
        report(max(experiment.trainer.train_loss_dict), finished=True)


class Collector(ray_tune.Callback):
    """Takes ended trials into the search, and says so."""

    def __init__(self, search: Search) -> None:
        self.search = search

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray calls this when a trial finished, was stopped or reported a failure."""
        last = {"keys": trial.config["keys"], **trial.last_result}
        if "failure" in last:
            self._failed(last["keys"], last["failure"])
            return
        ended = Trial(**{name: last[name] for name in Trial.__dataclass_fields__})
        self.search.trials.append(ended)
        self.search.write()
        metric, end = self.search.config["valid_metric"], "" if ended.finished else ", stopped"
        self._say(ended.keys, f"{metric} {ended.score:.4f} after {ended.epochs} epochs{end}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Ray calls this when a trial's process died."""
        self._failed(trial.config["keys"], "Its process died, as it does when memory runs out.")

    def _failed(self, keys: Mapping[str, Any], message: str) -> None:
        self.search.failures.append(message)
        self._say(keys, f"failed. {message}")

    def _say(self, keys: Mapping[str, Any], message: str) -> None:
        number = len(self.search.trials) + len(self.search.failures)
        logger.info(f"[{number}/{len(self.search.configurations)}] {text_of(keys)}: {message}")
