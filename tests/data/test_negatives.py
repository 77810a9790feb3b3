"""Negatives by popularity: in proportion to the training targets, for every model with negatives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_xfer.data.dataset import NEGATIVES, TARGETS
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, build
from recbole_xfer.testing.data import config, write_joined, write_small
from tests.helpers.recguru import experiment as recguru

POPULAR = {"train_neg_sample_args": {"distribution": "popularity", "alpha": 0.75}}


def expected(made: Experiment, target: int, within: bool, alpha: float = 0.75) -> np.ndarray:
    """The probability of each item as the negative of a target, [n_items]."""
    dataset = made.train_data._dataset
    weights = np.bincount(dataset.inter_feat["item_id"].numpy(), minlength=dataset.item_num) ** alpha
    if within:
        weights = np.where(dataset.item_domain == dataset.item_domain[target], weights, 0)
    weights[[0, target]] = 0
    return weights / weights.sum()


def assert_drawn(made: Experiment, targets: np.ndarray, negatives: np.ndarray, within: bool = False) -> None:
    """The counts of drawn negatives are near their expectation, and no target is its own negative."""
    assert not (targets == negatives).any()
    counts = np.bincount(negatives, minlength=made.dataset.item_num)
    mean = sum(expected(made, target, within) for target in targets.tolist())
    assert (counts[mean == 0] == 0).all()
    assert np.square((counts - mean)[mean > 0] / np.sqrt(mean[mean > 0])).mean() < 2  # chi-squared of each item


def drawn(made: Experiment, passes: int = 20) -> tuple[np.ndarray, np.ndarray]:
    """Targets and negatives of some passes over the run's training batches."""
    loader = made.trainer.train_loader(made.train_data)
    batches = [batch for _ in range(passes) for batch in loader]
    pairs = [torch.stack([batch[field].flatten() for field in (TARGETS, NEGATIVES)]) for batch in batches]
    targets, negatives = torch.cat(pairs, dim=1).numpy()
    return targets[targets > 0], negatives[targets > 0]


@pytest.mark.parametrize(("model", "loss"), [("RETR", "BPR"), ("TPSASRec", "BCE")])
def test_a_loss_by_pairs_draws_by_popularity_of_training(tmp_path: Path, model: str, loss: str) -> None:
    np.random.seed(0)
    write_small(tmp_path)
    made = build(config(tmp_path, model, loss_type=loss, **POPULAR))
    assert_drawn(made, *drawn(made))


def test_syncrec_draws_by_popularity_within_the_domain(tmp_path: Path) -> None:
    np.random.seed(0)
    write_joined(tmp_path)
    made = build(config(tmp_path, "SyNCRec", "A+B+C", n_experts=3, cross_experts=2, **POPULAR))
    assert_drawn(made, *drawn(made), within=True)


def test_recguru_draws_by_popularity_within_the_domain(tmp_path: Path) -> None:
    torch.manual_seed(0)
    made = recguru(tmp_path, **POPULAR)
    dataset, items = made.train_data._dataset, made.model.guru.items
    assert made.model.cdsrec.items is items
    targets = dataset.inter_feat["item_id"].repeat(2)
    for domain in range(2):
        own = targets[items.domain[targets] == domain]
        negatives = items.draw(own, domain, 8)
        assert_drawn(made, own.repeat_interleave(8).numpy(), negatives.flatten().numpy(), within=True)
    loader = made.trainer.train_loader(made.train_data)
    assert all(NEGATIVES not in batch for batch in loader)


def test_models_without_sequences_draw_by_popularity_outside_the_history(tmp_path: Path) -> None:
    np.random.seed(0)
    write_small(tmp_path, items=60)
    made = build(config(tmp_path, "BPR", **POPULAR))
    dataset = made.train_data._dataset
    users = dataset.inter_feat["user_id"].numpy()
    negatives = made.train_data._sampler.sample_by_user_ids(users, None, 20).view(20, -1).numpy()
    weights = np.bincount(dataset.inter_feat["item_id"].numpy(), minlength=dataset.item_num) ** 0.75
    mean = np.zeros(dataset.item_num)
    for user in users:
        possible = weights.copy()
        possible[list(made.train_data._sampler.used_ids[user])] = 0
        mean += 20 * possible / possible.sum()
    counts = np.bincount(negatives.flatten(), minlength=dataset.item_num)
    assert (counts[mean == 0] == 0).all()
    assert np.square((counts - mean)[mean > 0] / np.sqrt(mean[mean > 0])).mean() < 2


@pytest.mark.parametrize("model", ["RETR", "RecGURU"])
def test_two_items_with_targets_are_needed(tmp_path: Path, model: str) -> None:
    keys: dict[str, Any] = {"variant": "SeqRec"} if model == "RecGURU" else {"loss_type": "BPR"}
    write_small(tmp_path, items=2, holes=False)
    made = config(tmp_path, model, topk=[1], **keys, **POPULAR, item_inter_num_interval="[0,inf)")
    lines = (tmp_path / "Small" / "Small.inter").read_text().splitlines()
    users = [f"u{user}\ti0\t{time}\n" for user in range(3) for time in (1, 2, 3)]
    (tmp_path / "Small" / "Small.inter").write_text("".join([lines[0] + "\n", *users, "u0\ti1\t9\n"]))
    with pytest.raises(XferError, match="popularity draws items with training targets, and there are 1"):
        build(made)


def test_recgurus_number_of_negatives_is_not_recboles(tmp_path: Path) -> None:
    with pytest.raises(XferError, match="train_neg_sample_args.sample_num=5 has no effect on RecGURU"):
        recguru(tmp_path, train_neg_sample_args={"distribution": "uniform", "sample_num": 5})
