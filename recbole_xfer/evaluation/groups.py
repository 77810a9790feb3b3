"""Measures groups of test targets: head and tail users, existing and new users.

A group is a set of evaluated rows; RecBole's evaluator measures it like the whole test split.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_xfer.data.histories import head_users
from recbole_xfer.errors import XferError

SEPARATOR = "-"
"""``new-tail`` has the rows that are in both groups."""


@dataclass(frozen=True)
class Group:
    """Number of test targets, and their metrics."""

    rows: int
    test: Mapping[str, float]


def measure_groups(evaluator: Any, groups: Mapping[str, np.ndarray]) -> dict[str, Group]:
    """Measures each group.

    Args:
        evaluator: the trainer's evaluator, after an evaluation.
        groups: which evaluated rows are in each group, bool [N], at least one.
    """
    measured = {}
    for name, rows in groups.items():
        part = select_rows(evaluator.collected, torch.from_numpy(rows))
        metrics = {metric: float(value) for metric, value in evaluator.measure(part).items()}
        measured[name] = Group(int(rows.sum()), metrics)
    return measured


def select_rows(collected: DataStruct, rows: Tensor) -> DataStruct:
    """Selects rows, bool [N], of the data that RecBole collected; its counts of the training data stay unchanged."""
    part = DataStruct()
    for name, value in collected._data_dict.items():
        part.set(name, value[rows] if name.startswith("rec.") else value)
    return part


def row_users(eval_data: Any) -> np.ndarray:
    """The user of each row of an evaluation loader, [rows]; some of RecBole's loaders have one row per user."""
    dataset = eval_data._dataset
    return np.asarray(getattr(eval_data, "uid_list", dataset.inter_feat[dataset.uid_field]))


def user_groups(names: Sequence[str], eval_data: Any, train_data: Any, share: float) -> dict[str, np.ndarray]:
    """The evaluated rows of each group of users, bool [rows].

    ``existing`` users have training interactions, ``new`` users have none. ``head`` users have the longest histories,
    separately among existing and among new users; ``tail`` users are the others. ``new-tail`` has the users of both.

    Args:
        names: of groups.
        eval_data: the loader whose rows are evaluated.
        train_data: the loader of the training part.
        share: fraction of users in ``head``.

    Raises:
        XferError: for a group that is unknown or has no rows.
    """
    dataset = eval_data._dataset
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
                raise XferError(f"eval_groups: '{name}' must consist of {', '.join(kinds)}, such as new or new-tail.")
        groups[name] = np.logical_and.reduce([kinds[kind][of_row] for kind in name.split(SEPARATOR)])
        if not groups[name].any():
            raise XferError(f"The group '{name}' of eval_groups has no test target. Remove it.")
    return groups
