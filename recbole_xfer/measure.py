"""Measures a trained model on the test split, over all targets, per domain and per group of users."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from recbole_xfer.config.config import cutoff
from recbole_xfer.data.targets import TargetLoader
from recbole_xfer.evaluation.groups import measure_groups, row_users, target_groups
from recbole_xfer.evaluation.result import Result, ndcg_by_row, protocol
from recbole_xfer.experiment import Experiment, adaptation_of, approximations, label, target
from recbole_xfer.model.joined import JoinedRecommender


def measure(
    experiment: Experiment,
    valid: Mapping[str, float] | None,
    seconds: float,
    best_epoch: int,
    load_best_model: bool = True,
) -> Result:
    """Evaluates the parameters of the best epoch on the test split.

    Args:
        experiment: after training, or loaded.
        valid: validation metrics of the best epoch.
        seconds: of training.
        best_epoch: its number, from 0.
        load_best_model: whether the parameters are read from the run's folder.
    """
    config, model, trainer = experiment.config, experiment.model, experiment.trainer
    trainer.eval_collector.data_collect(experiment.train_data)  # for metrics such as ItemCoverage
    test = trainer.evaluate(experiment.test_data, load_best_model, show_progress=config["show_progress"])
    ranking = trainer.evaluator.ranking
    groups = groups_of(experiment)
    if ranking:
        groups = {name: rows[ranking.loader_row] for name, rows in groups.items()}
    return Result(
        model=config["model"],
        dataset=target(config),
        source=config["source"],
        adaptation=adaptation_of(config),
        label=label(config),
        protocol=protocol(experiment.test_data),
        seed=config["seed"],
        valid={name: float(value) for name, value in (valid or {}).items()},
        test={name: float(value) for name, value in test.items()},
        rows=len(experiment.test_data._dataset),
        rows_by_domain=ranking.counts() if ranking else None,
        best_epoch=best_epoch,
        seconds=round(seconds, 1),
        folder=str(experiment.folder),
        valid_score=float((valid or {}).get(trainer.valid_metric, 0.0)),
        cutoff=cutoff(config["topk"]),
        by_row=ndcg_by_row(trainer.evaluator.topk, cutoff(config["topk"])),
        row_targets=ranking.targets(user_tokens(experiment.test_data)) if ranking else None,
        groups=measure_groups(trainer.evaluator, groups),
        repeats=repeats(experiment),
        tied=trainer.eval_collector.tied or None,
        approximations=approximations(experiment),
        weights=model.weight_of() if isinstance(model, JoinedRecommender) else None,
    )


def groups_of(experiment: Experiment) -> dict[str, np.ndarray]:
    """The rows of the test split in each group of ``eval_groups``, bool [rows]."""
    names, share = experiment.config["eval_groups"] or [], experiment.config["head_share"]
    names = [names] if isinstance(names, str) else names
    return target_groups(names, experiment.test_data, experiment.train_data, share) if names else {}


def repeats(experiment: Experiment) -> float | None:
    """The share of test targets with which their users had interacted before; None where nothing is ranked."""
    loader = experiment.test_data
    return round(loader.repeats(), 4) if isinstance(loader, TargetLoader) else None


def user_tokens(eval_data: Any) -> np.ndarray:
    """The token of the user of each row of an evaluation loader, [rows]."""
    dataset = eval_data._dataset
    return dataset.field2id_token[dataset.uid_field][row_users(eval_data)]
