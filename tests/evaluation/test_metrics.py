"""Every metric of RecBole equals its definition, computed in NumPy from the scores and the interactions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.evaluator.collector import DataStruct

from recbole_xfer.config.value_types import METRICS
from recbole_xfer.evaluation.evaluator import KeepingEvaluator
from recbole_xfer.experiment import build, fit
from recbole_xfer.testing.data import config, write_joined
from tests.helpers.ranking import ranked

OF_VALUES = {"AUC", "LogLoss", "MAE", "RMSE"}
RANKING = [name for name in METRICS if name not in OF_VALUES]
KEYS = {"metrics": RANKING, "topk": [1, 3, 8], "valid_metric": "NDCG@8", "epochs": 1}
PROTOCOLS: dict[str, dict[str, Any]] = {
    "full": {},
    "masked": {"mask_history": True},
    "sampled": {"eval_args": {"mode": "uni5"}},
    "masked and sampled": {"mask_history": True, "eval_args": {"mode": "pop5"}},
    "within domains": {"rank_within_domain": True},
}


def by_hand(scores: np.ndarray, targets: np.ndarray, k: int, popularity: np.ndarray) -> dict[str, float]:
    """The metrics at k, and GAUC; one target per row.

    Args:
        scores: minus infinity for what is no candidate, [N, items].
        popularity: number of training interactions of each item, [items].
    """
    own = scores[np.arange(len(targets)), targets]
    candidate = own > -np.inf
    rank = np.where(candidate, (scores > own[:, None]).sum(axis=1) + 1, 10**9)
    hit = rank <= k
    lists = [np.argsort(-row, kind="stable")[: min(k, (row > -np.inf).sum())] for row in scores]
    often = np.bincount(np.concatenate(lists), minlength=scores.shape[1])[1:]
    share = often[often > 0] / often.sum()
    number = (scores > -np.inf).sum(axis=1) + ~candidate
    trained = sorted(np.flatnonzero(popularity), key=lambda item: (popularity[item], item))
    tail = trained[: max(int(len(trained) * 0.1), 1)]
    return {
        **dict.fromkeys(("hit", "recall"), hit.mean()),
        "precision": hit.mean() / k,
        **dict.fromkeys(("mrr", "map"), np.where(hit, 1 / rank, 0).mean()),
        "ndcg": np.where(hit, 1 / np.log2(rank + 1), 0).mean(),
        "gauc": ((number - np.minimum(rank, number)) / (number - 1)).mean(),
        "itemcoverage": (often > 0).mean(),
        "giniindex": np.abs(often[:, None] - often).mean() / (2 * often.mean()),
        "shannonentropy": -(share * np.log(share)).sum(),
        "averagepopularity": np.mean([popularity[items].mean() for items in lists]),
        "tailpercentage": np.mean([np.isin(items, tail).mean() for items in lists]),
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_metrics_of_rankings_equal_their_definitions(tmp_path: Path, model: str, protocol: str) -> None:
    write_joined(tmp_path, "AB")
    made = build(config(tmp_path, model, dataset="A+B", **KEYS, **PROTOCOLS[protocol]))
    fit(made)
    made.trainer.eval_collector.data_collect(made.train_data)
    scores, targets = ranked(made)
    trained = made.train_data._dataset
    first, end = trained.target_ranges
    popularity = np.zeros(trained.item_num)
    for start, begin, stop in zip(trained.sequences.starts, first, end, strict=True):
        if begin < stop:  # a history that is trained on is so from its first item
            popularity += np.bincount(trained.sequences.items[start:stop], minlength=trained.item_num)
    measured = made.trainer.evaluate(made.test_data, load_best_model=False)
    for k in KEYS["topk"]:
        for name, value in by_hand(scores, targets, k, popularity).items():
            found = measured[name if name == "gauc" else f"{name}@{k}"]
            assert found == pytest.approx(value, abs=6e-5), f"{name}@{k}"


def test_all_items_recommended_is_a_coverage_of_one() -> None:
    settings = {"metrics": ["ItemCoverage", "GiniIndex", "ShannonEntropy"], "topk": [3], "metric_decimal_place": 4}
    data = DataStruct()
    data.set("rec.items", torch.tensor([[1, 2, 3], [4, 5, 6]]))
    data.set("data.num_items", 7)
    measured = KeepingEvaluator(settings).measure(data)
    assert measured == {
        "itemcoverage@3": 1.0,
        "giniindex@3": 0.0,
        "shannonentropy@3": pytest.approx(np.log(6), abs=1e-4),
    }


def test_metrics_of_values_equal_their_definitions() -> None:
    rng = np.random.default_rng(0)
    score, label = rng.uniform(0.01, 0.99, 200).round(2), rng.integers(0, 2, 200)
    data = DataStruct()
    data.set("rec.score", torch.from_numpy(score))
    data.set("data.label", torch.from_numpy(label))
    settings = {"metrics": sorted(OF_VALUES), "topk": [3], "metric_decimal_place": 4}
    measured = KeepingEvaluator(settings).measure(data)
    above = np.sign(score[label == 1][:, None] - score[label == 0])
    expected = {
        "auc": (above / 2 + 0.5).mean(),
        "logloss": -np.log(np.where(label, score, 1 - score)).mean(),
        "mae": np.abs(score - label).mean(),
        "rmse": np.sqrt(((score - label) ** 2).mean()),
    }
    assert measured == pytest.approx(expected, abs=1e-4)
