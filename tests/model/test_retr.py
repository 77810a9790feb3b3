"""RETR against its equations, and against RecBole's SASRec where the pathway is off."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.utils import get_model
from torch import nn

from recbole_xfer.data.batches import WindowDataLoader
from recbole_xfer.data.dataset import NEGATIVES, TARGETS
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, build
from recbole_xfer.layers.encoder import CausalEncoder, SelfAttention
from recbole_xfer.layers.pathway import PathwayRouter
from recbole_xfer.model.retr import RETR
from recbole_xfer.testing.data import config, settings, write_small
from tests.reference import retr as reference
from tests.reference.sasrec import Array, recbole_names

TOLERANCE = 1e-6


def numpy(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()


def experiment(root: Path, **keys: Any) -> Experiment:
    """RETR in float64 with routers that both keep and drop behaviours."""
    write_small(root)
    made = build(config(root, "RETR", **keys))
    torch.manual_seed(0)
    for name, parameter in made.model.named_parameters():
        nn.init.normal_(parameter, std=0.1 if name.endswith("bias") else 1.0 if "routers" in name else 0.5)
    made.model.double().eval()
    return made


def batch_of(made: Experiment) -> Interaction:
    """Windows with negatives."""
    dataset = made.train_data._dataset
    return next(iter(WindowDataLoader(dataset, 40, seed=0, shuffle=False, sampler=made.train_data._sampler)))


def parameters_of(module: PathwayRouter) -> dict[str, dict[str, Array]]:
    names = ("summary", "keep", "weight")
    return {name: {key: numpy(value) for key, value in getattr(module, name).state_dict().items()} for name in names}


def reference_states(model: RETR, items: torch.Tensor, **keys: Any) -> tuple[Array, list[Array]]:
    """States and routes of one history [L] in evaluation, by the reference."""
    params = recbole_names(model.encoder, model.position_embedding)
    routers = [parameters_of(router) for router in model.encoder.routers]
    silence = [np.zeros((len(items), 2))] * len(routers)
    return reference.states(numpy(model.item_embedding(items)), params, routers, 2, silence, **keys)


@pytest.mark.parametrize(
    ("keys", "theirs"),
    [
        ({}, {}),
        ({"pathway_hierarchical": False}, {"hierarchical": False}),
        ({"pathway_context": "window"}, {"whole_window": True}),
        ({"pathway_acts_on": "input"}, {"acts_on": "input"}),
        ({"pathway_acts_on": "key"}, {"acts_on": "key"}),
    ],
)
def test_states_and_routes_equal_equations_1_to_7(tmp_path: Path, keys: dict, theirs: dict) -> None:
    model = experiment(tmp_path, **keys).model
    kept = []
    for length in (1, 2, 9):
        items = torch.randint(1, model.n_items, (length,))
        trace = model.encoder.trace(model.embed(items[None]))
        expected, expected_routes = reference_states(model, items, **theirs)
        assert np.abs(numpy(trace.states[0]) - expected).max() < TOLERANCE
        for ours, other in zip(trace.routes, expected_routes, strict=True):
            assert numpy(ours[0]).tolist() == other.tolist()
        kept += [*expected_routes]
    assert 0 < np.concatenate(kept).mean() < 1


@pytest.mark.parametrize("temperature", [None, 0.5])
def test_sampling_is_hard_forward_and_soft_backward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, temperature: float | None
) -> None:
    """Eq. 3 gives the value, Eq. 4 or 5 the gradient, checked by finite differences of the reference."""
    model = experiment(tmp_path, pathway_temperature=temperature).model
    router = model.encoder.routers[0].train()
    some = torch.randn(64, 6, 16, dtype=torch.float64)
    assert set(router.decide(some, torch.ones(64, 6).to(some)).unique().tolist()) == {0, 1}
    exponential = torch.rand(1, 6, 2, dtype=torch.float64) + 0.1
    monkeypatch.setattr(torch.Tensor, "exponential_", lambda self: self.copy_(exponential.to(self.dtype)))
    noise = -np.log(numpy(exponential[0]))
    z = torch.randn(1, 6, 16, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(6, dtype=torch.float64)
    decision = router.decide(z, torch.ones(1, 6, dtype=torch.float64))
    theirs = parameters_of(router)

    def soft(tokens: Array) -> float:
        z_emb = reference.embedded(tokens, np.ones(6), theirs)
        pi = reference.keep_probability(z_emb, theirs)
        values = (
            reference.relaxed(pi, noise, temperature) if temperature else reference.adaptive(pi, noise, z_emb, theirs)
        )
        return float(values @ numpy(weights))

    tokens = numpy(z[0])
    pi = reference.keep_probability(reference.embedded(tokens, np.ones(6), theirs), theirs)
    assert np.abs(numpy(decision[0]) - reference.sampled(pi, noise)).max() < 1e-12
    (decision[0] @ weights).backward()
    step = 1e-6
    for position, column in ((0, 0), (2, 5), (5, 11)):
        ends = []
        for sign in (1, -1):
            moved = tokens.copy()
            moved[position, column] += sign * step
            ends.append(soft(moved))
        assert abs((ends[0] - ends[1]) / (2 * step) - float(z.grad[0, position, column])) < 1e-5


def test_pairwise_loss_equals_equation_8(tmp_path: Path) -> None:
    made = experiment(tmp_path, loss_type="BPR")
    model, batch = made.model, batch_of(made)
    users, positives, negatives = [], [], []
    items = numpy(model.item_embedding.weight)
    for row, targets, others in zip(batch["item_id_list"], batch[TARGETS], batch[NEGATIVES], strict=True):
        states, _ = reference_states(model, row[row > 0])
        for position in targets.nonzero()[:, 0].tolist():
            users.append(states[position])
            positives.append(items[targets[position]])
            negatives.append(items[others[position]])
    expected = reference.pairwise_loss(np.stack(users), np.stack(positives), np.stack(negatives))
    assert abs(float(model.calculate_loss(batch).detach()) - expected) < TOLERANCE


def test_negatives_are_redrawn_every_epoch_and_never_the_target(tmp_path: Path) -> None:
    made = experiment(tmp_path, loss_type="BPR")
    loader = WindowDataLoader(made.train_data._dataset, 40, seed=0, shuffle=False, sampler=made.train_data._sampler)
    first, second = ([batch[NEGATIVES] for batch in loader] for _ in range(2))
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))
    for batch in loader:
        real = batch[TARGETS] > 0
        assert ((batch[NEGATIVES] > 0) == real).all()
        assert not (batch[NEGATIVES] == batch[TARGETS])[real].any()


@pytest.mark.parametrize("training", [False, True])
def test_routes_only_shrink(tmp_path: Path, training: bool) -> None:
    model = experiment(tmp_path, n_layers=4).model.train(training)
    routes = model.encoder.trace(model.embed(torch.randint(1, model.n_items, (20, 9)))).routes
    for before, after in pairwise(routes):
        assert (after <= before).all()
    assert 0 < routes[0].mean() < 1


def test_the_kept_behaviours_of_each_block_are_counted_in_training(tmp_path: Path) -> None:
    model = experiment(tmp_path).model
    items = torch.randint(1, model.n_items, (20, 9))
    items[:, 7:] = 0  # padding does not count
    model.encode(items)
    assert model.epoch_scalars() == {}  # nor does evaluation
    routes = model.train().encoder.trace(model.embed(items), items > 0).routes
    kept = {f"kept/block {number}": float(route.sum()) / (20 * 7) for number, route in enumerate(routes, start=1)}
    assert model.epoch_scalars() == pytest.approx(kept) and len(kept) == 2
    assert model.epoch_scalars() == {}


def test_with_a_full_route_the_layer_is_plain_attention(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = experiment(tmp_path).model
    monkeypatch.setattr(PathwayRouter, "decide", lambda self, z, route: torch.ones_like(route))
    plain = CausalEncoder(model_config(tmp_path)).double().eval()
    plain.load_state_dict({key: value for key, value in model.encoder.state_dict().items() if "routers" not in key})
    x = torch.randn(3, 9, 16, dtype=torch.float64)
    assert torch.equal(model.encoder(x), plain(x))


def model_config(root: Path) -> Any:
    return config(root, "RETR")


def test_later_items_change_nothing_earlier_in_training(tmp_path: Path) -> None:
    """In training mode, without dropout and with equal Gumbel noise."""
    model = experiment(tmp_path, hidden_dropout_prob=0.0, attn_dropout_prob=0.0).model.train()

    def states(items: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(5)
        return model.encoder(model.embed(items))

    items = torch.randint(1, model.n_items, (8, 10))
    for position in range(1, 10):
        changed = items.clone()
        changed[:, position:] = torch.randint(1, model.n_items, changed[:, position:].shape)
        assert torch.allclose(states(items)[:, :position], states(changed)[:, :position], atol=1e-10)


def test_the_papers_context_sees_the_whole_window(tmp_path: Path) -> None:
    """The paper's literal form leaks later items, so it is not the default."""
    model = experiment(tmp_path, pathway_context="window").model
    items = torch.randint(1, model.n_items, (64, 10))
    changed = items.clone()
    changed[:, 9] = items[:, 9] % (model.n_items - 1) + 1
    before, after = (model.encoder(model.embed(rows))[:, :9] for rows in (items, changed))
    assert not torch.allclose(before, after, atol=1e-6)


def test_padding_is_never_on_the_pathway(tmp_path: Path) -> None:
    model = experiment(tmp_path, pathway_context="window").model
    items = torch.tensor([[3, 4, 5, 0, 0], [3, 4, 5, 6, 7]])
    trace = model.encoder.trace(model.embed(items), items > 0)
    assert all((route[0, 3:] == 0).all() for route in trace.routes)
    alone = model.encoder(model.embed(items[:1, :3]), items[:1, :3] > 0)
    assert torch.allclose(trace.states[:1, :3], alone, atol=1e-10)
    many, lengths = torch.randint(1, model.n_items, (50, 10)), torch.arange(50) % 10 + 1
    many *= torch.arange(10) < lengths[:, None]
    one_by_one = [model(items, length) for items, length in zip(many.split(1), lengths.split(1), strict=True)]
    assert torch.allclose(model(many, lengths), torch.cat(one_by_one), atol=1e-10)


def test_without_the_pathway_it_equals_recboles_sasrec(tmp_path: Path) -> None:
    write_small(tmp_path)
    theirs = build(config(tmp_path, "SASRec"))
    ours = build(config(tmp_path, "RETR", pathway=False, loss_type="CE", n_heads=2))
    ours.model.load_sasrec(theirs.model.state_dict())
    rows = theirs.test_data._dataset[np.arange(len(theirs.test_data._dataset))]
    scores = [made.model.eval().full_sort_predict(rows) for made in (theirs, ours)]
    assert torch.allclose(scores[0].view(scores[1].shape), scores[1], atol=1e-5)
    assert get_model("SASRec") is type(theirs.model)


@pytest.mark.parametrize("loss_type", ["BPR", "CE"])
def test_all_positions_have_the_loss_and_gradient_of_the_prefixes(tmp_path: Path, loss_type: str) -> None:
    made = experiment(tmp_path, loss_type=loss_type)
    model, batch = made.model, batch_of(made)
    model.calculate_loss(batch).backward()
    ours = {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    whole = float(model.calculate_loss(batch).detach())
    model.zero_grad()
    count = int((batch[TARGETS] > 0).sum())
    total = 0.0
    for row, position in (batch[TARGETS] > 0).nonzero().tolist():
        prefix = {"item_id_list": batch["item_id_list"][row : row + 1, : position + 1]}
        for key in (TARGETS, NEGATIVES):
            alone = torch.zeros_like(prefix["item_id_list"])
            if key in batch.interaction:
                alone[0, position] = batch[key][row, position]
            prefix[key] = alone
        loss = model.calculate_loss(Interaction(prefix)) / count
        loss.backward()
        total += float(loss.detach())
    assert abs(total - whole) < TOLERANCE
    for name, value in model.named_parameters():
        if value.grad is not None:
            assert torch.allclose(value.grad, ours[name], atol=1e-8), name


@pytest.mark.parametrize("keys", [{"loss_type": "MSE"}, {"pathway_route": "straight"}, {"pathway_context": "x"}])
def test_invalid_values_are_rejected(tmp_path: Path, keys: dict) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match="must be"):
        build(config(tmp_path, "RETR", **keys))


def test_a_random_route_keeps_about_half(tmp_path: Path) -> None:
    model = experiment(tmp_path, pathway_route="random", n_layers=1).model
    windows = model.embed(torch.randint(1, model.n_items, (200, 9)))
    (route,), (again,) = (model.encoder.trace(windows).routes for _ in range(2))
    assert torch.equal(route, again)  # in evaluation, so that a result repeats
    (trained,), (anew,) = (model.train().encoder.trace(windows).routes for _ in range(2))
    assert not torch.equal(trained, anew)
    assert all(0.45 < float(kept.mean()) < 0.55 for kept in (route, trained, anew))
    assert settings(tmp_path, "RETR")["n_layers"] == 2


def test_a_position_that_attends_to_nothing_has_no_gradient_of_its_attention() -> None:
    """Once it was larger than all others by orders of magnitude, and routed keys did not train."""
    torch.manual_seed(0)
    attention = SelfAttention(8, 2, 0.0, 0.0, 1e-12)
    attention.routed = "key"
    x = torch.randn(3, 5, 8)
    route = torch.tensor([[0.0, 0, 0, 0, 0], [0, 0, 1, 0, 0], [1, 1, 1, 1, 1]]).requires_grad_()
    out = attention(x, route)
    out.square().sum().backward()
    assert route.grad is not None and route.grad.abs().max() < 100
    assert not route.grad[0].any() and route.grad[1, 2:].any()
    assert torch.equal(out[0], attention.norm(x[0] + attention.out.bias))
