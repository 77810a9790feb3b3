"""The comparisons in benchmarks/plans have known keys and readable tables, as have the studies in plans; one is run."""

from __future__ import annotations

import itertools
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from recbole_xfer.comparison.plan import check_rows, histories_of, load_plan, row_keys, shares_of, tables_of
from recbole_xfer.comparison.table import Comparison, with_distinct_labels
from recbole_xfer.config.config import XferConfig
from recbole_xfer.config.values import read_yaml_file, split_domains
from recbole_xfer.evaluation.result import Protocol, Result
from recbole_xfer.experiment import label
from recbole_xfer.quick_start import compare
from recbole_xfer.study.plan import read_plan
from recbole_xfer.testing.data import SIZES, SMALL, write_small
from tests.conftest import ROOT
from tests.helpers.commands import commands, invalid

STUDIES = sorted((ROOT / "plans").glob("*.yaml"))
OTHERS = {  # without figures of their rows: of other models or data, of a picture, or as changes in percent
    "recguru_table2", "recguru_table2_alone", "recguru_table3", "retr_figure4", "retr_table3",
    "syncrec_table4", "tp_figure4", "tp_figure5", "tp_figure6", "tp_figure7",
}  # fmt: skip
PLANS = [path for path in sorted((ROOT / "benchmarks").rglob("*.yaml")) if "rows" in read_yaml_file(path)]


@pytest.mark.parametrize("plan", PLANS, ids=lambda path: path.stem)
def test_a_plan_has_known_keys_and_a_table_with_distinct_rows(plan: Path) -> None:
    shared = plan.with_name("shared.yaml")
    keys = load_plan(plan, [shared] if shared.exists() else [])
    histories_of(keys)
    rows, seeds, keys = keys["rows"], keys["seeds"], tables_of(keys, shares_of(keys))[0].keys
    check_rows(keys, rows)
    results = [
        invented(XferConfig(overrides=row_keys(keys, row)), seed, row.get("name")) for row in rows for seed in seeds
    ]
    comparison = Comparison(with_distinct_labels(results, [row_keys({}, row) for row in rows for _ in seeds]))
    assert len(comparison.by_label()) == len(rows)
    console = Console(width=100, file=StringIO())  # a narrower terminal has it on its side
    console.print(comparison.table())
    assert "…" not in console.file.getvalue()


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.stem)
def test_a_study_of_a_paper_has_known_keys_rows_and_figures(file: Path, tmp_path: Path) -> None:
    plan = read_yaml_file(file)
    targets = plan.get("datasets") or [plan["dataset"]]
    for domain in {domain for name in (*targets, plan.get("source", targets[0])) for domain in split_domains(name)}:
        (tmp_path / domain).mkdir()
    study = read_plan(file, {"data_path": str(tmp_path)})
    labels = {row.label for table in study.tables for row in table.rows}
    figures = study.published.figures if study.published else {}
    assert file.stem in OTHERS or labels & {row for rows in figures.values() for row in rows}


@pytest.mark.parametrize("file", STUDIES, ids=lambda path: path.stem)
def test_a_study_of_a_paper_says_what_it_answers_and_how_to_run_it(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    head = "\n".join(line[1:] for line in itertools.takewhile(lambda line: line.startswith("#"), lines))
    assert invalid(head) == []
    found = commands(head)
    assert [words[0] for words in found][:1] == ["prepare"]
    assert ["compare", f"plans/{file.name}", f"--output={file.stem}"] in found
    assert f"plans/{file.name}" in (ROOT / "docs" / "studies.md").read_text(encoding="utf-8")


def invented(config: Any, seed: int, name: str | None) -> Result:
    metrics = {f"{metric.lower()}@{k}": 0.1234 for k in config["topk"] for metric in config["metrics"]}
    return Result(
        label=name or label(config), model=config["model"], dataset=config["dataset"], source=None, adaptation=None,
        protocol=Protocol("", "", history_masked=False), seed=seed, valid=metrics, test=metrics, rows=9, best_epoch=1,
        seconds=1.0, folder="", valid_score=0.1, cutoff=10, by_row=np.zeros(9),
    )  # fmt: skip


def test_rolling_prediction_runs(tmp_path: Path) -> None:
    write_small(tmp_path)
    sizes = {key: SIZES[key] for key in ("hidden_size", "inner_size", "n_heads")}
    small = {"dataset": "Small", "data_path": str(tmp_path), "epochs": 1, "seeds": [1, 2], **SMALL, **sizes}
    small |= {"user_inter_num_interval": "[0,inf)", "item_inter_num_interval": "[0,inf)"}
    comparison = compare(ROOT / "benchmarks" / "plans" / "rolling.yaml", small)
    assert list(comparison.by_label()) == ["RETR", "RETR pathway=False", "SASRec"]
    assert len({result.rows for result in comparison.results}) == 1
    assert "held-out users [8, 1, 1], last 5 items of each" in comparison.caption()
