"""Measures an epoch of RecTools' SASRec on the training histories of a csv file.

    python benchmarks/speed/rectools_sasrec.py histories.csv '{"width": 64, ...}'

It is a separate file because RecTools needs its own environment: `pip install torch==2.13.0 'rectools[torch]'`.
"""

import json
import statistics
import sys
import time
import warnings

import pandas as pd
import rectools
import torch
from pytorch_lightning import Callback, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel


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


def main(path: str, sizes: dict[str, int]) -> dict[str, object]:
    """Trains for a few epochs and returns the median seconds without the first epoch."""
    interactions = pd.read_csv(path)
    interactions[Columns.Datetime] = pd.to_datetime(interactions.pop("time"), unit="s")
    interactions[Columns.Weight] = 1
    trainer = Trainer(
        max_epochs=sizes["epochs"], callbacks=[Clock()], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, accelerator="cpu",
    )  # fmt: skip
    model = SASRecModel(
        n_blocks=sizes["layers"], n_heads=sizes["heads"], n_factors=sizes["width"], session_max_len=sizes["window"],
        loss="softmax", lr=0.001, get_trainer_func=lambda: trainer,
    )  # fmt: skip
    model.fit(Dataset.construct(interactions))
    targets = len(interactions) - interactions[Columns.User].nunique()
    copies = model.fit_trainer.callbacks  # RecTools copies the trainer
    (clock,) = (callback for callback in copies if isinstance(callback, Clock))
    seconds = statistics.median(clock.seconds[1:])
    return {
        "version": rectools.__version__,
        "batch_size": model.batch_size,
        "threads": torch.get_num_threads(),
        "seconds_per_epoch": round(seconds, 2),
        "targets_per_second": round(targets / seconds),
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print(json.dumps(main(sys.argv[1], json.loads(sys.argv[2]))))
