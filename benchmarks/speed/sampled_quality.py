"""Measures how well models rank after equal time with the full loss and with the sampled one.

    OMP_NUM_THREADS=1 python -m benchmarks.speed.sampled_quality --data_path=dataset --dataset=Pantry --seconds=120
    OMP_NUM_THREADS=1 python -m benchmarks.speed.sampled_quality --data_path=dataset --dataset=Food+Kitchen \
        --model=UniSRec --seconds=900

Validation follows each epoch. Printed are the best validation score within the time and the test score of its epoch.
Seconds are processor time of training and validation; with one thread they equal wall-clock time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import suppress
from typing import Any

import torch

from recbole_xfer.config.config import XferConfig
from recbole_xfer.experiment import build

COMMON = {
    "user_inter_num_interval": "[5,inf)", "item_inter_num_interval": "[5,inf)", "hidden_size": 64, "inner_size": 256,
    "n_layers": 2, "n_heads": 2, "train_batch_size": 512, "learning_rate": 0.001, "epochs": 1000, "stopping_step": 1000,
    "topk": [10], "show_progress": False,
}  # fmt: skip
OF_MODEL = {
    "RETR": {"pathway": False, "loss_type": "CE", "repeat_bias": False},
    "UniSRec": {"repeat_bias": False},
}
OF_DATA = {
    "Pantry": {"MAX_ITEM_LIST_LENGTH": 20, "hidden_dropout_prob": 0.5, "attn_dropout_prob": 0.5},
    "Movies": {"MAX_ITEM_LIST_LENGTH": 50, "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2},
    "Food+Kitchen": {
        "MAX_ITEM_LIST_LENGTH": 20, "hidden_dropout_prob": 0.2, "attn_dropout_prob": 0.2, "train_batch_size": 2048,
    },
}  # fmt: skip


class Over(Exception):
    """The time is over."""


def trained(options: argparse.Namespace, loss: dict[str, Any], seed: int) -> dict[str, Any]:
    """Returns the scores of the best epoch within the time, and how many epochs there were."""
    keys = {**COMMON, **OF_MODEL[options.model], **OF_DATA[options.dataset], **loss, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        overrides = {**keys, "data_path": options.data_path, "checkpoint_dir": folder}
        made = build(XferConfig(options.model, options.dataset, overrides=overrides))
        moments, scores = [time.process_time()], list[float]()

        def note(epoch: int, score: float) -> None:
            moments.append(time.process_time())
            scores.append(float(score))
            if moments[-1] - moments[0] >= options.seconds:
                raise Over

        with suppress(Over):
            made.trainer.fit(made.train_data, made.valid_data, callback_fn=note)
        test = made.trainer.evaluate(made.test_data)
    best = max(range(len(scores)), key=scores.__getitem__)
    return {
        "valid": scores[best],
        "test": float(test["ndcg@10"]),
        "best_epoch": best,
        "seconds_to_best": round(moments[best + 1] - moments[0], 1),
        "epochs": len(scores),
        "seconds": round(moments[-1] - moments[0], 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", default="dataset")
    parser.add_argument("--dataset", choices=OF_DATA, default="Pantry")
    parser.add_argument("--model", choices=OF_MODEL, default="RETR")
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument(
        "--draws", type=int, nargs="*", default=[1024, 4096], help="uniform draws of the sampled losses"
    )
    parser.add_argument("--learners", nargs="+", default=["adam", "sparse_adam"])
    parser.add_argument("--without_full", action="store_true", help="measure the sampled losses only")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2020])
    options = parser.parse_args()
    losses: list[dict[str, Any]] = [] if options.without_full else [{"negatives": "full"}]
    losses += [
        {"negatives": "sampled", "n_negatives": draws, "learner": learner}
        for draws in options.draws
        for learner in options.learners
    ]
    for loss in losses:
        for seed in options.seeds:
            found = trained(options, loss, seed)
            case = {"dataset": options.dataset, "model": options.model, **loss, "seed": seed}
            print(json.dumps({**case, **found, "threads": torch.get_num_threads()}), flush=True)
