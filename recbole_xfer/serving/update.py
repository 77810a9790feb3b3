"""Continues the training of a model on data with more interactions, users and items."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from recbole.utils import ModelType
from torch import Tensor

from recbole_xfer.config.config import XferConfig
from recbole_xfer.config.joined import is_joined
from recbole_xfer.data.knowledge import KnowledgeMixin
from recbole_xfer.data.splits import WHOLE
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, build, config_of, label, load
from recbole_xfer.hooks import hooks_of, is_adapted
from recbole_xfer.log import logger
from recbole_xfer.serving import whole
from recbole_xfer.serving.neighbours import Neighbours, neighbours_of_new
from recbole_xfer.serving.tables import Axes, Moves, tables
from recbole_xfer.trainer.run_folder import RunFolder
from recbole_xfer.trainer.run_identity import weights_digest

OF_DATA = {"data_path", "dataset", "overlap_file"}
"""Keys that name the new data."""


def update(folder: str | Path, output: str | Path, overrides: Mapping[str, Any] | None = None) -> RunFolder:
    """Trains a finished model further on all interactions of new data.

    Users, items and other tokens that the model knows keep their parameters and the optimizer's state, whatever their
    order. New items start from the mean of the known items with the most similar text or image, where there are
    vectors; other new tokens start as in a new model. The scaling of features stays that of the model.

    By default, training takes the epochs in which as many steps fit as the new interactions alone would have in a
    training from scratch; at least one. The learning rate continues where it was.

    Args:
        folder: of a finished run, refit or update.
        output: the new folder, which also carries the new data.
        overrides: ``data_path`` and ``dataset`` of the new data, by default those of the run, ``epochs``, and keys that
            change no result, such as ``gpu_id``.

    Raises:
        XferError: if the model cannot be updated, the new data has none of its items or other features, or ``output``
            has another run.
    """
    keys = whole.allowed_keys(folder, output, overrides, OF_DATA | {"epochs"})
    run, epochs = RunFolder(folder), keys.pop("epochs", None)
    result = whole.finished(run)
    before = _load_before(run, {key: value for key, value in keys.items() if key not in OF_DATA})
    check_served(before)
    weights = run.weights()
    now = build(_config(run, before, keys, output, weights), trained=True)
    moves = Moves.between(before.dataset, now.dataset)
    _check_data(run, before, now, moves)
    fresh = _new_interactions(before, now, moves)
    _warn_of_gone(run, before, now, fresh)
    found = tables(now.config, now.train_data._dataset, now.model)
    neighbours = neighbours_of_new(now.train_data._dataset, moves.source[now.dataset.iid_field] >= 0)
    anew = result["epochs_anew"] if "origins" in result else result["best_epoch"] + 1
    if epochs is None:
        epochs = max(1, round(anew * fresh / len(now.train_data._dataset.sequences.items)))
    del before
    now = replace(now, config=now.config.replace(epochs=epochs))
    _load(now, run, weights, moves, found, neighbours)
    fields = {axis for axes in found.values() for axis in axes.values()}
    return whole.train(
        now,
        "update",
        [str(folder), *result.get("origins", [])],
        epochs_anew=anew,
        new_interactions=fresh,
        tokens={field: moves.counts(field) for field in (now.dataset.uid_field, now.dataset.iid_field, *fields)},
        neighbours=sum(len(some.items) for some in neighbours) if now.dataset.iid_field in fields else 0,
    )


def _load_before(run: RunFolder, keys: Mapping[str, Any]) -> Experiment:
    try:
        return load(run.path, keys)
    except XferError as error:
        if run.data():
            raise
        remedy = (
            "An update needs the data of the run, which a refit keeps: run `recbole-xfer refit` before data change."
        )
        raise XferError(f"{error} {remedy}") from error


def check_served(experiment: Experiment) -> None:
    """Raises XferError for a model whose parameters cannot be moved to other data."""
    config = experiment.config
    reason = None
    if is_joined(config):
        reason = "joins several models"
    elif config["MODEL_TYPE"] == ModelType.TRADITIONAL:
        reason = "is computed from all interactions at once"
    elif isinstance(experiment.dataset, KnowledgeMixin):
        reason = "reads a knowledge graph"
    if reason:
        raise XferError(f"{label(config)} {reason}, so it is not updated. Train a new run, and use refit.")


def _config(
    run: RunFolder, before: Experiment, keys: Mapping[str, Any], output: str | Path, weights: Mapping[str, Tensor]
) -> XferConfig:
    """The configuration of a run on the new data."""
    old, result = before.config, run.result() or {}
    passed = result.get("epochs", result["best_epoch"] + 1)
    decayed = old["learning_rate"] * (old["learning_rate_decay"] or 1.0) ** passed
    replaced = {
        "eval_args": {**old["eval_args"], "split": dict(WHOLE)},
        "learning_rate": decayed,
        "pretrained_digest": f"weights/{weights_digest(weights)}",
        "run_dir": str(output),
    }
    if hooks_of(before.model).reads_features:
        replaced["modalities"] = list(before.train_data._dataset.features.modalities)
    return config_of(run, {**replaced, **keys})


def _check_data(run: RunFolder, before: Experiment, now: Experiment, moves: Moves) -> None:
    """Raises XferError if the model cannot read the new data."""
    place = f"{now.config['dataset']} in {now.dataset.root}"
    if not moves.counts(now.dataset.iid_field)["known"]:
        raise XferError(f"{place} has no item of {run}. Name data with the same ids by --data_path and --dataset.")
    if not hooks_of(now.model).reads_features:
        return
    theirs, ours = (experiment.train_data._dataset.features for experiment in (before, now))
    for modality in ("text", "image"):
        old, new = getattr(theirs, modality), getattr(ours, modality)
        if old is not None and (old.encoder, old.values.shape[1]) != (new.encoder, new.values.shape[1]):
            raise XferError(
                f"The {modality} vectors of {place} ({new.encoder}, {new.values.shape[1]} values) are not of the "
                f"encoder with which {run} was trained ({old.encoder}, {old.values.shape[1]} values). Encode them with "
                f"that one."
            )


def _new_interactions(before: Experiment, now: Experiment, moves: Moves) -> int:
    """How many interactions of pairs of a user and an item are more than before."""
    counts = []
    for experiment in (before, now):
        histories = experiment.train_data._dataset.sequences
        users = np.repeat(histories.users, np.diff(histories.offsets))
        counts.append(pd.DataFrame({"user": users, "item": histories.items}))
    for column, field in (("user", now.dataset.uid_field), ("item", now.dataset.iid_field)):
        counts[1][column] = moves.source[field][counts[1][column]]
    new = (counts[1] < 0).any(axis=1)
    earlier, later = counts[0].value_counts(), counts[1][~new].value_counts()
    return int(new.sum() + (later - earlier.reindex(later.index, fill_value=0)).clip(lower=0).sum())


def _warn_of_gone(run: RunFolder, before: Experiment, now: Experiment, fresh: int) -> None:
    """Warns where the data lacks most of the earlier interactions, as a file of only new ones does."""
    earlier, later = (len(experiment.train_data._dataset.sequences.items) for experiment in (before, now))
    if later - fresh < earlier / 2:
        logger.warning(
            f"{now.config['dataset']} in {now.dataset.root} has {later - fresh:,} of the {earlier:,} interactions that "
            f"{run} was trained on. An update forgets users and items that are gone: prepare the earlier interactions "
            f"and the new ones together, with `--input OLD NEW`."
        )


def _load(
    experiment: Experiment,
    run: RunFolder,
    weights: Mapping[str, Tensor],
    moves: Moves,
    found: Mapping[str, Axes],
    neighbours: list[Neighbours],
) -> None:
    """Loads the parameters of a run and the state of its optimizer into a model for other data."""
    model, item = experiment.model, experiment.dataset.iid_field
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    values = {}
    for name, new in model.state_dict().items():
        axes = found.get(name, {})
        if name not in trained and (axes or new.shape != weights.get(name, new).shape):
            continue  # data, such as a table of fixed vectors
        try:
            values[name] = moves.moved(weights[name], new.cpu(), axes)
        except (KeyError, ValueError) as error:
            reason = "it is missing there" if isinstance(error, KeyError) else error
            raise XferError(
                f"{run} cannot be updated with {experiment.config['dataset']}: its parameter {name} has another form, "
                f"{reason}. Train a new run."
            ) from error
        for dim in (dim for dim, field in axes.items() if field == item):
            for some in neighbours:
                values[name] = some.fill(values[name], dim)
    model.load_state_dict(values, strict=False)
    if is_adapted(experiment.config["adaptation"]):
        model.adapt(model.state_dict(), experiment.config["adaptation"])  # stops training what it froze
    experiment.trainer.begin_last_phase()
    _load_optimizer(experiment, run, moves, found)


def _load_optimizer(experiment: Experiment, run: RunFolder, moves: Moves, found: Mapping[str, Axes]) -> None:
    saved = run.optimizer()
    if saved is None:
        logger.warning(f"{run} has no {RunFolder.OPTIMIZER}, so the optimizer starts anew; a refit keeps its state.")
        return
    state = {}
    for name, parameter in experiment.model.named_parameters():
        if name in saved:
            zero, axes = parameter.detach().cpu().new_zeros(parameter.shape), found.get(name, {})
            state[name] = {
                key: moves.moved(value, zero, axes) if isinstance(value, Tensor) and value.dim() else value
                for key, value in saved[name].items()
            }
    try:
        experiment.trainer.set_optimizer_state(state)
    except (LookupError, TypeError, ValueError) as error:
        raise run.damaged(RunFolder.OPTIMIZER, error) from error
