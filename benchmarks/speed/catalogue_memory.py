"""Measures the peak memory of one training step of ANT with the full-catalogue loss, by the number of items.

    python -m benchmarks.speed.catalogue_memory --items 50000 200000 600000

Each size runs in its own process. `step_gb` excludes the table of vectors and must not grow.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import torch
from recbole.data.interaction import Interaction

from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.dataset import TARGETS
from recbole_xfer.data.features import ItemFeatures
from recbole_xfer.data.vectors import VectorTable
from recbole_xfer.model.ant import ANT

WIDTH = 384


def step(items: int, targets: int = 512, length: int = 16) -> dict[str, float]:
    """Returns seconds and peak memory of one forward and backward pass over a catalogue of `items` items."""
    config = XferConfig("ANT", "Benchmark", overrides={"negatives": "full"})
    rng = np.random.default_rng(0)
    values = rng.standard_normal((items + 1, WIDTH), dtype=np.float32)
    features = ItemFeatures(VectorTable(values, np.ones(items + 1, dtype=bool)), None, None)
    model = ANT(config, SimpleNamespace(num=lambda field: items + 1, features=features))
    before = peak()
    shape = (targets // length, length)
    batch = Interaction(
        {
            model.ITEM_SEQ: torch.from_numpy(rng.integers(1, items + 1, shape)),
            TARGETS: torch.from_numpy(rng.integers(1, items + 1, shape)),
        }
    )
    start = time.perf_counter()
    model.calculate_loss(batch).backward()
    return {
        "items": items,
        "seconds": round(time.perf_counter() - start, 1),
        "table_gb": round(values.nbytes / 1e9, 2),
        "peak_gb": round(peak(), 2),
        "step_gb": round(peak() - before, 2),
    }


def peak() -> float:
    """Returns the peak memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="+", default=[50_000, 200_000, 600_000])
    sizes = parser.parse_args().items
    if len(sizes) == 1:
        print(json.dumps(step(sizes[0])))
    for size in sizes if len(sizes) > 1 else []:
        subprocess.run([sys.executable, "-m", "benchmarks.speed.catalogue_memory", "--items", str(size)], check=True)
