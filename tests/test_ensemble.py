"""Ensembles of finished runs: their weights, what is measured, and which runs cannot be joined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_xfer.cli.main import main
from recbole_xfer.ensemble import join
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import load
from recbole_xfer.quick_start import ensemble, evaluate, run
from recbole_xfer.testing.data import settings, write_joined, write_small
from recbole_xfer.trainer.selection import cautious, ndcg_of, selected, validation_margins


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data of one domain, and of three with common users."""
    root = tmp_path_factory.mktemp("ensemble")
    write_small(root)
    write_joined(root)
    return root


def trained(root: Path, model: str, dataset: str = "Small", **keys: Any) -> str:
    """The folder of a finished run."""
    return run(model, dataset, overrides={**settings(root, model), "epochs": 1, **keys}, reuse=True).folder


def test_the_weights_are_those_of_the_best_ranking() -> None:
    """Targets are drawn from the softmax of 4 times the first scores plus 2 times the second; the third are noise."""
    random = np.random.default_rng(0)
    scores = random.normal(size=(3, 2000, 40))
    logits = 4 * scores[0] + 2 * scores[1]
    target = (logits + random.gumbel(size=logits.shape)).argmax(axis=1)
    margins = torch.from_numpy(scores - np.take_along_axis(scores, target[None, :, None], axis=2))
    margins[:, np.arange(2000), target] = -torch.inf
    assert np.abs(selected(margins, k=10) - [2 / 3, 1 / 3, 0]).max() < 0.1
    drawn = selected(margins[:, :, :20], k=10, drawn=0.5)
    assert np.abs(drawn - [2 / 3, 1 / 3, 0]).max() < 0.15


def test_few_targets_leave_the_choice_to_one_model() -> None:
    """The second model ranks the target first in three of four rows, the first one always second."""
    second = torch.tensor([[-1.0, -2], [-1, -2], [-1, -2], [2, 1]])
    margins = torch.stack([torch.tensor([[0.1, -1.0]] * 4), second])
    best = np.array([0.0, 1.0])
    assert cautious(margins[:, 2:], 3, best, fallback=0).tolist() == [1, 0]
    assert cautious(margins.repeat(1, 50, 1), 3, best, fallback=0)[1] > 0.05
    assert cautious(margins[:, :1], 3, best, fallback=0).tolist() == [1, 0]


def test_a_model_without_weight_may_leave_out_what_others_rank() -> None:
    margins = torch.tensor([[[-torch.inf, -1.0]], [[1.0, -1.0]]]).repeat(1, 9, 1)
    assert cautious(margins, 3, np.array([0.0, 1.0]), fallback=1).tolist() == [0, 1]


def test_a_run_that_adds_nothing_has_no_weight() -> None:
    margins = torch.full((2, 5, 4), -1.0)
    margins[1] = torch.tensor([2.0, -1, -1, -1])
    assert selected(margins, k=3).tolist() == [1, 0]


def test_the_weights_are_chosen_by_the_ranking_that_is_measured(root: Path) -> None:
    """A run alone has the NDCG of its evaluation; with masked history, a repeated target counts as a miss."""
    member = load(trained(root, "ContentKNN"), {"mask_history": True, "metric_decimal_place": 9})
    joined, weights = join([member, member])
    assert weights == [1, 0]
    margins, ranked = validation_margins(joined.trainer, joined.valid_data)
    measured = member.trainer.evaluate(member.valid_data, load_best_model=False)["ndcg@10"]
    counted = len(margins[0]) / len(member.valid_data._dataset)
    found = float(ndcg_of(margins[0].masked_fill(~ranked, -torch.inf), 10, drawn=1).mean()) * counted
    assert found == pytest.approx(measured, abs=1e-6)


def test_an_ensemble_ranks_by_the_weighted_sum_of_scores(root: Path) -> None:
    """Of models with histories and without, of different lengths of history, and of pairs of user and item."""
    models = {"ContentKNN": {}, "SASRec": {"MAX_ITEM_LIST_LENGTH": 4}, "BPR": {}, "FM": {}}
    members = [load(trained(root, model, **keys)) for model, keys in models.items()]
    joined, shares = join(members)
    assert min(shares) >= 0 and sum(shares) == pytest.approx(1)
    joined.model.weights = [0.5, 2.0, 1.0, 0.25]
    [batch] = joined.test_data
    expected = 0
    for weight, member in zip(joined.model.weights, members, strict=True):
        trainer, (rows, *_) = member.trainer, next(iter(member.test_data))
        expected = expected + weight * trainer.scores(rows, trainer.ranked_items(len(rows), 26))[:, 1:]
    assert torch.allclose(joined.model.full_sort_predict(batch[0])[:, 1:], expected, atol=1e-6)


def test_the_table_has_the_runs_as_evaluate_measures_them(root: Path, capsys: pytest.CaptureFixture) -> None:
    folders = [trained(root, "ContentKNN"), trained(root, "SASRec")]
    before = set(root.rglob("*"))
    file = root.with_name("table.json")
    keys = ["--mask_history=True", f"--result={file}"]
    assert main(["ensemble", *folders, *keys]) == 0
    assert set(root.rglob("*")) == before
    output = " ".join(capsys.readouterr().out.split())
    assert "Ensemble" in output and "history masked; seed 2020. Weights of scores of equal spread" in output
    assert "the best run on the validation split: NDCG@10" in output
    table, alone = json.loads(file.read_text()), evaluate(folders, {"mask_history": True}).summary()
    assert {label: table["summary"][label] for label in alone} == alone
    assert table["weights"].keys() == alone.keys()


def test_sampled_candidates_and_seeds(root: Path) -> None:
    """With all items ranked seeds may differ; sampled candidates are those of one seed."""
    folders = [trained(root, "SASRec", seed=seed) for seed in (1, 2)]
    assert list(ensemble(folders).weights) == ["SASRec, seed 1", "SASRec, seed 2"]
    with pytest.raises(XferError, match=r"\(seed: 1\) and .* \(seed: 2\) cannot be joined. Train both with one seed."):
        ensemble(folders, {"eval_args": {"mode": "uni10"}})
    same = [trained(root, "ContentKNN"), trained(root, "SASRec")]
    sampled = ensemble(same, {"eval_args": {"mode": "uni10"}})
    assert "10 uniform negatives ranked" in sampled.caption()


def test_targets_are_ranked_within_their_domains(root: Path) -> None:
    keys = {"rank_within_domain": True}
    joined = ensemble([trained(root, model, "A+B+C", **keys) for model in ("SASRec", "Pop")])
    assert joined.results[-1].rows_by_domain == joined.results[0].rows_by_domain
    assert "ndcg@10 [mean]" in joined.summary()["Ensemble"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"mask_history": True}, "mask_history: False.* and .*mask_history: True.*Set one mask_history for all runs"),
        ({"eval_args": {"split": {"RS": [2, 1, 1]}}}, "eval_args.split: .*Train both with one eval_args.split"),
        ({"eval_args": {"mode": "uni10"}}, "eval_args.mode: .*Set one eval_args.mode for all runs"),
        ({"train_share": 0.5}, "train_share: 1.0.* and .*train_share: 0.5.*Train both with one train_share"),
        ({"user_inter_num_interval": "[5,inf)"}, "their users, items or interactions differ"),
    ],
)
def test_runs_that_cannot_be_joined(root: Path, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(XferError, match=message):
        ensemble([trained(root, "ContentKNN"), trained(root, "Pop", **keys)])


def test_an_ensemble_needs_finished_runs(root: Path) -> None:
    folder = trained(root, "ContentKNN")
    with pytest.raises(XferError, match="needs at least two runs"):
        ensemble([folder])
    with pytest.raises(XferError, match="nowhere has no finished run with test results"):
        ensemble([folder, "nowhere"])
