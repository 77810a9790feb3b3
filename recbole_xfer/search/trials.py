"""Runs the trials of a search on Ray, each in its own process, and stops weak ones early."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from recbole_xfer.cluster import ADDRESS, cluster_or_local_ray
from recbole_xfer.config.config import XferConfig
from recbole_xfer.config.values import text_of
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build, fit
from recbole_xfer.files import workspace
from recbole_xfer.log import logger, logging_to
from recbole_xfer.search.record import Search, Trial
from recbole_xfer.stages import starting_point

GRACE_EPOCHS = 5
"""No trial is stopped earlier; ASHA decides after so many epochs, and again whenever they grew by REDUCTION."""
REDUCTION = 3
"""At each decision, ASHA lets one of so many trials continue."""


def run_trials(search: Search, configurations: list[dict[str, Any]]) -> None:
    """Trains the configurations, in parallel as resources allow; ended trials are added to ``search.trials``."""
    logger.info(f"{len(configurations)} trials of {search.config['model']} on {search.config['dataset']}")
    search.folder.mkdir(parents=True, exist_ok=True)
    trainable = tune.with_parameters(train, search=search)
    scheduler = ASHAScheduler(
        time_attr="epochs",
        max_t=search.config["epochs"] + 1,  # a trial that reaches its last epoch ends on its own
        grace_period=min(GRACE_EPOCHS, search.config["epochs"] + 1),
        reduction_factor=REDUCTION,
    )
    with workspace(search.folder / "ray") as storage, ray_for(search):
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": search.cpus, "gpu": search.gpus}),
            param_space={"keys": tune.grid_search(configurations)},
            tune_config=tune.TuneConfig(
                metric="score", mode="max" if search.config["valid_metric_bigger"] else "min", scheduler=scheduler
            ),
            run_config=tune.RunConfig(
                name="ray", storage_path=str(storage.resolve()), verbose=0, callbacks=[Collector(search)]
            ),
        ).fit()


@contextmanager
def ray_for(search: Search) -> Iterator[None]:
    """Connects to a Ray cluster, or starts Ray on this machine, for the trials of a search.

    Raises:
        XferError: if a trial needs more CPUs or GPUs than there are.
    """
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # the new output prints its own tables at any verbosity
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # Ctrl-C must raise KeyboardInterrupt here too
    with cluster_or_local_ray(object_store=100 * 2**20):  # trials share almost nothing
        for kind, wanted in (("CPU", search.cpus), ("GPU", search.gpus)):
            available = ray.cluster_resources().get(kind, 0)
            if not 0 <= wanted <= available or (kind == "CPU" and not wanted):
                place = "the cluster" if os.environ.get(ADDRESS) else "this machine"
                raise XferError(
                    f"--{kind.lower()}s_per_trial={wanted:g} is invalid: {place} has {available:g} {kind}s."
                )
        yield


def train(config: dict[str, Any], search: Search) -> None:
    """Trains one trial in a process of Ray; reports the best validation score after each epoch, or a failure.

    Args:
        config: has the trial's ``keys``; Ray requires the name.
        search: shared by all trials.
    """
    os.chdir(search.working_directory)  # Ray changed it, and the user's paths may be relative
    torch.set_num_threads(max(1, int(search.cpus)))
    try:
        train_and_report(config["keys"], search)
    except Exception as error:
        with logging_to(search.folder):
            logger.exception(text_of(config["keys"]))
        kind = "" if isinstance(error, XferError) else f"{type(error).__name__}: "
        tune.report({"score": math.nan, "failure": f"{kind}{error}"})


def train_and_report(keys: Mapping[str, Any], search: Search) -> None:
    """Trains one configuration without reading the test split."""
    overrides = {**search.overrides, **keys, "show_progress": False, "gpu_id": tuple(ray.get_gpu_ids())}
    config = XferConfig(config_files=search.config_files, overrides=overrides)
    pretrained = starting_point(config, search.config_files, overrides)
    experiment = build(config.replace(checkpoint_dir=str(search.folder)), pretrained)
    started = time.time()

    def report(epoch: int, finished: bool = False) -> None:
        trainer = experiment.trainer
        tune.report(
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

    with experiment.folder.lock(), experiment.folder.logging():
        fit(experiment, on_epoch=lambda epoch, _: report(epoch))
        report(max(experiment.trainer.train_loss_dict), finished=True)


class Collector(tune.Callback):
    """Adds ended trials to the search, and logs them."""

    def __init__(self, search: Search) -> None:
        self.search = search

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Ray when a trial finished, was stopped or reported a failure."""
        last = {"keys": trial.config["keys"], **trial.last_result}
        if "failure" in last:
            self._fail(last["keys"], last["failure"])
            return
        ended = Trial(**{name: last[name] for name in Trial.__dataclass_fields__})
        self.search.trials.append(ended)
        self.search.write()
        metric, end = self.search.config["valid_metric"], "" if ended.finished else ", stopped"
        self._log(ended.keys, f"{metric} {ended.score:.4f} after {ended.epochs} epochs{end}")

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Called by Ray when the process of a trial died."""
        self._fail(trial.config["keys"], "The process died, possibly because memory ran out.")

    def _fail(self, keys: Mapping[str, Any], message: str) -> None:
        self.search.failures.append(message)
        self._log(keys, f"failed. {message}")

    def _log(self, keys: Mapping[str, Any], message: str) -> None:
        number = len(self.search.trials) + len(self.search.failures)
        logger.info(f"[{number}/{len(self.search.configurations)}] {text_of(keys)}: {message}")
