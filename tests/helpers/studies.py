"""Folders of a study and of runs with known numbers, without any training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from recbole_xfer.comparison.curve import Curve
from recbole_xfer.comparison.matrix import TransferMatrix, name_of
from recbole_xfer.comparison.table import Comparison
from recbole_xfer.evaluation.groups import Group
from recbole_xfer.evaluation.result import Protocol, Result
from recbole_xfer.study.study import Study
from recbole_xfer.study.write import write
from recbole_xfer.trainer.run_folder import RunFolder

STRANGE = "ANT <tuned> & $x_1$"
"""A label with signs that mean something in HTML and TeX."""

MODELS = {"Pop": "Pop", "SASRec": "SASRec", "ANT (scratch)": "ANT", STRANGE: "ANT"}
SEEDS, SHARES = (1, 2, 3), (0.1, 1.0)
GROUPS = {"head": 20, "tail": 80, "rare_items": 30}
SHARED = {
    "valid_metric": "NDCG@10",
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
}


def made_result(
    label: str, model: str = "SASRec", seed: int = 1, share: float = 1.0, folder: str = "saved/x", level: float = 0.3
) -> Result:
    """A result whose metrics are about a level, at three lengths and in three groups."""
    split = "leave one out by time" + ("" if share == 1 else f", {share:.0%} of the users trained")
    by_row = np.random.default_rng(seed).uniform(0, 2 * level, 100)
    test = {f"{name}@{k}": level * k**0.2 + 0.01 * seed for name in ("recall", "ndcg") for k in (1, 5, 10)}
    test["ndcg@10"] = float(by_row.mean())
    groups = {
        name: Group(rows, {metric: value * (0.6 + 0.3 * number) for metric, value in test.items()})
        for number, (name, rows) in enumerate(GROUPS.items())
    }
    return Result(
        label=label, model=model, dataset="Shop", source=None, adaptation=None,
        protocol=Protocol(split, "all 1,234 items", history_masked=False), seed=seed, valid={"ndcg@10": level},
        test=test, rows=100, best_epoch=seed + 1, seconds=1.0, folder=folder, valid_score=level, cutoff=10,
        by_row=by_row, groups=groups,
    )  # fmt: skip


def write_run(
    folder: Path, result: Result | None, history: Sequence[Mapping[str, Any]] = (), model: str = "SASRec", **keys: Any
) -> Path:
    """Writes a run of a result, or one without a result that is not finished."""
    files = RunFolder(folder)
    files.begin({**SHARED, "model": model, "dataset": "Shop", "seed": 1, **keys})
    if history:
        files.save_epochs(history)
    if result:
        files.finish(result.as_dict())
    return folder


def epochs(seed: int, count: int, level: float, **scalars: Sequence[float]) -> list[dict[str, Any]]:
    """A history: the loss falls from 1, and validation is a tenth of the level per epoch, plus a hundredth per seed."""
    return [
        {
            "epoch": epoch,
            "phase": None,
            "train": {"loss": 1 / (1 + epoch), **{name: values[epoch] for name, values in scalars.items()}},
            "valid": {"ndcg@10": level * epoch / 10 + 0.01 * seed},
        }
        for epoch in range(count)
    ]


def made_study(root: Path) -> Path:
    """Writes a study of four rows, three seeds and two fractions, with its runs in ``saved``; returns its folder.

    Runs of a seed have four epochs and one more for each seed. Only ``Pop`` has no history.
    """
    tables = {}
    for share in SHARES:
        results = []
        for number, (label, model) in enumerate(MODELS.items()):
            for seed in SEEDS:
                level = (0.2 + 0.1 * number) * (1 if share == 1 else 0.5 + 0.1 * number)
                folder = root / "saved" / f"{model}-{number}-{share}-{seed}"
                made = made_result(label, model, seed, share, str(folder), level)
                history = [] if model == "Pop" else epochs(seed, 4 + seed, level)
                keys = {"seed": seed, "train_share": share, "train_batch_size": 16 * (number + 1)}
                write_run(folder, replace(made, label=model), history, model, **keys)
                results.append(made)
        name = f"Shop, {share:.0%} of the users" if share < 1 else "Shop, all users"
        tables[share] = Comparison(results, name=name, baseline="SASRec")
    failures = ["Broken, seed 1 failed: no vectors"]
    write(Study(list(tables.values()), failures, 1, 24, [Curve("Shop", tables)]), root / "study")
    return root / "study"


def made_matrix(root: Path) -> Path:
    """Writes a matrix of transfer whose runs are gone; returns its folder."""
    ways, sources = ("relearn", "finetune"), ("Food", "Home", "Food+Home")
    labels = [name_of("ANT", "scratch"), *(name_of("ANT", way, source) for source in sources for way in ways)]
    results = [made_result(label, "ANT", level=0.3 + 0.02 * number) for number, label in enumerate(labels)]
    table = Comparison(results, baseline=labels[0])
    write(Study([TransferMatrix.of(table, "ANT", sources, ways)], [], 0, 7), root / "matrix", "transfer")
    return root / "matrix"
