"""TP with 1, 8 and 64 paths side by side, and ordinary training at all positions, on generated histories.

    python -m benchmarks.tp_paths [--model=TPGRU4Rec] [--loss_type=CE]

Users a second are those of inner steps, and the cost of a target is a step's time over its targets. Ordinary training
takes the same encoder and loss over batches of windows of like lengths, without inner steps or adversary.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction

from benchmarks.data import pantry_like
from recbole_xfer.config import XferConfig
from recbole_xfer.data.dataloader import WindowDataLoader
from recbole_xfer.data.dataset import TARGETS
from recbole_xfer.data.prepare import write_domain
from recbole_xfer.quick_start import Experiment, build

STEPS = {1: 60, 8: 30, 64: 12}
"""Outer steps that are timed, by the number of paths."""


def write_histories(root: Path) -> None:
    """A domain of the size of Amazon Games in the paper's Table 2, with Amazon Pantry's popularity."""
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
    """The model, built to train."""
    values = {"data_path": str(root), "checkpoint_dir": str(root / "saved"), "show_progress": False}
    return build(XferConfig(options.model, "Generated", overrides={**values, "loss_type": options.loss_type, **keys}))


def ordinary_loss(model: Any, batch: Interaction) -> torch.Tensor:
    """The model's loss at all positions of a batch of windows, without an adversary."""
    real = batch[TARGETS] > 0
    phi = model.encoder(model.embed(batch[model.ITEM_SEQ]))
    fields = {name: value[real] for name, value in batch.interaction.items() if value.dim() > 1}
    return model.next_item_loss(phi[real], fields).mean()


def measure(made: Experiment, steps: int, ordinary: bool) -> dict[str, float]:
    """Users (for ordinary training: windows) a second, and microseconds a target, at the median step."""
    trainer, model = made.trainer, made.model
    loader = trainer._windowed(made.train_data)
    if ordinary:
        loader = WindowDataLoader(loader.dataset, made.config["train_batch_size"], seed=0, sampler=loader.sampler)
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
    warm = steps // 4
    return {
        "users_per_second": round(statistics.median(users_per_second[warm:])),
        "microseconds_per_target": round(statistics.median(microseconds_per_target[warm:]), 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="TPSASRec")
    parser.add_argument("--loss_type", default="BCE")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_histories(Path(folder))
        for paths, steps in STEPS.items():
            made = experiment(options, Path(folder), paths=paths)
            print(json.dumps({"paths": paths, **measure(made, steps, ordinary=False)}), flush=True)
        if hasattr(made.model, "encoder"):
            print(json.dumps({"ordinary training": True, **measure(made, STEPS[64], ordinary=True)}))
