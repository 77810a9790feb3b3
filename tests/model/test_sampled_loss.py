"""Models with sampled candidates: wiring, cost of a step, and what results say about it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.utils import get_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from recbole_xfer.comparison.table import Comparison
from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.dataset import TARGETS
from recbole_xfer.data.features import ItemFeatures
from recbole_xfer.data.vectors import VectorTable
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build
from recbole_xfer.testing.data import config, whole_and_interrupted, write_small
from recbole_xfer.trainer.sparse_adam import SparseAdam

SAMPLED = {"negatives": "sampled", "n_negatives": 30}
CE = {"loss_type": "CE", "pathway": False}
MODELS = [
    ("RETR", CE), ("ANT", {"item_embedding": True}), ("UniSRec", {"content_start": True}), ("XRETR", {}), ("NOVA", {}),
    ("CARCA", {"loss_type": "CE"}),
]  # fmt: skip


@pytest.mark.parametrize(("model", "keys"), MODELS, ids=[model for model, _ in MODELS])
def test_with_draws_of_all_items_the_loss_is_the_full_one(tmp_path: Path, model: str, keys: dict[str, Any]) -> None:
    write_small(tmp_path)
    losses = []
    for candidates in ({"negatives": "full"}, {"negatives": "sampled", "n_negatives": 2000}):
        made = build(config(tmp_path, model, **keys, **candidates))
        batch = made.train_data._dataset.training_batch(np.arange(12))
        torch.manual_seed(0)
        losses.append(made.model.eval().calculate_loss(batch))
    assert torch.allclose(*losses, atol=1e-5)


class Allocations(TorchDispatchMode):
    """Collects the sizes of all tensors that are computed, except parts of given ones."""

    def __init__(self, given: list[torch.Tensor]) -> None:
        super().__init__()
        self.given = {tensor.untyped_storage().data_ptr() for tensor in given}
        self.sizes = [0]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            dense = isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided
            if dense and tensor.untyped_storage().data_ptr() not in self.given:
                self.sizes.append(tensor.numel())
        return found


@pytest.mark.parametrize(("model", "keys"), [MODELS[0], MODELS[1]], ids=["id model", "feature model"])
def test_a_step_computes_nothing_of_the_size_of_the_catalogue(model: str, keys: dict[str, Any]) -> None:
    items, sizes = 40_000, {"hidden_size": 8, "inner_size": 8, "n_heads": 2, "n_layers": 1}
    keys = {**keys, **sizes, **SAMPLED, "learner": "sparse_adam", "MAX_ITEM_LIST_LENGTH": 6}
    rng = np.random.default_rng(0)
    text = VectorTable(rng.standard_normal((items + 1, 4), dtype=np.float32), np.ones(items + 1, dtype=bool))
    counts = np.r_[0, np.ones(items, dtype=np.int64)]
    features = ItemFeatures(text, None, None)
    data = SimpleNamespace(num=lambda field: items + 1, features=features, target_counts=counts)
    made = get_model(model)(XferConfig(model, "None", overrides=keys), data)
    optimizer = SparseAdam(made.parameters(), lr=0.01)
    batches = [torch.from_numpy(rng.integers(1, items + 1, (2, 4, 6))) for _ in range(2)]
    for windows, targets in batches:
        state = [value for values in optimizer.state.values() for value in values.values()]
        with Allocations([*made.parameters(), *made.buffers(), *state]) as allocations:
            optimizer.zero_grad()
            made.calculate_loss(Interaction({made.ITEM_SEQ: windows, TARGETS: targets})).backward()
            optimizer.step()
    assert 0 < max(allocations.sizes) < items  # of the second step: the first one makes the optimizer's state


@pytest.mark.parametrize("model", ["RETR", "XSASRec"])
def test_a_run_says_that_it_was_sampled_and_resumes_exactly(tmp_path: Path, model: str) -> None:
    write_small(tmp_path)
    keys = CE if model == "RETR" else {}
    whole, broken = whole_and_interrupted(tmp_path, model, **keys, **SAMPLED, learner="sparse_adam")
    assert whole.test == broken.test and whole.valid == broken.valid
    text = "trained by sampled softmax (the batch's targets and 30 uniform draws) and sparse Adam"
    assert whole.caption().endswith(f"; {text}")
    assert Comparison([whole]).caption().endswith(f"; {whole.label} {text}")
    assert json.loads((Path(whole.folder) / "result.json").read_text())["approximations"] == text


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        (
            "RETR",
            {**SAMPLED, "loss_type": "BPR"},
            "negatives=sampled estimates cross-entropy, not BPR",
        ),
        ("RETR", {"negatives": "in_batch"}, "negatives=in_batch is invalid: it must be full or sampled."),
        ("TPRETR", SAMPLED, "negatives=sampled is invalid: it must be full."),
        ("RETR", {"learner": "sparse_adam", "weight_decay": 0.1}, "Leave weight_decay out"),
    ],
)
def test_what_cannot_be_sampled_is_rejected(tmp_path: Path, model: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(XferError) as error:
        config(tmp_path, model, **keys)
    assert message in str(error.value)
