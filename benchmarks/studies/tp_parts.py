"""Searches settings for TP and for ordinary training of SASRec, and writes the plan that compares TP's two parts.

    python -m benchmarks.studies.tp_parts --data_path=dataset --dataset=MovieTweetings --plan=tp_parts.yaml
    recbole-xfer compare tp_parts.yaml --result=tp_parts.json

Both sides have the same number of trials, drawn from grids; the grid of ordinary training is a part of TP's. A trial is
a run of one seed, compared on its validation split only. With ``--inner_rate`` and ``--adversary_weight`` TP's own two
keys are not searched, and both sides have the same trials. Finished runs are reused. Every row of the plan uses the
gradients of 64 users in a step, for any k, and as many steps an epoch. The row of RETR without its pathway is ordinary
training on batches of about 64 users of MovieTweetings, in which each target has the same weight, not each user.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from recbole_xfer.files import replacing
from recbole_xfer.log import show_messages
from recbole_xfer.quick_start import run

USERS = 64
SHARED: dict[str, Any] = {
    "item_inter_num_interval": "[5,inf)", "user_inter_num_interval": "[10,inf)",
    "eval_args": {"split": {"NU": 0.2}, "order": "TO", "group_by": "user", "mode": "full"},
    "eval_groups": ["existing", "existing-head", "existing-tail", "new", "new-head", "new-tail"],
    "metrics": ["Hit", "NDCG"], "topk": [5, 10, 15, 20], "valid_metric": "NDCG@10", "epochs": 100, "eval_step": 2,
    "stopping_step": 5, "MAX_ITEM_LIST_LENGTH": 50, "hidden_size": 64, "inner_size": 64, "n_layers": 2, "n_heads": 2,
    "show_progress": False,
}  # fmt: skip
"""The paper's protocol."""

ORDINARY = {"model": "TPSASRec", "inner_steps": 1, "paths": USERS, "adversary_weight": 0}
TP = {"model": "TPSASRec", "inner_steps": 2, "paths": USERS // 2, "adversary_positions": "all"}
GRID: dict[str, Sequence[Any]] = {"learning_rate": [0.0005, 0.001, 0.003], "hidden_dropout_prob": [0.3, 0.5, 0.7]}
GRID_OF_TP: dict[str, Sequence[Any]] = {**GRID, "inner_rate": [0.1, 1, 10], "adversary_weight": [0.01, 0.1, 1]}


def best(shared: Mapping[str, Any], side: Mapping[str, Any], grid: Mapping[str, Sequence[Any]], trials: int) -> dict:
    """Returns the keys of the trial with the best validation score."""
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    drawn = [points[number] for number in np.random.default_rng(0).permutation(len(points))[:trials]]
    scores = []
    for keys in drawn:
        result = run(overrides={**shared, **side, **keys}, reuse=True)
        scores.append(result.valid_score)
        print(f"{result.valid_score:.4f}", side["inner_steps"], keys, flush=True)
    return drawn[int(np.argmax(scores))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", default="dataset")
    parser.add_argument("--dataset", default="MovieTweetings")
    parser.add_argument("--checkpoint_dir", default="saved")
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--inner_rate", type=float)
    parser.add_argument("--adversary_weight", type=float)
    parser.add_argument("--plan", type=Path, default=Path("tp_parts.yaml"))
    options = parser.parse_args()
    show_messages()
    where = {key: getattr(options, key) for key in ("dataset", "data_path", "checkpoint_dir")}
    ordinary = best({**SHARED, **where}, ORDINARY, GRID, options.trials)
    given = {key: getattr(options, key) for key in ("inner_rate", "adversary_weight")}
    known = {key: [value] for key, value in given.items() if value is not None}
    tp = {**TP, **best({**SHARED, **where}, TP, {**GRID_OF_TP, **known}, options.trials)}
    rows = [
        {"model": "RETR", "pathway": False, "loss_type": "BPR", "train_batch_size": 1024, **ordinary},
        {**ORDINARY, **ordinary},
        {**tp, "adversary_weight": 0},
        {**tp, "inner_steps": 1, "paths": USERS},
        tp,
    ]
    plan = {**where, **SHARED, "seeds": list(range(2020, 2020 + options.seeds)), "rows": rows}
    with replacing(options.plan) as temporary:
        temporary.write_text(yaml.safe_dump(plan, sort_keys=False), encoding="utf-8")
    print(f"{options.plan}; next, run: recbole-xfer compare {options.plan}")
