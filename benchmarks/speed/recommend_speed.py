"""Measures recommending: the best items by vectors against a product of matrices and faiss, and the whole verb.

    python -m benchmarks.speed.recommend_speed vectors --items=1_000_000 --users=4096
    python -m benchmarks.speed.recommend_speed verb --items=1_000_000 --users=1_000_000 --ranked=20_000
    python -m benchmarks.speed.recommend_speed user saved/ANT-Shop-1a2b3c4d

``vectors`` ranks random vectors, all in one run. ``verb`` writes a domain of random interactions, makes a model of it
that is not trained, reads a file of histories and recommends to the first of its users; it prints seconds and the
largest memory. ``user`` times one user, with the start of the process and without. Run it on an idle machine.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from recbole_xfer.config.config import XferConfig
from recbole_xfer.evaluation.ties import TieOrder
from recbole_xfer.evaluation.tiles import TILE, VectorScores
from recbole_xfer.experiment import build, load
from recbole_xfer.quick_start import recommend
from recbole_xfer.serving.recommend import SHARD, Asked, Wish
from recbole_xfer.serving.recommender import BATCH

SEEN = 20
"""Items of each user that are left out."""


def median_seconds(work: Callable[[], Any], times: int) -> float:
    """Returns the median seconds of some calls."""
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def vectors(options: argparse.Namespace) -> None:
    """Prints users a second of the product alone, of this package and of faiss, and how many items they share."""
    torch.manual_seed(0)
    users, items = torch.randn(options.users, options.width), torch.randn(options.items, options.width)
    number, row = TieOrder.draw(0, options.items).items, torch.ones(BATCH, dtype=torch.long)
    seen = torch.randint(0, options.items, (options.users, SEEN))

    def product() -> None:
        for some in users.split(BATCH):
            for start in range(0, options.items, TILE):
                some @ items[start : start + TILE].T

    def ours() -> torch.Tensor:
        found = []
        for some, left in zip(users.split(BATCH), seen.split(BATCH), strict=True):
            pairs = torch.arange(len(some)).repeat_interleave(SEEN), left.flatten()
            found.append(VectorScores(some, items, pairs).best(options.k, number, row[: len(some)])[1])
        return torch.cat(found)

    rates = {"product of matrices": product, "recbole_xfer": ours}
    try:
        import faiss
    except ModuleNotFoundError:
        print("faiss is not installed, so it is not measured: pip install faiss-cpu")
    else:
        faiss.omp_set_num_threads(torch.get_num_threads())
        index = faiss.IndexFlatIP(options.width)
        index.add(items.numpy())
        rates["faiss IndexFlatIP"] = lambda: index.search(users.numpy(), options.k)
        theirs, mine = index.search(users[:256].numpy(), options.k)[1], ours()[:256].numpy()
        same = np.mean([len(np.intersect1d(a, b)) / options.k for a, b in zip(theirs, mine, strict=True)])
        print(f"{same:.2%} of the items are those of faiss; {SEEN} of a user's are left out here, and not there")
    for name, work in rates.items():
        seconds = median_seconds(work, options.times)
        flops = 2 * options.users * options.items * options.width / seconds
        print(f"{name}: {options.users / seconds:,.0f} users a second, {flops / 1e9:,.0f} GFLOP/s")


def verb(options: argparse.Namespace) -> None:
    """Prints seconds of reading and of ranking, and the largest memory."""
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "Large").mkdir()
        log = pd.DataFrame({"user_id:token": np.repeat(np.arange(options.items // 10), 10)})
        log["item_id:token"] = random.permutation(options.items)[: len(log)]
        log["timestamp:float"] = np.arange(len(log))
        log.to_csv(root / "Large/Large.inter", sep="\t", index=False)
        counts = random.integers(5, 50, options.users)
        histories = pd.DataFrame({"user_id": np.repeat(np.arange(options.users), counts)})
        histories["item_id"] = random.integers(0, len(log), len(histories))
        histories.astype(str).to_parquet(root / "histories.parquet")
        del log, histories
        keys = {"data_path": folder, "checkpoint_dir": f"{folder}/saved", "hidden_size": options.width, "topk": [10]}
        start = time.perf_counter()
        experiment = build(XferConfig("RETR", "Large", overrides={**keys, "loss_type": "BPR", "use_gpu": False}))
        print(f"the model of {options.items:,} items: {time.perf_counter() - start:,.0f} s, {memory():.1f} GiB")
        start = time.perf_counter()
        asked = Asked.of(experiment, Wish(k=options.k, histories=root / "histories.parquet"), None)
        print(f"{options.users:,} histories read: {time.perf_counter() - start:,.0f} s, {memory():.1f} GiB")
        start = time.perf_counter()
        for first in range(0, options.ranked, SHARD):
            asked.frame(first, min(first + SHARD, options.ranked))
        seconds = time.perf_counter() - start
        print(f"{options.ranked / seconds:,.0f} users a second, {memory():.1f} GiB at most")


def memory() -> float:
    """The largest memory of this process so far, in GiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def user(options: argparse.Namespace) -> None:
    """Prints seconds of a command and of a call for one user."""
    experiment = load(options.folder)
    token = experiment.dataset.id2token(experiment.dataset.uid_field, 1)
    command = [sys.executable, "-m", "recbole_xfer", "recommend", options.folder, "--user", token, "--output=one.csv"]
    with tempfile.TemporaryDirectory() as folder:
        command[-1] = f"--output={folder}/one.csv"
        cold = median_seconds(lambda: subprocess.run(command, check=True, capture_output=True), options.times)
    recommend(experiment, users=[token])
    warm = median_seconds(lambda: recommend(experiment, users=[token]), 10 * options.times)
    print(f"one user: {cold:.1f} s with the start of the process, {1000 * warm:.1f} ms in a process that runs")


def main() -> None:
    """Measures what the first argument names."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parts = parser.add_subparsers(required=True)
    for work in (vectors, verb, user):
        part = parts.add_parser(work.__name__, help=work.__doc__)
        part.set_defaults(work=work)
        part.add_argument("--times", type=int, default=3, help="runs, of which the median counts")
        if work is user:
            part.add_argument("folder")
            continue
        part.add_argument("--items", type=int, default=1_000_000)
        part.add_argument("--users", type=int, default=4096)
        part.add_argument("--width", type=int, default=64)
        part.add_argument("--k", type=int, default=20)
        part.add_argument("--ranked", type=int, default=20_000, help="users that the verb ranks")
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
