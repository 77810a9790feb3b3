"""SyNCRec against its equations: both views, the losses that reach each expert, gaps, weights and SC-MIM."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from torch import nn

from recbole_xfer.data.batches import WindowDataLoader
from recbole_xfer.data.dataset import NEGATIVES, TARGETS
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, build, fit
from recbole_xfer.layers.encoder import CausalEncoder
from recbole_xfer.model.syncrec import ACMoE, SyNCRec
from recbole_xfer.testing.data import config, write_joined
from tests.reference import syncrec as reference
from tests.reference.sasrec import Array, recbole_names

TOLERANCE = 1e-6
DATASET = "A+B+C"


def numpy(tensor: torch.Tensor) -> Array:
    return tensor.detach().double().numpy()


def experiment(root: Path, **keys: Any) -> Experiment:
    """SyNCRec in float64 with random parameters and a gap and weights of an earlier batch."""
    write_joined(root)
    made = build(config(root, "SyNCRec", DATASET, **{"n_experts": 3, "cross_experts": 2, "n_heads": 2, **keys}))
    model = made.model
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if parameter.ndim:
            nn.init.normal_(parameter, std=0.1 if name.endswith("bias") else 0.5)
    model.double().eval()
    model.gap, model.weight = torch.tensor([[0.1, -0.2, 0.05], [0.5, 0.3, 0.2]], dtype=torch.float64)
    return made


def batch_of(made: Experiment, targets: int = 150) -> Interaction:
    """Windows with negatives; some histories are longer than one, so that a user has several."""
    dataset = made.train_data._dataset
    return next(iter(WindowDataLoader(dataset, targets, 0, shuffle=False, sampler=made.train_data._sampler)))


def alone(acmoe: ACMoE, config: Any) -> list[CausalEncoder]:
    """The experts 1 to K, each as a separate encoder."""
    experts = []
    for together in (acmoe.cross_experts, acmoe.single_experts):
        for number in range(len(together.norm.weight)):
            experts.append(CausalEncoder(config).double().eval())
            experts[-1].load_state_dict({name: value[number] for name, value in together.state_dict().items()})
    return experts


def reference_model(made: Experiment) -> reference.Model:
    model, acmoe = made.model, made.model.acmoe
    no_positions = SimpleNamespace(weight=torch.zeros_like(model.position_embedding.weight))
    names = {"first": "dense_1", "second": "dense_2", "norm": "LayerNorm"}
    towers = [
        {
            f"tower.{theirs}.{part}": numpy(getattr(getattr(tower, ours), part))
            for ours, theirs in names.items()
            for part in ("weight", "bias")
        }
        for tower in acmoe.towers
    ]
    return reference.Model(
        start=numpy(model.start_embedding.weight[0]),
        M=numpy(model.item_embedding.weight),
        P=numpy(model.position_embedding.weight),
        experts=[recbole_names(expert, no_positions) for expert in alone(acmoe, made.config)],
        gates=numpy(acmoe.gate.weight),
        towers=towers,
        W_H=numpy(model.similarity.weight),
        heads=2,
    )


def single_states(model: SyNCRec, items: torch.Tensor) -> torch.Tensor:
    """Y^single at the start of each domain's sequence and at every item, [B, D + L, r]."""
    return model.single_states(items, model.item_embedding(items))


def read_by_reference(
    made: Experiment, batch: Interaction
) -> tuple[list[reference.Target], dict[tuple[int, int], tuple[int, Array, Array]]]:
    """The targets of a batch, and the sequences of each window's domains."""
    model, domain_of = reference_model(made), made.dataset.item_domain
    columns = (batch[name].tolist() for name in ("item_id_list", TARGETS, NEGATIVES, "user_id"))
    targets, sequences = [], {}
    for window, (padded, wanted, negatives, user) in enumerate(zip(*columns, strict=True)):
        items = [item for item in padded if item]
        cross = reference.Y(model, items, task=3)
        single = {d: reference.Y(model, [i for i in items if domain_of[i] == d], task=d) for d in range(3)}
        for p in range(len(items)):
            if wanted[p]:
                d = domain_of[wanted[p]]
                before = sum(domain_of[item] == d for item in items[: p + 1])
                ids = [wanted[p], negatives[p]]
                targets.append(reference.Target(d, single[d][before], cross[p + 1], *model.M[ids]))
        for d in range(3):
            positions = [p + 1 for p, item in enumerate(items) if domain_of[item] == d]
            if positions:
                sequences[window, d] = user, single[d][1:], cross[positions]
    return targets, sequences


@pytest.mark.parametrize(
    "keys",
    [{}, {"gate": "position"}, {"bounded_scores": True, "weight_temperature": 0.3}, {"loss_correction": False}],
)
def test_losses_equal_the_equations(tmp_path: Path, keys: dict) -> None:
    made = experiment(tmp_path, **keys)
    model, batch = made.model, batch_of(made)
    with torch.no_grad():
        model.alpha.fill_(0.7)
        model.beta.fill_(1.9)
    single, cross, mim = (float(loss.detach()) for loss in model.calculate_loss(batch))

    targets, sequences = read_by_reference(made, batch)
    bounded, eta = model.bounded_scores, model.eta
    phi = reference.gaps(targets, numpy(model.gap), bounded)
    weight = reference.weights(numpy(model.weight), phi, 0.7, 1.9, model.temperature)
    if not model.loss_correction:
        weight = np.ones(3)
    mutual = reference.mutual_information_loss(sequences, numpy(model.similarity.weight))
    assert abs(single - eta * reference.single_loss(targets, bounded)) < TOLERANCE
    assert abs(cross - eta * reference.cross_loss(targets, weight, bounded)) < TOLERANCE
    assert abs(mim - (1 - eta) * mutual / len(targets)) < TOLERANCE
    one_domain = [user for (_, domain), (user, *_) in sequences.items() if domain == 0]
    assert len(set(one_domain)) < len(one_domain)  # a user with two windows is no negative of itself


def test_a_user_is_ranked_by_the_cross_domain_tower(tmp_path: Path) -> None:
    """Eq. 19, against the reference; no single-domain tower or gate changes a score."""
    made = experiment(tmp_path)
    model, data = made.model, made.test_data._dataset
    rows = data[np.arange(6)]
    theirs = reference_model(made)
    scores = numpy(model.full_sort_predict(rows))
    for row, items in enumerate(rows["item_id_list"].tolist()):
        state = reference.Y(theirs, [item for item in items if item], task=3)[-1]
        assert np.abs(scores[row] - theirs.M @ state).max() < TOLERANCE
    with torch.no_grad():
        model.acmoe.gate.weight[:3].normal_()
        for tower in model.acmoe.towers[:3]:
            tower.first.weight.normal_()
    assert np.array_equal(scores, numpy(model.full_sort_predict(rows)))


@pytest.mark.parametrize("sequence", ["own", "both"])
def test_the_own_sequence_of_an_items_domain_ranks_it(tmp_path: Path, sequence: str) -> None:
    """Against the reference; before the first item of a domain, the state of its start token."""
    made = experiment(tmp_path, ranking_sequence=sequence)
    rows, theirs, domain_of = made.test_data._dataset[np.arange(6)], reference_model(made), made.dataset.item_domain
    rows["item_id_list"][0, domain_of[rows["item_id_list"][0]] == 1] = 2  # a history without the second domain
    scores = numpy(made.model.full_sort_predict(rows))
    for row, padded in enumerate(rows["item_id_list"].tolist()):
        items = [item for item in padded if item]
        states = np.stack([reference.Y(theirs, [i for i in items if domain_of[i] == d], task=d)[-1] for d in range(3)])
        if sequence == "both":
            states = states + reference.Y(theirs, items, task=3)[-1]
        expected = (theirs.M * states[domain_of]).sum(axis=1)
        assert np.abs(scores[row] - expected).max() < TOLERANCE


def gradients(model: SyNCRec, loss: torch.Tensor) -> list[float]:
    """Largest gradient of the loss in each expert, 1 to K."""
    model.zero_grad()
    loss.backward(retain_graph=True)
    largest = []
    for experts in (model.acmoe.cross_experts, model.acmoe.single_experts):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in experts.parameters()]
        largest += torch.stack([g.flatten(1).abs().amax(dim=1) for g in gradients]).amax(dim=0).tolist()
    return largest


@pytest.mark.parametrize("training", [False, True])
def test_experts_learn_from_one_task_only(tmp_path: Path, training: bool) -> None:
    made = experiment(tmp_path, n_experts=4, cross_experts=1)
    model = made.model.train(training)
    single, cross, _ = model.calculate_loss(batch_of(made))
    assert [value > 0 for value in gradients(model, single)] == [False, True, True, True]
    assert [value > 0 for value in gradients(model, cross)] == [True, False, False, False]


def test_no_single_domain_loss_reaches_the_cross_domain_experts(tmp_path: Path) -> None:
    """Eq. 2 for each domain separately: the targets of the other domains are removed from the batch."""
    made = experiment(tmp_path)
    model, batch = made.model, batch_of(made)
    for domain in range(3):
        own = torch.from_numpy(made.dataset.item_domain)[batch[TARGETS]] == domain
        part = Interaction({**batch.interaction, TARGETS: batch[TARGETS] * own})
        values = gradients(model, model.calculate_loss(part)[0])
        assert values[:2] == [0.0, 0.0] and values[2] > 0


def test_without_acmoe_every_expert_learns_from_both(tmp_path: Path) -> None:
    decoupled, vanilla = (experiment(tmp_path, decoupled=decoupled) for decoupled in (True, False))
    batch = batch_of(vanilla)
    losses = vanilla.model.calculate_loss(batch)
    for loss in losses:
        assert min(gradients(vanilla.model, loss)) > 0
    for ours, theirs in zip(decoupled.model.calculate_loss(batch), losses, strict=True):
        assert torch.equal(ours, theirs)  # forward, SG is the identity


def test_gradients_equal_finite_differences(tmp_path: Path) -> None:
    """Those of the single-domain loss in an expert that learns from it, and of the corrected loss in alpha and beta."""
    made = experiment(tmp_path)
    model, batch = made.model, batch_of(made)
    expert = model.acmoe.single_experts.layers[0].out.weight
    for number, parameter in ((0, expert), (1, model.alpha), (1, model.beta)):
        model.zero_grad()
        model.calculate_loss(batch)[number].backward()
        entry, ends = (0, 1, 4) if parameter.ndim else (), []
        for step in (1e-5, -2e-5):
            with torch.no_grad():
                parameter[entry] += step
            ends.append(float(model.calculate_loss(batch)[number].detach()))
        with torch.no_grad():
            parameter[entry] += 1e-5
        gradient = float(parameter.grad[entry])
        assert abs((ends[0] - ends[1]) / 2e-5 - gradient) < 1e-7
        assert abs(gradient) > 1e-6


def test_all_domains_in_one_batch_equal_one_domain_after_another(tmp_path: Path) -> None:
    """Windows of only one domain, read by its own tower, give the states of the joined windows."""
    made = experiment(tmp_path)
    model, domain_of = made.model, torch.from_numpy(made.dataset.item_domain).long()
    items = torch.randint(1, model.n_items, (7, 10))
    together = single_states(model, items)
    for window in range(7):
        for domain in range(3):
            own = domain_of[items[window]] == domain
            if own.any():
                by_itself = single_states(model, items[window][own][None])[0]
                assert torch.allclose(together[window, domain], by_itself[domain], atol=1e-10)  # at the start token
                assert torch.allclose(together[window, 3:][own], by_itself[3:], atol=1e-10)


def test_single_domain_states_do_not_depend_on_later_items_with_a_gate_per_position(tmp_path: Path) -> None:
    model = experiment(tmp_path, gate="position").model
    items = torch.randint(1, model.n_items, (4, 9))
    changed = items.clone()
    changed[:, 5:] = items[:, 5:] % (model.n_items - 1) + 1
    before, after = (single_states(model, windows)[:, 3:] for windows in (items, changed))
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-10)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-3)


def test_the_gap_is_negative_where_transfer_hurts(tmp_path: Path) -> None:
    """Its weight is then smaller; a domain without targets in a batch keeps its gap (0.05)."""
    model = experiment(tmp_path).model.train()
    domain = torch.tensor([0, 0, 1])
    gap = model.gaps(torch.tensor([0.5, 0.7, 0.9]).double(), torch.tensor([0.6, 0.8, 0.5]).double(), domain)
    assert torch.allclose(gap, torch.tensor([-0.1, 0.4, 0.05]).double())
    model.weight = torch.zeros(3, dtype=torch.float64)
    weight = model.weights(gap)
    assert weight[0] < weight[2] < weight[1] and abs(float(weight.sum().detach()) - 1) < 1e-12
    assert torch.equal(model.weight, weight.detach()) and torch.equal(model.gap, gap)
    assert not model.weight.requires_grad  # the graph of a batch ends with it


def test_alpha_and_beta_are_trained_and_gaps_and_weights_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_joined(tmp_path)
    made = build(config(tmp_path, "SyNCRec", DATASET, n_experts=2, cross_experts=1, weight_temperature=0.5))
    logged = []
    monkeypatch.setattr(made.trainer.tensorboard, "add_scalar", lambda *values: logged.append(values))
    fit(made)
    assert made.model.alpha != 1 and made.model.beta != 1
    assert [record["epoch"] for record in made.trainer.history] == [0, 1]
    for epoch, values in ((record["epoch"], record["train"]) for record in made.trainer.history):
        assert sum(values[f"weight/{name}"] for name in "ABC") == pytest.approx(1)
        assert {f"gap/{name}" for name in "ABC"} | {"alpha", "beta"} <= values.keys()
        assert all((name, value, epoch) in logged for name, value in values.items())
    made.model.train().calculate_loss(batch_of(made))  # one step into the next epoch
    assert made.model.epoch_scalars()["gap/A"] == pytest.approx(float(made.model.gap[0]))


def test_alpha_and_beta_stay_where_they_are_not_trained(tmp_path: Path) -> None:
    """The gaps still give the weights."""
    write_joined(tmp_path)
    keys = {"n_experts": 2, "cross_experts": 1, "weight_memory": 0.5, "gap_influence": 2.0, "trained_correction": False}
    made = build(config(tmp_path, "SyNCRec", DATASET, **keys))
    fit(made)
    values = made.trainer.history[-1]["train"]
    assert (values["alpha"], values["beta"]) == (0.5, 2)
    assert len({values[f"weight/{name}"] for name in "ABC"}) == 3


def test_the_weight_of_single_domain_experts_in_joined_sequences_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = experiment(tmp_path)
    model, batch = made.model.train(), batch_of(made)
    forward, gates = model.acmoe.gate.forward, []
    monkeypatch.setattr(model.acmoe.gate, "forward", lambda *inputs: gates.append(forward(*inputs)) or gates[-1])
    model.calculate_loss(batch)
    joined, real = gates[0], batch["item_id_list"] > 0
    first = len(model.acmoe.cross_experts.norm.weight)
    expected = float(joined[real][:, first:].sum(dim=1).mean())
    assert model.epoch_scalars()["gate/single experts"] == pytest.approx(expected, abs=1e-6)


def test_without_loss_correction_weights_are_1_and_without_sc_mim_there_is_no_such_loss(tmp_path: Path) -> None:
    made = experiment(tmp_path, loss_correction=False, harmonic_factor=1.0)
    losses = made.model.train().calculate_loss(batch_of(made))
    assert len(losses) == 2
    assert made.model.weight.tolist() == [1, 1, 1]
    sum(losses).backward()
    assert made.model.alpha.grad is None and made.model.similarity.weight.grad is None


def test_the_weight_scale_applies_only_to_the_corrected_loss(tmp_path: Path) -> None:
    made = experiment(tmp_path, weight_scale=3.0)
    model, batch = made.model.eval(), batch_of(made)  # no dropout
    single, corrected, mim = (loss.item() for loss in model.calculate_loss(batch))
    model.weight_scale = 1.0
    unscaled = [loss.item() for loss in model.calculate_loss(batch)]
    assert unscaled == pytest.approx([single, corrected / 3, mim])
    assert experiment(tmp_path, weight_scale=3.0, loss_correction=False).model.weight_scale == 1.0


def test_a_batch_of_one_user_has_no_sc_mim(tmp_path: Path) -> None:
    made = experiment(tmp_path)
    dataset = made.train_data._dataset
    batch = next(iter(WindowDataLoader(dataset, 1, seed=0, sampler=made.train_data._sampler)))
    losses = made.model.calculate_loss(batch)
    sum(losses).backward()
    assert float(losses[2].detach()) == 0
    assert all(p.grad.isfinite().all() for p in made.model.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"dataset": "A"}, "Join them, such as"),
        ({"histories": "per_domain"}, "leave --histories at 'across'"),
        ({"cross_experts": 5}, "between 1 and n_experts - 1 = 4"),
        ({"gate": "item"}, "gate=item is invalid: it must be window or position"),
    ],
)
def test_invalid_configurations_are_rejected(tmp_path: Path, keys: dict, message: str) -> None:
    write_joined(tmp_path)
    with pytest.raises(XferError, match=message):
        build(config(tmp_path, "SyNCRec", **{"dataset": DATASET, **keys}))


@pytest.mark.parametrize("domains", [2, 20])
def test_from_two_to_twenty_domains(tmp_path: Path, domains: int) -> None:
    names = [f"D{number}" for number in range(domains)]
    write_joined(tmp_path, names, users=200)
    keys = {"n_experts": 2, "cross_experts": 1, "epochs": 1, "train_batch_size": 512}
    made = build(config(tmp_path, "SyNCRec", "+".join(names), **keys))
    fit(made)
    assert len(made.trainer.history[0]["train"]) == 1 + 3 + 2 * domains
