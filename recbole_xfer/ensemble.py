"""Joins the scores of finished runs into one ranking, with weights that are chosen on the validation split.

The joined score of an item is a weighted sum of the runs' scores (see :mod:`recbole_xfer.trainer.selection`).

Symbols in comments: M runs, B rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xfer.comparison.ensemble import EnsembleComparison
from recbole_xfer.comparison.table import with_distinct_labels
from recbole_xfer.config.config import settings
from recbole_xfer.config.plain import plain
from recbole_xfer.config.values import split_domains
from recbole_xfer.data.targets import TargetLoader
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import Result
from recbole_xfer.experiment import Experiment, load
from recbole_xfer.measure import measure
from recbole_xfer.trainer.run_folder import RunFolder
from recbole_xfer.trainer.run_identity import UNIMPORTANT
from recbole_xfer.trainer.selection import choose_weights
from recbole_xfer.trainer.trainer import XferTrainer

NAME = "Ensemble"

PARTS = "valid_data", "test_data"

SAME = ("dataset", "single_domain", "mask_history", "rank_within_domain", "held_out_targets", "train_share")
"""Keys that must be equal in all runs, with those inside ``eval_args``."""

MEASURED = ("mask_history", "rank_within_domain", "eval_args.mode")
"""Those of them with which a finished run can be measured again."""

SAME_JOINED = ("histories", "overlap", "overlap_file")
"""Keys that must also be equal where several domains are joined."""


class Ensemble(nn.Module):
    """A model that ranks by a weighted sum of the scores of others.

    Args:
        members: loaded runs that rank the same targets.

    Attributes:
        weights: of the members' scores.
    """

    def __init__(self, members: Sequence[Experiment]) -> None:
        super().__init__()
        self.members = members
        self.n_items = members[0].dataset.item_num
        self.weights = [1.0] * len(members)

    def member_scores(self, rows: Interaction) -> Iterator[Tensor]:
        """The scores of all items by each member, [B, n_items] each; rows are those of a :class:`JoinedLoader`."""
        for number, member in enumerate(self.members):
            trainer, own = member.trainer, JoinedLoader.rows_of(rows, number)
            if trainer.item_tensor is None:
                trainer.item_tensor = member.dataset.get_item_feature().to(trainer.device)
            items = trainer.ranked_items(len(own), member.dataset.item_num)
            yield trainer.scores(own, items).masked_fill(~items, 0)

    def full_sort_predict(self, rows: Interaction) -> Tensor:
        """Scores of all items, [B, n_items]."""
        scores = zip(self.weights, self.member_scores(rows), strict=True)
        return sum((weight * own for weight, own in scores), start=torch.zeros(()))


class JoinedLoader(TargetLoader):
    """A loader of the first run whose rows also have the columns of every run, with its number in front.

    Args:
        loaders: of each run, for the same targets.
    """

    def __init__(self, loaders: Sequence[TargetLoader]) -> None:
        first, *self.others = loaders
        super().__init__(first.config, first._dataset, first.candidates)

    def collate_fn(self, index: Any) -> tuple[Interaction, Any, Tensor, Tensor]:
        """Returns a batch; see :class:`~recbole_xfer.data.targets.TargetLoader`."""
        rows, *rest = super().collate_fn(index)
        members = [rows, *(loader.collate_fn(index)[0] for loader in self.others)]
        columns = {f"{number}/{name}": own[name] for number, own in enumerate(members) for name in own.columns}
        return Interaction({**rows.interaction, **columns}), *rest

    @staticmethod
    def rows_of(rows: Interaction, number: int) -> Interaction:
        """The rows of one of the runs."""
        prefix = f"{number}/"
        names = [name for name in rows.columns if name.startswith(prefix)]
        return Interaction({name.removeprefix(prefix): rows[name] for name in names})


@dataclass
class JoinedExperiment(Experiment):
    """The first of several runs, with joined rows and their ensemble as its model."""

    model: Any

    @cached_property
    def trainer(self) -> XferTrainer:
        """Evaluates the ensemble."""
        return XferTrainer(self.config, self.model)


def ensemble(folders: Sequence[str | Path], overrides: Mapping[str, Any] | None = None) -> EnsembleComparison:
    """Measures finished runs and their ensemble on the test split, under one protocol; writes nothing.

    Args:
        folders: of at least two runs.
        overrides: keys of evaluation, such as ``mask_history``.

    Raises:
        XferError: if a run is not finished, or the runs differ in data, split, candidates or masking.
    """
    members = _members(folders, overrides)
    results, keys = [], []
    for member, earlier in members:
        valid = member.trainer.evaluate(member.valid_data, load_best_model=False)
        results.append(measure(member, valid, earlier["seconds"], earlier["best_epoch"]))
        values = settings(member.config)
        keys.append({key: value for key, value in values.items() if key not in UNIMPORTANT})
    results = _with_seeds(with_distinct_labels(results, keys))
    measured, weights = _measured(members, NAME)
    labels = [result.label for result in results]
    return EnsembleComparison([*results, measured], weights=dict(zip(labels, weights, strict=True)))


def join_runs(
    folders: Sequence[str | Path], overrides: Mapping[str, Any] | None = None, name: str = NAME
) -> tuple[Result, list[float]]:
    """Measures the ensemble of finished runs on the test split, and returns the weights of their scores; of sum 1.

    Args:
        folders, overrides: see :func:`ensemble`, which also measures each run.
        name: of the ensemble, for the label of its result.
    """
    return _measured(_members(folders, overrides), name)


Member = tuple[Experiment, Mapping[str, Any]]
"""A loaded run, and the result of its training."""


def _members(folders: Sequence[str | Path], overrides: Mapping[str, Any] | None) -> list[Member]:
    """The runs, which can be joined; see :func:`ensemble` for the errors."""
    if len(folders) < 2:
        raise XferError("An ensemble needs at least two runs. Name the folders of finished runs.")
    members: list[Member] = []
    for folder in folders:
        earlier = RunFolder(folder).test_result()
        if earlier is None:
            raise XferError(f"{folder} has no finished run with test results. Name the folders of such runs.")
        member = load(folder, overrides)
        check_ranks(member)
        check_same(members[0][0] if members else member, member)
        members.append((member, earlier))
    return members


def _measured(members: Sequence[Member], name: str) -> tuple[Result, list[float]]:
    """The result of the runs' ensemble, and the weights of their scores."""
    joined, weights = join([member for member, _ in members])
    valid = joined.trainer.evaluate(joined.valid_data, load_best_model=False)
    seconds = sum(earlier["seconds"] for _, earlier in members)
    measured = measure(joined, valid, seconds, -1, load_best_model=False)
    return replace(measured, label=name, model=NAME, source=None, adaptation=None, folder=""), weights


def _with_seeds(results: Sequence[Result]) -> list[Result]:
    """Results whose labels also have the seed, if the seeds differ."""
    if len({result.seed for result in results}) == 1:
        return list(results)
    return [replace(result, label=f"{result.label}, seed {result.seed}") for result in results]


def check_ranks(member: Experiment) -> None:
    """Raises XferError for a run without rankings on a validation and a test split."""
    if not all(isinstance(loader, TargetLoader) for loader in (member.valid_data, member.test_data)):
        raise XferError(
            f"{member.folder} has no rankings on a validation and a test split, which an ensemble needs. Leave it out."
        )


def check_same(first: Experiment, other: Experiment) -> None:
    """Raises XferError unless two runs rank the same targets among the same candidates."""
    names = [*SAME, *(SAME_JOINED if len(split_domains(first.config["dataset"])) > 1 else ())]
    ours, theirs = (_compared(experiment, names) for experiment in (first, other))
    for key, value in ours.items():
        if theirs[key] != value:
            raise XferError(
                f"{first.folder} ({key}: {value}) and {other.folder} ({key}: {theirs[key]}) cannot be joined. "
                f"{f'Set one {key} for all runs' if key in MEASURED else f'Train both with one {key}'}."
            )
    for part in PARTS:
        if not all(map(np.array_equal, *(_rows(getattr(experiment, part)) for experiment in (first, other)))):
            raise XferError(
                f"{first.folder} and {other.folder} cannot be joined: their users, items or interactions differ. "
                f"Train both on the same data_path with the same filters."
            )


def _compared(experiment: Experiment, names: Sequence[str]) -> dict[str, Any]:
    """The values that must be equal, by key."""
    values = plain(settings(experiment.config))
    inside = {f"eval_args.{name}": values["eval_args"].get(name) for name in ("split", "order", "group_by", "mode")}
    sampled = experiment.test_data.candidates is not None or experiment.valid_data.candidates is not None
    return {name: values[name] for name in names} | inside | {"seed": values["seed"] if sampled else "any"}


def _rows(loader: TargetLoader) -> Iterator[np.ndarray]:
    """What the rows of a loader are: tokens, histories and targets."""
    dataset = loader._dataset
    yield from (dataset.field2id_token[name] for name in (dataset.uid_field, dataset.iid_field))
    yield from (dataset.sequences.items, dataset.sequences.offsets, loader.targets)


def join(members: Sequence[Experiment]) -> tuple[JoinedExperiment, list[float]]:
    """The ensemble of runs as an experiment, with its weights chosen; and the weights at equal spread, of sum 1."""
    first, model = members[0], Ensemble(members).to(members[0].config["device"])
    valid, test = (JoinedLoader([getattr(member, part) for member in members]) for part in PARTS)
    joined = JoinedExperiment(first.config, first.dataset, first.train_data, valid, test, model)
    return joined, choose_weights(joined.trainer, joined.valid_data).tolist()
