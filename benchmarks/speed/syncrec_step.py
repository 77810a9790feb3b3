"""Measures one optimiser step of SyNCRec on generated domains, by the number of domains, and of a joint SASRec.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.syncrec_step      # 2, 5, 10 and 20 domains; 5 experts
    OMP_NUM_THREADS=1 python -m benchmarks.speed.syncrec_step --domains 5 --steps 30

Users, items and interactions are always the same; only the number of domains differs. SASRec of the same width is RETR
without its pathway, with SyNCRec's pairwise loss and with cross-entropy over all items. RecBole's SASRec has
cross-entropy, its default. The models take turns, step by step, so that other load on the machine affects all of them.
With one thread the processor time shows the cost of a step on a busy machine, too.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from torch.profiler import ProfilerActivity, profile

from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.batches import WindowDataLoader
from recbole_xfer.experiment import Experiment, build

USERS, ITEMS, LENGTH = 2000, 20_000, 50
SIZES = {
    "hidden_size": 64, "inner_size": 64, "n_layers": 2, "n_heads": 1, "MAX_ITEM_LIST_LENGTH": 50,
    "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2,
}  # fmt: skip
BATCHES = 8
"""Number of batches that a model repeats."""


def write_domains(root: Path, count: int) -> str:
    """Writes random histories across `count` domains; returns the joined dataset's name."""
    rng = np.random.default_rng(0)
    items = rng.integers(ITEMS, size=USERS * LENGTH)
    rows = pd.DataFrame(
        {
            "user_id": np.repeat(np.arange(USERS), LENGTH).astype(str),
            "item_id": items.astype(str),
            "timestamp": np.tile(np.arange(LENGTH), USERS).astype(float),
        }
    )
    names = [f"D{number}" for number in range(count)]
    for number, name in enumerate(names):
        write_domain(root, name, rows[items % count == number], None)
    return "+".join(names)


def experiment(model: str, domains: int, **keys: object) -> Experiment:
    """Returns the model on the generated domains."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_domains(Path(folder), domains)
        paths = {"data_path": folder, "checkpoint_dir": folder, "show_progress": False, "precision": "float32"}
        return build(XferConfig(model, dataset, overrides={**SIZES, **paths, **keys}))


def batches(made: Experiment) -> Iterator[Interaction]:
    """Repeats a few batches forever: windows, or RecBole's rows."""
    train = made.train_data
    if made.config["train_rows"] == "windows":
        train = WindowDataLoader(train._dataset, made.config["train_batch_size"], seed=0, sampler=train._sampler)
    return cycle(list(islice(train, BATCHES)))


def step(made: Experiment, batch: Interaction) -> None:
    """Runs the forward pass, the backward pass and the optimiser."""
    made.trainer.optimizer.zero_grad()
    loss = made.model.calculate_loss(batch.to(made.config["device"]))
    (sum(loss) if isinstance(loss, tuple) else loss).backward()
    made.trainer.optimizer.step()
    if made.config["device"].type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Any, *arguments: Any) -> tuple[float, float]:
    """Returns processor seconds and wall-clock seconds of the work."""
    start = time.process_time(), time.perf_counter()
    work(*arguments)
    return time.process_time() - start[0], time.perf_counter() - start[1]


def measure(models: dict[str, Experiment], steps: int) -> dict[str, dict[str, Any]]:
    """Returns the least and median seconds of each model's step, its GFLOP, and its fraction of the machine's rate."""
    square = torch.ones(2048, 2048)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in models}
    stream = {name: batches(made.model.train() and made) for name, made in models.items()}
    rates = []
    for _ in range(steps):
        rates.append(2 * 2048**3 / seconds(torch.matmul, square, square)[0])
        for name, made in models.items():
            taken[name].append(seconds(step, made, next(stream[name])))
    rows = {}
    for name, made in models.items():
        with profile(activities=[ProfilerActivity.CPU], with_flops=True) as profiler:
            step(made, next(stream[name]))
        operations = sum(row.flops for row in profiler.key_averages())
        processor, clock = np.array(taken[name][2:]).T  # two steps warm up
        rows[name] = {
            "processor_seconds": [round(float(of(processor)), 4) for of in (np.min, np.median)],
            "clock_seconds": [round(float(of(clock)), 4) for of in (np.min, np.median)],
            "gflop": round(operations / 1e9, 2),
            "share_of_peak": round(operations / processor.min() / max(rates), 2),
        }
    return rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domains", type=int, nargs="+", default=[2, 5, 10, 20])
    parser.add_argument("--experts", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    split = {"n_experts": options.experts, "cross_experts": max(1, round(0.6 * options.experts))}
    plain = {"pathway": False, "negatives_within_domain": True}
    models = {
        "SASRec, pairwise": experiment("RETR", 5, loss_type="BPR", **plain),
        "SASRec, cross-entropy": experiment("RETR", 5, loss_type="CE", repeat_bias=False, **plain),
        "SASRec of RecBole, cross-entropy": experiment("SASRec", 5),
    }
    models |= {f"SyNCRec, {domains} domains": experiment("SyNCRec", domains, **split) for domains in options.domains}
    for name, row in measure(models, options.steps).items():
        print(json.dumps({"model": name, "threads": torch.get_num_threads(), **row}))
