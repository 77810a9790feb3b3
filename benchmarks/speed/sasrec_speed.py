"""Measures SASRec and UniSRec of this package and of RecTools, and SASRec of RecBole, on one data set.

SASRec of this package is RETR without its pathway. Both UniSRec read random text vectors, which the data set need not
have.

    python -m benchmarks.speed.sasrec_speed --data_path=dataset --dataset=Pantry --rectools=OTHER_ENVIRONMENT/bin/python

Each model trains on all targets of the training split with cross-entropy over all items. The models run one after
another, each in its own process. Then RecBole's model, and ours with the same parameters, rank the test split. Run it
on an idle machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.trainer import Trainer
from recbole.utils import get_model, init_seed
from torch.utils.flop_counter import FlopCounterMode

from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.vectors import write_vectors
from recbole_xfer.experiment import Experiment, build

SIZES = {"hidden_size": 64, "inner_size": 256, "n_layers": 2, "n_heads": 2, "MAX_ITEM_LIST_LENGTH": 50}
EPOCHS = 4
TEXT_WIDTH = 384
RECBOLE_BATCHES = 8
"""RecBole pads each row to the whole window, so a few of its batches predict the time of an epoch."""


def ours(options: argparse.Namespace, **keys: Any) -> Experiment:
    """Returns RETR with cross-entropy; without its pathway it equals RecBole's SASRec, dropout included."""
    common = {"loss_type": "CE", "repeat_bias": False, "data_path": options.data_path, "show_progress": False}
    return build(XferConfig("RETR", options.dataset, overrides={**SIZES, **common, **keys}))


def our_unisrec(options: argparse.Namespace) -> Experiment:
    """Returns UniSRec on random text vectors, with cross-entropy over all items."""
    source = log_file(options)
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root) / options.dataset
        folder.mkdir()
        (folder / source.name).symlink_to(source.resolve())
        tokens = sorted(pd.read_csv(source, sep="\t", dtype=str).iloc[:, 1].unique())
        vectors = np.random.default_rng(0).standard_normal((len(tokens), TEXT_WIDTH), dtype=np.float32)
        path = folder / f"{options.dataset}.text.parquet"
        write_vectors(path, tokens, vectors, encoder="none", source="random numbers")
        keys = {**SIZES, "repeat_bias": False, "data_path": root, "show_progress": False}
        return build(XferConfig("UniSRec", options.dataset, overrides=keys))


def log_file(options: argparse.Namespace) -> Path:
    """Returns the path of the interactions."""
    return Path(options.data_path) / options.dataset / f"{options.dataset}.inter"


def recbole(options: argparse.Namespace, **keys: Any) -> tuple[Trainer, Any, Any, Any]:
    """Returns the trainer of RecBole's SASRec and its loaders of the training, validation and test split."""
    values = {
        **SIZES, "data_path": options.data_path, "train_neg_sample_args": None, "device": "cpu",
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]}, "metrics": ["Recall", "NDCG"], "topk": [10, 50],
        "valid_metric": "NDCG@10", "show_progress": False, **keys,
    }  # fmt: skip
    sys.argv = sys.argv[:1]  # RecBole reads the command line
    config = Config("SASRec", options.dataset, config_dict=values)
    init_seed(config["seed"], config["reproducibility"])
    loaders = data_preparation(config, create_dataset(config))
    return Trainer(config, get_model("SASRec")(config, loaders[0].dataset)), *loaders


def seconds_of(work: Callable[[int], Any], times: int) -> float:
    """Returns the median seconds of `times` runs after one warm-up run."""
    seconds = []
    for number in range(times + 1):
        start = time.perf_counter()
        work(number)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def matmul_rate(size: int = 2048) -> float:
    """Returns the floating-point operations a second in products of square matrices."""
    a, b = torch.randn(2, size, size)
    return 2 * size**3 / seconds_of(lambda _: a @ b, 9)


def train_ours(options: argparse.Namespace, compiled: bool = False, **keys: Any) -> dict[str, Any]:
    """Returns :func:`train` of RETR."""
    made = ours(options, **keys)
    if compiled:
        made.model.encode = torch.compile(made.model.encode, dynamic=True)  # windows differ in length
    return train(made)


def train(made: Experiment) -> dict[str, Any]:
    """Returns the seconds of an epoch of a model of ours, and the fraction of the machine's matrix-product rate."""
    trainer, loader = made.trainer, made.trainer.train_loader(made.train_data)
    with FlopCounterMode(display=False) as counter:
        Trainer._train_epoch(trainer, loader, 0)
    seconds = seconds_of(lambda number: Trainer._train_epoch(trainer, loader, number), EPOCHS)
    rate, targets = counter.get_total_flops() / seconds, int(loader.dataset.windows.targets.sum())
    return {
        "seconds_per_epoch": round(seconds, 2),
        "targets_per_second": round(targets / seconds),
        "gflops": round(rate / 1e9, 1),
        "share_of_matmul_rate": round(rate / matmul_rate(), 3),
        "threads": torch.get_num_threads(),
    }


def train_recbole(options: argparse.Namespace, anomaly_detection: bool) -> dict[str, Any]:
    """Returns the seconds of an epoch, predicted from a few batches."""
    trainer, train_data, *_ = recbole(options)
    torch.autograd.set_detect_anomaly(anomaly_detection)
    batches = list(islice(train_data, RECBOLE_BATCHES))
    seconds = seconds_of(lambda number: trainer._train_epoch(batches, number), 1)
    rows = sum(len(batch) for batch in batches)
    targets = len(train_data._dataset)
    return {
        "seconds_per_epoch": round(seconds * targets / rows, 1),
        "targets_per_second": round(rows / seconds),
        "threads": torch.get_num_threads(),
    }


def train_rectools(options: argparse.Namespace, model: str) -> dict[str, Any]:
    """Runs a model of RecTools in its own environment, on the same training histories (without the last two items)."""
    rows = pd.read_csv(log_file(options), sep="\t").set_axis(["user_id", "item_id", "time"], axis=1)
    rows = rows.sort_values("time", kind="stable")
    rows = rows[rows.groupby("user_id").cumcount(ascending=False) >= 2]
    with tempfile.TemporaryDirectory() as folder:
        rows.to_csv(Path(folder) / "histories.csv", index=False)
        sizes = {"width": 64, "layers": 2, "heads": 2, "window": 50, "epochs": 3, "text_width": TEXT_WIDTH}
        script = str(Path(__file__).with_name("rectools_peers.py"))
        return output_of(options.rectools, script, model, f"{folder}/histories.csv", json.dumps(sizes))


def rank(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the users a second in full ranking of the test split, and whether the metrics are equal."""
    trainer, *_, test_data = recbole(options)
    made = ours(options, pathway=False)
    made.model.load_sasrec(trainer.model.state_dict())
    rankings = {"recbole": (trainer, test_data), "ours": (made.trainer, made.test_data)}
    metrics, users_per_second = {}, {}
    for name, (ranker, data) in rankings.items():
        metrics[name] = {k: float(v) for k, v in ranker.evaluate(data, load_best_model=False).items()}
        seconds = seconds_of(lambda _: ranker.evaluate(data, load_best_model=False), 3)  # noqa: B023
        users_per_second[name] = round(len(data._dataset) / seconds)
    return {
        "users_per_second": users_per_second,
        "times_faster": round(users_per_second["ours"] / users_per_second["recbole"], 1),
        "metrics": metrics["ours"],
        "equal_metrics": metrics["ours"] == metrics["recbole"],
    }


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "ours, pathway off": lambda options: train_ours(options, pathway=False),
    "ours, pathway on": lambda options: train_ours(options, pathway=True),
    "ours, pathway off, bf16": lambda options: train_ours(options, pathway=False, precision="bf16"),
    "ours, pathway off, compiled": lambda options: train_ours(options, compiled=True, pathway=False),
    "RecBole": lambda options: train_recbole(options, anomaly_detection=True),
    "RecBole without anomaly detection": lambda options: train_recbole(options, anomaly_detection=False),
    "ours, UniSRec": lambda options: train(our_unisrec(options)),
    "RecTools, SASRecModel": lambda options: train_rectools(options, "SASRecModel"),
    "RecTools, FlatSASRecNet": lambda options: train_rectools(options, "FlatSASRecNet"),
    "RecTools, UniSRecModel": lambda options: train_rectools(options, "UniSRecModel"),
    "ranking": rank,
}


def output_of(*command: str) -> dict[str, Any]:
    """Runs a command and returns the last line that it prints, read as json."""
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", default="dataset")
    parser.add_argument("--dataset", default="Pantry")
    parser.add_argument("--rectools", help="a Python with RecTools; RecTools is skipped without it")
    parser.add_argument("--part", choices=PARTS, help="run only this part")
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part](options)))
    else:
        for part in PARTS:
            if not part.startswith("RecTools") or options.rectools:
                command = [sys.executable, "-m", "benchmarks.speed.sasrec_speed", *sys.argv[1:], f"--part={part}"]
                print(json.dumps({part: output_of(*command)}), flush=True)
