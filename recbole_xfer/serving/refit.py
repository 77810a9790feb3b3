"""Trains a finished run's configuration again on all interactions, those that were held out included."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from recbole_xfer.config.config import XferConfig
from recbole_xfer.config.joined import is_joined, member_configs
from recbole_xfer.data.splits import WHOLE
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, build, identified, load
from recbole_xfer.hooks import is_adapted
from recbole_xfer.serving import whole
from recbole_xfer.trainer.run_folder import RunFolder

MEMBERS = "members"
"""Folder inside that of a refit of joined models, with the refit of each while they are trained."""


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
    pretrained = _pretrained(run, config)
    if is_joined(config):
        return _refit_members(before, build(config, pretrained), overrides)
    del before
    experiment = build(config, pretrained)
    if experiment.config["pretrained_digest"] != config["pretrained_digest"]:
        raise XferError(f"{pretrained} is not the model that {run} was adapted from. Name that one with --pretrained.")
    if epochs is None:
        epochs = scaled(best, steps, experiment.trainer.steps(experiment.train_data))
    experiment = replace(experiment, config=experiment.config.replace(epochs=epochs))  # with a trainer of its own
    return whole.train(experiment, "refit", [str(folder)], epochs_anew=epochs)


def _refit_members(before: Experiment, experiment: Experiment, overrides: Mapping[str, Any] | None) -> RunFolder:
    """Refits the runs that a run joined, and joins them with its weights.

    Args:
        before: the run.
        experiment: of the refit.
        overrides: see :func:`refit`.
    """
    model: Any = experiment.model
    own = experiment.folder.path / MEMBERS
    if not experiment.folder.result():
        for name, config in member_configs(before.config).items():
            member = identified(config, before.config["data_digest"], _pretrained(before.folder, config))["run_dir"]
            model.members[name].load_state_dict(refit(member, own / name, overrides).weights())
    model.set_extra_state(before.model.get_extra_state())
    made = whole.train(experiment, "refit", [str(before.folder)], epochs_anew=experiment.trainer.epochs)
    shutil.rmtree(own, ignore_errors=True)
    return made


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
    if not is_adapted(config["adaptation"]):
        return None
    pretrained = RunFolder(config["pretrained"])
    if not (pretrained.path / RunFolder.WEIGHTS).is_file():
        raise XferError(
            f"{run} was adapted from {pretrained}, which does not exist any more. Restore this folder, or name its new "
            f"place with --pretrained."
        )
    return pretrained
