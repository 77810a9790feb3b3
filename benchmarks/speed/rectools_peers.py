"""Measures an epoch of a model of RecTools on the training histories of a csv file.

    python benchmarks/speed/rectools_peers.py SASRecModel histories.csv '{"width": 64, ...}'

It is a separate file because RecTools needs its own environment: `pip install torch==2.13.0 'rectools[torch]'`. All
models are trained with cross-entropy over all items, in RecTools' batches of 128 histories.
"""

import json
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import pandas as pd
import rectools
import torch
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.fast_transformers import FlatSASRecNet, SequenceBatchDataset, UniSRecModel, build_sequences
from rectools.models import SASRecModel
from torch.nn import functional
from torch.utils.data import DataLoader

BATCH = 128


class Clock(Callback):
    """Records the seconds of each training epoch."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_train_epoch_start(self, *_: object) -> None:
        """Starts the clock."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, *_: object) -> None:
        """Stops the clock."""
        self.seconds.append(time.perf_counter() - self.started)


def train_sasrec(interactions: pd.DataFrame, sizes: dict[str, int]) -> list[float]:
    """Returns the seconds of each epoch of RecTools' SASRec."""
    log = interactions.assign(**{Columns.Datetime: pd.to_datetime(interactions["time"], unit="s"), Columns.Weight: 1})
    trainer = Trainer(
        max_epochs=sizes["epochs"], callbacks=[Clock()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    model = SASRecModel(
        n_blocks=sizes["layers"], n_heads=sizes["heads"], n_factors=sizes["width"], session_max_len=sizes["window"],
        loss="softmax", lr=0.001, batch_size=BATCH, get_trainer_func=lambda: trainer,
    )  # fmt: skip
    model.fit(Dataset.construct(log.drop(columns="time")))
    (clock,) = (callback for callback in model.fit_trainer.callbacks if isinstance(callback, Clock))  # of the copy
    return clock.seconds


def columns(interactions: pd.DataFrame) -> list[torch.Tensor]:
    """Users, items and times; items are numbered from 1."""
    items = pd.Series(pd.factorize(interactions["item_id"])[0] + 1)
    users = pd.Series(pd.factorize(interactions["user_id"])[0])
    return [torch.tensor(column.to_numpy()) for column in (users, items, interactions["time"].astype("int64"))]


def train_flat(interactions: pd.DataFrame, sizes: dict[str, int]) -> list[float]:
    """Returns the seconds of each epoch of the flat network, for which RecTools leaves the loop to the user."""
    x, y, items, _ = build_sequences(*columns(interactions), max_len=sizes["window"])
    net = FlatSASRecNet(len(items), sizes["width"], sizes["layers"], sizes["heads"], sizes["window"])
    optimizer = torch.optim.Adam(net.parameters(), lr=0.001)
    loader = DataLoader(SequenceBatchDataset(x, y), batch_size=BATCH, shuffle=True)
    seconds = []
    for _ in range(sizes["epochs"]):
        started = time.perf_counter()
        for batch in loader:
            optimizer.zero_grad()
            logits = net(batch).flatten(0, 1)
            functional.cross_entropy(logits, batch["y"].flatten() - 1, ignore_index=-1).backward()
            optimizer.step()
        seconds.append(time.perf_counter() - started)
    return seconds


def train_unisrec(interactions: pd.DataFrame, sizes: dict[str, int]) -> list[float]:
    """Returns the seconds of each epoch of RecTools' UniSRec, on random text vectors."""
    clock = Clock()

    class Timed(UniSRecModel):
        """UniSRec with a clock in its trainer."""

        def _make_trainer(self, *options: Any) -> Trainer:
            trainer = super()._make_trainer(*options)
            trainer.callbacks.append(clock)
            return trainer

    users, items, times = columns(interactions)
    model = Timed(
        torch.randn(int(items.max()) + 1, sizes["text_width"]), n_factors=sizes["width"], n_blocks=sizes["layers"],
        n_heads=sizes["heads"], session_max_len=sizes["window"], epochs=sizes["epochs"], batch_size=BATCH,
    )  # fmt: skip
    model.fit(users, items, times)
    return clock.seconds


MODELS: dict[str, Callable[[pd.DataFrame, dict[str, int]], list[float]]] = {
    "SASRecModel": train_sasrec, "FlatSASRecNet": train_flat, "UniSRecModel": train_unisrec,
}  # fmt: skip


def main(model: str, path: str, sizes: dict[str, int]) -> dict[str, object]:
    """Trains for a few epochs and returns the median seconds without the first epoch."""
    interactions = pd.read_csv(path)
    targets = len(interactions) - interactions["user_id"].nunique()
    seconds = statistics.median(MODELS[model](interactions, sizes)[1:])
    return {
        "version": rectools.__version__,
        "batch_size": BATCH,
        "threads": torch.get_num_threads(),
        "seconds_per_epoch": round(seconds, 2),
        "targets_per_second": round(targets / seconds),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]))))
