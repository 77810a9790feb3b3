"""One optimiser step of SyNCRec on generated domains: seconds by the number of domains, and against a joint SASRec.

    python -m benchmarks.syncrec_step                       # 2, 5, 10 and 20 domains; 5 experts
    python -m benchmarks.syncrec_step --domains 5 --steps 30

Users, items and interactions are the same in all: only into how many domains they fall differs. SASRec is RETR without
its pathway, of the same width and by the same pairwise loss. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from recbole_xfer.config import XferConfig
from recbole_xfer.data.dataloader import WindowDataLoader
from recbole_xfer.data.dataset import TARGETS
from recbole_xfer.data.prepare import write_domain
from recbole_xfer.quick_start import Experiment, build

USERS, ITEMS, LENGTH = 2000, 20_000, 50
SIZES = {"hidden_size": 64, "inner_size": 64, "n_layers": 2, "n_heads": 1, "MAX_ITEM_LIST_LENGTH": 50}


def write_domains(root: Path, count: int) -> str:
    """Random histories across so many domains; returns the joined dataset's name."""
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
    """The model on the generated domains."""
    with tempfile.TemporaryDirectory() as folder:
        dataset = write_domains(Path(folder), domains)
        paths = {"data_path": folder, "checkpoint_dir": folder, "show_progress": False, "precision": "float32"}
        return build(XferConfig(model, dataset, overrides={**SIZES, **paths, **keys}))


def seconds_per_step(made: Experiment, steps: int) -> dict[str, float]:
    """Median of so many steps, and of what the loader took to make their batches."""
    model, device = made.model.train(), made.config["device"]
    train = made.train_data
    loader = WindowDataLoader(train._dataset, made.config["train_batch_size"], seed=0, sampler=train._sampler)
    step_seconds, batch_seconds, targets = [], [], []
    batches = iter(loader)
    for _ in range(steps + 2):
        start = time.perf_counter()
        batch = next(batches).to(device)
        made_at = time.perf_counter()
        made.trainer.optimizer.zero_grad()
        loss = model.calculate_loss(batch)
        (sum(loss) if isinstance(loss, tuple) else loss).backward()
        made.trainer.optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        step_seconds.append(time.perf_counter() - made_at)
        batch_seconds.append(made_at - start)
        targets.append(int((batch[TARGETS] > 0).sum()))
    return {
        "seconds_per_step": round(statistics.median(step_seconds[2:]), 3),  # two steps warm up
        "seconds_per_batch_made": round(statistics.median(batch_seconds[2:]), 3),
        "targets_per_step": round(statistics.mean(targets)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--domains", type=int, nargs="+", default=[2, 5, 10, 20])
    parser.add_argument("--experts", type=int, default=5)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    split = {"n_experts": options.experts, "cross_experts": max(1, round(0.6 * options.experts))}
    for domains in options.domains:
        ours = seconds_per_step(experiment("SyNCRec", domains, **split), options.steps)
        print(json.dumps({"model": "SyNCRec", "domains": domains, **split, **ours}))
    joint = experiment("RETR", 5, pathway=False, negatives_within_domain=True)
    joint = seconds_per_step(joint, options.steps)
    print(json.dumps({"model": "SASRec", "domains": 5, **joint, "threads": torch.get_num_threads()}))
