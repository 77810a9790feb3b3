"""Tables of a study as those of a result file."""

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.record import cell, tables, text
from benchmarks.render import Change, Table
from recbole_xfer.cli.main import main
from recbole_xfer.testing.data import SMALL, paths, write_joined


def recorded(study: dict[str, Any], **options: Any) -> list[Table]:
    """The tables as a result file has them."""
    made = [text(table) for table in tables(study, "Table 4", **options)]
    return [Table.model_validate(json.loads(one, parse_float=Decimal)) for one in made]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a plan: joint models with a baseline, published figures and models of one domain."""
    root = tmp_path_factory.mktemp("record")
    write_joined(root, users=120)
    plan = {
        **SMALL, **paths(root), "dataset": "A+B+C", "seeds": [1, 2], "rank_within_domain": True, "baseline": "Pop",
        "rows": [{"model": "Pop"}, {"model": "BPR", "alone": True}], "metrics": ["Hit", "NDCG"], "topk": [10],
        "published": {"source": "A paper", "same_data": False, "figures": {"A+B+C": {"Theirs": {"ndcg@10 [B]": 0.5}}}},
    }  # fmt: skip
    (root / "plan.yaml").write_text(yaml.safe_dump({**plan, "epochs": 1}), encoding="utf-8")
    return root


def compared(root: Path, *options: str) -> dict[str, Any]:
    assert main(["compare", str(root / "plan.yaml"), f"--output={root / 'out'}", *options]) == 0
    return json.loads((root / "out" / "study.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def study(root: Path) -> dict[str, Any]:
    return compared(root)


def test_one_metric_has_a_column_for_each_domain(study: dict[str, Any]) -> None:
    joint, alone = recorded(study, only=["NDCG@10"])
    assert joint.title == "Table 4: A+B+C" and alone.title == "Table 4: A+B+C, joint against one domain"
    assert joint.columns == ["model", "all", "mean", "A", "B", "C", "vs Pop"]
    assert [row[0] for row in joint.rows] == ["Pop", "BPR", "Theirs, published"]
    assert joint.rows[2] == ["Theirs, published", None, None, None, Decimal("0.5000"), None, None]
    change, against = joint.rows[1][-1], study["tables"][0]["against"]["changes"]["BPR"]
    assert isinstance(change, Change) and float(change.percent) == pytest.approx(100 * against["change"], abs=0.05)
    changes = study["tables"][0]["joint_against_alone"]["changes"]
    assert alone.columns == ["model", *(f"{one['domain']} ({one['targets']:,})" for one in changes)]
    assert [float(one.percent) for one in alone.rows[0][1:]] == [round(100 * one["change"], 1) for one in changes]


def test_several_metrics_have_a_line_for_each_domain(study: dict[str, Any]) -> None:
    joint, _ = recorded(study)
    assert joint.columns == ["model", "domain", "hit@10", "ndcg@10", "vs Pop"]
    summary = study["tables"][0]["summary"]["BPR"]["ndcg@10"]
    (mean, spread), *_ = [row[3] for row in joint.rows if row[:2] == ["BPR", "all"]]
    assert float(mean) == pytest.approx(summary["mean"], abs=1e-4)
    assert float(spread) == pytest.approx(summary["spread"], abs=1e-4)


def test_one_seed_has_no_columns_of_its_training(root: Path) -> None:
    joint, _ = recorded(compared(root, "--seeds=[1]"))
    assert joint.columns == ["model", "domain", "hit@10", "ndcg@10", "vs Pop"]


def test_baselines_of_rows_have_a_column(root: Path) -> None:
    plan = yaml.safe_load((root / "plan.yaml").read_text(encoding="utf-8"))
    rows = [{"model": "Pop"}, {"model": "BPR", "baseline": "Pop"}, {"model": "BPR", "name": "again", "baseline": "BPR"}]
    rows[2]["learning_rate"] = 0.1
    own = {**plan, "rows": rows, "seeds": [1], "baseline": None}
    (root / "own.yaml").write_text(yaml.safe_dump(own), encoding="utf-8")
    assert main(["compare", str(root / "own.yaml"), f"--output={root / 'own'}"]) == 0
    (joint,) = recorded(json.loads((root / "own" / "study.json").read_text(encoding="utf-8")), only=["NDCG@10"])
    assert joint.columns == ["model", "all", "mean", "A", "B", "C", "baseline", "vs baseline"]
    assert [row[-2] for row in joint.rows] == [None, "Pop", "BPR", None]
    assert [type(row[-1]) for row in joint.rows] == [type(None), Change, Change, type(None)]


def test_a_metric_of_the_validation_split_has_a_column(study: dict[str, Any]) -> None:
    joint, _ = recorded(study, validation="NDCG@10")
    assert joint.columns[-1] == "validation ndcg@10"
    scores = [run["valid"]["ndcg@10"] for run in study["tables"][0]["runs"] if run["label"] == "BPR"]
    first, *others = [row[-1] for row in joint.rows if row[0] == "BPR"]
    assert float(first[0]) == pytest.approx(sum(scores) / 2, abs=1e-4) and set(others) == {None}


def test_digits_are_kept() -> None:
    assert [cell("0.2020 ±.0070"), cell("0.5000"), cell(""), cell("failed")] == [
        "[0.2020, 0.0070]", "0.5000", "null", '"failed"',
    ]  # fmt: skip
