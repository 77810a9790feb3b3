"""TP against its equations: inner and outer steps, the adversary, paths, and Eq. 8."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import Caser, GRU4Rec
from recbole.quick_start import run_recbole
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from recbole_xfer.config.config import known_keys
from recbole_xfer.data.batches import HEAD
from recbole_xfer.data.dataset import NEGATIVES, TARGETS
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, build
from recbole_xfer.layers.alignment import AllPaths, descend, number_ids, sum_of_paths
from recbole_xfer.model import tp, tp_models
from recbole_xfer.quick_start import run
from recbole_xfer.testing.data import config, settings, write_small

IN_PARALLEL = ("TPSASRec", "TPGRU4Rec", "TPCaser", "TPRETR")
OVER_ROWS = [
    name.removeprefix("TP")
    for name, kind in vars(tp_models).items()
    if isinstance(kind, type) and issubclass(kind, tp.TPOverRows) and kind is not tp.TPOverRows
]
STILL: dict[str, Any] = {
    "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "dropout_prob": 0.0, "embedding_size": 16,
    "pathway_route": "learned", "inner_rate": 0.5, "paths": 6,
}  # fmt: skip


def experiment(root: Path, model: str = "TPSASRec", **keys: Any) -> Experiment:
    """A model in float64 without dropout, with a random discriminator."""
    if not (root / "Small").exists():
        write_small(root)
    known = config(root, model).final_config_dict
    made = build(config(root, model, **{**{key: value for key, value in STILL.items() if key in known}, **keys}))
    made.model.double()
    for name, parameter in made.model.named_parameters():
        if not name.endswith("item_embedding.weight"):  # its row 0 stays zero
            torch.nn.init.normal_(parameter, std=0.3)
    return made


def one_user(batch: Interaction, step: int, path: int) -> dict[str, torch.Tensor]:
    """The user of a step on a path, without padding."""
    length = int(batch["item_length"][step, path])
    user = {key: value[step, path] for key, value in batch.interaction.items()}
    return {key: value[:length] if value.dim() else value for key, value in user.items()}


def batch_of(made: Experiment) -> Interaction:
    """Users for a step, [k, P, ...]."""
    return next(iter(made.trainer.train_loader(made.train_data)))


def gradient(made: Experiment, batch: Interaction) -> dict[str, torch.Tensor]:
    made.model.zero_grad()
    made.model.calculate_loss(batch).backward()
    return {name: value.grad.clone() for name, value in made.model.named_parameters() if value.grad is not None}


def test_steps_on_a_quadratic_equal_those_by_hand() -> None:
    """theta_0 = (1, 2), alpha = 0.1; losses (theta_1 - 3)^2 + theta_2^2, then (theta_1 + theta_2)^2."""
    losses = [lambda t: (t["x"][0] - 3) ** 2 + t["x"][1] ** 2, lambda t: (t["x"][0] + t["x"][1]) ** 2]
    steps = descend(lambda theta, batch: batch(theta), {"x": torch.tensor([1.0, 2.0])}, losses, rates={"x": 0.1})
    first, loss = next(steps)
    assert first["x"].tolist() == [-4, 4] and float(loss) == 8  # and so theta_1 = (1.4, 1.6)
    second, loss = next(steps)
    assert second["x"].tolist() == pytest.approx([6, 6]) and float(loss) == pytest.approx(9)
    # theta_2 = (0.8, 1.0), and so (theta_0 - theta_2) / (alpha k) = (1, 5), the mean of both gradients


@pytest.mark.parametrize("positions", ["common", "all"])
def test_the_direction_is_that_of_algorithm_1_step_by_step(tmp_path: Path, positions: str) -> None:
    """Plain steps on a copy, each loss written out and differentiated separately; a third of the users are new."""
    split = {"split": {"NU": 0.3}, "order": "TO", "group_by": "user", "mode": "full"}
    steps, alpha, beta, weight = 3, 0.5, 0.2, 0.3
    of_adversary = {"adversary_weight": weight, "adversary_rate": beta, "adversary_positions": positions}
    made = experiment(tmp_path, inner_steps=steps, inner_rate=alpha, paths=2, eval_args=split, **of_adversary)
    made.model.eval()
    batch = batch_of(made)
    ours = gradient(made, batch)
    users, counts = made.train_data._dataset.inter_feat["user_id"].unique(return_counts=True)
    judged = int(counts.min()) if positions == "common" else 100
    heads = users[counts.argsort(descending=True, stable=True)][: round(0.2 * len(users))].tolist()
    expected = {name: torch.zeros_like(value) for name, value in made.model.named_parameters()}
    for path in range(2):
        copy = deepcopy(made.model)
        items, discriminator = copy.item_embedding, list(copy.discriminator.parameters())
        theta = [value for name, value in copy.named_parameters() if "discriminator" not in name]
        for step in range(steps):
            user = one_user(batch, step, path)
            real = user[TARGETS] > 0
            states = copy.states(user)
            phi, seen = states[real], states[user["item_id_list"] > 0][:judged]
            y, y_negative = ((phi * items(user[field][real])).sum(dim=1).sigmoid() for field in (TARGETS, NEGATIVES))
            recommendation = -(y.log() + (1 - y_negative).log()).mean()  # Eq. 2
            head = copy.discriminator(seen).sigmoid()
            adversary = -(head if int(user["user_id"]) in heads else 1 - head).log().mean()  # Eq. 9
            of_theta = torch.autograd.grad(recommendation - weight * adversary, theta, retain_graph=True)  # Eq. 10
            of_discriminator = torch.autograd.grad(weight * adversary, discriminator)
            with torch.no_grad():
                for value, slope in zip([*theta, *discriminator], [*of_theta, *of_discriminator], strict=True):
                    value -= (beta if any(value is part for part in discriminator) else alpha) * slope
        for (name, start), (_, end) in zip(made.model.named_parameters(), copy.named_parameters(), strict=True):
            rate = beta if "discriminator" in name else alpha
            expected[name] += (start - end).detach() / (rate * steps) / 2  # Eq. 7, the mean of both paths
    for name, value in ours.items():
        assert torch.allclose(value, expected[name], atol=1e-10), name


def test_an_adam_step_of_the_trainer_follows_the_outer_direction(tmp_path: Path) -> None:
    made = experiment(tmp_path, learning_rate=0.01)
    loader, trainer = made.trainer.train_loader(made.train_data), made.trainer
    batch = next(iter(loader))
    direction = gradient(made, batch)
    before = {name: value.detach().clone() for name, value in made.model.named_parameters()}
    trainer.optimizer.zero_grad()
    made.model.calculate_loss(batch).backward()
    trainer.optimizer.step()
    for name, value in made.model.named_parameters():  # Adam's first step is its rate times the gradient's sign
        moved = before[name] - value.detach()
        clear = direction[name].abs() > 1e-5
        assert torch.allclose(moved[clear], 0.01 * direction[name][clear].sign(), atol=1e-4), name


@pytest.mark.parametrize("model", IN_PARALLEL)
def test_one_inner_step_is_ordinary_training_on_the_same_users(tmp_path: Path, model: str) -> None:
    made = experiment(tmp_path, model, inner_steps=1, adversary_weight=0)
    made.model.eval()  # no noise of routers
    batch = batch_of(made)
    ours = gradient(made, batch)
    losses = [made.model.user_loss(one_user(batch, 0, path)) for path in range(batch[HEAD].shape[1])]
    made.model.zero_grad()
    torch.stack(losses).mean().backward()
    for name, value in made.model.named_parameters():
        if value.grad is None:
            assert not ours[name].any(), name
        else:
            assert torch.allclose(ours[name], value.grad, atol=1e-6), name


@pytest.mark.parametrize("model", [*IN_PARALLEL, "TPLightSANs"])
@pytest.mark.parametrize("loss_type", ["BPR", "CE"])
def test_paths_in_parallel_equal_paths_one_after_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, loss_type: str
) -> None:
    keys = {"k_interests": 2} if model == "TPLightSANs" else {}
    made = experiment(tmp_path, model, loss_type=loss_type, inner_steps=3, **keys)
    made.model.eval()
    batch = batch_of(made)
    together = gradient(made, batch)
    paths = batch[HEAD].shape[1]
    assert paths == 6
    alone: dict[str, torch.Tensor] = {}
    for path in range(paths):
        one = Interaction({key: value[:, path : path + 1] for key, value in batch.interaction.items()})
        for name, value in gradient(made, one).items():
            alone[name] = alone.get(name, 0) + value / paths
    monkeypatch.setitem(tp.NUMBERS, "cpu", 1)  # groups of one
    grouped = gradient(made, batch)
    for name, value in together.items():
        assert torch.allclose(value, alone[name], atol=1e-10), name
        assert torch.allclose(value, grouped[name], atol=1e-10), name


@pytest.mark.parametrize("model", IN_PARALLEL)
def test_reduced_precision_keeps_the_direction(tmp_path: Path, model: str) -> None:
    made = experiment(tmp_path, model)
    made.model.float().eval()
    batch = batch_of(made)
    full = gradient(made, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        reduced = gradient(made, batch)
    ours, expected = (torch.cat([found[name].flatten() for name in full]) for found in (reduced, full))
    assert (ours - expected).norm() < 0.1 * expected.norm()


@pytest.mark.parametrize("model", ["TPSASRec", "TPCaser"])
def test_a_path_with_only_its_rows_equals_one_with_whole_tables(tmp_path: Path, model: str) -> None:
    made = experiment(tmp_path, model)
    batch = batch_of(made)
    assert made.model.tables
    by_rows = gradient(made, batch)
    made.model.tables = {}
    for name, value in gradient(made, batch).items():
        assert torch.allclose(value, by_rows[name], atol=1e-10), name


def test_the_expected_direction_has_the_inner_products_of_equation_8(tmp_path: Path) -> None:
    """Two users in both orders: the mean gradient is that of Eq. 8, up to terms of alpha squared.

    Eq. 8 for k = 2 is E[L_1 + L_2 - alpha/2 dL_1 . dL_2]; its gradient is found with second derivatives.
    """
    made = experiment(tmp_path, paths=1, adversary_weight=0)
    model = made.model.eval()
    batch = batch_of(made)
    users = [one_user(batch, step, 0) for step in (0, 1)]
    parameters = {name: value for name, value in model.named_parameters() if "discriminator" not in name}
    with sdpa_kernel(SDPBackend.MATH):  # the others have no second derivative
        losses = [model.user_loss(user) for user in users]
    first = [torch.autograd.grad(loss, list(parameters.values()), create_graph=True) for loss in losses]
    product = sum((a * b).sum() for a, b in zip(*first, strict=True))
    gradient_of_product = torch.autograd.grad(product, list(parameters.values()))

    def direction(rate: float) -> list[torch.Tensor]:
        """Mean over both orders of the sum of the gradients."""
        model.inner_rate = rate
        total = [torch.zeros_like(value) for value in parameters.values()]
        for order in ([0, 1], [1, 0]):
            swapped = Interaction({key: value[order] for key, value in batch.interaction.items()})
            found = gradient(made, swapped)
            total = [t + found[name] for t, name in zip(total, parameters, strict=True)]
        return total

    plain = [a + b for a, b in zip(*first, strict=True)]
    for rate, tolerance in ((1e-3, 2e-2), (1e-4, 2e-3)):
        shift = [(d - p) / rate for d, p in zip(direction(rate), plain, strict=True)]  # -1/2 d(dL_1 . dL_2)
        expected = [-0.5 * g for g in gradient_of_product]
        error = sum(((s - e) ** 2).sum() for s, e in zip(shift, expected, strict=True)) ** 0.5
        assert error < tolerance * sum((e**2).sum() for e in expected) ** 0.5


def test_the_discriminator_descends_and_the_encoder_ascends(tmp_path: Path) -> None:
    """Gradients of lambda L_d for f_d, and of -lambda L_d for theta, by finite differences (Eq. 10)."""
    weight, step = 0.7, 1e-6
    made = experiment(tmp_path, inner_steps=1, paths=1, adversary_weight=weight)
    model = made.model.eval()
    batch = batch_of(made)
    user = one_user(batch, 0, 0)
    full = gradient(made, batch)
    model.adversary_weight = 0.0
    plain = gradient(made, batch)

    def discriminator_loss() -> float:
        """L_d: mean cross-entropy of f_d on the user's sub-sequences of common lengths."""
        with torch.no_grad():
            score = torch.sigmoid(model.discriminator(model.states(user)[: model.judged]))
            return float(-(score if user[HEAD] else 1 - score).log().mean())

    for name, sign in (
        ("discriminator.hidden.weight", 1), ("discriminator.out.bias", 1), ("encoder.layers.0.out.weight", -1),
        ("encoder.layers.3.second.bias", -1), ("position_embedding.weight", -1),
    ):  # fmt: skip
        value = dict(model.named_parameters())[name].data.view(-1)
        ours = (full[name] - plain[name]).view(-1)
        place = int(ours.abs().argmax())
        ends = []
        for move in (step, -2 * step):
            value[place] += move
            ends.append(discriminator_loss())
        value[place] += step
        slope = (ends[0] - ends[1]) / (2 * step)
        assert abs(slope) > 1e-4
        assert float(ours[place]) == pytest.approx(sign * weight * slope, rel=1e-4), name


@pytest.mark.parametrize("model", ["TPSASRec", "TPNARM"])
@pytest.mark.parametrize("positions", ["common", "all"])
def test_the_discriminator_sees_lengths_that_all_users_have(tmp_path: Path, model: str, positions: str) -> None:
    """Later items of a long history are no more its business."""
    made = experiment(tmp_path, model, adversary_weight=1.0, adversary_positions=positions)
    counts = made.train_data._dataset.inter_feat["user_id"].unique(return_counts=True)[1]
    longest = counts.max()
    assert counts.min() < longest
    phi = torch.randn(int(longest), 16 if model == "TPNARM" else made.config["hidden_size"], dtype=torch.float64)
    lengths = torch.arange(1, len(phi) + 1)
    before = made.model.adversary_loss(phi, torch.tensor(1), lengths)
    phi[counts.min() :] += 1
    same = torch.equal(made.model.adversary_loss(phi, torch.tensor(1), lengths), before)
    assert same == (positions == "common")


@pytest.mark.parametrize(("model", "theirs"), [("TPGRU4Rec", GRU4Rec), ("TPCaser", Caser)])
def test_all_positions_have_the_states_of_recboles_model(tmp_path: Path, model: str, theirs: Any) -> None:
    keys = {"num_layers": 2} if model == "TPGRU4Rec" else {"caser_length": 4}
    made = experiment(tmp_path, model, **keys).model.eval()
    items, user = torch.randint(1, made.n_items, (9,)), torch.tensor(3)
    states = made.states({"item_id_list": items, "user_id": user})
    for position in range(9):
        history = items[: position + 1]
        if theirs is GRU4Rec:
            expected = GRU4Rec.forward(made, history[None], torch.tensor([position + 1]))[0]
        else:
            last = history[-4:]
            expected = Caser.forward(made, user[None], F.pad(last, (0, 4 - len(last)))[None])[0]
        assert torch.allclose(states[position], expected, atol=1e-12)


def test_the_loss_equals_equation_2(tmp_path: Path) -> None:
    made = experiment(tmp_path, adversary_weight=0)
    model = made.model.eval()
    user = one_user(batch_of(made), 0, 0)
    phi, items = model.states(user), model.item_embedding.weight
    expected = []
    for position in user[TARGETS].nonzero()[:, 0]:
        wanted, other = (torch.sigmoid(phi[position] @ items[user[field][position]]) for field in (TARGETS, NEGATIVES))
        expected.append(-wanted.log() - (1 - other).log())
    assert torch.allclose(model.user_loss(user), torch.stack(expected).mean(), atol=1e-10)


def test_each_path_draws_its_own_dropout(tmp_path: Path) -> None:
    made = experiment(tmp_path, hidden_dropout_prob=0.5, attn_dropout_prob=0.5, adversary_weight=0)
    model = made.model.train()
    one = {key: value[0, :1].expand(6, *value.shape[2:]) for key, value in batch_of(made).interaction.items()}
    theta = {name: value.detach().expand(6, *value.shape) for name, value in model.named_parameters()}
    assert len(model._losses(theta, one, AllPaths({})).unique()) == 6
    model.encoder.dropout.p = 0.0
    for layer in model.encoder.layers:
        layer.dropout.p = 0.0
    assert len(model._losses(theta, one, AllPaths({})).unique()) == 6  # that of attention alone
    assert len(model.eval()._losses(theta, one, AllPaths({})).unique()) == 1


def test_ids_are_numbered_from_the_padding() -> None:
    ids = torch.tensor([[7, 3, 0, 7], [5, 5, 2, 9]])
    rows, places = number_ids(ids)
    assert rows.tolist() == [[0, 3, 7, 0], [0, 2, 5, 9]]
    assert torch.equal(rows.gather(1, places), ids)


@pytest.mark.parametrize("shape", [(4,), (4, 3), (4, 3, 2), (4, 3, 2, 5)])
def test_paths_are_summed(shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=torch.float64)
    for order in (x, x.mT.contiguous().mT if x.dim() > 2 else x):
        assert torch.allclose(sum_of_paths(order), x.sum(dim=0))


def test_an_epoch_visits_every_user_once(tmp_path: Path) -> None:
    made = experiment(tmp_path, paths=3, MAX_ITEM_LIST_LENGTH=5)
    loader = made.trainer.train_loader(made.train_data)
    trained = np.unique(made.train_data._dataset.inter_feat["user_id"].numpy())
    seen, windows = [], set()
    for epoch in range(40):
        loader.set_epoch(epoch)
        batches = list(loader)
        assert len(batches) == len(loader) == len(trained) // 6
        users = np.concatenate([batch["user_id"].numpy().ravel() for batch in batches])
        assert len(set(users)) == len(users) == 6 * len(loader)
        seen.append(users)
        for batch in batches:
            assert (batch[TARGETS].sum(dim=-1) > 0).all()
            assert ((batch[NEGATIVES] > 0) == (batch[TARGETS] > 0)).all()
            rows = zip(batch["user_id"].flatten().tolist(), batch[TARGETS].flatten(0, 1).tolist(), strict=True)
            windows |= {(user, tuple(target for target in row if target)) for user, row in rows}
    assert set(np.concatenate(seen)) == set(trained)
    assert not (seen[0] == seen[1]).all()
    targets = sum(len(row) for _, row in windows)
    assert targets > 0.95 * len(made.train_data._dataset)  # long histories come in several windows
    again = made.trainer.train_loader(made.train_data)
    again.set_epoch(39)
    assert torch.equal(next(iter(again))["user_id"], batches[0]["user_id"])


@pytest.mark.parametrize("split", [{"LS": "valid_and_test"}, {"NU": 0.3}])
def test_head_users_are_those_with_most_interactions(tmp_path: Path, split: dict[str, Any]) -> None:
    made = experiment(tmp_path, paths=1, eval_args={"split": split, "order": "TO", "group_by": "user", "mode": "full"})
    dataset = made.train_data._dataset
    first, end = dataset.target_ranges
    counts = dict(zip(dataset.sequences.users.tolist(), (end - first).tolist(), strict=True))
    batches = list(made.trainer.train_loader(made.train_data))
    heads = {u for b in batches for u in b["user_id"][b[HEAD] == 1].tolist()}
    tails = {u for b in batches for u in b["user_id"][b[HEAD] == 0].tolist()}
    assert min(counts[user] for user in heads) >= max(counts[user] for user in tails)
    assert len(heads | tails) * 0.2 == pytest.approx(len(heads), abs=1)


@pytest.mark.parametrize(
    ("model", "table"),
    [("Caser", "user_embedding"), ("HGN", "user_embedding"), ("NPE", "user_embedding"), ("FOSSIL", "user_lambda")],
)
def test_parameters_of_new_users_are_zero(tmp_path: Path, model: str, table: str) -> None:
    write_small(tmp_path)
    eval_args = {"split": {"NU": 0.3}, "order": "TO", "group_by": "user", "mode": "full"}
    made = build(config(tmp_path, f"TP{model}", eval_args=eval_args))
    trained = made.train_data._dataset.inter_feat["user_id"].unique()
    known = getattr(made.model, table).weight.any(dim=1).nonzero()[:, 0]
    assert len(known) and torch.equal(known, trained)


@pytest.mark.parametrize("name", OVER_ROWS)
def test_recboles_models_are_trained_and_have_an_adversary(tmp_path: Path, name: str) -> None:
    write_small(tmp_path)
    keys = {
        **settings(tmp_path, f"TP{name}"), "epochs": 1, "paths": 2, "embedding_size": 16, "n_layers": 1,
        **({"selected_features": ["text"]} if name in ("FDSA", "SASRecF") else {}), "k_interests": 2,
    }  # fmt: skip
    keys = {key: value for key, value in keys.items() if key in known_keys(f"TP{name}", "Small")}
    made = build(config(tmp_path, f"TP{name}", **keys))
    found = gradient(made, batch_of(made))
    assert found["discriminator.out.weight"].any()
    assert run(f"TP{name}", "Small", overrides=keys).valid


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"inner_steps": 0}, "inner_steps=0 is invalid: it must be an integer of at least 1"),
        ({"paths": 0}, "paths=0 is invalid: it must be an integer of at least 1"),
        ({"inner_steps": 1000}, "inner_steps=1000 exceeds the .* users of Small"),
        ({"inner_rate": 0}, "inner_rate=0 is invalid: it must be a number above 0"),
        ({"adversary_weight": -1}, "adversary_weight=-1 is invalid: it must be a number of at least 0"),
        ({"head_share": 1.5}, "head_share=1.5 is invalid: it must be a number between 0 and 1"),
        ({"train_rows": "prefixes"}, "TPSASRec needs --train_rows=windows"),
        ({"loss_type": "MSE"}, "loss_type=MSE is invalid: it must be BCE, BPR or CE"),
    ],
)
def test_invalid_values_are_rejected(tmp_path: Path, keys: dict, message: str) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match=message):
        run("TPSASRec", "Small", overrides={**settings(tmp_path, "TPSASRec"), **keys})


def test_recboles_own_entry_point_trains_by_tp(tmp_path: Path) -> None:
    write_small(tmp_path)
    result = run_recbole("TPSASRec", "Small", config_dict={**settings(tmp_path, "TPSASRec"), "epochs": 1})
    assert 0 <= result["test_result"]["recall@10"] <= 1
