"""Trains a finished run's configuration again on all interactions, those that were held out included."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.splits import WHOLE
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build, load
from recbole_xfer.serving import whole
from recbole_xfer.trainer.run_folder import RunFolder


def refit(folder: str | Path, output: str | Path, overrides: Mapping[str, Any] | None = None) -> RunFolder:
    """Trains on all interactions from the run's own start, with its seed, without validation.

    The number of epochs gives as many steps as the run had up to its best epoch. Earlier phases or stages of training
    have their configured epochs. The new folder carries the files of the domains, so it needs no other data.

    Args:
        folder: of a finished run.
        output: the new folder.
        overrides: keys that change no result, such as ``gpu_id``, and ``epochs``.

    Raises:
        XferError: if the run is not finished, its data has changed, its pre-trained model is missing, or ``output`` has
            another run.
    """
    keys = whole.allowed_keys(folder, output, overrides, {"epochs"})
    run, epochs = RunFolder(folder), keys.pop("epochs", None)
    best = _epochs_to_best(run)
    before = load(folder, keys)
    steps = before.trainer.steps(before.train_data)
    eval_args = {**before.config["eval_args"], "split": dict(WHOLE)}
    config = before.config.replace(eval_args=eval_args, run_dir=str(output))
    del before
    pretrained = _pretrained(run, config)
    experiment = build(config, pretrained)
    if experiment.config["pretrained_digest"] != config["pretrained_digest"]:
        raise XferError(f"{pretrained} is not the model that {run} was adapted from. Name that one with --pretrained.")
    if epochs is None:
        epochs = scaled(best, steps, experiment.trainer.steps(experiment.train_data))
    experiment = replace(experiment, config=experiment.config.replace(epochs=epochs))  # with a trainer of its own
    return whole.train(experiment, "refit", [str(folder)], epochs_anew=epochs)


def scaled(epochs: int, steps: int, steps_now: int) -> int:
    """The number of epochs of ``steps_now`` steps that comes closest to ``epochs`` of ``steps``; at least 1 of any."""
    return max(min(epochs, 1), round(epochs * steps / steps_now))


def _epochs_to_best(run: RunFolder) -> int:
    """The number of epochs that validation chose.

    Raises:
        XferError: if the run is not finished, has no test split, or was already trained on everything.
    """
    result = whole.finished(run)
    if "origins" in result:
        raise XferError(f"{run} was already trained on all interactions. Add new ones with `recbole-xfer update`.")
    return result["best_epoch"] + 1


def _pretrained(run: RunFolder, config: XferConfig) -> RunFolder | None:
    """The model from which a run was adapted; None for a run from scratch."""
    if config["adaptation"] in (None, "scratch"):
        return None
    pretrained = RunFolder(config["pretrained"])
    if not (pretrained.path / RunFolder.WEIGHTS).is_file():
        raise XferError(
            f"{run} was adapted from {pretrained}, which does not exist any more. Restore this folder, or name its new "
            f"place with --pretrained."
        )
    return pretrained
