"""Joint and single-domain training: equal targets, no leakage from the test split, and the table of changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from scipy import stats

from recbole_xfer import stages
from recbole_xfer.cli.main import main
from recbole_xfer.comparison.joint import JointAgainstAlone, Pair, references
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import Protocol, Result
from recbole_xfer.experiment import Experiment, build
from recbole_xfer.quick_start import compare, evaluate, run
from recbole_xfer.testing.data import SIZES, SMALL, config, settings, write_joined
from recbole_xfer.trainer.run_folder import RunFolder

SPLITS = [{"LS": "valid_and_test"}, {"NU": 0.3}, {"HU": [6, 2, 2]}, {"RS": [0.5, 0.2, 0.3]}]


def targets(made: Experiment) -> list[set[tuple[str, str, float]]]:
    """(user, item, time) of each part of the split."""
    parts = [loader._dataset for loader in (made.train_data, made.valid_data, made.test_data)]
    columns = ["user_id", "item_id", "timestamp"]
    return [set(zip(*(tokens(made, part.inter_feat, name) for name in columns), strict=True)) for part in parts]


def tokens(made: Experiment, rows: Any, name: str) -> list[Any]:
    return rows[name].tolist() if name == "timestamp" else made.dataset.id2token(name, rows[name]).tolist()


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
@pytest.mark.parametrize("histories", ["across", "per_domain"])
@pytest.mark.parametrize("split", SPLITS, ids=lambda split: next(iter(split)))
def test_single_domain_keeps_its_part_of_the_joined_split(
    tmp_path: Path, split: dict, histories: str, model: str
) -> None:
    """Only the first item of a history is missing, because nothing precedes it in its domain."""
    write_joined(tmp_path)
    keys = {
        "eval_args": {"split": split, "order": "TO", "group_by": "user", "mode": "full"},
        "histories": histories,
        "item_inter_num_interval": "[8,inf)",  # counted in the joined data
        "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]},
    }
    joint = build(config(tmp_path, model, "A+B+C", **keys))
    firsts = 0
    for domain in "ABC":
        alone = build(config(tmp_path, model, "A+B+C", single_domain=domain, **keys))
        items = {token.partition("/")[2] for token in joint.dataset.field2id_token["item_id"] if token[0] == domain}
        assert set(alone.dataset.field2id_token["item_id"][1:]) == items
        first = earliest(alone)
        for part, whole in zip(targets(alone), targets(joint), strict=True):
            own = {(user, item.partition("/")[2], time) for user, item, time in whole if item[0] == domain}
            assert part and part <= own
            assert all(time == first[user] for user, _, time in own - part)
            firsts += len(own - part)
    assert (firsts > 0) == (histories == "across")


def earliest(made: Experiment) -> dict[str, float]:
    """The time of each user's first interaction in the only domain of the dataset, in RecBole's float32."""
    (domain,) = made.dataset.domains
    frame = pd.read_csv(made.dataset.root / domain / f"{domain}.inter", sep="\t")
    frame = frame[frame["item_id:token"].isin(made.dataset.field2token_id["item_id"])]
    return frame.groupby("user_id:token")["timestamp:float"].min().astype(np.float32).to_dict()


@pytest.mark.parametrize("model", ["RETR", "BPR"])
def test_single_domain_with_histories_per_domain_equals_the_domains_own_dataset(tmp_path: Path, model: str) -> None:
    """The split of a domain is then its own, so that the same seed gives the same model."""
    write_joined(tmp_path)
    keys = {**settings(tmp_path, model), "rank_within_domain": True}
    alone = run(model, "A+B+C", overrides={**keys, "histories": "per_domain", "single_domain": "B"})
    own = run(model, "B", overrides=keys)
    assert alone.test == own.test and (alone.by_row == own.by_row).all()
    assert alone.dataset == "B of A+B+C" and "-A+B+C-B-" in alone.folder
    with pytest.raises(XferError, match=r"cannot be compared: B of A[+]B[+]C \(.*\) versus B \("):
        evaluate([alone.folder, own.folder])


def plan(root: Path, **keys: Any) -> Path:
    """A small comparison; its SyNCRec cannot be trained on one domain."""
    write_joined(root, users=120)
    sizes = {key: SIZES[key] for key in ("hidden_size", "inner_size", "n_heads", "n_layers")}
    rows = [
        {"model": "SyNCRec", "n_experts": 2, "cross_experts": 1, "alone": "SASRec", **sizes},
        {"model": "RETR", "pathway": False, "name": "SASRec", "alone": True, **sizes},
        {"model": "BPR", "alone": True},
        {"model": "Pop"},
    ]
    shared = {"dataset": "A+B+C", "seeds": [1], "rank_within_domain": True, "rows": rows, **SMALL, "epochs": 1}
    file = root / "plan.yaml"
    places = {"data_path": str(root), "checkpoint_dir": str(root / "saved")}
    file.write_text(yaml.safe_dump({**shared, **places, **keys}), encoding="utf-8")
    return file


def test_comparison_of_joint_and_single_domain_training(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")  # a narrow terminal breaks the names of a table on its side
    file = plan(tmp_path)
    assert main(["compare", str(file), "--result=table.json"]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "Joint and single-domain training on A+B+C" in output and "SyNCRec (alone: SASRec)" in output
    assert "Holm's correction for 9 tests" in output
    content = json.loads(Path("table.json").read_text())
    table = content["joint_against_alone"]
    assert list(content["summary"]) == ["SyNCRec", "SASRec", "BPR", "Pop"]
    lines = [(line["model"], line["alone_model"], line["domain"]) for line in table["changes"]]
    pairs = (("SyNCRec", "SASRec"), ("SASRec", "SASRec"), ("BPR", "BPR"))
    assert lines == [(*names, domain) for names in pairs for domain in "ABC"]
    assert len(table["runs_alone"]) == 2 * 3  # models and domains; SyNCRec's are SASRec's
    counts = content["runs"][0]["rows_by_domain"]
    assert [line["targets"] + line["left_out"] for line in table["changes"][:3]] == list(counts.values())
    assert sum(line["left_out"] for line in table["changes"]) > 0
    mean = table["runs_alone"][0]["test"]["ndcg@10"]
    assert table["changes"][0]["alone"]["mean"] == pytest.approx(mean, abs=1e-4)  # RecBole rounds to 4 places
    monkeypatch.setattr(stages, "fit", None)  # the second time nothing is trained
    assert compare(file).as_dict()["joint_against_alone"] == table


def test_models_of_one_domain_have_keys_of_their_own(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"model": "BPR", "alone": True, "alone_keys": {"epochs": 2}}]
    file = plan(tmp_path, rows=rows)
    monkeypatch.setenv("COLUMNS", "200")  # a narrow terminal breaks the names of a table on its side
    assert main(["compare", str(file), "--dry-run"]) == 0
    assert main(["compare", str(file), "--result=table.json"]) == 0
    assert "BPR (alone: BPR, epochs=2)" in " ".join(capsys.readouterr().out.split())
    content = json.loads(Path("table.json").read_text())
    runs = [*content["runs"], *content["joint_against_alone"]["runs_alone"]]
    assert [len(RunFolder(run["folder"]).epochs()) for run in runs] == [1, 2, 2, 2]


def result(label: str, seed: int, by_row: np.ndarray, users: list[str]) -> Result:
    return Result(
        label=label, model=label, dataset="A+B", source=None, adaptation=None, protocol=Protocol("", "", False),
        seed=seed, valid={}, test={}, rows=len(by_row), best_epoch=1, seconds=1.0, folder="", valid_score=0.0,
        cutoff=10, by_row=by_row, row_targets=pd.MultiIndex.from_tuples([("A", user) for user in users]),
        rows_by_domain={"A": len(users)},
    )  # fmt: skip


def test_change_is_measured_on_equal_targets_in_any_order() -> None:
    rng = np.random.default_rng(0)
    users = [f"u{number}" for number in range(100)]
    joint, alone = rng.uniform(0.4, 0.8, (2, 100)), rng.uniform(0.3, 0.7, (2, 90))
    order = rng.permutation(90)  # the last ten users have no earlier item
    pair = Pair(
        "A",
        [result("m", seed, row, users) for seed, row in enumerate(joint)],
        [result("m", seed, row[order], [users[place] for place in order]) for seed, row in enumerate(alone)],
    )
    worse = Pair("A", pair.alone, [result("m", 0, row, users[:90]) for row in joint[:, :90]])
    (change, loss) = JointAgainstAlone([pair, worse]).changes()
    assert change["targets"] == 90 and change["left_out"] == 10
    a, b = joint[:, :90].mean(axis=0), alone.mean(axis=0)
    assert change["change"] == pytest.approx(a.mean() / b.mean() - 1)
    assert change["p"] == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert change["p_corrected"] == pytest.approx(2 * change["p"])
    assert change["joint"]["spread"] == pytest.approx(joint[:, :90].mean(axis=1).std(ddof=1))
    assert (change["significant"], loss["significant"]) == ("gain", "loss")
    with pytest.raises(XferError, match="did not rank all targets"):
        _ = Pair("A", pair.alone, pair.joint).scores


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"rank_within_domain": False}, "Set rank_within_domain: True for all rows"),
        ({"dataset": "A"}, "needs several domains"),
        ({"eval_args": {"mode": "uni5"}}, "sampled candidates differ"),
        ({"eval_args": {"split": {"RS": [8, 1, 1]}}}, "one test target per history"),
        ({"overlap": 0.5}, "needs overlap: 1"),
        ({"rows": [{"model": "SyNCRec", "alone": "SASRec"}]}, "alone: SASRec must be the name .* 0 such rows exist"),
        ({"rows": [{"model": "SyNCRec", "alone": True}]}, r"SyNCRec on A\+B\+C.* cannot learn one domain"),
        ({"dataset": "A+B", "rows": [{"model": "RecGURU", "alone": True}]}, "RecGURU .* cannot learn one domain"),
        ({"rows": [{"model": "Pop", "alone_keys": {"epochs": 2}}]}, "alone_keys .Pop.: it needs 'alone: True'"),
        ({"rows": [{"model": "BPR", "alone": True, "alone_keys": {"epoch": 2}}]}, "Did you mean 'epochs'"),
    ],
)
def test_invalid_pairing_is_rejected_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict, message: str
) -> None:
    monkeypatch.setattr(stages, "fit", None)
    file = plan(tmp_path)
    content = yaml.safe_load(file.read_text())
    content["rows"] = content["rows"][1:]  # a row of SyNCRec ranks within its domain in any case
    file.write_text(yaml.safe_dump({**content, **keys}), encoding="utf-8")
    with pytest.raises(XferError, match=message):
        compare(file)


def test_references_between_rows() -> None:
    rows = [{"model": "A", "alone": "C"}, {"model": "B", "name": "C", "alone": True}, {"model": "C"}]
    assert references(rows) == [1, 1, None]
    with pytest.raises(XferError, match="2 such rows exist"):
        references([*rows, {"model": "C", "alone": True}])


def test_single_domain_must_be_one_of_several(tmp_path: Path) -> None:
    write_joined(tmp_path)
    for dataset, single in (("A", "A"), ("A+B", "C")):
        with pytest.raises(XferError, match=f"single_domain={single} must be one of several domains"):
            build(config(tmp_path, "RETR", dataset, single_domain=single))
    late = pd.DataFrame({"user_id": ["u1", "u2"], "item_id": ["i1", "i2"], "timestamp": [1.6e9, 1.6e9]})
    write_domain(tmp_path, "D", late, None)
    with pytest.raises(XferError, match="Filtering removes all interactions of D"):
        build(config(tmp_path, "RETR", "A+D", single_domain="D", val_interval={"timestamp": "(0,1.5e9]"}))
    with pytest.raises(XferError, match="SyNCRec learns from histories across several domains"):
        build(config(tmp_path, "SyNCRec", "A+B", single_domain="B"))


def test_single_domain_without_a_training_target(tmp_path: Path) -> None:
    """In joined histories its items have earlier items of other domains; alone, none of them can be trained."""
    rows = [(f"u{user}", item) for user in range(6) for item in ("b1", "b2", "b3", "a1", "a2")]
    rows += [(f"v{user}", item) for user in range(6) for item in ("b4", "a1", "b1", "b2", "b3")]
    table = pd.DataFrame(rows, columns=["user_id", "item_id"])
    table["timestamp"] = np.arange(len(table), dtype=float)
    table["domain"] = table["item_id"].str[0].str.upper()
    for domain, part in table.groupby("domain"):
        write_domain(tmp_path, str(domain), part.drop(columns="domain"), None)
    keys = {"rank_within_domain": True, "topk": [1], "valid_metric": "NDCG@1"}
    build(config(tmp_path, "RETR", "A+B", **keys))
    with pytest.raises(XferError, match="A has no user with two training interactions"):
        build(config(tmp_path, "RETR", "A+B", single_domain="A", **keys))
