"""Measures groups of test targets: head and tail users, existing and new users; cold, rare and head items.

A group is a set of ranked targets. RecBole's evaluator measures it like the whole test split, over the same candidates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_xfer.data.histories import head_ids
from recbole_xfer.data.targets import TargetLoader
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
    """The user of each row of a loader of targets, [rows]."""
    dataset = eval_data._dataset
    return dataset.inter_feat[dataset.uid_field].numpy()


def target_groups(names: Sequence[str], eval_data: Any, train_data: Any, share: float) -> dict[str, np.ndarray]:
    """The targets of each group, bool [rows].

    ``existing`` users have training interactions, ``new`` users have none. ``head`` users have the longest histories,
    separately among existing and among new users; ``tail`` users are the others. ``cold_items`` have no training
    interaction. ``head_items`` have the most, and ``rare_items`` are the other trained items. ``new-cold_items`` has
    the targets that are in both groups.

    Args:
        names: of groups.
        eval_data: the loader whose targets are evaluated.
        train_data: the loader of the training part.
        share: fraction of users in ``head``, and of trained items in ``head_items``.

    Raises:
        XferError: if no targets are ranked, or for a group that is unknown or has no targets.
    """
    if not isinstance(eval_data, TargetLoader):
        raise XferError("eval_groups needs ranked targets, but labels are evaluated. Leave eval_groups out.")
    dataset = eval_data._dataset
    items = dataset.inter_feat[dataset.iid_field].numpy()
    kinds = {
        name: of_user[row_users(eval_data)] for name, of_user in _kinds_of_users(dataset, train_data, share).items()
    }
    kinds |= {name: of_item[items] for name, of_item in _kinds_of_items(dataset, train_data, share).items()}
    groups = {}
    for name in names:
        for kind in name.split(SEPARATOR):
            if kind not in kinds:
                raise XferError(f"eval_groups: '{name}' must consist of {', '.join(kinds)}, such as new or new-tail.")
        groups[name] = np.logical_and.reduce([kinds[kind] for kind in name.split(SEPARATOR)])
        if not groups[name].any():
            raise XferError(f"The group '{name}' of eval_groups has no test target. Remove it.")
    return groups


def _kinds_of_users(dataset: Any, train_data: Any, share: float) -> dict[str, np.ndarray]:
    """Which users are of each kind, bool [n_users]."""
    users, lengths = dataset.sequences.users, np.diff(dataset.sequences.offsets)
    existing = np.zeros(dataset.user_num, dtype=bool)
    existing[train_data._dataset.inter_feat[dataset.uid_field].numpy()] = True
    head = np.zeros(dataset.user_num, dtype=bool)
    for part in (existing[users], ~existing[users]):
        chosen = head_ids(users[part], lengths[part], share)
        head[: len(chosen)] |= chosen
    return {"existing": existing, "new": ~existing, "head": head, "tail": ~head}


def _kinds_of_items(dataset: Any, train_data: Any, share: float) -> dict[str, np.ndarray]:
    """Which items are of each kind, bool [n_items]."""
    counter, counts = train_data._dataset.item_counter, np.zeros(dataset.item_num)
    counts[list(counter)] = list(counter.values())
    trained, head = counts > 0, head_ids(np.arange(len(counts)), counts, share)
    return {"cold_items": ~trained, "rare_items": trained & ~head, "head_items": head}
