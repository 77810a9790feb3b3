"""ANT against its equations in NumPy, and the parameters that adaptation keeps and trains."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_xfer.data.dataset import TARGETS
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build, load
from recbole_xfer.model.ant import ANT
from recbole_xfer.quick_start import run
from recbole_xfer.testing.data import config, settings, write_small
from recbole_xfer.trainer.run_folder import RunFolder
from tests.reference import ant as reference
from tests.reference.sasrec import recbole_names, sasrec

TOLERANCE = 1e-6


def ant(tmp_path: Path, **keys: Any) -> ANT:
    """A small ANT of the paper in float64 with random parameters, and its training data as ``model.data``."""
    if not (tmp_path / "Small").exists():
        write_small(tmp_path)
    experiment = build(config(tmp_path, repeat_bias=False, **keys))
    model = experiment.model.double()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * 0.5
    model.data = experiment.train_data._dataset
    if "price" in model.features.modalities:  # our table is float32
        scaled = reference.scale_prices(model.data.features.price)
        model.features.price.copy_(torch.from_numpy(np.nan_to_num(scaled)))
    exact_scaling(model)
    return model.eval()


def exact_scaling(model: ANT) -> None:
    """Gives a model in float64 the mean and scale of its vectors in float64; they are computed for float32."""
    for name in model.features.sizes():
        table = getattr(model.data.features, name)
        rows = table.values[table.present].astype(np.float64)
        getattr(model.features, f"{name}_center").copy_(torch.from_numpy(rows.mean(axis=0)))
        getattr(model.features, f"{name}_scale").fill_(np.square(rows - rows.mean(axis=0)).mean() ** -0.5)


def numpy(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


def reference_items(model: ANT) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The reference's representation and transformed embeddings of every item; row 0 is the padding."""
    features = model.data.features
    prices = reference.scale_prices(features.price)
    tables = {name: getattr(features, name) for name in ("text", "image")}
    vectors = {name: reference.standardize(table.values, table.present) for name, table in tables.items() if table}
    z: dict[str, list[np.ndarray]] = {"text": [], "image": [], "price": []}
    for item in range(1, model.n_items):
        for name in z:
            layer = model.item_representation.projections[name]
            weight = numpy(layer.weight).reshape(layer.weight.shape[0], layer.heads, -1).transpose(1, 0, 2)
            parameters = {
                "b": numpy(layer.shift),
                "W": weight,
                "B": numpy(layer.route_mean),
                "U": numpy(layer.route_deviation),
            }
            if not features.present(name)[item]:
                vector = None
            elif name == "price":
                vector = reference.price_embedding(prices[item], 8, 50_000)
            else:
                vector = vectors[name][item]
            make = reference.price_vector if name == "price" else reference.text_or_image_vector
            z[name].append(make(vector, parameters))
    parts = {name: np.stack([np.zeros(16), *rows]) for name, rows in z.items()}
    items = [reference.item_representation(*(parts[name][i] for name in parts), 0.3) for i in range(model.n_items)]
    return np.stack(items), parts


def reference_users(model: ANT, items: np.ndarray, histories: list[np.ndarray]) -> list[np.ndarray]:
    """States [L, d] of each history by the reference, with our parameters under RecBole's names."""
    names = recbole_names(model.user_model, model.position_embedding)
    return [sasrec(reference.sequence_matrix(items, list(history)), names, 2) for history in histories]


def batch_of(model: ANT, count: int = 12) -> Interaction:
    return model.data.training_batch(np.arange(count))


def reference_targets(
    model: ANT, batch: Interaction, items: np.ndarray
) -> tuple[np.ndarray, list[int], list[int], list]:
    """Users [T, d], targets [T], the window of each, and each window's items, by the reference."""
    histories = [row[row > 0].numpy() for row in batch["item_id_list"]]
    states = reference_users(model, items, histories)
    users, targets, window = [], [], []
    for number, row in enumerate(batch[TARGETS].numpy()):
        for position in np.flatnonzero(row):
            users.append(states[number][position])
            targets.append(int(row[position]))
            window.append(number)
    windows = [
        {*history.tolist(), *row[row > 0].tolist()}
        for history, row in zip(histories, batch[TARGETS].numpy(), strict=True)
    ]
    return np.stack(users), targets, window, windows


def test_item_representations_equal_equations_3_to_9(tmp_path: Path) -> None:
    model = ant(tmp_path)
    expected, tables = reference_items(model)
    ids = torch.arange(1, model.n_items)
    items, z = model.encode_items(ids)
    assert np.abs(numpy(items) - expected[1:]).max() < TOLERANCE
    for name, table in tables.items():
        assert np.abs(numpy(z[name]) - table[1:]).max() < TOLERANCE
    assert not model.features.text_present.all() and not model.features.price_present.all()


def test_routing_noise_follows_equation_7(tmp_path: Path) -> None:
    model = ant(tmp_path)
    layer = model.item_representation.projections["text"].train()
    vector = torch.randn(1, 12, dtype=torch.float64)
    torch.manual_seed(3)
    noise = torch.randn(1, 3, dtype=torch.float64)
    torch.manual_seed(3)
    expected = reference.gaussian_weights(
        numpy(vector)[0], numpy(layer.route_mean), numpy(layer.route_deviation), numpy(noise)[0]
    )
    assert np.abs(numpy(layer._route(vector))[0] - expected).max() < TOLERANCE


def test_full_loss_and_scores_equal_equations_12_16_and_17(tmp_path: Path) -> None:
    model = ant(tmp_path)
    items, _ = reference_items(model)
    batch = batch_of(model)
    users, targets, _, _ = reference_targets(model, batch, items)
    expected = reference.recommendation_loss(users, items[1:], [target - 1 for target in targets], 0.07)
    assert abs(float(model.calculate_loss(batch).detach()) - expected) < TOLERANCE

    test = model.data[np.arange(3)]
    scores = model.full_sort_predict(test)
    histories = [row[:length].numpy() for row, length in zip(test["item_id_list"], test["item_length"], strict=True)]
    for row, states in enumerate(reference_users(model, items, histories)):
        assert np.abs(numpy(scores[row, 1:]) - reference.score(states[-1], items[1:])).max() < TOLERANCE


def test_chunked_loss_and_gradient_equal_those_of_the_whole_catalogue(tmp_path: Path) -> None:
    losses, gradients = [], []
    for chunk in (1000, 4):
        model = ant(tmp_path, catalogue_chunk=chunk, projection_dropout=0.0)
        loss = model.calculate_loss(batch_of(model))
        loss.backward()
        losses.append(float(loss.detach()))
        gradients.append(
            {name: numpy(value.grad) for name, value in model.named_parameters() if value.grad is not None}
        )
    assert abs(losses[0] - losses[1]) < TOLERANCE
    assert gradients[0].keys() == gradients[1].keys()
    assert max(np.abs(gradients[0][name] - gradients[1][name]).max() for name in gradients[0]) < TOLERANCE


def test_chunks_are_recomputed_with_the_same_dropout(tmp_path: Path) -> None:
    """The gradient in one direction against finite differences, each evaluation from the same seed."""
    model = ant(tmp_path, catalogue_chunk=4, projection_dropout=0.5).train()
    weight = model.item_representation.projections["text"].weight
    batch, direction = batch_of(model), torch.randn_like(weight)

    def loss() -> torch.Tensor:
        torch.manual_seed(3)
        return model.calculate_loss(batch)

    loss().backward()
    with torch.no_grad():
        ends = [float(loss()) for step in (1e-5, -2e-5) if weight.add_(direction, alpha=step) is weight]
    assert abs((ends[0] - ends[1]) / 2e-5 - float((weight.grad * direction).sum())) < 1e-6


def test_in_batch_and_alignment_losses_equal_equations_13_to_15(tmp_path: Path) -> None:
    model = ant(tmp_path, negatives="in_batch", alignment_weight=0.1)
    items, z = reference_items(model)
    batch = batch_of(model)
    users, targets, window, windows = reference_targets(model, batch, items)
    present = model.features.text_present & model.features.image_present
    ids = sorted(set().union(*windows))
    recommendation = reference.in_batch_loss(users, items, targets, window, windows, 0.07)
    alignment = reference.alignment_loss(z["image"][ids], z["text"][ids], numpy(present[ids]) > 0, 0.07)
    loss, weighted = model.calculate_loss(batch)
    assert abs(float(loss) - recommendation) < TOLERANCE
    assert abs(float(loss + weighted) - reference.pretraining_loss(recommendation, alignment, 0.1)) < TOLERANCE


def test_gradients_of_users_and_items_equal_the_reference(tmp_path: Path) -> None:
    from recbole_xfer.layers.losses import cosine_cross_entropy

    rng = np.random.default_rng(0)
    users, items, target = rng.normal(size=(5, 4)), rng.normal(size=(7, 4)), [1, 2, 2, 6, 0]
    ours = [torch.tensor(array, requires_grad=True) for array in (users, items)]
    cosine_cross_entropy(*ours, torch.tensor(target), 0.07).backward()
    for tensor, expected in zip(ours, reference.recommendation_loss_gradient(users, items, target, 0.07), strict=True):
        assert np.abs(numpy(tensor.grad) - expected).max() < TOLERANCE


def test_item_embeddings_are_added_as_in_equation_18(tmp_path: Path) -> None:
    model = ant(tmp_path, item_embedding=True)
    ids = torch.arange(1, model.n_items)
    expected = reference.ant_e(
        numpy(model.item_representation(model.features, ids)[0]), numpy(model.item_embedding.weight)[1:]
    )
    assert np.abs(numpy(model.encode_items(ids)[0]) - expected).max() < TOLERANCE


@pytest.mark.parametrize(
    "keys",
    [
        {"modalities": ["image", "price"]},
        {"modalities": ["text", "price"]},
        {"modalities": ["text", "image"]},
        {"mixture_of_experts": False},
        {"fusion": False},
    ],
)
def test_every_ablation_of_table_4_changes_the_items(tmp_path: Path, keys: dict) -> None:
    whole, ablated = ant(tmp_path), ant(tmp_path, **keys)
    shared = {name for name, _ in ablated.named_parameters()} & {name for name, _ in whole.named_parameters()}
    if "mixture_of_experts" in keys:
        assert ablated.item_representation.projections["text"].weight.shape == (12, 16)
        return
    state = whole.state_dict()
    ablated.load_state_dict({name: state[name] for name in shared})
    ids = torch.arange(1, whole.n_items)
    z = whole.encode_items(ids)[1]
    kept = keys.get("modalities", ["text", "image", "price"])
    expected = sum(z[name] for name in kept)
    if {"text", "image"} <= set(kept) and keys.get("fusion", True):
        expected = expected + 0.3 * z["text"] * z["image"]
    assert torch.allclose(ablated.encode_items(ids)[0], expected)


def test_relearning_keeps_only_the_user_model(tmp_path: Path) -> None:
    pretrained = ant(tmp_path).state_dict()
    model = build(config(tmp_path)).model
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    model.adapt(pretrained, "relearn")
    for name, value in model.state_dict().items():
        source = pretrained if name.startswith("user_model.") else fresh
        assert torch.equal(value, source[name].to(value.dtype)), name
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    learned = "item_representation.", "position_embedding.", "repeat_bias."
    assert trained == {name for name in fresh if name.startswith(learned)}


def test_fine_tuning_trains_only_item_representations_and_embeddings(tmp_path: Path) -> None:
    pretrained = ant(tmp_path).state_dict()
    model = build(config(tmp_path, item_embedding=True)).model
    model.adapt(pretrained, "finetune")
    for name, value in model.state_dict().items():
        if name in pretrained:
            assert torch.equal(value, pretrained[name].to(value.dtype)), name
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(name.startswith(("item_representation.", "item_embedding.", "repeat_bias.")) for name in trained)
    assert "item_embedding.weight" in trained


def test_a_pre_trained_model_of_other_sizes_is_rejected(tmp_path: Path) -> None:
    pretrained = ant(tmp_path).state_dict()
    wider = build(config(tmp_path, hidden_size=32)).model
    with pytest.raises(XferError, match=r"does not fit: .* has the shape .* of the pre-training\.$"):
        wider.adapt(pretrained, "relearn")
    fewer = build(config(tmp_path, modalities=["text"])).model
    with pytest.raises(XferError, match=r"of the pre-training, or --adaptation=relearn\.$"):
        fewer.adapt(pretrained, "finetune")
    fewer.adapt(pretrained, "relearn")


def test_the_catalogue_is_encoded_once_per_evaluation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = ant(tmp_path)
    calls: list[int] = []
    original = model.encode_items
    monkeypatch.setattr(model, "encode_items", lambda ids: calls.append(len(ids)) or original(ids))
    model.float().eval()
    for start in (0, 3, 6):
        model.full_sort_predict(model.data[np.arange(start, start + 3)])
    assert calls == [model.n_items - 1]


def test_items_without_interactions_are_ranked(tmp_path: Path) -> None:
    """Zero-shot: an item that only the .item file lists has a score, computed from its features."""
    write_small(tmp_path, items=25)
    with open(tmp_path / "Small" / "Small.item", "a") as file:
        file.write("new\tsome words\t3.5\n")
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]}
    model = build(config(tmp_path, load_col=columns)).model.eval()
    assert model.n_items == 27
    data = build(config(tmp_path, load_col=columns)).test_data._dataset
    scores = model.full_sort_predict(data[np.arange(2)])
    new = data.token2id("item_id", "new")
    assert torch.isfinite(scores[:, new]).all()
    assert model.catalogue()[new].abs().sum() > 0


def test_a_more_expensive_item_changes_no_other_score(tmp_path: Path) -> None:
    """A model scales prices as in its training; an adapted model scales them by the prices of its target."""
    columns = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]}
    write_small(tmp_path)
    folder = run(overrides={**settings(tmp_path), "model": "ANT", "dataset": "Small", "load_col": columns}).folder
    before = load(folder)
    with open(tmp_path / "Small" / "Small.item", "a") as file:
        file.write("dear\tsome words\t300\n")
    after = load(folder)
    rows = np.arange(5)
    scores = [made.model.full_sort_predict(made.test_data._dataset[rows]) for made in (before, after)]
    assert after.dataset.token2id("item_id", "dear") == before.model.n_items
    assert torch.equal(scores[0], scores[1][:, :-1])

    adapted = build(config(tmp_path, load_col=columns, adaptation="finetune"), pretrained=RunFolder(folder)).model
    assert adapted.features.price.max() == 100
    assert adapted.features.price_bounds.tolist()[1] == 300
