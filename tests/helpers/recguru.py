"""RecGURU on two small domains, and batches of its game."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole.data.interaction import Interaction

from recbole_xfer.data.batches import DomainPairDataLoader
from recbole_xfer.experiment import Experiment, build
from recbole_xfer.testing.data import config, write_small


def experiment(root: Path, dataset: str = "Small+Other", **keys: Any) -> Experiment:
    """RecGURU on two domains with some common users."""
    write_small(root)
    write_small(root, "Other", users=30, items=30, seed=1)
    return build(config(root, "RecGURU", **{"dataset": dataset, "user_batch_size": 8, **keys}))


def batch_of(made: Experiment, critic_steps: int = 2) -> Interaction:
    return next(iter(DomainPairDataLoader(made.train_data._dataset, 8, critic_steps, seed=0)))
