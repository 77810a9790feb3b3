"""Measures the time until SASRec (RETR without its pathway) validates as well as RecBole's SASRec at its best.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.time_to_best --data_path=dataset --dataset=Pantry

Both validate after every epoch with all items ranked, and stop after a few epochs without gain. Seconds are processor
time, which other work on the machine hardly changes; with one thread they equal wall-clock time.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from contextlib import suppress
from typing import Any

import torch

from benchmarks.speed.sasrec_speed import ours, recbole

PATIENCE = 5
EPOCHS = 60
BATCH = 512
RECBOLES_WINDOW = 20
"""RecBole pads every row to the window, so windows of 50 would take it three times as long. Ours have 50."""


class Reached(Exception):
    """The score is reached."""


def course(trainer: Any, train_data: Any, valid_data: Any, enough: float = float("inf")) -> list[dict[str, float]]:
    """Returns the validation score and elapsed seconds of each epoch, until the score is `enough` or training stops."""
    epochs: list[dict[str, float]] = []
    start = time.process_time()

    def note(epoch: int, score: float) -> None:
        epochs.append({"epoch": epoch + 1, "score": float(score), "seconds": round(time.process_time() - start, 1)})
        print(json.dumps(epochs[-1]), file=sys.stderr)
        if score >= enough:
            raise Reached

    with suppress(Reached):
        trainer.fit(train_data, valid_data, saved=False, callback_fn=note, show_progress=False)
    return epochs


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", default="dataset")
    parser.add_argument("--dataset", default="Pantry")
    parser.add_argument("--score", type=float, help="the score to reach; skips RecBole's training")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2020, 2021, 2022])
    options = parser.parse_args()
    score = options.score
    common = {"epochs": EPOCHS, "stopping_step": PATIENCE, "train_batch_size": BATCH}
    if score is None:
        trainer, train_data, valid_data, _ = recbole(options, **common, MAX_ITEM_LIST_LENGTH=RECBOLES_WINDOW)
        best = max(course(trainer, train_data, valid_data), key=lambda epoch: epoch["score"])
        print(json.dumps({"model": "RecBole's SASRec", **best, "threads": torch.get_num_threads()}), flush=True)
        score = best["score"]
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            made = ours(options, **common, pathway=False, seed=seed, checkpoint_dir=folder)
            epochs = course(made.trainer, made.train_data, made.valid_data, enough=score)
        last = {"reached": epochs[-1]["score"] >= score, **max(epochs, key=lambda epoch: epoch["score"])}
        print(json.dumps({"model": "SASRec on our engine", "seed": seed, **last}), flush=True)
