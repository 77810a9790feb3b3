"""CARCA: items, scores and loss against a literal reference, and ranking in tiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_xfer.data.dataset import NEGATIVES, TARGETS
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, build
from recbole_xfer.model import carca
from recbole_xfer.quick_start import export, run
from recbole_xfer.testing.contract import CausalContract
from recbole_xfer.testing.data import config, settings, write_small
from tests.reference import attributes, sasrec
from tests.reference import carca as reference

TOLERANCE = 1e-6


class TestContract(CausalContract):
    model = "CARCA"
    keys = {"loss_type": "CE"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    """A model in float64 with random parameters."""
    root = tmp_path_factory.mktemp("carca")
    write_small(root)
    experiment = build(config(root, "CARCA"))
    torch.manual_seed(1)
    for parameter in experiment.model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    experiment.model.double().eval()
    return experiment


def parameters(model: Any) -> dict[str, sasrec.Array]:
    found = {name: value.detach().numpy() for name, value in model.named_parameters()}
    for part in ("weight", "bias"):
        found[f"key.{part}"], found[f"value.{part}"] = np.split(found[f"key_value.{part}"], 2)
    return found


def reference_items(model: Any) -> sasrec.Array:
    p, of_attributes = parameters(model), attributes.parameters_of(model.attributes)
    embeddings = model.item_embedding.weight.detach().numpy()
    items = [
        reference.item_vector(embeddings[item], attributes.embed(attributes.inputs(model, item), of_attributes), p)
        for item in range(1, model.n_items)
    ]
    return np.stack([items[0] * 0, *items])


def reference_states(model: Any, items: sasrec.Array) -> sasrec.Array:
    return sasrec.sasrec(items, sasrec.recbole_names(model.encoder, model.position_embedding), 2)


def test_items_have_embeddings_and_attributes_which_may_be_missing(made: Experiment) -> None:
    assert {"text", "image", "price"} == set(made.model.features.modalities)
    assert np.abs(made.model.catalogue().numpy() - reference_items(made.model)).max() < TOLERANCE


@pytest.mark.parametrize("tile", [1, 2**20])
def test_scores_equal_the_reference_in_tiles_of_any_size(
    made: Experiment, monkeypatch: pytest.MonkeyPatch, tile: int
) -> None:
    monkeypatch.setattr(carca, "FEWEST_ROWS", 1)
    monkeypatch.setitem(carca.TILE, "cpu", tile)
    model, test = made.model, made.test_data._dataset
    rows = test[np.arange(0, len(test), 9)]
    scores = model.full_sort_predict(rows).numpy()
    items, p = reference_items(model), parameters(model)
    for row, history, length in zip(scores, rows["item_id_list"].tolist(), rows["item_length"].tolist(), strict=True):
        states = reference_states(model, items[history[:length]])
        expected = [reference.score(item, states, p, 2) for item in items[1:]]
        assert np.abs(row[1:] - expected).max() < TOLERANCE


def test_the_losses_equal_the_reference(made: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    model = made.model
    batch = made.train_data._dataset.training_batch(np.arange(6))
    targets = batch[TARGETS]
    negatives = (targets > 0) * torch.randint(1, model.n_items, targets.shape)
    batch.update(Interaction({NEGATIVES: negatives}))
    items, p = reference_items(model), parameters(model)
    own, other, cross_entropies = [], [], []
    for history, target, negative in zip(batch["item_id_list"].tolist(), targets, negatives, strict=True):
        states = reference_states(model, items[[item for item in history if item]])
        for t in target.nonzero().flatten().tolist():
            own.append(reference.score(items[target[t]], states[: t + 1], p, 2))
            other.append(reference.score(items[negative[t]], states[: t + 1], p, 2))
            every = np.array([reference.score(item, states[: t + 1], p, 2) for item in items[1:]])
            cross_entropies.append(-np.log(sasrec.softmax(every)[target[t] - 1]))
    assert abs(float(model.calculate_loss(batch).detach()) - reference.loss(own, other)) < TOLERANCE
    monkeypatch.setattr(model, "loss_type", "CE")
    assert abs(float(model.calculate_loss(batch).detach()) - np.mean(cross_entropies)) < TOLERANCE


def test_it_is_not_exported_as_its_scores_are_no_products(tmp_path: Path) -> None:
    write_small(tmp_path)
    folder = run("CARCA", "Small", overrides={**settings(tmp_path, "CARCA"), "epochs": 1}).folder
    with pytest.raises(XferError, match="CARCA cannot be exported: its scores are not products"):
        export(folder, tmp_path / "export")


def test_a_training_without_negatives_is_rejected(tmp_path: Path) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match="CARCA learns from negatives, but train_neg_sample_args draws none"):
        build(config(tmp_path, "CARCA", train_neg_sample_args=None))
