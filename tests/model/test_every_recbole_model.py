"""Every model of RecBole ranks the targets that its file has, and is measured as its scores are.

All is recomputed with pandas from the file, and with NumPy from the scores.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.trainer import Trainer

from recbole_xfer.data.targets import TargetLoader
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import protocol
from recbole_xfer.experiment import Experiment, build, fit
from recbole_xfer.serving.recommend import Wish, recommendations
from recbole_xfer.testing.data import config
from tests.helpers.ranking import ranked, ranked_and_measured
from tests.helpers.recbole_models import OF_TYPE, keys, models, write_tiny

MODELS = [(kind, model) for kind in OF_TYPE for model in models(kind)]
NEEDS = {"KGAT": "dgl", "KGIN": "torch_scatter", "MCCLK": "torch_scatter", "NCL": "faiss"}
"""Models that cannot run without a package that RecBole does not declare."""

TOPK = [3, 8]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pd.DataFrame]:
    root = tmp_path_factory.mktemp("data")
    return root, write_tiny(root).sort_values("timestamp")


def trained(kind: str, model: str, root: Path, folder: Path) -> Experiment:
    own = {**keys(kind, model), "topk": TOPK, "valid_metric": "NDCG@3", "epochs": 1, "mask_history": True}
    made = build(config(root, model, "Tiny", **own, checkpoint_dir=str(folder)))
    fit(made)
    return made


def tokens(made: Experiment, field: str, ids: np.ndarray) -> list[str]:
    return made.dataset.field2id_token[field][ids].tolist()


@pytest.mark.parametrize(("kind", "model"), MODELS, ids=[model for _, model in MODELS])
def test_targets_and_metrics_equal_a_recomputation(
    kind: str, model: str, tiny: tuple[Path, pd.DataFrame], in_tmp_path: Path
) -> None:
    root, log = tiny
    package = NEEDS.get(model)
    if package and importlib.util.find_spec(package) is None:
        with pytest.raises(XferError, match=f"RecBole cannot .* {model} on Tiny without the package '{package}'"):
            trained(kind, model, root, in_tmp_path)
        return
    made = trained(kind, model, root, in_tmp_path)
    histories = log.groupby("user_id")["item_id"].agg(list)
    for loader, place in ((made.valid_data, -2), (made.test_data, -1)):
        rows = loader._dataset.inter_feat
        users, items = (tokens(made, field, rows[field].numpy()) for field in ("user_id", "item_id"))
        assert dict(zip(users, items, strict=True)) == histories.str[place].to_dict()

    unmasked = TargetLoader(made.config.replace(mask_history=False), made.test_data._dataset)
    for loader, word in ((made.test_data, "masked"), (unmasked, "kept")):
        assert str(protocol(loader)) == f"leave one out by time; all 15 items ranked; history {word}"
        scores, targets, measured = ranked_and_measured(made, loader)
        for user, row in zip(users, scores, strict=True):
            left_out = histories[user][:-1] if loader is made.test_data else []
            assert set(tokens(made, "item_id", np.flatnonzero(row > -np.inf))) == set(log["item_id"]) - set(left_out)
        check_metrics(measured, scores, targets)
        check_recommendations(made, measured, dict(zip(users, items, strict=True)), loader is made.test_data)


def check_recommendations(made: Experiment, measured: dict[str, float], target: dict[str, str], masked: bool) -> None:
    """Checks that the recommendations for the histories of evaluation have the metrics that it measured."""
    recommended = recommendations(made, Wish(k=max(TOPK), part="test"), {"mask_history": masked})
    assert list(recommended) == ["user_id", "rank", "item_id", "score"]
    rank = recommended.loc[recommended["item_id"] == recommended["user_id"].map(target), "rank"]
    for k in TOPK:
        hits = rank[rank <= k]
        assert len(hits) / len(target) == pytest.approx(measured[f"recall@{k}"], abs=6e-5)
        assert (1 / np.log2(hits + 1)).sum() / len(target) == pytest.approx(measured[f"ndcg@{k}"], abs=6e-5)


def check_metrics(measured: dict[str, float], scores: np.ndarray, targets: np.ndarray) -> None:
    """Checks metrics against the target's rank: with equal scores, between its first and its last place."""
    own = scores[np.arange(len(targets)), targets][:, None]
    above, level = (scores > own).sum(axis=1), (scores == own).sum(axis=1)
    for k in TOPK:
        bounds = []
        for rank in (above + level, above + 1):
            hit = (rank <= k) & (own[:, 0] > -np.inf)
            bounds.append({"recall": hit.mean(), "ndcg": np.where(hit, 1 / np.log2(rank + 1), 0).mean()})
        for name in ("recall", "ndcg"):
            assert bounds[0][name] - 6e-5 <= measured[f"{name}@{k}"] <= bounds[1][name] + 6e-5, f"{name}@{k}"


@pytest.mark.parametrize("kind", OF_TYPE)
@pytest.mark.parametrize("pairs", [7, 10_000])
def test_models_that_score_pairs_have_the_scores_of_recboles_trainer(
    kind: str, pairs: int, tiny: tuple[Path, pd.DataFrame], in_tmp_path: Path
) -> None:
    """DIN, NeuMF, FM and others; at most ``eval_batch_size`` pairs are scored at a time."""
    root, _ = tiny
    model = {"general": "NeuMF", "sequential": "DIN", "context_aware": "FM", "knowledge_aware": "CFKG"}[kind]
    made = build(config(root, model, "Tiny", **keys(kind, model), topk=[3], eval_batch_size=pairs))
    sizes = []
    predict = made.model.predict
    made.model.predict = lambda rows: sizes.append(len(rows)) or predict(rows)
    scores, _ = ranked(made)
    assert max(sizes) <= pairs
    batches = [Trainer._full_sort_batch_eval(made.trainer, batch)[1] for batch in made.test_data]
    assert torch.allclose(torch.from_numpy(scores), torch.cat(batches), atol=1e-6)
