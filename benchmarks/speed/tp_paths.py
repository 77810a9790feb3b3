"""Measures TP with 1, 8 and 64 paths in parallel, and ordinary training at all positions, on generated histories.

    python -m benchmarks.speed.tp_paths [--model=TPGRU4Rec] [--loss_type=CE] [--threads=1]

Users a second are users of inner steps. The cost of a target is the time of a step divided by its targets. Ordinary
training has the same encoder and loss, over batches of windows of similar length, without inner steps and adversary.
All take turns, and the fastest step of each counts.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction

from benchmarks.speed.data import pantry_like
from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.batches import WindowDataLoader
from recbole_xfer.data.dataset import TARGETS
from recbole_xfer.experiment import Experiment, build

STEPS = {1: 40, 8: 20, 64: 6}
"""Outer steps in a turn, by the number of paths."""
TURNS = 3
ORDINARY_TARGETS = 2048
"""Targets in a batch of ordinary training."""


def write_histories(root: Path) -> None:
    """Writes a domain of the size of Amazon Games in the paper's Table 2, with Amazon Pantry's popularity."""
    users = 7_519
    made = pantry_like(users, items=19_977, interactions=145_520, text_size=1, image_size=1)
    user = np.repeat(np.arange(users), np.diff(made.offsets))
    log = pd.DataFrame(
        {
            "user_id": [f"u{number}" for number in user],
            "item_id": [f"i{number}" for number in made.history],
            "timestamp": np.arange(len(user), dtype=float),
        }
    )
    write_domain(root, "Generated", log, pd.DataFrame({"item_id": log["item_id"].unique()}))


def experiment(options: argparse.Namespace, root: Path, **keys: Any) -> Experiment:
    """Builds the model for training."""
    values = {"data_path": str(root), "checkpoint_dir": str(root / "saved"), "show_progress": False}
    return build(XferConfig(options.model, "Generated", overrides={**values, "loss_type": options.loss_type, **keys}))


def ordinary_loss(model: Any, batch: Interaction) -> torch.Tensor:
    """Returns the model's loss at all positions of a batch of windows, without an adversary."""
    real = batch[TARGETS] > 0
    phi = model.encoder(model.embed(batch[model.ITEM_SEQ]))
    fields = {name: value[real] for name, value in batch.interaction.items() if value.dim() > 1}
    return model.next_item_loss(phi[real], fields).mean()


def turn(made: Experiment, loader: Any, steps: int, ordinary: bool) -> tuple[float, float]:
    """Returns users a second (windows in ordinary training) and microseconds a target, of the fastest step."""
    trainer, model = made.trainer, made.model
    model.train()
    users_per_second, microseconds_per_target = [], []
    for batch in islice(loader, steps):
        start = time.perf_counter()
        loss = ordinary_loss(model, batch) if ordinary else model.calculate_loss(batch)
        trainer.optimizer.zero_grad()
        loss.backward()
        trainer.optimizer.step()
        seconds = time.perf_counter() - start
        users_per_second.append(batch["user_id"].numel() / seconds)
        microseconds_per_target.append(1e6 * seconds / int((batch[TARGETS] > 0).sum()))
    return max(users_per_second), min(microseconds_per_target)


def contestants(options: argparse.Namespace, root: Path) -> Iterator[tuple[dict[str, Any], Callable]]:
    """Yields the name of each contestant and the function that runs its turn."""
    for paths, steps in STEPS.items():
        made = experiment(options, root, paths=paths)
        loader = made.trainer.train_loader(made.train_data)
        yield {"paths": paths}, partial(turn, made, loader, steps, ordinary=False)
    if hasattr(made.model, "encoder"):
        windows = WindowDataLoader(loader.dataset, ORDINARY_TARGETS, seed=0, sampler=loader.sampler)
        yield {"ordinary training": True}, partial(turn, made, windows, STEPS[64], ordinary=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="TPSASRec")
    parser.add_argument("--loss_type", default="BCE")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        write_histories(Path(folder))
        all_of_them = list(contestants(options, Path(folder)))
        turns = [[take() for _, take in all_of_them] for _ in range(TURNS)]
        for (name, _), results in zip(all_of_them, zip(*turns, strict=True), strict=True):
            users, microseconds = zip(*results, strict=True)
            best = {"users_per_second": round(max(users)), "microseconds_per_target": round(min(microseconds), 1)}
            print(json.dumps({**name, **best}))
