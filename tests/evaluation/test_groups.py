"""Metrics of groups of users and items, compared with metrics computed by hand, and the split with new users."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from recbole_xfer import stages
from recbole_xfer.cli.main import main
from recbole_xfer.data.histories import head_ids
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.groups import row_users, target_groups
from recbole_xfer.experiment import Experiment, build, load
from recbole_xfer.quick_start import run
from recbole_xfer.testing.data import config, settings, write_joined, write_small
from tests.helpers.ranking import ranked
from tests.helpers.recbole_models import write_tiny

KEYS: dict[str, Any] = {
    "eval_args": {"split": {"NU": 0.3}, "order": "TO", "group_by": "user", "mode": "full"},
    "eval_groups": ["existing", "new", "head", "tail", "existing-tail", "new-head", "new-tail"],
    "metrics": ["Hit", "NDCG", "GiniIndex"], "topk": [3, 10], "epochs": 1,
}  # fmt: skip


def users_of(made: Experiment) -> tuple[np.ndarray, set[int], dict[int, int]]:
    """The user of each test row, the trained users, and each user's number of interactions."""
    dataset = made.test_data._dataset
    trained = set(made.train_data._dataset.inter_feat["user_id"].tolist())
    counts = np.bincount(dataset.sequences.users, weights=np.diff(dataset.sequences.offsets))
    return dataset.inter_feat["user_id"].numpy(), trained, dict(enumerate(counts.astype(int).tolist()))


@pytest.mark.parametrize("model", ["TPSASRec", "SASRec", "BPR"])
def test_metrics_of_groups_equal_those_computed_by_hand(tmp_path: Path, model: str) -> None:
    write_small(tmp_path)
    result = run(model, "Small", overrides={**settings(tmp_path, model), **KEYS})
    made = load(result.folder)
    users, trained, counts = users_of(made)
    rank = {}
    made.model.eval()
    for batch, _, _, positives in made.test_data:
        scores = made.model.full_sort_predict(batch).view(len(batch), -1)
        scores[:, 0] = -torch.inf
        for user, row, target in zip(batch["user_id"].tolist(), scores, positives.tolist(), strict=True):
            rank[user] = int((row.argsort(descending=True) == target).nonzero()) + 1
    assert set(rank) == set(users.tolist())

    def heads(of: set[int]) -> set[int]:
        return set(sorted(of, key=lambda user: (-counts[user], user))[: round(0.2 * len(of))])

    new = {user for user, count in counts.items() if count} - trained
    head = heads(trained) | heads(new)
    expected = {
        "existing": trained, "new": new, "head": head, "tail": (trained | new) - head, "existing-tail": trained - head,
        "new-head": new & head, "new-tail": new - head,
    }  # fmt: skip
    assert list(result.groups) == KEYS["eval_groups"]
    for name, members in expected.items():
        ranks = np.array([rank[user] for user in members & set(rank)])
        group = result.groups[name]
        assert group.rows == len(ranks) > 0
        for k in (3, 10):
            hit = ranks <= k  # Eq. 11
            assert group.test[f"hit@{k}"] == pytest.approx(hit.mean(), abs=1e-4)
            assert group.test[f"ndcg@{k}"] == pytest.approx((hit / np.log2(ranks + 1)).mean(), abs=1e-4)  # Eq. 12
    written = json.loads((Path(result.folder) / "result.json").read_text())["groups"]
    assert written["new-tail"] == {"rows": result.groups["new-tail"].rows, "test": result.groups["new-tail"].test}


ITEM_GROUPS = ["cold_items", "rare_items", "head_items", "new-cold_items", "existing-head_items"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[str]]]:
    """A folder with data, and the items of each user in order of time, from the file."""
    root = tmp_path_factory.mktemp("items")
    write_small(root, users=50, items=60)
    rows = pd.read_csv(root / "Small" / "Small.inter", sep="\t").sort_values("timestamp:float", kind="stable")
    return root, rows.groupby("user_id:token")["item_id:token"].agg(list).to_dict()


@pytest.mark.parametrize("model", ["SASRec", "BPR", "FM", "FEARec", "ContentKNN"])
def test_metrics_of_groups_of_items_equal_those_of_a_loop(log: tuple[Path, dict], model: str) -> None:
    """Several targets per user; a model without sequences has a row for each, too."""
    root, histories = log
    split = {"split": {"RS": [5, 2, 3]}, "order": "TO", "group_by": "user", "mode": "full"}
    keys = {**settings(root, model), "eval_args": split, "eval_groups": ITEM_GROUPS, "epochs": 1, "train_share": 0.3}
    result = run(model, "Small", overrides={**keys, "metrics": ["NDCG"], "topk": [10]})
    made = load(result.folder)
    dataset = made.test_data._dataset
    trained_users = set(dataset.id2token("user_id", made.train_data._dataset.inter_feat["user_id"]))
    counts: dict[str, int] = {}
    for user in trained_users:
        targets = len(histories[user]) - 1
        test, valid = int(0.3 * targets), int(0.2 * targets)  # as RecBole cuts
        if targets - test - valid > 1 and not test:
            test = 1
        if targets - test - valid > 1 and not valid:
            valid = 1
        for item in histories[user][: 1 + targets - test - valid]:
            counts[item] = counts.get(item, 0) + 1
    number = {token: id for id, token in enumerate(dataset.field2id_token["item_id"])}
    head = sorted(counts, key=lambda item: (-counts[item], number[item]))[: round(0.2 * len(counts))]
    values: dict[str, list[float]] = {name: [] for name in ITEM_GROUPS}
    for user, row, target in zip(dataset.id2token("user_id", row_users(made.test_data)), *ranked(made), strict=True):
        rank, item = 1 + (row > row[target]).sum(), dataset.id2token("item_id", target)
        kind = "head_items" if item in head else "rare_items" if item in counts else "cold_items"
        for name in (kind, f"{'existing' if user in trained_users else 'new'}-{kind}"):
            if name in values:
                values[name].append(1 / np.log2(rank + 1) if rank <= 10 else 0)
    for name, ndcg in values.items():
        assert result.groups[name].rows == len(ndcg) > 0
        assert result.groups[name].test["ndcg@10"] == pytest.approx(np.mean(ndcg), abs=1e-4)
    assert sum(result.groups[name].rows for name in ITEM_GROUPS[:3]) == result.rows


def test_labels_have_no_groups(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    columns = {"inter": ["user_id", "item_id", "timestamp", "rating"]}
    keys = {"eval_args": {"mode": "labeled"}, "threshold": {"rating": 3}, "load_col": columns, "eval_groups": ["head"]}
    with pytest.raises(XferError, match="eval_groups needs ranked targets, but labels are evaluated. Leave"):
        run("FM", "Tiny", overrides={**settings(tmp_path, "FM"), **keys, "metrics": ["AUC"], "valid_metric": "AUC"})


def test_rows_ranked_in_several_domains_belong_to_the_groups_of_their_user(tmp_path: Path) -> None:
    write_joined(tmp_path)
    keys = {"histories": "per_domain", "rank_within_domain": True, "eval_groups": ["head", "tail"], "epochs": 1}
    result = run("BPR", "A+B+C", overrides={**settings(tmp_path, "BPR"), **keys})
    made = load(result.folder)
    users = row_users(made.test_data)
    assert len(set(users)) < len(users) == result.rows  # a user has a target in each of its domains
    assert sum(group.rows for group in result.groups.values()) == result.rows
    head = target_groups(["head"], made.test_data, made.train_data, made.config["head_share"])["head"]
    heads = set(made.dataset.field2id_token["user_id"][users[head]])
    domains_of = [user for _, user in result.row_targets]
    assert result.groups["head"].rows == sum(user in heads for user in domains_of)


def test_new_users_are_never_trained_or_validated(tmp_path: Path) -> None:
    write_small(tmp_path)
    made = build(config(tmp_path, "TPSASRec", **KEYS))
    users, trained, counts = users_of(made)
    assert set(made.valid_data._dataset.inter_feat["user_id"].tolist()) <= trained
    new = set(users.tolist()) - trained
    assert len(new) == pytest.approx(0.3 * len(users), abs=4)
    assert len(users) == len(set(users.tolist())) == sum(count > 2 for count in counts.values())
    dataset = made.test_data._dataset
    last = dataset.sequences.ends[np.isin(dataset.sequences.users, users)] - 1
    assert dataset.inter_feat[dataset.ROW].tolist() == last.tolist()
    batches = list(made.trainer.train_loader(made.train_data))
    assert not new & {user for batch in batches for user in batch["user_id"].flatten().tolist()}
    assert "0.3 of users new" in str(run("Pop", "Small", overrides={**settings(tmp_path, "Pop"), **KEYS}).protocol)


def test_groups_with_sampled_negatives(tmp_path: Path) -> None:
    write_small(tmp_path)
    keys = {**settings(tmp_path, "SASRec"), **KEYS, "metrics": ["Hit"], "topk": [3], "valid_metric": "Hit@3"}
    keys["eval_args"] = {**KEYS["eval_args"], "mode": "uni5"}
    result = run("SASRec", "Small", overrides=keys)
    parts = [result.groups[name] for name in ("existing", "new")]
    mean = sum(part.rows * part.test["hit@3"] for part in parts) / result.rows
    assert sum(part.rows for part in parts) == result.rows
    assert result.test["hit@3"] == pytest.approx(mean, abs=1e-4)


def test_command_line_prints_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_small(tmp_path)
    keys = {**settings(tmp_path, "Pop"), "eval_groups": "[head, tail]"}
    assert main(["run", "--model=Pop", "--dataset=Small", *(f"--{key}={value}" for key, value in keys.items())]) == 0
    printed = capsys.readouterr().out
    assert "test, head " in printed and "test, tail " in printed
    assert "test targets (head " in printed


def test_comparison_of_groups_over_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_small(tmp_path)
    rows = [{"model": "TP", "tp_model": "SASRec", "inner_steps": steps} for steps in (1, 2)]
    groups = ["existing-tail", "new"]
    plan = {**settings(tmp_path, "TPSASRec"), **KEYS, "dataset": "Small", "seeds": [1, 2], "eval_groups": groups}
    (tmp_path / "plan.yaml").write_text(yaml.dump({**plan, "rows": rows}))
    result = tmp_path / "result.json"
    assert main(["compare", str(tmp_path / "plan.yaml"), f"--result={result}"]) == 0
    written = json.loads(result.read_text())
    assert list(written["summary"]) == ["TPSASRec inner_steps=1", "TPSASRec inner_steps=2"]
    for label, summary in written["summary"].items():
        for group in groups:
            of_seeds = [run["groups"][group]["test"]["hit@3"] for run in written["runs"] if run["label"] == label]
            assert len(of_seeds) == 2
            assert summary[f"hit@3 [{group}]"]["mean"] == pytest.approx(np.mean(of_seeds))
            assert summary[f"hit@3 [{group}]"]["spread"] == pytest.approx(np.std(of_seeds, ddof=1))
    printed = capsys.readouterr().out
    assert printed.count("existing-tail ") == 3  # in two rows and in the caption


def test_head_users_with_ties() -> None:
    users, counts = np.array([1, 2, 2, 3, 4, 6]), np.array([5, 2, 3, 9, 5, 0])
    assert np.flatnonzero(head_ids(users, counts, 0.5)).tolist() == [1, 3]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"eval_groups": ["young"]}, "'young' must consist of existing, new, head, tail, cold_items, rare_items"),
        ({"eval_groups": ["head-warm_items"]}, "eval_groups: 'head-warm_items' must consist of existing, new"),
        ({"eval_groups": ["new"]}, "The group 'new' of eval_groups has no test target"),
        ({"eval_groups": ["head"], "head_share": 0}, "head_share=0 is invalid: it must be a number between 0"),
        ({"eval_groups": ["head"], "head_share": None}, "head_share=None is invalid: it must be a number between 0"),
        ({"eval_args": {**KEYS["eval_args"], "split": {"NU": 2}}}, "NU=2 is invalid: it must be a number between 0"),
    ],
)
def test_invalid_groups_are_rejected_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict, message: str
) -> None:
    write_small(tmp_path)
    monkeypatch.setattr(stages, "fit", lambda *_: pytest.fail("training began"))
    with pytest.raises(XferError, match=message):
        run("Pop", "Small", overrides={**settings(tmp_path, "Pop"), **keys})


def test_models_with_different_datasets_have_equal_groups(tmp_path: Path) -> None:
    write_small(tmp_path)
    groups = []
    for model in ("SASRec", "FEARec", "FM"):
        made = build(config(tmp_path, model))
        groups.append(target_groups(["head"], made.test_data, made.train_data, 0.2)["head"])
    assert all(np.array_equal(groups[0], other) for other in groups[1:])
