"""Measures loading, splitting, the first batches and an epoch of training on generated data of Amazon Clothing's size.

    python -m benchmarks.speed.large_data --interactions 10714172 --users 1164752 --items 372593
    python -m benchmarks.speed.large_data --epoch        # SASRec with sampled candidates, and its validation

Prints the seconds of each part and the peak memory. A run at a tenth of the size shows how time grows. The epoch trains
98% of the users; 1% each are held out for validation and test, and all items are ranked for them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.batches import WindowDataLoader
from recbole_xfer.data.loaders import make_dataset, make_loaders
from recbole_xfer.experiment import build

SAMPLED = {
    "pathway": False, "loss_type": "CE", "negatives": "sampled", "learner": "sparse_adam", "hidden_size": 64,
    "inner_size": 256, "n_layers": 2, "n_heads": 2, "MAX_ITEM_LIST_LENGTH": 50, "train_batch_size": 2048, "epochs": 1,
    "eval_args": {"split": {"HU": [0.98, 0.01, 0.01]}}, "show_progress": False,
}  # fmt: skip
"""Keys of the epoch."""


def write(folder: Path, interactions: int, users: int, items: int) -> None:
    """Writes a random interaction log as an atomic file, in order of time."""
    rng = np.random.default_rng(0)
    popularity = rng.lognormal(sigma=1.2, size=items)
    frame = pd.DataFrame(
        {
            "user_id:token": np.char.add("U", rng.integers(0, users, interactions).astype(str)),
            "item_id:token": np.char.add(
                "I", rng.choice(items, interactions, p=popularity / popularity.sum()).astype(str)
            ),
            "timestamp:float": np.arange(interactions) + 1_400_000_000,
        }
    )
    (folder / "Large").mkdir()
    frame.to_csv(folder / "Large" / "Large.inter", sep="\t", index=False)


def measure(folder: Path) -> dict[str, float]:
    """Returns seconds of loading, of splitting and of the first ten batches, and the peak memory."""
    config = XferConfig("SASRec", "Large", overrides={"data_path": str(folder), "train_rows": "windows"})
    moments = [time.perf_counter()]
    dataset = make_dataset(config)
    moments.append(time.perf_counter())
    train, _, _ = make_loaders(config, dataset)
    moments.append(time.perf_counter())
    batches = iter(WindowDataLoader(train._dataset, 2048, seed=0))
    for _ in range(10):
        next(batches)
    moments.append(time.perf_counter())
    load, split, first = np.diff(moments).round(1).tolist()
    return {
        "interactions": dataset.sequences.items.size,
        "load_seconds": load,
        "split_seconds": split,
        "first_ten_batches_seconds": first,
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
    }


def epoch(folder: Path) -> dict[str, float]:
    """Returns seconds of loading, of an epoch of training and of its validation, and the peak memory."""
    moments = [time.perf_counter()]
    made = build(XferConfig("RETR", "Large", overrides={"data_path": str(folder), "checkpoint_dir": folder, **SAMPLED}))
    moments.append(time.perf_counter())
    trainer = made.trainer
    validate = trainer._valid_epoch

    def timed(*arguments: Any, **keys: Any) -> Any:
        moments.append(time.perf_counter())
        return validate(*arguments, **keys)

    trainer._valid_epoch = timed
    trainer.fit(made.train_data, made.valid_data)
    moments.append(time.perf_counter())
    load, trained, validated = np.diff(moments).tolist()
    targets, users = len(made.train_data._dataset), len(made.valid_data._dataset)
    return {
        "load_seconds": round(load, 1),
        "targets": targets,
        "train_seconds": round(trained, 1),
        "targets_per_second": round(targets / trained),
        "validated_users": users,
        "valid_seconds": round(validated, 1),
        "users_per_second": round(users / validated),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, default=10_714_172)
    parser.add_argument("--users", type=int, default=1_164_752)
    parser.add_argument("--items", type=int, default=372_593)
    parser.add_argument("--epoch", action="store_true", help="train an epoch with sampled candidates and validate")
    parser.add_argument("--folder", type=Path, help="measure the data in this folder and write none")
    options = parser.parse_args()
    if options.folder:
        print(json.dumps((epoch if options.epoch else measure)(options.folder)))
    else:
        with tempfile.TemporaryDirectory() as folder:
            # its own process: a child process inherits the peak memory of its parent
            arguments = (Path(folder), options.interactions, options.users, options.items)
            writer = multiprocessing.get_context("spawn").Process(target=write, args=arguments)
            writer.start()
            writer.join()
            again = [sys.executable, "-m", "benchmarks.speed.large_data", "--folder", folder]
            subprocess.run([*again, *["--epoch"] * options.epoch], check=True)
