"""What a target is ranked among, and masking of the history, are the same for every model."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_xfer.data.histories import ranges
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build, fit
from recbole_xfer.testing.data import config, write_small
from tests.helpers.ranking import ranked, whole

SPLITS = [{"LS": "valid_and_test"}, {"RS": [0.8, 0.1, 0.1]}, {"HU": [6, 2, 2]}, {"NU": 0.3}]


@pytest.mark.parametrize("masked", [False, True])
def test_history_masking_applies_to_every_model(tmp_path: Path, masked: bool) -> None:
    """One key for models with and without sequences, RecBole's and ours."""
    write_small(tmp_path, users=60, items=25)
    for model in ("ANT", "SASRec", "BPR", "Pop"):
        experiment = build(config(tmp_path, model, mask_history=masked, epochs=1))
        fit(experiment)
        ranked: list[torch.Tensor] = []
        collect = experiment.trainer.eval_collector.eval_batch_collect

        def spy(scores: Any, *rest: Any, ranked: list = ranked, collect: Any = collect) -> None:
            ranked.append(torch.isinf(whole(scores)[:, 1:]).sum(dim=1))
            collect(scores, *rest)

        experiment.trainer.eval_collector.eval_batch_collect = spy
        experiment.trainer.evaluate(experiment.test_data, load_best_model=False)
        left_out = torch.cat(ranked)
        assert (left_out > 0).any() == masked, model


def sampling(mode: str, split: dict[str, Any] = SPLITS[0], group_by: str = "user") -> dict[str, Any]:
    return {"split": split, "order": "TO", "group_by": group_by, "mode": mode}


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: next(iter(split)))
@pytest.mark.parametrize("mode", ["full", "uni9"])
def test_mask_does_not_depend_on_the_target(tmp_path: Path, split: dict[str, Any], mode: str) -> None:
    """All items before a target are left out, the target too if it is a repeat; the same rows for every model."""
    write_small(tmp_path, users=60, items=40)
    for model in ("RETR", "BPR", "Pop"):
        made = build(config(tmp_path, model, mask_history=True, eval_args=sampling(mode, split), held_out_targets=3))
        test = made.test_data._dataset
        scores, target_items = ranked(made)
        targets = ranges(*test.target_ranges)
        assert np.array_equal(target_items, test.sequences.items[targets])
        repeats = 0
        for row, target in enumerate(targets):
            history = test.sequences.history_of(np.array([target]))[0]
            seen = set(test.sequences.items[test.sequences.starts[history] : target].tolist())
            kept = set(np.flatnonzero(scores[row] > -np.inf).tolist())
            repeats += target_items[row] in seen
            if mode == "full":
                assert kept == set(range(1, test.item_num)) - seen, model
            else:
                assert not kept & seen, model
                assert len(kept) == 9 + (target_items[row] not in seen), model
        assert repeats
        assert made.test_data.repeats() == repeats / len(targets)
        assert made.trainer.evaluator.topk[:, :-1].any(dim=1).sum() <= len(targets) - repeats


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: next(iter(split)))
def test_masked_history_is_never_sampled_as_a_negative(tmp_path: Path, split: dict[str, Any]) -> None:
    """Excludes the first item and a held-out user's items before the ranked ones, for both types of models."""
    write_small(tmp_path, users=60, items=40)
    eval_args = {"split": split, "order": "TO", "group_by": "user", "mode": "uni9"}
    for model in ("RETR", "BPR"):
        made = build(config(tmp_path, model, mask_history=True, eval_args=eval_args))
        test = made.test_data._dataset
        taken: dict[int, set[int]] = {}
        for number, user in enumerate(test.sequences.users.tolist()):
            start, end = (int(of[number]) for of in (test.sequences.starts, test.target_ranges[1]))
            taken[user] = set(test.sequences.items[start:end].tolist())
        scores, targets = ranked(made)
        users = test.inter_feat["user_id"].tolist()
        assert len(users) == len(scores)
        drawn = 0
        for user, row, target in zip(users, scores, targets, strict=True):
            negatives = set(np.flatnonzero(row > -np.inf).tolist()) - {target}
            assert not negatives & taken[user]
            drawn += len(negatives)
        assert drawn == 9 * len(test)


@pytest.mark.parametrize("mode", ["uni9", "pop9"])
@pytest.mark.parametrize("masked", [False, True])
def test_sampled_candidates_are_distinct_and_the_same_for_every_model_and_pass(
    tmp_path: Path, mode: str, masked: bool
) -> None:
    write_small(tmp_path, users=60, items=40)
    eval_args = sampling(mode, {"RS": [0.8, 0.1, 0.1]})
    drawn = {}
    for model in ("RETR", "SASRec", "BPR", "Pop"):
        made = build(config(tmp_path, model, mask_history=masked, eval_args=eval_args))
        scores, targets = ranked(made)
        drawn[model] = scores > -np.inf
        assert np.array_equal(drawn[model], ranked(made)[0] > -np.inf), model
        drawn[model][np.arange(len(targets)), targets] = True
        assert (drawn[model].sum(axis=1) == 10).all(), model
        assert np.array_equal(drawn[model], drawn["RETR"]), model
    other_seed = build(config(tmp_path, "Pop", mask_history=masked, eval_args=eval_args, seed=1))
    assert not np.array_equal(ranked(other_seed)[0] > -np.inf, drawn["Pop"])


def test_popular_candidates_are_drawn_in_proportion_to_their_interactions(tmp_path: Path) -> None:
    write_small(tmp_path, users=400, items=10)
    made = build(config(tmp_path, "Pop", topk=[5], eval_args=sampling("pop1", {"RS": [0.2, 0.1, 0.7]})))
    test = made.test_data._dataset
    counts = np.bincount(test.sequences.items, minlength=11).astype(float)
    items = test.sequences.items[made.test_data.targets]
    shares = np.where(np.arange(11) == items[:, None], 0, counts)
    expected = (shares / shares.sum(axis=1, keepdims=True)).sum(axis=0)
    drawn = np.bincount(made.test_data.candidates[:, 0], minlength=11)
    assert len(items) > 2000
    assert drawn == pytest.approx(expected, abs=4 * np.sqrt(expected.max()))


@pytest.mark.parametrize("keys", [{}, {"mask_history": True}, {"rank_within_domain": True}])
def test_more_candidates_than_items_are_rejected(tmp_path: Path, keys: dict[str, Any]) -> None:
    write_small(tmp_path, items=25)
    with pytest.raises(XferError, match=r"mode=uni25: only \d+ different items can be drawn for the valid target i"):
        build(config(tmp_path, "SASRec", eval_args=sampling("uni25"), **keys))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("mode", ["full", "uni9"])
def test_scores_that_are_not_finite_are_an_error(tmp_path: Path, value: float, mode: str) -> None:
    write_small(tmp_path, users=60, items=40)
    for model in ("SASRec", "BPR"):
        made = build(config(tmp_path, model, mask_history=True, eval_args=sampling(mode)))
        scored = made.model.full_sort_predict

        def broken(rows: Any, scored: Any = scored) -> torch.Tensor:
            scores = scored(rows).view(-1, 41)
            scores[0, 1:] = value
            return scores

        made.model.full_sort_predict = broken
        with pytest.raises(XferError, match=f"{model} scores items with values that are not finite"):
            made.trainer.evaluate(made.test_data, load_best_model=False)


def test_epoch_whose_scores_are_not_finite_is_never_chosen(tmp_path: Path) -> None:
    """Training ends with a sentence in the first validation."""
    write_small(tmp_path)
    made = build(config(tmp_path, "SASRec", learning_rate=1e30, train_batch_size=10**6))
    with pytest.raises(XferError, match=r"not finite, so they cannot be ranked. Lower learning_rate, now 1e\+30"):
        fit(made)
    assert made.trainer.best_epoch == -1
