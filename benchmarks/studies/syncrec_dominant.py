"""Does SyNCRec protect a small domain from a dominant one: a planted case in which joint training harms it.

    python -m benchmarks.studies.syncrec_dominant

Users walk around two rings of states, forwards in Small and backwards in Big, where four of five of their interactions
are. The previous item of the domain determines the next one but for one of two copies, so the best recall@2 is 1.
Prints recall@2 in both domains of SASRec on Small alone, of joint SASRec, and of SyNCRec.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.experiment import build, fit
from recbole_xfer.measure import measure

STATES, COPIES, LENGTH, DOMINANCE = 10, 2, 30, 0.8
KEYS = {
    "hidden_size": 32, "inner_size": 32, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.0,
    "MAX_ITEM_LIST_LENGTH": LENGTH, "train_batch_size": 512, "learning_rate": 0.005, "epochs": 40, "topk": [2],
    "metrics": ["Recall"], "valid_metric": "Recall@2 [mean]", "rank_within_domain": True, "show_progress": False,
    "negatives_within_domain": True,
    "eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO", "group_by": "user", "mode": "full"},
}  # fmt: skip
SASREC = {"pathway": False, "n_heads": 1, "loss_type": "BPR"}
RUNS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "SASRec, Small alone": ("RETR", "Small", SASREC),
    "SASRec, joint": ("RETR", "Big+Small", SASREC),
    "SyNCRec": ("SyNCRec", "Big+Small", {"n_experts": 4, "cross_experts": 2}),
    "SyNCRec, weights of mean 1": ("SyNCRec", "Big+Small", {"n_experts": 4, "cross_experts": 2, "weight_scale": 2}),
}


def write(root: Path, users: int, seed: int) -> None:
    """Writes Big and Small, with common users."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        state = {"Big": rng.integers(STATES), "Small": rng.integers(STATES)}
        for moment in range(LENGTH):
            domain = "Big" if rng.random() < DOMINANCE else "Small"
            state[domain] = (state[domain] + (1 if domain == "Small" else -1)) % STATES
            rows.append((f"u{user}", f"{state[domain]}-{rng.integers(COPIES)}", 1.4e9 + moment, domain))
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "domain"])
    for name, part in table.groupby("domain"):
        write_domain(root, str(name), part.drop(columns="domain"), None)


def main() -> None:
    """Prints a line for each run, with a value for each seed."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in RUNS}
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), options.users, seed)
            for name, (model, dataset, own) in RUNS.items():
                place = {"data_path": folder, "checkpoint_dir": f"{folder}/saved", "seed": seed}
                made = build(XferConfig(model, dataset, overrides={**KEYS, **own, **place}))
                _, valid = fit(made)
                found[name].append(dict(measure(made, valid, 0, made.trainer.best_epoch).test))
    for name, results in found.items():
        for domain in ("Small", "Big"):
            values = [result[key] for result in results if (key := f"recall@2 [{domain}]") in result]
            if values:
                print(f"{name}, {domain}: {', '.join(f'{value:.2f}' for value in values)}")


if __name__ == "__main__":
    main()
