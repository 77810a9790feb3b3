"""Measures time and memory of a training step by the number of items, with the full loss and the sampled one.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.sampled_step --items 10000 100000 1000000

Each measurement runs in its own process. Seconds are processor time, which other work on the machine hardly changes;
with one thread they equal wall-clock time. `held_gb` are parameters, features and the optimizer's state; `step_gb` is
the peak above them. The id model is SASRec (RETR without its pathway), the feature model UniSRec on vectors of 384.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import get_model

from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.dataset import TARGETS
from recbole_xfer.data.features import ItemFeatures
from recbole_xfer.data.vectors import VectorTable
from recbole_xfer.trainer.sparse_adam import SparseAdam

TEXT = 384
SIZES = {"hidden_size": 64, "inner_size": 256, "n_layers": 2, "n_heads": 2, "MAX_ITEM_LIST_LENGTH": 20}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "id": ("RETR", {"pathway": False, "loss_type": "CE", "repeat_bias": False}),
    "feature": ("UniSRec", {"repeat_bias": False}),
}
LOSSES = {
    "full": {},
    "sampled": {"negatives": "sampled"},
    "sampled, sparse Adam": {"negatives": "sampled", "learner": "sparse_adam"},
}
ROUNDS = {"full": 1, "sampled": 5, "sampled, sparse Adam": 5}
"""Timed steps; one more comes before them, in which the optimizer makes its state."""


def measure(kind: str, loss: str, items: int, targets: int, length: int = 16) -> dict[str, Any]:
    """Returns the median seconds of a step of `targets` targets over `items` items, and memory in GB."""
    name, keys = KINDS[kind]
    rng = np.random.default_rng(0)
    features = None
    if kind == "feature":
        values = rng.standard_normal((items + 1, TEXT), dtype=np.float32)
        features = ItemFeatures(VectorTable(values, np.ones(items + 1, dtype=bool)), None, None)
    popularity = rng.lognormal(sigma=1.2, size=items)
    counts = np.r_[0, rng.poisson(20 * popularity / popularity.mean())]
    dataset = SimpleNamespace(num=lambda field: items + 1, features=features, target_counts=counts)
    model = get_model(name)(XferConfig(name, "Benchmark", overrides={**keys, **SIZES, **LOSSES[loss]}), dataset)
    optimizer = SparseAdam(model.parameters()) if "sparse" in loss else torch.optim.Adam(model.parameters(), fused=True)
    before, seconds = forget_peak(), list[float]()
    shape = (targets // length, length)
    for _ in range(1 + ROUNDS[loss]):
        drawn = rng.choice(items, (2, *shape), p=popularity / popularity.sum()) + 1
        batch = Interaction({model.ITEM_SEQ: torch.from_numpy(drawn[0]), TARGETS: torch.from_numpy(drawn[1])})
        start = time.process_time()
        optimizer.zero_grad()
        model.calculate_loss(batch).backward()
        optimizer.step()
        seconds.append(time.process_time() - start)
    state = sum(value.nbytes for values in optimizer.state.values() for value in values.values())
    held = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())) + state
    return {
        "model": kind,
        "loss": loss,
        "items": items,
        "targets": targets,
        "seconds": round(statistics.median(seconds[1:]), 3),
        "held_gb": round(held / 1e9, 2),
        "step_gb": round(peak() - before - state / 1e9, 2),
        "threads": torch.get_num_threads(),
    }


def peak() -> float:
    """Returns the peak memory of this process, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def forget_peak() -> float:
    """Starts to measure the peak memory anew (on Linux); returns the memory of this process, in GB."""
    Path("/proc/self/clear_refs").write_text("5")
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e9


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--models", choices=KINDS, nargs="+", default=list(KINDS))
    parser.add_argument("--losses", choices=LOSSES, nargs="+", default=list(LOSSES))
    parser.add_argument("--targets", type=int, default=512)
    options = parser.parse_args()
    cases = [(kind, loss, size) for kind in options.models for loss in options.losses for size in options.items]
    if len(cases) == 1:
        print(json.dumps(measure(*cases[0], options.targets)))
    for kind, loss, size in cases if len(cases) > 1 else []:
        case = ["--models", kind, "--losses", loss, "--items", str(size), "--targets", str(options.targets)]
        subprocess.run([sys.executable, "-m", "benchmarks.speed.sampled_step", *case], check=True)
