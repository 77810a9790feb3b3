"""Models that start as ContentKNN: equal rankings before training, the loss, and what adaptation keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_xfer.data.dataset import TARGETS
from recbole_xfer.experiment import Experiment, build, load
from recbole_xfer.layers.content import SCALE
from recbole_xfer.quick_start import recommend, run
from recbole_xfer.testing.data import config, settings, write_small


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small domain."""
    return write_small(tmp_path_factory.mktemp("start")).parent


def small(root: Path, model: str, **keys: Any) -> Experiment:
    """Data and an untrained model in the mode of evaluation."""
    experiment = build(config(root, model, **keys))
    experiment.model.eval()
    return experiment


def scores(experiment: Experiment) -> torch.Tensor:
    test = experiment.test_data._dataset
    return experiment.model.full_sort_predict(test[np.arange(len(test))])


@pytest.mark.parametrize("model", ["ANT", "UniSRec", "XRETR"])
def test_an_untrained_model_ranks_as_content_knn(root: Path, model: str) -> None:
    keys = {"price_size": 8} if model == "ANT" else {"modalities": ["text"]}
    expected = scores(small(root, "ContentKNN", **keys))
    assert torch.allclose(scores(small(root, model, content_start=True)), SCALE * expected, atol=1e-6)


@pytest.mark.parametrize("keys", [{}, {"catalogue_chunk": 7}, {"negatives": "sampled", "n_negatives": 1000}])
def test_the_loss_spares_a_users_own_window(root: Path, keys: dict[str, Any]) -> None:
    """Over the whole catalogue, at once, in pieces or drawn, it equals the cross-entropy of the scores that rank."""
    experiment = small(root, "ANT", content_start=True, **keys)
    model, batch = experiment.model, experiment.train_data._dataset.training_batch(np.arange(5))
    model.content_start.share.data += 0.05
    items, targets = batch["item_id_list"], batch[TARGETS]
    losses = []
    for window, following in zip(items, targets, strict=True):
        for end in following.nonzero().flatten().tolist():
            user = model.forward(window[None], torch.tensor([end + 1]))
            logits = (user @ model.item_vectors().T)[0] / model.temperature
            spared = {0, *window.tolist(), *following.tolist()} - {int(following[end])}
            logits[list(spared)] = -torch.inf
            losses.append(-logits.log_softmax(dim=0)[following[end]])
    loss = model.calculate_loss(batch)
    assert float(loss) == pytest.approx(float(torch.stack(losses).mean()), abs=1e-5)
    loss.backward()
    assert all(value.grad.isfinite().all() for value in model.parameters() if value.grad is not None)
    assert float(model.content_start.factor.grad.abs().min()) > 0


def test_a_trained_model_has_learned_its_share_and_is_served(root: Path) -> None:
    folder = run("ANT", "Small", overrides={**settings(root), "content_start": True}).folder
    experiment = load(folder)
    assert experiment.model.content_start.share.item() != 0
    test = experiment.test_data._dataset
    rows = test[np.arange(len(test))]
    own = scores(experiment)[torch.arange(len(rows)), rows["item_id"]]
    assert torch.allclose(experiment.model.predict(rows), own, atol=1e-6)
    assert len(recommend(experiment, [["i1", "i2"]], k=5)) == 5


def test_fine_tuning_keeps_what_was_learned_and_re_learning_starts_anew(root: Path) -> None:
    pretrained = small(root, "ANT", content_start=True).model
    pretrained.content_start.share.data += 0.7
    for adaptation, share in (("finetune", 0.7), ("relearn", 0.0)):
        target = small(root, "ANT", content_start=True).model
        target.adapt(pretrained.state_dict(), adaptation)
        assert float(target.content_start.share) == pytest.approx(share)
