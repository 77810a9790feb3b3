"""History masking is the same for every model."""

from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_xfer.experiment import build, fit
from recbole_xfer.testing.data import config, write_small

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

        def spy(scores: torch.Tensor, *rest: Any, ranked: list = ranked, collect: Any = collect) -> None:
            ranked.append(torch.isinf(scores[:, 1:]).sum(dim=1))
            collect(scores, *rest)

        experiment.trainer.eval_collector.eval_batch_collect = spy
        experiment.trainer.evaluate(experiment.test_data, load_best_model=False)
        left_out = torch.cat(ranked)
        assert (left_out > 0).any() == masked, model


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
        drawn = 0
        for candidates, row, target_row, targets in made.test_data:
            own = set(zip(target_row.tolist(), targets.tolist(), strict=True))
            pairs = zip(candidates["user_id"].tolist(), row.tolist(), candidates["item_id"].tolist(), strict=True)
            negatives = [(user, item) for user, place, item in pairs if (place, item) not in own]
            assert all(item not in taken[user] for user, item in negatives)
            drawn += len(negatives)
        assert drawn == 9 * len(test)
