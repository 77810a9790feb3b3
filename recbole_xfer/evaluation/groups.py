"""Metrics of groups of test targets: head and tail users, existing and new users.

A group is a set of evaluated rows; RecBole's evaluator measures each as it measures all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_xfer.data.domain_files import AtomicFilesMixin
from recbole_xfer.data.histories import head_users
from recbole_xfer.errors import XferError

SEPARATOR = "-"
"""``new-tail`` is the rows that are in both groups."""


@dataclass(frozen=True)
class Group:
    """The metrics of so many test targets."""

    rows: int
    test: Mapping[str, float]


def measure_groups(evaluator: Any, groups: Mapping[str, np.ndarray]) -> dict[str, Group]:
    """Metrics of each group.

    Args:
        evaluator: a :class:`~recbole_xfer.trainer.trainer.KeepingEvaluator` behind an evaluation.
        groups: which evaluated rows are in each, bool [N], at least one.
    """
    measured = {}
    for name, rows in groups.items():
        part = rows_of(evaluator.collected, torch.from_numpy(rows))
        metrics = {metric: float(value) for metric, value in evaluator.measure(part).items()}
        measured[name] = Group(int(rows.sum()), metrics)
    return measured


def rows_of(collected: DataStruct, rows: Tensor) -> DataStruct:
    """Some rows, bool [N], of what RecBole collected; what it collected of the training data stays whole."""
    part = DataStruct()
    for name, value in collected._data_dict.items():
        part.set(name, value[rows] if name.startswith("rec.") else value)
    return part


def row_users(eval_data: Any) -> np.ndarray:
    """The user of each row of an evaluation loader, [rows]; some of RecBole's have one for each user."""
    dataset = eval_data._dataset
    return np.asarray(getattr(eval_data, "uid_list", dataset.inter_feat[dataset.uid_field]))


def user_groups(names: Sequence[str], eval_data: Any, train_data: Any, share: float) -> dict[str, np.ndarray]:
    """The rows of groups of users.

    ``existing`` users have training interactions and ``new`` ones have none. ``head`` users are the share of the
    existing users, and of the new ones, with the longest histories; ``tail`` are the others. Joined by ``-``
    (``new-tail``) they are the users of both.

    Args:
        names: of groups.
        eval_data: the loader whose rows were evaluated.
        train_data: the loader of the training part.
        share: of head users.

    Raises:
        XferError: for a group that does not exist or has no rows, or a model whose dataset is not ours.
    """
    dataset = eval_data._dataset
    if not isinstance(dataset, AtomicFilesMixin):
        raise XferError("eval_groups needs a dataset of this package, and this model brings its own. Leave it out.")
    users, lengths = dataset.sequences.users, np.diff(dataset.sequences.offsets)
    existing = np.zeros(dataset.user_num, dtype=bool)
    existing[train_data._dataset.inter_feat[dataset.uid_field].numpy()] = True
    head = np.zeros(dataset.user_num, dtype=bool)
    for part in (existing[users], ~existing[users]):
        chosen = head_users(users[part], lengths[part], share)
        head[: len(chosen)] |= chosen
    kinds = {"existing": existing, "new": ~existing, "head": head, "tail": ~head}
    of_row = row_users(eval_data)
    groups = {}
    for name in names:
        for kind in name.split(SEPARATOR):
            if kind not in kinds:
                raise XferError(f"eval_groups: '{name}' must be made of {', '.join(kinds)}, such as new or new-tail.")
        groups[name] = np.logical_and.reduce([kinds[kind][of_row] for kind in name.split(SEPARATOR)])
        if not groups[name].any():
            raise XferError(f"The group '{name}' of eval_groups has no test target. Leave it out.")
    return groups
