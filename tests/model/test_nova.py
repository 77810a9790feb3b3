"""NOVA: states and loss against a literal reference, with each fusor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_xfer.data.dataset import TARGETS
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build
from recbole_xfer.testing.contract import CausalContract
from recbole_xfer.testing.data import config, write_small
from tests.reference import attributes, sasrec
from tests.reference import nova as reference

TOLERANCE = 1e-6


class TestContract(CausalContract):
    model = "NOVA"


def layers_of(model: Any) -> list[dict[str, sasrec.Array]]:
    """The parameters of each layer, as the reference reads them."""
    found = []
    for attention, forward in zip(model.attentions, model.feed_forwards, strict=True):
        layer = {name: value.detach().numpy() for name, value in attention.named_parameters()}
        for part in ("weight", "bias"):
            layer[f"query.{part}"], layer[f"key.{part}"] = np.split(layer[f"query_key.{part}"], 2)
            for name, own in (("dense_1", "first"), ("dense_2", "second"), ("LayerNorm", "norm")):
                layer[f"feed_forward.{name}.{part}"] = getattr(getattr(forward, own), part).detach().numpy()
        found.append(layer)
    return found


def reference_states(model: Any, history: list[int], fusor: str) -> sasrec.Array:
    positions, embeddings = (
        table.weight.detach().numpy() for table in (model.position_embedding, model.item_embedding)
    )
    of_side = attributes.parameters_of(model.side)
    side = [
        [positions[t], *attributes.embed(attributes.inputs(model, item), of_side)] for t, item in enumerate(history)
    ]
    norm = tuple(part.detach().numpy() for part in (model.norm.weight, model.norm.bias))
    return reference.nova(embeddings[history], side, norm, layers_of(model), fusor)


@pytest.mark.parametrize("fusor", ["add", "concat", "gating"])
def test_states_and_loss_equal_the_reference(tmp_path: Path, fusor: str) -> None:
    """In training and in evaluation; also with items that lack a modality."""
    write_small(tmp_path)
    experiment = build(config(tmp_path, "NOVA", fusor=fusor, repeat_bias=False))
    torch.manual_seed(1)
    for parameter in experiment.model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model = experiment.model.double().eval()
    batch = experiment.train_data._dataset.training_batch(np.arange(4))
    states, losses = model.encode(batch["item_id_list"]).detach().numpy(), []
    embeddings = model.item_embedding.weight.detach().numpy()
    for window, targets, found in zip(batch["item_id_list"].tolist(), batch[TARGETS].tolist(), states, strict=True):
        history = [item for item in window if item]
        expected = reference_states(model, history, fusor)
        assert np.abs(found[: len(history)] - expected).max() < TOLERANCE
        for state, target in zip(expected, targets, strict=False):
            if target:
                losses.append(-np.log(sasrec.softmax(embeddings[1:] @ state)[target - 1]))
    assert abs(float(model.calculate_loss(batch).detach()) - np.mean(losses)) < TOLERANCE


def test_side_information_changes_attention_and_never_a_value(tmp_path: Path) -> None:
    """A history of one item has the same state whatever the item's side information is."""
    write_small(tmp_path)
    model = build(config(tmp_path, "NOVA")).model.eval()
    history = torch.tensor([[1, 2, 3]])
    before = model.encode(history)
    torch.nn.init.normal_(model.side.layers["image"].weight, std=5.0)
    after = model.train().eval().encode(history)
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.allclose(before[:, 2], after[:, 2])


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [("fusor", "mean", "add, concat or gating"), ("negatives", "in_batch", "full or sampled")],
)
def test_what_it_does_not_have_is_rejected(tmp_path: Path, key: str, value: str, wanted: str) -> None:
    with pytest.raises(XferError, match=f"{key}={value} is invalid: it must be {wanted}"):
        config(tmp_path, "NOVA", **{key: value})
