"""RecGURU against its equations, and the signs of its game's gradients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.batches import CRITIC, HISTORIES, SHARED, DomainPairDataLoader, WindowDataLoader
from recbole_xfer.data.dataset import TARGETS
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, build, fit
from recbole_xfer.layers.adversary import Critic, gradient_penalty
from recbole_xfer.model.recguru import CDSRec, DomainItems, Transformer
from recbole_xfer.testing.data import config, write_small
from recbole_xfer.trainer.recguru import ADVERSARIAL, AUTOENCODER, RECOMMENDATION
from tests.helpers.recguru import batch_of, experiment
from tests.reference import recguru as reference
from tests.reference.sasrec import Array

TOLERANCE = 1e-6
HEADS = 2


def numpy(tensor: Tensor) -> Array:
    return tensor.detach().double().numpy()


def parameters_of(transformer: Transformer) -> dict[str, Array]:
    """Parameters under the reference's names; the attention to a user gets random queries and keys, as it has none."""
    rng = np.random.default_rng(0)
    names = {f"LayerNorm.{part}": numpy(getattr(transformer.norm, part)) for part in ("weight", "bias")}
    for number, layer in enumerate(transformer.layers):
        prefix = f"trm_encoder.layer.{number}"
        attention, forward, user = layer.self_attention, layer.feed_forward, layer.user_attention
        for part in ("weight", "bias"):
            thirds = np.split(numpy(getattr(attention.query_key_value, part)), 3)
            for name, third in zip(("query", "key", "value"), thirds, strict=True):
                names[f"{prefix}.multi_head_attention.{name}.{part}"] = third
            ours = {
                "multi_head_attention.dense": attention.out,
                "multi_head_attention.LayerNorm": attention.norm,
                "feed_forward.dense_1": forward.first,
                "feed_forward.dense_2": forward.second,
                "feed_forward.LayerNorm": forward.norm,
            }
            if user is not None:
                ours |= {
                    "user_attention.value": user.value,
                    "user_attention.dense": user.out,
                    "user_attention.LayerNorm": user.norm,
                }
                for name in ("query", "key"):
                    value = names[f"{prefix}.multi_head_attention.{name}.{part}"]
                    names[f"{prefix}.user_attention.{name}.{part}"] = rng.normal(size=value.shape)
            names |= {f"{prefix}.{name}.{part}": numpy(getattr(module, part)) for name, module in ours.items()}
    return names


def exact(root: Path, **keys: Any) -> Experiment:
    """The experiment in float64, without dropout, with larger parameters."""
    made = experiment(root, hidden_dropout_prob=0.0, attn_dropout_prob=0.0, **keys)
    torch.manual_seed(0)
    for parameter in made.model.parameters():
        nn.init.normal_(parameter, std=0.3)
    made.model.double()
    return made


def reference_user(made: Experiment, items: Tensor, domain: int) -> Array:
    """h of one history, by the reference."""
    guru = made.model.guru
    embedded = numpy(guru.embed.items(items[items > 0]))
    eos, P = numpy(guru.embed.eos.weight[domain]), numpy(guru.embed.positions[domain])
    return reference.represent(embedded, eos, P, parameters_of(guru.encoder), HEADS)


# --- against the equations -------------------------------------------------------------------------------------------


def test_representation_equals_equation_4(tmp_path: Path) -> None:
    """For histories of all lengths, padded to the longest."""
    made = exact(tmp_path)
    histories = batch_of(made)[HISTORIES]
    users = numpy(made.model.guru.represent_domains(histories))
    assert len({int((row > 0).sum()) for row in histories.flatten(0, 1)}) > 3
    for domain in range(2):
        for row, user in zip(histories[domain], users[domain], strict=True):
            assert np.abs(user - reference_user(made, row, domain)).max() < TOLERANCE


@pytest.mark.parametrize("drawn", [4, None])
def test_reconstruction_equals_equation_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: int | None) -> None:
    made = exact(tmp_path, reconstruction_negatives=drawn)
    guru, histories = made.model.guru, batch_of(made)[HISTORIES]
    negatives: list[Tensor] = []
    draw = guru.items.draw

    def remember(*arguments: Any) -> Tensor:
        negatives.append(draw(*arguments))
        return negatives[-1]

    monkeypatch.setattr(guru.items, "draw", remember)
    losses = guru.losses(histories, guru.represent_domains(histories))
    table = numpy(guru.embed.items.weight)
    for domain, loss in enumerate(losses.values()):
        eos, P = numpy(guru.embed.eos.weight[domain]), numpy(guru.embed.positions[domain])
        params, states, own = parameters_of(guru.decoders[domain]), [], []
        for row in histories[domain]:
            items, user = table[row[row > 0]], reference_user(made, row, domain)
            states += [*reference.reconstruct(items, eos, P, user, params, HEADS)]
            own += row[row > 0].tolist()
        if drawn:
            others = [row.tolist() for row in negatives[domain]]
            assert all(len(row) == drawn and item not in row for item, row in zip(own, others, strict=True))
        else:
            others = [[item for item in guru.items.of(domain).tolist() if item != mine] for mine in own]
        expected = reference.reconstruction_loss(np.stack(states), table[own], [table[row] for row in others])
        assert abs(float(loss.detach()) - expected) < TOLERANCE


def test_overlap_penalty_equals_equation_9_over_shared_users(tmp_path: Path) -> None:
    made = exact(tmp_path)
    dataset, shared = made.train_data._dataset, batch_of(made)[SHARED]
    loader = DomainPairDataLoader(dataset, 8, 1, seed=0)
    users = dataset.sequences.users[loader.shared]
    assert (users[0] == users[1]).all() and 5 < users.shape[1] < 30
    domains = [dataset.item_domain[dataset.sequences.items[loader.starts[row]]] for row in loader.shared]
    assert (domains[0] == 0).all() and (domains[1] == 1).all()
    a, b = ([reference_user(made, row, domain) for row in shared[domain]] for domain in range(2))
    expected = reference.overlap_penalty(np.stack(a), np.stack(b))
    assert abs(float(made.model.guru.overlap_penalty(shared).detach()) - expected) < TOLERANCE


def test_the_gradient_penalty_equals_finite_differences() -> None:
    """Its value by differences of the critic; its own gradient by differences of that value."""
    torch.manual_seed(0)
    critic = Critic(5, 7, layers=4).double()
    a, b, share = torch.randn(6, 5).double(), torch.randn(6, 5).double(), torch.rand(6, 1).double()
    layers = [layer for layer in critic.layers if isinstance(layer, nn.Linear)]
    assert len(layers) == 4

    def expected() -> float:
        weights, biases = ([numpy(getattr(layer, part)) for layer in layers] for part in ("weight", "bias"))
        f = lambda h: reference.critic(h, weights, biases)  # noqa: E731
        return reference.gradient_penalty(f, numpy(share * a + (1 - share) * b))

    penalty = gradient_penalty(critic, a, b, share)
    assert abs(penalty.item() - expected()) < TOLERANCE
    penalty.backward()
    step = 1e-4
    for layer, row, column in ((0, 2, 3), (1, 1, 4), (3, 0, 5)):
        weight, ends = layers[layer].weight, []
        for sign in (1, -1):
            with torch.no_grad():
                weight[row, column] += sign * step
                ends.append(expected())
                weight[row, column] -= sign * step
        assert abs((ends[0] - ends[1]) / (2 * step) - float(weight.grad[row, column])) < 1e-5


@pytest.mark.parametrize(
    ("representation", "loss_name"), [("prefix", "pairwise"), ("window", "pairwise"), ("prefix", "CE")]
)
def test_recommendation_equals_equations_10_to_12(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, representation: str, loss_name: str
) -> None:
    made = exact(tmp_path, representation=representation, recommendation_loss=loss_name, negatives=3)
    model = made.model
    batch = next(iter(WindowDataLoader(made.train_data._dataset, 40, seed=0, shuffle=False)))
    negatives: dict[int, Tensor] = {}
    draw = DomainItems.draw

    def remember(self: DomainItems, target: Tensor, domain: int, count: int) -> Tensor:
        negatives[domain] = draw(self, target, domain, count)
        return negatives[domain]

    monkeypatch.setattr(DomainItems, "draw", remember)
    table = numpy(model.cdsrec.embed.items.weight)
    loss = float(model.calculate_loss(batch).detach())
    q: dict[int, list[Array]] = {0: [], 1: []}
    positives: dict[int, list[Array]] = {0: [], 1: []}
    for row, targets in zip(batch["item_id_list"], batch[TARGETS], strict=True):
        domain = int(made.dataset.item_domain[row[0]])
        P, params = numpy(model.cdsrec.embed.positions[domain]), parameters_of(model.cdsrec.recommenders[domain])
        for position in targets.nonzero()[:, 0].tolist():
            read = row[row > 0] if representation == "window" else row[: position + 1]
            user = reference_user(made, read, domain)
            x = table[read] + reference.positions(len(read), P)
            q[domain].append(reference.transformer(x, params, HEADS, user)[position])
            positives[domain].append(table[targets[position]])
    if loss_name == "CE":
        candidates = {domain: table[1:][made.dataset.item_domain[1:] == domain] for domain in q}
        losses = [
            len(q[domain])
            * reference.cross_entropy(np.stack(q[domain]), np.stack(positives[domain]), candidates[domain])
            for domain in q
        ]
        assert not negatives
    else:
        losses = [
            len(q[domain])
            * reference.next_item_loss(np.stack(q[domain]), np.stack(positives[domain]), table[numpy(rows).astype(int)])
            for domain, rows in negatives.items()
        ]
    assert abs(loss - sum(losses) / sum(map(len, q.values()))) < TOLERANCE
    assert all((made.dataset.item_domain[rows] == domain).all() for domain, rows in negatives.items())


def test_ranking_equals_equation_11(tmp_path: Path) -> None:
    made = exact(tmp_path)
    model, data = made.model.eval(), made.test_data._dataset
    rows = data[np.arange(len(data))]
    scores = numpy(model.full_sort_predict(rows))
    table = numpy(model.cdsrec.embed.items.weight)
    for row, score in list(zip(rows["item_id_list"], scores, strict=True))[::6]:
        domain = int(made.dataset.item_domain[row[0]])
        read = row[row > 0]
        P, params = numpy(model.cdsrec.embed.positions[domain]), parameters_of(model.cdsrec.recommenders[domain])
        x = table[read] + reference.positions(len(read), P)
        q = reference.transformer(x, params, HEADS, reference_user(made, read, domain))[-1]
        assert np.abs(score - table @ q).max() < TOLERANCE


# --- what is read ----------------------------------------------------------------------------------------------------


def test_the_representation_reads_all_items_and_the_end_but_no_padding(tmp_path: Path) -> None:
    made = exact(tmp_path)
    guru = made.model.guru
    items = torch.tensor([[3, 4, 5, 6, 0, 0]])
    domain = torch.tensor([0])
    before = guru.represent(items, domain)
    assert torch.allclose(guru.represent(items[:, :4], domain), before, atol=1e-10)
    with torch.no_grad():
        guru.embed.items.weight[0] += torch.randn(16)
    assert torch.allclose(guru.represent(items, domain), before, atol=1e-10)
    for position in range(4):
        changed = items.clone()
        changed[0, position] = 9
        assert not torch.allclose(guru.represent(changed, domain), before, atol=1e-6)
    with torch.no_grad():
        guru.embed.eos.weight[0] += torch.randn(16)
    assert not torch.allclose(guru.represent(items, domain), before, atol=1e-6)


def test_by_default_preferences_do_not_depend_on_later_items(tmp_path: Path) -> None:
    """In the literal form they do, so it is not the default."""
    made = exact(tmp_path)
    items = torch.tensor([[3, 4, 5, 6]])
    real = torch.tensor([[True, True, True, False]])
    changed = torch.tensor([[3, 4, 5, 9]])
    first, second = (made.model._encode_prefixes(rows, real) for rows in (items, changed))
    assert torch.equal(first, second)
    first, second = (made.model.encode(rows)[:, :3] for rows in (items, changed))
    assert not torch.allclose(first, second, atol=1e-6)


def test_training_reads_no_item_of_validation_or_test(tmp_path: Path) -> None:
    made = experiment(tmp_path)
    dataset = made.train_data._dataset
    held_out = {
        int(end) for part in (made.valid_data, made.test_data) for end in part._dataset.inter_feat["history_end"]
    }
    loader = DomainPairDataLoader(dataset, 8, 1, seed=0)
    for users in loader.users:
        for start, end in zip(loader.starts[users], loader.ends[users], strict=True):
            assert end - start >= 2 and not held_out & set(range(start, end))


# --- the game --------------------------------------------------------------------------------------------------------


def gradients(parts: nn.Module) -> list[float]:
    return [0.0 if p.grad is None else float(p.grad.abs().max()) for p in parts.parameters()]


def test_the_critic_raises_the_estimate_and_the_encoder_lowers_it(tmp_path: Path) -> None:
    made = exact(tmp_path, gradient_penalty=0, overlap_weight=0)
    model, trainer, batch = made.model.train(), made.trainer, batch_of(made)
    trainer._begin(ADVERSARIAL)

    def distance() -> float:
        return float(model.critic.distance(*model.guru.represent_domains(batch[HISTORIES])).detach())

    before = distance()
    trainer.train_critic(*model.guru.represent_domains(batch[HISTORIES]))
    raised = distance()
    assert raised > before
    assert not any(gradients(model.guru)) and any(gradients(model.critic))

    model.zero_grad()
    model.critic.requires_grad_(False)
    losses = model.encoder_losses(batch)
    trainer.optimizer.zero_grad()
    losses["adversarial"].backward()
    trainer.optimizer.step()
    assert distance() < raised
    assert not any(gradients(model.critic)) and any(gradients(model.guru.encoder))
    assert abs(float(losses["adversarial"].detach()) - raised) < 1e-10


def test_a_step_of_the_game_trains_both_sides_and_logs_every_loss(tmp_path: Path) -> None:
    made = experiment(tmp_path)
    model, trainer, batch = made.model.train(), made.trainer, batch_of(made, critic_steps=3)
    trainer._begin(ADVERSARIAL)
    critic = [parameter.clone() for parameter in model.critic.parameters()]
    sum(trainer._adversarial_step(batch)).backward()
    assert len(batch[CRITIC]) == 3 and len(trainer._losses["critic loss"]) == 3
    assert any(not torch.equal(a, b) for a, b in zip(critic, model.critic.parameters(), strict=True))
    assert any(gradients(model.guru.encoder)) and any(gradients(model.guru.decoders[1]))
    assert not any(gradients(model.cdsrec))
    means = trainer._scalars()
    assert set(means) == {
        "critic loss", "Wasserstein distance", "gradient penalty", "reconstruction/Small", "reconstruction/Other",
        "adversarial", "overlap",
    }  # fmt: skip
    assert means["critic loss"] == pytest.approx(10 * means["gradient penalty"] - means["Wasserstein distance"])


def test_without_shared_users_the_penalty_is_zero_and_training_works(tmp_path: Path) -> None:
    made = experiment(tmp_path, overlap=0.0, autoencoder_epochs=1, adversarial_epochs=1, epochs=1)
    batch = batch_of(made)
    assert batch[SHARED].shape[1] == 0
    assert float(made.model.guru.overlap_penalty(batch[SHARED])) == 0
    score, _ = fit(made)
    assert np.isfinite(score)


# --- users of both domains -------------------------------------------------------------------------------------------


def test_a_share_of_the_overlap_is_hidden(tmp_path: Path) -> None:
    names, users = {}, {}
    for share in (1.0, 0.5, 0.25, 0.0):
        dataset = experiment(tmp_path, overlap=share).train_data._dataset
        loader = DomainPairDataLoader(dataset, 8, 1, seed=0)
        tokens = dataset.field2id_token["user_id"]
        names[share] = set(tokens[dataset.sequences.users[loader.shared[0]]])
        users[share] = set(tokens[1:])
        assert len(dataset.sequences) == len(experiment(tmp_path).train_data._dataset.sequences)
    assert names[0.0] == set() < names[0.25] < names[0.5] < names[1.0]
    assert all(f"{domain}/{name}" in users[0.0] for name in names[1.0] for domain in ("Small", "Other"))
    assert 0.2 < len(names[0.5]) / len(names[1.0]) < 0.8
    with pytest.raises(XferError, match="overlap=2 is invalid: it must be a number from 0 to 1"):
        experiment(tmp_path, overlap=2)


def test_batches_of_users_are_balanced_and_equal_for_equal_seeds(tmp_path: Path) -> None:
    dataset = experiment(tmp_path).train_data._dataset
    loader = DomainPairDataLoader(dataset, 16, 2, seed=3)
    first, second = ([batch.interaction for batch in loader] for _ in range(2))
    assert len(first) == len(loader) == -(-max(map(len, loader.users)) // 16)
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(a[key], b[key]) for key in (HISTORIES, SHARED, CRITIC))
        assert a[HISTORIES].shape[:2] == (2, 16) and a[CRITIC].shape[:3] == (2, 2, 16)
        for domain in range(2):
            assert (dataset.item_domain[a[HISTORIES][domain][:, 0]] == domain).all()
    loader.set_epoch(1)
    assert not torch.equal(next(iter(loader))[HISTORIES], first[0][HISTORIES])


# --- variants and mistakes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variant", "dataset", "phases"),
    [
        ("AutoRec", "Small", [AUTOENCODER, RECOMMENDATION]),
        ("AutoRec", "Small+Other", [AUTOENCODER, RECOMMENDATION]),
        ("SeqRec", "Small", [RECOMMENDATION]),
    ],
)
def test_variants_omit_phases(tmp_path: Path, variant: str, dataset: str, phases: list[str]) -> None:
    made = experiment(tmp_path, dataset, variant=variant, autoencoder_epochs=1, epochs=1)
    assert made.trainer.phases == phases
    assert np.isfinite(fit(made)[0])
    reads_users = isinstance(made.model.cdsrec, CDSRec) and any(
        "user_attention" in name for name, _ in made.model.cdsrec.named_parameters()
    )
    assert reads_users == (variant != "SeqRec")


def test_invalid_configurations_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(
        XferError, match=r"names 1. Name two, such as --dataset=Books\+Movies, or set --variant=AutoRec"
    ):
        experiment(tmp_path, "Small")
    write_small(tmp_path, "Third", seed=2)
    for variant in ("RecGURU", "AutoRec"):
        with pytest.raises(XferError, match="joins two domains, but dataset=Small[+]Other[+]Third names 3"):
            experiment(tmp_path, "Small+Other+Third", variant=variant)
    with pytest.raises(XferError, match="histories=across mixes domains"):
        experiment(tmp_path, histories="across")
    for key in ("variant", "representation"):
        with pytest.raises(XferError, match=f"{key}=none is invalid: it must be"):
            experiment(tmp_path, **{key: "none"})
    with pytest.raises(XferError, match="critic_steps=0 is invalid: it must be an integer of at least 1"):
        experiment(tmp_path, critic_steps=0)


def test_a_domain_without_histories_is_rejected(tmp_path: Path) -> None:
    write_small(tmp_path)
    rows = [f"u{user}\ti{item}\t{item}" for user in range(9) for item in (user, user + 1)]
    (tmp_path / "Short").mkdir()
    header = "user_id:token\titem_id:token\ttimestamp:float\n"
    (tmp_path / "Short" / "Short.inter").write_text(header + "\n".join(row for row in rows[::2]) + "\n")
    with pytest.raises(XferError, match="No train target of .* in the domain Short.*, or use more of its data[.]$"):
        fit(build(config(tmp_path, "RecGURU", "Small+Short")))


@pytest.mark.parametrize("mode", ["full", "pop5"])
@pytest.mark.parametrize(("variant", "dataset"), [("RecGURU", "Small+Other"), ("AutoRec", "Small")])
def test_targets_are_ranked_within_their_domains(tmp_path: Path, mode: str, variant: str, dataset: str) -> None:
    """By default among all items of the domain; as in the paper, among items drawn by popularity."""
    made = experiment(tmp_path, dataset, variant=variant, eval_args={"mode": mode}, topk=[5, 10], mask_history=False)
    measured = made.trainer.evaluate(made.test_data, load_best_model=False)
    domains = dataset.split("+")
    assert {f"ndcg@10 [{name}]" for name in [*domains, "mean"]} <= set(measured)
    mean = np.mean([measured[f"ndcg@10 [{name}]"] for name in domains])
    assert measured["ndcg@10 [mean]"] == pytest.approx(mean, abs=1e-4)  # both are rounded
    ranking = made.trainer.evaluator.ranking
    assert ranking.counts() == {
        name: int((made.dataset.item_domain[made.test_data._dataset.inter_feat["item_id"]] == number).sum())
        for number, name in enumerate(domains)
    }


def test_a_domain_of_one_item_is_rejected(tmp_path: Path) -> None:
    rows = [(f"u{user}", "i1", float(time)) for user in range(9) for time in range(4)]
    write_domain(tmp_path, "One", pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]), None)
    with pytest.raises(XferError, match="The domain One of Small[+]One has 1 item, so a target cannot be ranked"):
        experiment(tmp_path, "Small+One")
