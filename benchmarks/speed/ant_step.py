"""Measures one optimiser step of ANT at the size of Amazon Pantry, and compares it with the authors' computation.

    python -m benchmarks.speed.ant_step                 # seconds of a step and peak memory
    python -m benchmarks.speed.ant_step --precision bf16
    python -m benchmarks.speed.ant_step --equal         # compares loss and gradient with the authors' computation
    python -m benchmarks.speed.ant_step --yardstick     # both precisions, the authors' computation and the ratios

The yardstick (benchmarks/speed/authors_way.py) needs 15 GB. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.speed.data import PantryLike, pantry_like
from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.batches import WindowDataLoader
from recbole_xfer.data.dataset import TARGETS
from recbole_xfer.data.vectors import write_vectors
from recbole_xfer.experiment import Experiment, build
from recbole_xfer.model.ant import ANT


def write_pantry_like(root: Path, data: PantryLike, name: str = "Pantry") -> None:
    """Writes the random data as a domain with text vectors, image vectors and prices."""
    users = np.repeat(np.arange(len(data.offsets) - 1), np.diff(data.offsets))
    interactions = pd.DataFrame(
        {
            "user_id": users.astype(str),
            "item_id": data.history.astype(str),
            "timestamp": (np.arange(len(users)) - data.offsets[users]).astype(float),
        }
    )
    ids = np.arange(1, len(data.price)).astype(str)
    write_domain(root, name, interactions, pd.DataFrame({"item_id": ids, "price": data.price[1:].astype(float)}))
    for modality in ("text", "image"):
        path = root / name / f"{name}.{modality}.parquet"
        write_vectors(path, list(ids), getattr(data, modality)[1:], encoder="random", source="benchmark")


def experiment(precision: str, **keys: object) -> Experiment:
    """Returns ANT with the paper's sizes, and without a bias that it does not have, on the random data."""
    with tempfile.TemporaryDirectory() as folder:
        write_pantry_like(Path(folder), pantry_like())
        overrides = {"data_path": folder, "checkpoint_dir": folder, "precision": precision, "repeat_bias": False}
        overrides |= keys
        return build(XferConfig("ANT", "Pantry", overrides=overrides))


def measure(precision: str, steps: int) -> dict[str, object]:
    """Returns the median seconds of a step, targets a second and peak memory."""
    made = experiment(precision)
    model, device = made.model.train(), made.config["device"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    optimizer = made.trainer.optimizer
    batches = list(WindowDataLoader(made.train_data._dataset, 2048, seed=0))
    seconds, targets = [], []
    for batch in [batches[i % len(batches)].to(device) for i in range(steps + 2)]:
        start = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = model.calculate_loss(batch)
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        targets.append(int((batch[TARGETS] > 0).sum()))
    seconds, targets = seconds[2:], targets[2:]  # two steps warm up
    return {
        "precision": precision,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "seconds_per_step": round(statistics.median(seconds), 3),
        "seconds_least_and_most": [round(min(seconds), 3), round(max(seconds), 3)],
        "targets_per_second": round(sum(targets) / sum(seconds)),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "memory_gb_before_the_first_step": round(before / 1e6, 2),
    }


def every_occurrence(model: ANT, items: Tensor, targets: Tensor) -> Tensor:
    """Returns the same loss, computed from one row for each target, with each of its items encoded again."""
    windows, positions = (targets > 0).nonzero(as_tuple=True)
    loss = torch.zeros(())
    catalogue = model.encode_items(torch.arange(1, model.n_items))[0]
    for window, position in zip(windows.tolist(), positions.tolist(), strict=True):
        history = items[window, : position + 1]
        user = model.encode_users(model.encode_items(history)[0][None], history[None] > 0)[0, -1]
        logits = F.normalize(catalogue, dim=-1) @ F.normalize(user, dim=-1) / model.temperature
        loss = loss + F.cross_entropy(logits, targets[window, position] - 1)
    return loss / len(windows)


def equality(rows: int = 64) -> dict[str, float]:
    """Returns the differences in loss and gradient from `every_occurrence`, in float64 without dropout and noise."""
    model = experiment("float32").model.double().eval()
    batch = next(iter(WindowDataLoader(experiment("float32").train_data._dataset, rows, seed=0)))
    gradients, losses = [], []
    for loss in (model.calculate_loss(batch), every_occurrence(model, batch[model.ITEM_SEQ], batch[TARGETS])):
        model.zero_grad()
        loss.backward()
        losses.append(float(loss))
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    difference = (gradients[0] - gradients[1]).abs().max()
    return {
        "loss": losses[0],
        "loss_difference": abs(losses[0] - losses[1]),
        "gradient_difference": float(difference),
        "largest_gradient": float(gradients[0].abs().max()),
    }


def against_the_yardstick(steps: int) -> dict[str, object]:
    """Runs the authors' computation and ours one after another, each in its own process; returns results and ratios."""

    def output_of(*arguments: str) -> dict[str, Any]:
        done = subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    theirs = output_of("benchmarks.speed.authors_way")
    ours = {
        p: output_of("benchmarks.speed.ant_step", f"--steps={steps}", f"--precision={p}") for p in ("float32", "bf16")
    }
    ratios = {p: round(theirs["seconds_per_step"] / result["seconds_per_step"], 1) for p, result in ours.items()}
    return {"authors_way": theirs, **ours, "times_faster": ratios}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--equal", action="store_true", help="compare loss and gradient instead of measuring")
    parser.add_argument("--yardstick", action="store_true", help="also run the authors' computation")
    options = parser.parse_args()
    if options.equal:
        print(json.dumps(equality(), indent=2))
    elif options.yardstick:
        print(json.dumps(against_the_yardstick(options.steps), indent=2))
    else:
        print(json.dumps(measure(options.precision, options.steps), indent=2))
