"""Measures RecGURU's adversarial phase on random data of a real set's size: users a second, time by operation.

    python -m benchmarks.speed.recguru_step
    python -m benchmarks.speed.recguru_step --users=2000 --steps=3

A step is five steps of the critic and one of the encoder, with the paper's sizes. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed.data import pantry_like
from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.batches import CRITIC, HISTORIES, DomainPairDataLoader
from recbole_xfer.experiment import Experiment, build
from recbole_xfer.trainer.recguru import ADVERSARIAL

ROWS = 12
"""Number of operations in the list, slowest first."""


def write_random(root: Path, name: str, users: int, seed: int) -> None:
    """Writes a domain with histories like Amazon Pantry's; a tenth of the users are in every domain."""
    data = pantry_like(users, items=users // 2, interactions=users * 9, seed=seed, text_size=1, image_size=1)
    user = np.repeat(np.arange(users), np.diff(data.offsets))
    tokens = np.where(user < users // 10, user.astype(str), np.char.add(f"{name}-", user.astype(str)))
    rows = {"user_id": tokens, "item_id": data.history.astype(str), "timestamp": np.arange(len(user), dtype=float)}
    ids = np.arange(1, len(data.price)).astype(str)
    write_domain(root, name, pd.DataFrame(rows), pd.DataFrame({"item_id": ids}))


def experiment(users: int, **keys: Any) -> Experiment:
    """Returns RecGURU in its second phase, on two random domains."""
    with tempfile.TemporaryDirectory() as folder:
        for seed, name in enumerate(("A", "B")):
            write_random(Path(folder), name, users, seed)
        made = build(XferConfig("RecGURU", "A+B", overrides={"data_path": folder, "checkpoint_dir": folder, **keys}))
        made.trainer._begin(ADVERSARIAL)
        return made


def step(made: Experiment, batch: Interaction) -> None:
    """Runs the critic's steps and one step of the encoder."""
    trainer, device = made.trainer, made.config["device"]
    trainer.optimizer.zero_grad()
    with torch.autocast(device.type, enabled=trainer.enable_amp):
        losses = trainer._adversarial_step(batch.to(device))
    sum(losses).backward()
    trainer.optimizer.step()
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure(users: int, steps: int, precision: str) -> dict[str, Any]:
    """Returns the median seconds of a step, users a second, and the slowest operations."""
    made = experiment(users, precision=precision)
    made.model.train()
    config = made.config
    loader = DomainPairDataLoader(
        made.train_data._dataset, config["user_batch_size"], config["critic_steps"], config["seed"]
    )
    batches = list(islice(cycle(loader), steps + 2))
    seconds, processor = [], []
    for batch in batches:
        start = time.perf_counter(), time.process_time()
        step(made, batch)
        seconds.append(time.perf_counter() - start[0])
        processor.append(time.process_time() - start[1])
    seconds, processor = seconds[2:], processor[2:]  # two steps warm up
    drawn = batches[0][HISTORIES].shape[:2].numel() + batches[0][CRITIC].shape[:3].numel()
    return {
        "precision": precision,
        "device": str(config["device"]),
        "threads": torch.get_num_threads(),
        "users_in_a_step": drawn,
        "seconds_per_step": round(statistics.median(seconds), 3),
        "seconds_least_and_most": [round(min(seconds), 3), round(max(seconds), 3)],
        "users_per_second": round(drawn / statistics.median(seconds)),
        "processor_seconds_least_and_median": [round(min(processor), 3), round(statistics.median(processor), 3)],
        "users_per_processor_second": round(drawn / min(processor)),
        "operations": operations(made, batches[0]),
    }


def operations(made: Experiment, batch: Interaction) -> list[dict[str, Any]]:
    """Returns the operations of one step with the longest self time on the device."""
    cuda = made.config["device"].type == "cuda"
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]) as profiler:
        step(made, batch)
    time_of = "self_device_time_total" if cuda else "self_cpu_time_total"
    rows = sorted(profiler.key_averages(), key=lambda row: getattr(row, time_of), reverse=True)
    total = sum(getattr(row, time_of) for row in rows)
    return [
        {
            "operation": row.key,
            "calls": row.count,
            "milliseconds": round(getattr(row, time_of) / 1000, 2),
            "share": round(getattr(row, time_of) / total, 3),
        }
        for row in rows[:ROWS]
    ]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=12_000, help="number of users in each domain")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    options = parser.parse_args()
    print(json.dumps(measure(options.users, options.steps, options.precision), indent=2))
