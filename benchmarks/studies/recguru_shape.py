"""Compares RecGURU with AutoRec on data in the shape of the paper's: a small target beside a large source.

    recbole-xfer prepare table --input interactions.tsv.gz --columns user=user_id item=item_id time=position \
        --domain_column domain
    python -m benchmarks.studies.recguru_shape --data_path=dataset --workers=2

The source is Kitchen. The target has a tenth of its number of users, drawn from Food, and 12% of them are in Kitchen,
too. All rows draw their negatives by popularity. AutoRec of the target alone has as many steps, and as many of them
between two validations, as the joint models. Prints the change of NDCG@10 on the target's test items, and the score of
each run.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console

from benchmarks.studies.noise import read
from recbole_xfer.comparison.joint import JointAgainstAlone, Pair
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.evaluation.result import Result
from recbole_xfer.log import show_messages
from recbole_xfer.study.cells import run_cells
from recbole_xfer.study.plan import Cell

SOURCE, LARGER, TARGET = "Kitchen", "Food", "FoodTenth"
SHARE, COMMON = 0.1, 0.12
HIDDEN = "common users unknown"
"""Row that has another split of these users, so that its targets cannot be paired with those of the others."""
AUTOREC: dict[str, Any] = {
    "model": "RecGURU", "variant": "AutoRec", "dataset": f"{TARGET}+{SOURCE}", "histories": "per_domain",
    "rank_within_domain": True, "negatives_within_domain": True, "item_inter_num_interval": "[5,inf)",
    "user_inter_num_interval": "[0,inf)", "valid_metric": f"NDCG@10 [{TARGET}]", "metrics": ["Hit", "NDCG"],
    "topk": [5, 10], "train_neg_sample_args": {"distribution": "popularity", "sample_num": 1, "alpha": 0.75},
    "MAX_ITEM_LIST_LENGTH": 20, "learning_rate": 0.003, "hidden_size": 32, "inner_size": 128, "n_layers": 2,
    "warmup_steps": 200, "autoencoder_epochs": 8, "epochs": 40, "stopping_step": 3, "show_progress": False,
}  # fmt: skip
RECGURU = {**AUTOREC, "variant": "RecGURU", "adversarial_epochs": 5, "adversarial_learning_rate_decay": 0.8}
ROWS = {
    "RecGURU": RECGURU,
    "gradient penalty 0.1": {**RECGURU, "gradient_penalty": 0.1},
    "penalty of Eq. 9 alone": {**RECGURU, "adversarial_weight": 0, "overlap_weight": 10},
    HIDDEN: {**RECGURU, "overlap": 0.0},
    "AutoRec": AUTOREC,
}


def target_users(target: Sequence[str], source: Sequence[str], rng: np.random.Generator) -> list[str]:
    """Returns the users of the small target, of whom a part is in the source, too."""
    common, own = (sorted(users) for users in (set(target) & set(source), set(target) - set(source)))
    size = round(SHARE * len(set(source)))
    both = round(COMMON * size)
    return [*rng.choice(common, both, replace=False), *rng.choice(own, size - both, replace=False)]


def write_target(data_path: Path) -> float:
    """Writes the target's interactions; returns how many times as many both domains have."""
    larger, source = (read(data_path / name / f"{name}.inter") for name in (LARGER, SOURCE))
    users = target_users(larger["user_id"], source["user_id"], np.random.default_rng(0))
    rows = larger[larger["user_id"].isin(users)].reset_index(drop=True)
    write_domain(data_path, TARGET, rows.assign(timestamp=range(len(rows))), None)
    return (len(rows) + len(source)) / len(rows)


def alone(times: int) -> dict[str, Any]:
    """Returns AutoRec of the target alone, with the steps of so many times its data."""
    lengths = {key: AUTOREC[key] * times for key in ("autoencoder_epochs", "epochs")}
    return {**AUTOREC, **lengths, "eval_step": times, "single_domain": TARGET}


def results(rows: dict[str, dict[str, Any]], seeds: Sequence[int], workers: int) -> dict[str, list[Result]]:
    """Trains each row with each seed."""
    cells = [Cell(name, {**keys, "seed": seed}) for name, keys in rows.items() for seed in seeds]
    found: dict[str, list[Result]] = {name: [] for name in rows}
    for cell, outcome in zip(cells, run_cells(cells, workers), strict=True):
        if outcome.failure:
            raise SystemExit(f"{cell} failed: {outcome.failure}")
        found[cell.name].append(replace(outcome.results[0], label=cell.name))
    return found


def main() -> None:
    """Writes the target and compares the rows on it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", type=Path, default=Path("dataset"))
    parser.add_argument("--checkpoint_dir", default="saved")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(2020, 2025)))
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args()
    show_messages()
    times = round(write_target(options.data_path))
    places = {"data_path": str(options.data_path), "checkpoint_dir": options.checkpoint_dir}
    rows = {"AutoRec of the target alone": alone(times), **ROWS}
    found = results({name: {**keys, **places} for name, keys in rows.items()}, options.seeds, options.workers)
    reference, *joint = (row for name, row in found.items() if name != HIDDEN)
    Console().print(JointAgainstAlone([Pair(TARGET, row, reference) for row in joint]).table())
    for part in ("valid", "test"):
        scores = {name: [score(getattr(result, part)) for result in row] for name, row in found.items()}
        table = pd.DataFrame(scores, index=options.seeds).T
        print(f"NDCG@10 of the target, {part}", table.assign(mean=table.mean(axis=1)).round(4).to_string(), sep="\n")


def score(metrics: Mapping[str, float]) -> float:
    """Returns the target's NDCG@10 of a model of one or of two domains."""
    return metrics.get(f"ndcg@10 [{TARGET}]", metrics["ndcg@10"])


if __name__ == "__main__":
    main()
