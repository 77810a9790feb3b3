"""UniSRec and the X- models: adaptor and contrastive tasks against the equations, and adaptation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_xfer.data.vectors import write_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build, load
from recbole_xfer.layers.encoder import CausalEncoder
from recbole_xfer.layers.light import LightEncoder
from recbole_xfer.layers.pathway import PathwayEncoder
from recbole_xfer.model import unisrec
from recbole_xfer.model.unisrec import UniSRec, drop_items
from recbole_xfer.quick_start import pretrain, run
from recbole_xfer.testing.contract import CausalContract, ModelContract
from recbole_xfer.testing.data import config, settings, write_small
from recbole_xfer.trainer.run_folder import RunFolder
from tests.reference import ant, sasrec
from tests.reference import unisrec as reference

TOLERANCE = 1e-6


class TestContract(CausalContract):
    model = "UniSRec"


class TestContractOfXRETR(TestContract):
    model = "XRETR"
    keys = {"negatives": "in_batch", "contrast_weight": 0.1}


class TestContractOfXSASRec(TestContract):
    model = "XSASRec"


class TestContractOfXLightSANs(ModelContract):
    model = "XLightSANs"
    keys = {"contrast_weight": 0.1}


def small(root: Path, model: str = "UniSRec", **keys: Any) -> tuple[UniSRec, Interaction]:
    """A model in float64 with random parameters, and a batch."""
    if not (root / "Small").exists():
        write_small(root)
    experiment = build(config(root, model, **keys))
    torch.manual_seed(1)
    for parameter in experiment.model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return experiment.model.double().eval(), experiment.train_data._dataset.training_batch(np.arange(12))


def numpy(tensor: torch.Tensor) -> sasrec.Array:
    return tensor.detach().double().numpy()


def reference_items(model: UniSRec, vectors: torch.Tensor | None = None) -> sasrec.Array:
    vectors = model.features.rows("text", torch.arange(model.n_items)) if vectors is None else vectors
    layer = model.adaptor
    parameters = {
        "b": numpy(layer.shift),
        "W": numpy(layer.weight).reshape(layer.weight.shape[0], layer.heads, -1).transpose(1, 0, 2),
        "B": numpy(layer.route_mean),
        "U": numpy(layer.route_deviation),
    }
    rows = [np.zeros(model.width)]
    for item in range(1, model.n_items):
        present = bool(model.features.text_present[item])
        rows.append(ant.text_or_image_vector(numpy(vectors[item]) if present else None, parameters))
    return np.stack(rows)


def reference_states(model: UniSRec, items: sasrec.Array, batch: Interaction) -> list[sasrec.Array]:
    names = sasrec.recbole_names(model.encoder, model.position_embedding)
    histories = [row[row > 0].tolist() for row in batch["item_id_list"]]
    return [sasrec.sasrec(ant.sequence_matrix(items, history), names, 2) for history in histories]


def test_items_are_whitened_and_mixed(tmp_path: Path) -> None:
    model, _ = small(tmp_path)
    assert np.abs(numpy(model.catalogue()) - reference_items(model)).max() < TOLERANCE
    with_ids, _ = small(tmp_path, item_embedding=True)
    expected = reference_items(with_ids)[1:] + numpy(with_ids.item_embedding.weight[1:])
    assert np.abs(numpy(with_ids.catalogue()[1:]) - expected).max() < TOLERANCE


def test_both_tasks_equal_their_equations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, batch = small(tmp_path, negatives="in_batch", contrast_weight=0.3)
    monkeypatch.setattr(unisrec, "drop_items", lambda items, ratio: without_first(items))
    items = reference_items(model)
    states = reference_states(model, items, batch)
    targets = batch["target_list"]
    users = np.concatenate([s[row[: len(s)].numpy() > 0] for s, row in zip(states, targets, strict=True)])
    window = [number for number, row in enumerate(targets) for target in row if target > 0]
    windows = [
        sorted({*row[row > 0].tolist(), *target[target > 0].tolist()})
        for row, target in zip(batch["item_id_list"], targets, strict=True)
    ]
    next_item = ant.in_batch_loss(users, items, targets[targets > 0].tolist(), window, windows, 0.07)
    shorter = Interaction({"item_id_list": without_first(batch["item_id_list"])})
    ends = [np.stack([s[-1] for s in part]) for part in (states, reference_states(model, items, shorter))]
    contrast = reference.sequence_sequence_loss(*ends, 0.07)
    loss, weighted = model.calculate_loss(batch)
    assert abs(float(loss.detach()) - next_item) < TOLERANCE
    assert abs(float(weighted.detach()) - 0.3 * contrast) < TOLERANCE


def test_a_step_encodes_its_windows_once_plain_and_once_augmented(tmp_path: Path) -> None:
    model, batch = small(tmp_path, contrast_weight=0.3)
    passes: list[int] = []
    model.encoder.register_forward_hook(lambda *_: passes.append(1))
    model.train().calculate_loss(batch)
    assert len(passes) == 2


def write_word_drop(root: Path, name: str = "Small", encoder: str = "test text") -> None:
    """Vectors of texts without some words, for all items but the first five."""
    rng = np.random.default_rng(5)
    ids = [f"i{number}" for number in range(5, 25)]
    vectors = rng.normal(size=(20, 12)).astype(np.float32)
    write_vectors(root / name / f"{name}.word_drop.parquet", ids, vectors, encoder=encoder, source="random")


def test_word_drop_equals_its_equation(tmp_path: Path) -> None:
    """An item without a shortened text keeps its own."""
    write_small(tmp_path)
    write_word_drop(tmp_path)
    model, batch = small(tmp_path, contrast_weight=0.3, augmentation=["word_drop"])
    assert 0 < model.features.word_drop_present.sum() < model.n_items - 1
    complete, shortened = (model.features.rows(name, torch.arange(model.n_items)) for name in ("text", "word_drop"))
    vectors = torch.where(model.features.word_drop_present[:, None], shortened, complete)
    tables = (reference_items(model), reference_items(model, vectors))
    ends = [np.stack([states[-1] for states in reference_states(model, items, batch)]) for items in tables]
    assert not np.allclose(*ends)
    _, weighted = model.calculate_loss(batch)
    assert abs(float(weighted.detach()) - 0.3 * reference.sequence_sequence_loss(*ends, 0.07)) < TOLERANCE


def test_each_sequence_loses_items_or_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path)
    write_word_drop(tmp_path)
    model, batch = small(tmp_path, contrast_weight=0.3)
    assert model.word_drop_share == 0.1
    monkeypatch.setattr(unisrec, "drop_items", lambda items, ratio: without_first(items))
    step, ends = model.encode_step(batch), {}
    for share in (0.0, 1.0, 0.3):
        model.word_drop_share = share
        ends[share] = torch.stack([model._augmented(step) for _ in range(60)])
    different = (ends[0.0] != ends[1.0]).any(dim=-1)
    lost_items, lost_words = ((ends[0.3] - ends[share]).abs().amax(dim=-1) < TOLERANCE for share in (0.0, 1.0))
    assert (lost_items | lost_words).all()
    assert 0.2 < lost_words[different].double().mean() < 0.4
    assert (lost_words.any(dim=1) & ~lost_words.all(dim=1)).any()  # drawn by sequence, not by batch


def test_word_drop_is_used_where_its_vectors_exist(tmp_path: Path) -> None:
    write_small(tmp_path)
    assert small(tmp_path, contrast_weight=0.3)[0].word_drop_share == 0
    command = f"recbole-xfer encode --dataset=Small --data_path={tmp_path} --drop_words=0.2"
    with pytest.raises(XferError, match=f"Make them with `{command}`"):
        small(tmp_path, contrast_weight=0.3, augmentation=["item_drop", "word_drop"])
    small(tmp_path, augmentation=["word_drop"])  # without that task there is nothing to augment
    with pytest.raises(XferError, match="it must be a list of some of item_drop, word_drop"):
        small(tmp_path, contrast_weight=0.3, augmentation=["crop"])
    write_word_drop(tmp_path, encoder="another")
    with pytest.raises(XferError, match="Encode both with one encoder"):
        small(tmp_path, contrast_weight=0.3)


def test_pre_training_with_word_drop_in_every_domain(tmp_path: Path) -> None:
    for seed, name in enumerate("AB"):
        write_small(tmp_path, name, seed=seed)
        write_word_drop(tmp_path, name)
    keys = {**settings(tmp_path, "UniSRec"), "pretrain_epochs": 1, "pretrain_contrast_weight": 0.1}
    folders = {pretrain("UniSRec", "A+B", overrides=keys)}
    (tmp_path / "B" / "B.word_drop.parquet").unlink()
    folders.add(pretrain("UniSRec", "A+B", overrides=keys))
    assert len(folders) == 2  # other data, another run


def without_first(items: torch.Tensor) -> torch.Tensor:
    """Windows without their first item, where they have another."""
    several = items[:, 1:2] > 0
    return torch.where(several, torch.nn.functional.pad(items[:, 1:], (0, 1)), items)


def test_item_drop_keeps_the_order_the_last_item_and_the_proportion() -> None:
    items = torch.arange(1, 41).repeat(300, 1)
    items[::2, 25:] = 0
    dropped = drop_items(items, 0.2)
    for before, after in zip(items, dropped, strict=True):
        left = after[after > 0]
        assert (after[: len(left)] > 0).all()
        assert (left.diff() > 0).all()
        assert left[-1] == before.max()
    assert 0.78 < (dropped > 0).sum() / (items > 0).sum() < 0.83


def test_fine_tuning_trains_only_the_adaptor_and_item_embeddings(tmp_path: Path) -> None:
    model, batch = small(tmp_path)
    pretrained = {name: value.clone() for name, value in model.state_dict().items()}
    for keys in ({}, {"item_embedding": True}):
        target, _ = small(tmp_path, **keys)
        target.adapt(pretrained, "finetune")
        for name, value in pretrained.items():
            assert torch.equal(target.state_dict()[name], value), name
        target.calculate_loss(batch).backward()
        trained = {name.split(".")[0] for name, value in target.named_parameters() if value.grad is not None}
        assert trained == {"adaptor", "repeat_bias"} | ({"item_embedding"} if keys else set())


@pytest.mark.parametrize(
    ("model", "encoder"), [("XSASRec", CausalEncoder), ("XRETR", PathwayEncoder), ("XLightSANs", LightEncoder)]
)
def test_x_models_keep_their_backbone_on_the_target_and_freeze_it(tmp_path: Path, model: str, encoder: type) -> None:
    """Pre-trained without item embeddings, which the target adds; encoder and positions are as they were."""
    write_small(tmp_path)
    write_small(tmp_path, "A", seed=1)
    keys = {**settings(tmp_path, model), "pretrain_epochs": 1}
    pretrained = pretrain(model, "A", overrides=keys)
    result = run(model, "Small", overrides={**keys, "pretrained": str(pretrained), "adaptation": "finetune"})
    assert result.label == f"{model} (finetune)"
    before, after = (RunFolder(Path(folder)).weights() for folder in (pretrained, result.folder))
    assert after.keys() - before.keys() == {"item_embedding.weight"}
    for name, value in before.items():
        kept = name.startswith(("encoder.", "position_embedding.", "features."))
        assert torch.equal(value, after[name]) == kept, name
    assert type(load(result.folder).model.encoder) is encoder


def test_lightsans_rows_end_before_their_only_target(tmp_path: Path) -> None:
    """They are RecBole's rows of the training part, so that its look ahead never reaches a target."""
    write_small(tmp_path)
    experiment = build(config(tmp_path, "XLightSANs"))
    train = experiment.train_data._dataset
    pairs = []
    for batch in experiment.trainer.train_loader(experiment.train_data):
        items, targets = batch["item_id_list"], batch["target_list"]
        assert torch.equal((targets > 0).sum(dim=1), torch.ones(len(items), dtype=torch.long))
        ends = (items > 0).sum(dim=1) - 1
        assert (targets[torch.arange(len(items)), ends] > 0).all()
        pairs += zip(batch["user_id"].tolist(), histories(items), targets.sum(dim=1).tolist(), strict=True)
    rows = train[np.arange(len(train))]
    expected = zip(rows["user_id"].tolist(), histories(rows["item_id_list"]), rows["item_id"].tolist(), strict=True)
    assert sorted(pairs) == sorted(expected)


def histories(items: torch.Tensor) -> list[list[int]]:
    return [row[row > 0].tolist() for row in items]


def test_lightsans_rejects_training_rows_that_show_its_targets(tmp_path: Path) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match="train_rows=prefixes"):
        build(config(tmp_path, "XLightSANs", train_rows="windows"))


def test_lightsans_encoder_equals_recboles(tmp_path: Path) -> None:
    """On windows without padding, with the same parameters; and padding and other windows change nothing."""
    model, _ = small(tmp_path, "XLightSANs", MAX_ITEM_LIST_LENGTH=6, item_embedding=False)
    theirs = build(config(tmp_path, "LightSANs", MAX_ITEM_LIST_LENGTH=6, k_interests=10)).model.double().eval()
    theirs.trm_encoder.load_state_dict(model.encoder.encoder.state_dict())
    theirs.LayerNorm.load_state_dict(model.encoder.norm.state_dict())
    theirs.position_embedding.load_state_dict(model.position_embedding.state_dict())
    theirs.item_embedding = torch.nn.Embedding.from_pretrained(model.catalogue(), padding_idx=0)
    items = torch.randint(1, model.n_items, (5, 6))
    states = model.encode_users(model.catalogue()[items], items > 0)
    assert torch.allclose(states[:, -1], theirs(items, torch.full((5,), 6)))
    padded = items.clone()
    padded[1, 4:], padded[3, 2:] = 0, 0
    among_others = model.encode_users(model.catalogue()[padded], padded > 0)
    alone = model.encode_users(model.catalogue()[padded[1:2, :4]], padded[1:2, :4] > 0)
    assert torch.allclose(among_others[1, :4], alone[0])
    assert torch.allclose(among_others[[0, 2, 4]], states[[0, 2, 4]])


def test_a_target_without_texts_is_rejected(tmp_path: Path) -> None:
    folder = write_small(tmp_path)
    (folder / "Small.text.parquet").unlink()
    with pytest.raises(XferError, match="text"):
        build(config(tmp_path, "UniSRec"))
