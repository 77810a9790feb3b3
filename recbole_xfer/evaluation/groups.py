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

from recbole_xfer.data.dataset import AtomicFilesMixin
from recbole_xfer.data.sequences import head_users
from recbole_xfer.errors import XferError

SEPARATOR = "-"
"""``new-tail`` is the rows that are in both groups."""
BY_ROW = ("rec.topk", "rec.items", "rec.meanrank")
"""What RecBole collects row by row."""
WHOLE = ("data.num_items", "data.num_users", "data.count_items", "data.count_users")
"""What it collects of the training data."""


@dataclass(frozen=True)
class Group:
    """The metrics of so many test targets."""

    rows: int
    test: Mapping[str, float]


def measure_groups(evaluator: Any, groups: Mapping[str, np.ndarray]) -> dict[str, Group]:
    """Metrics of each group.

    Args:
        evaluator: a :class:`~recbole_xfer.trainer.trainer.KeepingEvaluator` behind an evaluation.
        groups: which evaluated rows are in each, bool [N].

    Raises:
        XferError: if a group is empty.
    """
    kept = evaluator.collected
    measured = {}
    for name, rows in groups.items():
        if not rows.any():
            raise XferError(f"The group '{name}' of eval_groups has no test target. Leave it out.")
        part = DataStruct()
        for key in [key for key in (*BY_ROW, *WHOLE) if key in kept]:
            part.set(key, kept.get(key)[torch.from_numpy(rows)] if key in BY_ROW else kept.get(key))
        metrics = {name: float(value) for name, value in evaluator.measure(part).items()}
        measured[name] = Group(int(rows.sum()), metrics)
    return measured


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
        XferError: for a group that does not exist, or a model whose dataset is not ours.
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
    row_users = np.asarray(getattr(eval_data, "uid_list", dataset.inter_feat[dataset.uid_field]))
    groups = {}
    for name in names:
        for kind in name.split(SEPARATOR):
            if kind not in kinds:
                raise XferError(f"eval_groups: '{name}' must be made of {', '.join(kinds)}, such as new or new-tail.")
        groups[name] = np.logical_and.reduce([kinds[kind][row_users] for kind in name.split(SEPARATOR)])
    return groups
