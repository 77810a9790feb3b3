"""ContentKNN: scores against a literal reference, and the verbs that put a model without parameters to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_xfer.experiment import build, load
from recbole_xfer.quick_start import recommend, refit, run, update
from recbole_xfer.testing.contract import RankingContract
from recbole_xfer.testing.data import config, settings, write_small
from recbole_xfer.trainer.run_folder import RunFolder
from tests.reference.ant import standardize
from tests.reference.content_knn import price_vectors, score


class TestContract(RankingContract):
    model = "ContentKNN"


@pytest.mark.parametrize("keys", [{}, {"modalities": ["price"]}, {"modalities": ["text", "image"], "decay": 0.9}])
def test_scores_equal_the_reference(tmp_path: Path, keys: dict[str, Any]) -> None:
    """Also of items that lack a modality, which adds nothing to their scores."""
    write_small(tmp_path)
    experiment = build(config(tmp_path, "ContentKNN", price_size=8, price_weight=0.3, **keys))
    model, features = experiment.model.eval(), experiment.train_data._dataset.features
    modalities, weights = {}, {"text": 1.0, "image": 1.0, "price": 0.3}
    for name in features.modalities:
        if name == "price":
            modalities[name] = price_vectors(features.price, 8, 50_000)
        else:
            table = getattr(features, name)
            modalities[name] = standardize(table.values, table.present) * table.present[:, None]
    test = experiment.test_data._dataset
    rows = test[np.arange(0, len(test), 5)]
    scores = model.full_sort_predict(rows).numpy()
    for row, items, length in zip(scores, rows["item_id_list"].tolist(), rows["item_length"].tolist(), strict=True):
        history = items[:length]
        expected = [score(item, history, modalities, weights, model.decay) for item in range(1, model.n_items)]
        assert np.abs(row[1:] - expected).max() < 1e-5


def test_it_has_one_epoch_and_no_parameters(tmp_path: Path) -> None:
    write_small(tmp_path)
    result = run("ContentKNN", "Small", overrides={**settings(tmp_path, "ContentKNN"), "epochs": 50, "eval_step": 5})
    assert [epoch["epoch"] for epoch in RunFolder(result.folder).epochs()] == [0]
    assert result.best_epoch == 0 and result.valid_score > 0
    assert list(load(result.folder).model.parameters()) == []


def test_it_is_refitted_and_updated_and_ranks_new_items(tmp_path: Path) -> None:
    write_small(tmp_path, items=20)
    folder = run("ContentKNN", "Small", overrides=settings(tmp_path, "ContentKNN")).folder
    live = refit(folder, tmp_path / "live")
    write_small(tmp_path / "today")  # has five more items
    newer = update(live, tmp_path / "newer", {"data_path": str(tmp_path / "today")})
    history = ["i1", "i2"]
    before = recommend(live, [history], k=8)
    after = recommend(newer, [history], k=24)
    assert len(after) > 20 and set(before["item_id"]) < set(after["item_id"])
    others = recommend(live, [history], items=str(tmp_path / "today" / "Small"), k=24)["item_id"]
    assert {f"i{number}" for number in range(20, 25)} <= set(others)
    assert torch.equal(load(live).model.features.text_center, load(newer).model.features.text_center)
