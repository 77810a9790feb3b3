"""VQ-Rec: codes, items and losses against a literal reference, and the transfer of code embeddings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_xfer.data.dataset import TARGETS
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build, load
from recbole_xfer.model.vqrec import SINKHORN_ROUNDS, Alignment, balanced_rotation
from recbole_xfer.quick_start import pretrain, recommend, run
from recbole_xfer.testing.contract import CausalContract
from recbole_xfer.testing.data import config, settings, write_small
from recbole_xfer.trainer.run_folder import RunFolder
from tests.reference import ant, sasrec
from tests.reference import vqrec as reference

TOLERANCE = 1e-6


class TestContract(CausalContract):
    model = "VQRec"


def numpy(tensor: torch.Tensor) -> sasrec.Array:
    return tensor.detach().double().numpy()


def small(root: Path, **keys: Any) -> Any:
    """An experiment whose model has random parameters in float64."""
    if not (root / "Small").exists():
        write_small(root)
    experiment = build(config(root, "VQRec", **keys))
    torch.manual_seed(1)
    for parameter in experiment.model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    experiment.model.double().eval()
    return experiment


def reference_items(model: Any, embeddings: sasrec.Array) -> sasrec.Array:
    """Vectors of all items by id."""
    quantizer, texts = model.quantizer, numpy(model.features.rows("text", torch.arange(model.n_items)))
    model.catalogue()  # learns the codes
    learned = [numpy(part) for part in (quantizer.center, quantizer.rotation, quantizer.centroids)]
    return np.stack(
        [
            reference.item_vector(reference.codes(text, *learned), embeddings) * bool(present)
            for text, present in zip(texts, model.features.text_present, strict=True)
        ]
    )


def test_an_item_is_the_mean_of_the_embeddings_of_its_codes(tmp_path: Path) -> None:
    model = small(tmp_path).model
    assert 0 < model.features.text_present[1:].sum() < model.n_items - 1
    expected = reference_items(model, numpy(model.code_embedding))
    assert np.abs(numpy(model.catalogue()) - expected).max() < TOLERANCE


def test_the_embeddings_of_the_sources_are_permuted_by_doubly_stochastic_matrices(tmp_path: Path) -> None:
    model = small(tmp_path, adaptation="align").model
    logits = numpy(10 * model.alignment.weight)
    matrices = np.stack([reference.sinkhorn(each, SINKHORN_ROUNDS) for each in logits])
    expected = reference_items(model, reference.permuted(numpy(model.code_embedding), matrices))
    assert np.abs(numpy(model.catalogue()) - expected).max() < TOLERANCE
    start = Alignment(4, 32).matrices()
    assert torch.allclose(start.diagonal(dim1=1, dim2=2), torch.full((4, 32), 0.9))
    assert all(torch.allclose(start.sum(dim=dim), torch.ones(4, 32)) for dim in (1, 2))


def test_the_rotation_keeps_distances_and_balances_the_variances_of_the_parts() -> None:
    torch.manual_seed(0)
    vectors = torch.randn(500, 12, dtype=torch.double) * 2.0 ** -torch.arange(12)
    vectors -= vectors.mean(dim=0)
    rotation = balanced_rotation(vectors, 4)
    assert torch.allclose(rotation.T @ rotation, torch.eye(12, dtype=torch.double), atol=1e-9)
    products = (vectors @ rotation).var(dim=0).log2().unflatten(0, (4, 3)).sum(dim=1)  # of variances, logarithms
    assert products.max() - products.min() < 8  # 54 where neighbouring components form the parts
    assert balanced_rotation(vectors, 5).shape == (12, 10)  # the smallest components are left out


def test_centroids_are_means_of_their_texts_and_codes_say_which_texts_are_alike(tmp_path: Path) -> None:
    write_small(tmp_path, items=200, holes=False)
    model = build(config(tmp_path, "VQRec", codes=3, code_values=5)).model
    ids = torch.arange(1, model.n_items)
    codes, quantizer = model.quantizer(model.features, ids), model.quantizer
    parts = quantizer.parts(model.features.rows("text", ids))
    for part, own, centroids in zip(parts, codes.T, quantizer.centroids, strict=True):
        assert set(own.tolist()) == set(range(5))
        for value, centroid in enumerate(centroids):
            assert torch.allclose(part[own == value].mean(dim=0), centroid, atol=0.05)


def test_semi_synthetic_negatives_enter_the_loss_as_in_the_paper(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = small(tmp_path, negatives="in_batch", random_codes=0.75)
    model, batch = experiment.model, experiment.train_data._dataset.training_batch(np.arange(12))
    monkeypatch.setattr(model, "with_random_codes", lambda codes: (codes + 1) % 8)
    embeddings = numpy(model.code_embedding)
    items = reference_items(model, embeddings)
    targets = batch[TARGETS][batch[TARGETS] > 0].tolist()
    distinct = sorted(set(targets))
    synthetic = [reference.item_vector(c, embeddings) for c in ((model.quantizer._codes[distinct] + 1) % 8).tolist()]
    names, users, windows = sasrec.recbole_names(model.encoder, model.position_embedding), [], []
    for row, following in zip(batch["item_id_list"], batch[TARGETS], strict=True):
        history = row[row > 0].tolist()
        states = sasrec.sasrec(ant.sequence_matrix(items, history), names, 2)
        users.append(states[following[: len(history)].numpy() > 0])
        windows += [{*history, *following[following > 0].tolist()}] * len(users[-1])
    expected = reference.contrastive_loss(
        np.concatenate(users), items, np.stack(synthetic), targets, windows, model.temperature
    )
    assert abs(float(model.calculate_loss(batch).detach()) - expected) < TOLERANCE


def test_a_proportion_of_codes_is_random(tmp_path: Path) -> None:
    model = small(tmp_path, negatives="in_batch", random_codes=0.75).model
    codes = torch.zeros(4000, 4, dtype=torch.long)
    found = model.with_random_codes(codes)
    assert set(found.unique().tolist()) == set(range(8))
    assert (found > 0).double().mean() == pytest.approx(0.75 * 7 / 8, abs=0.02)


def test_finetuning_keeps_the_codes_of_the_sources_and_alignment_moves_them(tmp_path: Path) -> None:
    """Alignment trains the permutation alone, and then everything; other items are ranked by the same codes."""
    write_small(tmp_path, items=40)
    write_small(tmp_path, "A", seed=1)
    keys = {**settings(tmp_path, "VQRec"), "pretrain_epochs": 1, "epochs": 1, "align_epochs": 2}
    source = pretrain("VQRec", "A", overrides=keys)
    before, after, folders = RunFolder(source).weights(), {}, {}
    for way in ("finetune", "align"):
        result = run("VQRec", "Small", overrides={**keys, "pretrained": str(source), "adaptation": way})
        folders[way], after[way] = result.folder, RunFolder(result.folder).weights()
        assert not torch.equal(before["code_embedding"], after[way]["code_embedding"])
    for name in ("features.text_center", "quantizer.center", "quantizer.rotation", "quantizer.centroids"):
        assert torch.equal(before[name], after["finetune"][name])
        assert torch.equal(before[name], after["align"][name]) == (name != "quantizer.centroids")
    assert after["align"].keys() - before.keys() == {"alignment.weight"}
    epochs = json.loads((Path(folders["align"]) / "epochs.json").read_text())
    assert [epoch["phase"] for epoch in epochs] == ["alignment"] * 2 + ["recommendation"]
    others = recommend(load(folders["finetune"]), [["i1", "i2"]], items=str(tmp_path / "A"), k=5)
    assert len(others) == 5 and others["score"].notna().all()


def test_the_permutation_is_trained_alone_at_first(tmp_path: Path) -> None:
    experiment = small(tmp_path, adaptation="align")
    model, trainer = experiment.model, experiment.trainer
    assert [name for name, value in model.named_parameters() if value.requires_grad] == ["alignment.weight"]
    trainer.begin_last_phase()
    assert all(value.requires_grad for value in model.parameters())
    assert trainer.epochs == experiment.config["epochs"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"codes": 13}, "codes=13 exceeds the 12 values of a text vector. Set --codes=12 or fewer."),
        ({"random_codes": 0.5}, "random_codes=0.5 adds negatives to those of a batch, but negatives=full."),
        ({"random_codes": 1.5}, "random_codes=1.5 is invalid: it must be a number from 0 to 1."),
    ],
)
def test_keys_that_do_not_fit_are_rejected(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(XferError, match=message):
        small(tmp_path, **keys)
