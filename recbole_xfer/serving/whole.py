"""Trains a model on all interactions, in a folder that carries its data and its optimizer's state."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from recbole_xfer.config.config import settings
from recbole_xfer.config.schema import check_values
from recbole_xfer.config.values import parse_values
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, describe, fit, label, target
from recbole_xfer.log import logger
from recbole_xfer.trainer.run_folder import RunFolder
from recbole_xfer.trainer.run_identity import UNIMPORTANT
from recbole_xfer.trainer.run_records import KINDS


def allowed_keys(
    folder: str | Path, output: str | Path, overrides: Mapping[str, Any] | None, others: set[str]
) -> dict[str, Any]:
    """The values of keys that may differ from those of a finished run, parsed.

    Args:
        folder: of the run.
        output: the new folder.
        overrides: all given keys.
        others: keys that may be given in addition to those that change no result.

    Raises:
        XferError: for another key, an invalid value, or the run's own folder as the new one.
    """
    if Path(output).resolve() == Path(folder).resolve():
        raise XferError(f"--output={output} is the folder of the run itself. Name another one.")
    keys = parse_values(overrides)
    for key in keys:
        if key not in UNIMPORTANT | others:
            raise XferError(f"The run's own {key} is kept. Remove --{key}, or train a new run with it.")
    check_values(keys)
    return {key: value for key, value in keys.items() if key != "run_dir"}


def finished(run: RunFolder) -> dict[str, Any]:
    """The result of a finished run, refit or update.

    Raises:
        XferError: if the folder has none.
    """
    result = run.result()
    if result is None or not KINDS.keys() & result.keys():
        run.config()  # names what is missing where this is no run
        reason = "is a pre-training" if result else "is not finished"
        raise XferError(f"{run} {reason}. Name the folder of a finished run.")
    return result


def train(experiment: Experiment, verb: Literal["refit", "update"], origins: Sequence[str], **values: Any) -> RunFolder:
    """Trains on all interactions and finishes the folder; resumes an interrupted training, reuses an identical one.

    Args:
        experiment: whose configuration has the folder as ``run_dir``.
        verb: the command.
        origins: folders from which the model is made, the latest first.
        values: others of the result.

    Raises:
        XferError: if the folder has another run.
    """
    config, folder = experiment.config, experiment.folder
    with folder.lock():
        if config["resume"]:
            folder.check_same_run(settings(config), "--output")
            if folder.result():
                logger.info(f"{label(config)} on {target(config)}: reusing the identical {verb} {folder}.")
                return folder
        with folder.logging():
            logger.info(f"Training {label(config)} on {target(config)} ({describe(experiment)})")
            if not (config["resume"] and folder.is_interrupted):
                overlap = config["overlap_file"]
                folder.save_data(experiment.train_data._dataset.files_read(), overlap and Path(overlap))
            started = time.time()
            fit(experiment)
            folder.save_optimizer(experiment.trainer.optimizer_state())
            seconds = round(time.time() - started, 1)
            folder.finish({"verb": verb, "origins": list(origins), "seconds": seconds} | values | _result(experiment))
    return folder


def _result(experiment: Experiment) -> dict[str, Any]:
    config, trainer = experiment.config, experiment.trainer
    return {
        "model": config["model"],
        "dataset": target(config),
        "epochs": trainer.epochs,
        "best_epoch": trainer.best_epoch,
        "steps": trainer.epochs * trainer.steps(experiment.train_data),
        "interactions": len(experiment.train_data._dataset.sequences.items),
        "seed": config["seed"],
    }


def estimated_by(folder: str | Path) -> str:
    """Names the run whose test results say how good a finished refit or update is."""
    result = RunFolder(folder).result()
    assert result is not None
    return f"No test result belongs to {folder}; those of {result['origins'][-1]} estimate it."


def summary(folder: str | Path) -> str:
    """What a finished refit or update was trained on, what it knew before, and what estimates it."""
    result = RunFolder(folder).result()
    assert result is not None
    new = result.get("new_interactions")
    added = "" if new is None else f", {new:,} of them new,"
    counts = [f"{name} {text_of_counts(counts)}" for name, counts in result.get("tokens", {}).items()]
    if result.get("neighbours"):
        counts.append(f"{result['neighbours']:,} of the new items start from similar known ones")
    known = f"{'; '.join(counts)}. " if counts else ""
    epochs = f"{result['epochs']} epoch{'s' * (result['epochs'] != 1)}"
    return (
        f"{folder} has {result['model']}, trained on all {result['interactions']:,} interactions{added} of "
        f"{result['dataset']} for {epochs}, {result['steps']:,} steps. {known}{estimated_by(folder)}"
    )


def text_of_counts(counts: Mapping[str, int]) -> str:
    """Counts as text, such as ``40 known, 3 new, 0 dropped``."""
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())
