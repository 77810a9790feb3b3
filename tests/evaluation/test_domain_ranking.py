"""Joined domains: ranking and negatives within a target's domain, and metrics of each domain, for any model."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.quick_start import run_recbole
from rich.console import Console

from recbole_xfer.comparison.table import Comparison
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.batches import WindowDataLoader
from recbole_xfer.data.dataset import NEGATIVES, TARGETS, TransferDataset
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.domain_ranking import by_domain
from recbole_xfer.experiment import Experiment, build, fit
from recbole_xfer.layers.domain_views import across, last_of, per_domain
from recbole_xfer.quick_start import evaluate, run
from recbole_xfer.stages import train_and_evaluate
from recbole_xfer.testing.data import config, settings, write_joined

DATASET = "A+B+C"


def experiment(root: Path, model: str, **keys: Any) -> Experiment:
    write_joined(root)
    known = {"rank_within_domain": True, "metrics": ["Recall", "NDCG", "MRR"], **keys}
    return build(config(root, model, DATASET, **known))


def by_hand(made: Experiment, k: int) -> dict[str, float]:
    """Metrics of each domain and their mean, computed from the model's scores only."""
    data, domain_of, model = made.test_data._dataset, made.dataset.item_domain, made.model.eval()
    values: dict[str, list[list[float]]] = {name: [] for name in "ABC"}
    for row, target in enumerate(made.test_data.targets):
        item = int(data.sequences.items[target])
        start = data.sequences.starts[data.sequences.history_of(np.array([target]))[0]]
        seen = set(data.sequences.items[start:target].tolist()) if made.config["mask_history"] else set()
        scores = model.full_sort_predict(
            data[np.array([row])] if sequential(made) else data.inter_feat[[row]]
        ).flatten()
        candidates = [i for i in range(1, len(scores)) if domain_of[i] == domain_of[item] and i not in seen]
        ranking = sorted(candidates, key=lambda i: -scores[i].item())[:k]
        place = ranking.index(item) + 1 if item in ranking else math.inf
        values["ABC"[domain_of[item]]].append([float(place <= k), 1 / math.log2(place + 1), 1 / place])
    means = {name: np.mean(rows, axis=0) for name, rows in values.items()}
    means["mean"] = np.mean(list(means.values()), axis=0)
    names = (f"recall@{k}", f"ndcg@{k}", f"mrr@{k}")
    return {f"{metric} [{name}]": float(v) for name, row in means.items() for metric, v in zip(names, row, strict=True)}


def sequential(made: Experiment) -> bool:
    return isinstance(made.dataset, TransferDataset)


RATIO = {"split": {"RS": [0.5, 0.2, 0.3]}, "order": "TO", "group_by": "user", "mode": "full"}


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("SyNCRec", {}),
        ("RETR", {}),
        ("RETR", {"mask_history": True}),
        ("RETR", {"histories": "per_domain"}),
        ("SASRec", {}),
        ("BPR", {"mask_history": True}),
        ("BPR", {"mask_history": True, "eval_args": RATIO}),
    ],
)
def test_metrics_of_each_domain_equal_those_computed_by_hand(tmp_path: Path, model: str, keys: dict) -> None:
    made = experiment(tmp_path, model, **keys)
    measured = made.trainer.evaluate(made.test_data, load_best_model=False)
    expected = by_hand(made, 5)
    assert {name: measured[name] for name in expected} == pytest.approx(
        expected, abs=6e-5
    )  # RecBole rounds to 4 places
    assert len({round(expected[f"ndcg@5 [{name}]"], 4) for name in "ABC"}) == 3
    counts = made.trainer.evaluator.ranking.counts()
    overall = sum(counts[name] * expected[f"ndcg@5 [{name}]"] for name in "ABC") / sum(counts.values())
    assert measured["ndcg@5"] == pytest.approx(overall, abs=6e-5)


def test_all_items_are_ranked_without_the_key(tmp_path: Path) -> None:
    within, among_all = (experiment(tmp_path, "RETR", rank_within_domain=key) for key in (True, False))
    measured = [made.trainer.evaluate(made.test_data, load_best_model=False) for made in (within, among_all)]
    assert set(by_domain(measured[1])) == {None} and set(by_domain(measured[0])) == {None, "mean", "A", "B", "C"}
    assert measured[1]["recall@10"] < measured[0]["recall@10"]


@pytest.mark.parametrize("mode", ["uni5", "pop5"])
@pytest.mark.parametrize(("model", "mask"), [("RETR", False), ("RETR", True), ("BPR", False)])
def test_sampled_negatives_come_from_the_targets_domain(tmp_path: Path, mode: str, model: str, mask: bool) -> None:
    split = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": mode}
    write_joined(tmp_path, items=40)  # more items than a user interacts with
    made = build(config(tmp_path, model, DATASET, rank_within_domain=True, mask_history=mask, eval_args=split))
    domain_of, seen = torch.from_numpy(made.dataset.item_domain), []
    collect = made.trainer.eval_collector.eval_batch_collect

    def spy(scores: torch.Tensor, interaction: Any, row: torch.Tensor, item: torch.Tensor) -> None:
        for target, own in zip(item.tolist(), scores[row], strict=True):
            ranked = own.isfinite().nonzero()[:, 0]
            own_place = target in ranked.tolist()  # a repeat is left out
            assert (own_place or mask) and len(ranked) == 5 + own_place
            assert (domain_of[ranked] == domain_of[target]).all()
            seen.append(int(domain_of[target]))
        collect(scores, interaction, row, item)

    made.trainer.eval_collector.eval_batch_collect = spy
    result = made.trainer.evaluate(made.test_data, load_best_model=False)
    assert set(seen) == {0, 1, 2} and len(seen) == len(made.test_data._dataset)
    assert 0 < result["ndcg@5 [mean]"] < 1


def test_popular_negatives_follow_the_counts_of_their_domain(tmp_path: Path) -> None:
    made = experiment(tmp_path, "RETR", eval_args={**RATIO, "mode": "pop1"})
    data, domain_of = made.test_data._dataset.sequences, made.dataset.item_domain
    targets = data.items[made.test_data.targets]
    counts = np.bincount(data.items, minlength=len(domain_of)).astype(float)
    shares = np.where(domain_of == domain_of[targets][:, None], counts, 0)
    shares[np.arange(len(targets)), targets] = 0
    expected = (shares / shares.sum(axis=1, keepdims=True)).sum(axis=0)
    drawn = np.bincount(made.test_data.candidates[:, 0], minlength=len(domain_of))
    assert drawn == pytest.approx(expected, abs=4 * np.sqrt(expected.max()))


def test_training_negatives_come_from_the_targets_domain(tmp_path: Path) -> None:
    made = experiment(tmp_path, "RETR", negatives_within_domain=True, loss_type="BPR")
    loader = WindowDataLoader(made.train_data._dataset, 64, seed=0, sampler=made.train_data._sampler)
    domain_of = torch.from_numpy(made.dataset.item_domain)
    drawn = set()
    for batch in loader:
        real = batch[TARGETS] > 0
        targets, negatives = batch[TARGETS][real], batch[NEGATIVES][real]
        assert (domain_of[targets] == domain_of[negatives]).all() and (targets != negatives).all()
        drawn |= set(negatives.tolist())
    assert drawn == set(range(1, made.dataset.item_num))


def test_loss_without_sampled_negatives_ignores_their_domain(tmp_path: Path) -> None:
    made = experiment(tmp_path, "RETR", negatives_within_domain=True, loss_type="CE", epochs=1)
    assert np.isfinite(fit(made)[0])


def test_best_epoch_is_chosen_by_the_named_domain(tmp_path: Path) -> None:
    """The epoch of one run is chosen by a domain, by the mean over domains, and by all targets."""
    write_joined(tmp_path)
    chosen = {}
    for metric in ("NDCG@5 [B]", "NDCG@5 [mean]", "NDCG@5"):
        scores: list[float] = []
        keys = {"rank_within_domain": True, "valid_metric": metric, "epochs": 6, "learning_rate": 0.01}
        result = run(
            "RETR",
            DATASET,
            overrides={**settings(tmp_path, "RETR"), **keys},
            on_epoch=lambda _, score, scores=scores: scores.append(score),
        )
        name = metric.replace("NDCG", "ndcg")
        assert result.valid_score == result.valid[name] == max(scores)
        assert result.best_epoch == int(np.argmax(scores))
        chosen[metric] = tuple(scores)
    assert len(set(chosen.values())) == len(chosen)


def test_finished_run_is_evaluated_by_domain(tmp_path: Path) -> None:
    write_joined(tmp_path)
    result = train_and_evaluate(config(tmp_path, "RETR", DATASET), None)
    comparison = evaluate([result.folder], {"rank_within_domain": True})
    (again,) = comparison.results
    assert sum(again.rows_by_domain.values()) == again.rows == result.rows
    assert (
        "all items of the target's domain" in again.caption() and f"(A {again.rows_by_domain['A']}," in again.caption()
    )
    console = Console(width=100, record=True)
    console.print(comparison.table())
    lines = [line.split() for line in console.export_text().splitlines() if line]
    assert ["B", *(f"{again.test[f'{metric} [B]']:.4f}" for metric in result.test)] in lines
    with pytest.raises(XferError, match="cannot be compared"):
        Comparison([result, again])


def test_recboles_own_entry_point_ranks_and_draws_within_domains(tmp_path: Path) -> None:
    write_joined(tmp_path)
    keys = {**settings(tmp_path, "SyNCRec"), "n_experts": 2, "cross_experts": 1}
    ours = run("SyNCRec", DATASET, overrides={**keys, "checkpoint_dir": str(tmp_path / "ours")})
    theirs = run_recbole("SyNCRec", DATASET, config_dict=keys)
    assert {name: float(value) for name, value in theirs["test_result"].items()} == ours.test
    split = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni5"}
    with pytest.raises(XferError, match="sample the negatives of evaluation from all domains"):
        run_recbole("SyNCRec", DATASET, config_dict={**keys, "eval_args": split})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"valid_metric": "NDCG@5 [D]"}, r"needs rank_within_domain=True and one of A, B, C, mean"),
        ({"valid_metric": "NDCG@5 [A]", "rank_within_domain": False}, "needs rank_within_domain=True"),
        ({"valid_metric": "NDCG@7"}, "not among the metrics: Recall@5, Recall@10, NDCG@5"),
        ({"valid_metric": "NDCG"}, "not among the metrics: Recall@5"),
        ({"valid_metric": "NDCG", "metrics": ["NDCG", "GAUC"]}, "not among the metrics: NDCG@5, NDCG@10, GAUC"),
    ],
)
def test_valid_metric_that_is_not_measured(tmp_path: Path, keys: dict, message: str) -> None:
    made = experiment(tmp_path, "RETR", **keys)
    with pytest.raises(XferError, match=message):
        fit(made)


def test_rank_within_domain_is_rejected_where_impossible(tmp_path: Path) -> None:
    split = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni5"}
    made = experiment(tmp_path, "RETR", metrics=["AUC"], valid_metric="AUC", eval_args=split)
    with pytest.raises(XferError, match="needs ranking metrics"):
        made.trainer.evaluate(made.test_data, load_best_model=False)


def write_by_hand(root: Path, **histories: list[tuple[str, str]]) -> str:
    """Writes domains with given (user, item) pairs in order of time; all of B follow all of A."""
    for number, (name, pairs) in enumerate(histories.items()):
        table = pd.DataFrame(pairs, columns=["user_id", "item_id"])
        table["timestamp"] = 1.4e9 + 1000.0 * number + np.arange(len(pairs))
        write_domain(root, name, table, None)
    return "+".join(histories)


USERS = [f"u{number}" for number in range(6)]
LONG = [(user, item) for item in "abcd" for user in USERS]


def test_domain_without_a_target_in_the_split(tmp_path: Path) -> None:
    """Every joined history ends in B, so that A has no validation target; histories per domain have one each."""
    dataset = write_by_hand(tmp_path, A=LONG, B=LONG)
    keys = {"rank_within_domain": True, "topk": [2], "valid_metric": "NDCG@2"}
    with pytest.raises(XferError, match=r"No valid target of A\+B is in the domain A"):
        build(config(tmp_path, "RETR", dataset, **keys))
    made = build(config(tmp_path, "RETR", dataset, histories="per_domain", **keys))
    assert "ndcg@2 [A]" in made.trainer.evaluate(made.test_data, load_best_model=False)


def test_domain_of_one_item(tmp_path: Path) -> None:
    dataset = write_by_hand(tmp_path, A=[(user, "a") for user in USERS], B=LONG)
    for key in ("rank_within_domain", "negatives_within_domain"):
        with pytest.raises(XferError, match=r"The domain A of A\+B has 1 item, so"):
            build(config(tmp_path, "RETR", dataset, topk=[2], **{key: True}))
    with pytest.raises(XferError, match="The domain A has one item, so no negative can be drawn"):
        build(config(tmp_path, "RecGURU", dataset, topk=[2], rank_within_domain=False))


def test_user_who_interacted_with_all_items_of_a_domain(tmp_path: Path) -> None:
    parts = [(user, "abcdef"[(place + number) % 6]) for place in range(4) for number, user in enumerate(USERS)]
    dataset = write_by_hand(tmp_path, A=LONG, B=parts)
    split = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni3"}
    keys = {"rank_within_domain": True, "topk": [2], "eval_args": split, "histories": "per_domain"}
    with pytest.raises(XferError, match="uni3: only [01] different items can be drawn for the"):
        build(config(tmp_path, "BPR", dataset, mask_history=True, **keys))
    build(config(tmp_path, "RETR", dataset, mask_history=False, **keys))


def test_equal_tokens_of_two_domains_are_two_items_and_users_without_items_are_dropped(
    tmp_path: Path,
) -> None:
    made = experiment(tmp_path, "RETR", load_col={"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id"]})
    data = made.dataset
    tokens = data.field2id_token["item_id"]
    same = [number for number, token in enumerate(tokens) if token.endswith("/i3")]
    assert [data.item_domain[number] for number in sorted(same, key=lambda number: tokens[number])] == [0, 1, 2]
    assert data.item_num - 1 == 3 * 12
    users = data.field2id_token["user_id"][data.sequences.users]
    assert len(users) == 60 and "nobody" not in users
    domains = [
        len(set(data.item_domain[data.sequences.items[a:b]]))
        for a, b in zip(data.sequences.starts, data.sequences.ends, strict=True)
    ]
    assert set(domains) == {1, 2, 3}  # users in one, in several and in all


def test_views_of_a_window() -> None:
    """Items of domains 0 1 0 1 1: the place of each item in its domain's sequence, and the places it attends to."""
    domain = torch.tensor([[0, 1, 0, 1, 1]])
    view = per_domain(domain, 2)
    assert view.place.tolist() == [[0, 1, 1, 2, 2, 3]]
    attended = [row.nonzero()[:, 0].tolist() for row in view.seen[0]]
    assert attended == [[0], [0, 1], [0, 2], [0, 1, 3], [0, 2, 4], [0, 2, 4, 5]]
    assert last_of(domain, torch.tensor([[1, 0, 1, 2, 0]])).tolist() == [[0, 1, 2, 0, 3]]
    assert view.single and view.read.tolist() == [0, 0, 1, 2, 3, 4, 5] and view.task.tolist() == [[0, 1, 0, 1, 0, 1, 1]]
    joined = across(domain, 2)
    assert not joined.single and torch.equal(joined.seen[0], torch.ones(6, 6).tril().bool())
    assert joined.read.tolist() == [1, 2, 3, 4, 5] and joined.task.tolist() == [[2] * 5]
    assert joined.place.tolist() == [[0, 1, 2, 3, 4, 5]]
