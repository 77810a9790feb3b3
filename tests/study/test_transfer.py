"""The transfer verb: a matrix of sources and adaptations, what it recommends, and its files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from recbole_xfer import stages
from recbole_xfer.cli.main import main
from recbole_xfer.comparison.matrix import TransferMatrix
from recbole_xfer.comparison.table import Failure
from recbole_xfer.errors import XferError
from recbole_xfer.quick_start import transfer
from recbole_xfer.report.report import report
from recbole_xfer.study.transfer import plan_transfer, source_sets
from recbole_xfer.testing.data import SMALL, paths, write_small
from recbole_xfer.testing.isolation import isolate

SIZES = {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1, "projection_heads": 2, "modalities": ["text"]}
KEYS: dict[str, Any] = {**SMALL, **SIZES, "epochs": 1, "pretrain_epochs": 1, "topk": [10]}
SETS = ["A", "B", "A+B"]
CELLS = [f"ANT ({way}) from {source}" for source in SETS for way in ("relearn", "finetune")]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a target, two sources, and a file of keys."""
    folder = tmp_path_factory.mktemp("transfer")
    for seed, name in enumerate(("Shop", "A", "B")):
        write_small(folder, name, users=16, items=12, seed=seed, holes=False)
    (folder / "keys.yaml").write_text(yaml.safe_dump({**KEYS, **paths(folder)}), encoding="utf-8")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(folder, monkeypatch)
        yield folder


@pytest.fixture(scope="module")
def matrix(root: Path) -> TransferMatrix:
    study = transfer("ANT", "Shop", ["A", "B"], config_files=[root / "keys.yaml"])
    study.check()
    (table,) = study.tables
    assert isinstance(table, TransferMatrix)
    return table


def test_each_source_alone_all_together_and_each_left_out() -> None:
    assert source_sets(["A"], "T") == ["A"]
    assert source_sets(["B", "A"], "T") == ["B", "A", "A+B"]
    assert source_sets(["A", "B", "C"], "T") == ["A", "B", "C", "A+B+C", "A+B", "A+C", "B+C"]
    assert source_sets(["B+A", "C"], "T") == ["A+B", "C", "A+B+C"]


def test_scratch_and_the_reference_are_run_once_and_each_cell_is_tested(matrix: TransferMatrix) -> None:
    assert list(matrix.by_label()) == ["ANT (scratch)", "ContentKNN", *CELLS]
    assert [change.label for change in matrix.changes()] == ["ContentKNN", *CELLS]
    assert "one pre-training on each set of sources (seed 2020)" in matrix.caption()
    assert "with Holm's correction for 7 tests" in matrix.caption()
    layout = matrix.layout()
    assert layout.columns == ["relearn", "vs scratch", "finetune", "vs scratch"]
    assert [line.names for line in layout.lines] == [["ANT (scratch)"], ["ContentKNN"], *([name] for name in SETS)]
    shown = [entry.text for line in layout.lines for entry in line.entries[::2]]
    means = {label: f"{row['ndcg@10']['mean']:.4f}" for label, row in matrix.summary().items()}
    assert shown == [*[means["ANT (scratch)"]] * 2, *[means["ContentKNN"]] * 2, *(means[label] for label in CELLS)]


def test_a_pretraining_is_shared_by_all_adaptations_and_seeds(root: Path, matrix: TransferMatrix) -> None:
    assert len(list((root / "saved").glob("ANT-*-pretrained-*"))) == len(SETS)
    plan = plan_transfer("ANT", "Shop", ["A", "B"], ["relearn"], [3, 4], config_files=[root / "keys.yaml"])
    assert {cell.keys["pretrain_seed"] for cell in plan.study.cells().values() if "source" in cell.keys} == {3}
    assert len(plan.study.cells()) == (2 + 3) * 2


def scored(matrix: TransferMatrix, **scores: float) -> TransferMatrix:
    """A matrix with other validation scores: 0.1, or those of labels in which a word occurs."""
    results = []
    for result in matrix.results:
        own = next((score for word, score in scores.items() if f"{word})" in result.label or word == result.label), 0.1)
        results.append(replace(result, valid_score=own))
    return replace(matrix, results=results)


def test_validation_chooses_and_the_test_split_describes(matrix: TransferMatrix) -> None:
    use = scored(matrix, finetune=0.3, scratch=0.2).verdict()
    assert use.startswith("Use finetune from A (best on validation, 0.3000 against 0.2000 from scratch): ")
    assert "NDCG@10 on test, p = " in use
    none = scored(matrix, finetune=0.2, scratch=0.3).verdict()
    assert none.startswith("Train from scratch: no adaptation is better on validation (0.3000 from scratch). The best ")
    assert "them is finetune from A (0.2000 on validation): " in none and "NDCG@10 on test, p = " in none
    assert (
        "ContentKNN, without training, is better on validation (0.4000): " in scored(matrix, ContentKNN=0.4).verdict()
    )
    shuffled = replace(matrix, results=[replace(result, by_row=result.by_row[::-1]) for result in matrix.results])
    assert scored(shuffled, finetune=0.3).verdict()[:60] == scored(matrix, finetune=0.3).verdict()[:60]


def test_a_failed_cell_is_no_choice(matrix: TransferMatrix) -> None:
    kept = [result for result in matrix.results if result.label != CELLS[0]]
    broken = replace(matrix, results=kept, failed=[Failure(CELLS[0], 2020, "broken")])
    assert broken.layout().lines[2].entries[0].text == "failed"
    assert CELLS[0] not in broken.validation() and broken.verdict()
    lost = replace(matrix, failed=[Failure("ANT (scratch)", 2020, "broken")])
    assert lost.verdict().startswith("Nothing is recommended")


def test_the_command_trains_nothing_again_and_writes_every_format(
    root: Path, matrix: TransferMatrix, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(stages, "fit", None)
    options = ["--target=Shop", "--sources", "A", f"--config_files={root / 'keys.yaml'}"]
    command = ["transfer", "--model=ANT", *options]
    assert main([*command, "--mask_history=[False, True]", f"--output={tmp_path}"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"Likeness of successive texts .*: Shop -?0\.\d{3}, A -?0\.\d{3}\.", printed)
    assert printed.count("Transfer of ANT to Shop, history") == 2 and "on validation" in printed
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".tex", ".csv", ".json"}
    assert printed.endswith(f"Draw it: recbole-xfer report {tmp_path}\n")
    frame = pd.read_csv(tmp_path / "transfer.csv")
    assert set(frame["metric"]) == {"recall@10", "ndcg@10"} and frame["validation"].notna().all()
    assert set(frame["source"].dropna()) == {"A"} and set(frame["adaptation"].dropna()) == {"relearn", "finetune"}
    kept, masked = json.loads((tmp_path / "transfer.json").read_text())["tables"]
    assert [cell["row"] for cell in kept["matrix"]] == CELLS[:2] and "on validation" in kept["verdict"]
    assert kept["summary"][CELLS[0]] == matrix.summary()[CELLS[0]] and "history masked" in masked["measured"]
    of_metrics = kept["layouts"][1]
    assert of_metrics["columns"][:2] == ["recall@10", "ndcg@10"]  # of the rows of the matrix and the reference
    assert [line["names"] for line in of_metrics["lines"]] == [
        ["ANT (scratch)"],
        ["ContentKNN"],
        *([row] for row in CELLS[:2]),
    ]
    assert "## Test results on Shop, history kept" in (tmp_path / "transfer.md").read_text()
    names = [picture.name for picture in report([tmp_path]).pictures()]
    assert [name for name in names if name.startswith("matrix")] == [
        "matrix-Shop-history-kept", "matrix-Shop-history-masked"
    ]  # fmt: skip
    assert main([*command, "--dry-run"]) == 0
    assert "0 runs to do, 4 finished" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"model": "SASRec"},
            "SASRec cannot be adapted to a target, so it is not pre-trained on sources. "
            "Use `recbole-xfer run --dataset=Shop --data_path=/",
        ),
        ({"sources": []}, "No source is given. Add --sources=NAMES"),
        ({"sources": ["A", "A+B"]}, "A occurs twice in --sources"),
        ({"sources": ["A", "Shop"]}, "Shop is both source and target. Leave it out of --sources"),
        ({"adaptations": ["freeze"]}, "adaptations=freeze is invalid: it must be relearn, finetune or auto"),
        ({"seeds": [1, 1]}, "each seed must occur once"),
        ({"overrides": {"source": "A"}}, "source=A is invalid: transfer sets this key for each run. Set --sources"),
        ({"overrides": {"learning_rte": 1}}, "Unknown key 'learning_rte'"),
        ({"target": None}, "The key 'dataset' is missing"),
    ],
)
def test_mistakes_are_found_before_anything_runs(root: Path, arguments: dict[str, Any], message: str) -> None:
    given = {"model": "ANT", "target": "Shop", "sources": ["A", "B"], **arguments}
    with pytest.raises(XferError, match=message):
        plan_transfer(**{**given, "overrides": {**paths(root), **given.get("overrides", {})}})


def test_lists_of_histories_and_fractions_of_users_make_tables(root: Path) -> None:
    keys = {**paths(root), "mask_history": [True, False], "train_share": "0.5,1"}
    plan = plan_transfer("UniSRec", "Shop", ["A"], overrides=keys).study
    assert [table.share for table in plan.tables] == [0.5, 1] and plan.histories == [True, False]


def test_a_file_of_keys_can_be_that_of_an_adapted_run(root: Path) -> None:
    """Such as the best.yaml of a search."""
    best = {"model": "UniSRec", "dataset": "Shop", "source": "B", "adaptation": "finetune", "seed": 7}
    (root / "best.yaml").write_text(yaml.safe_dump({**best, **paths(root)}), encoding="utf-8")
    plan = plan_transfer(sources=["A"], config_files=[root / "best.yaml"])
    assert (plan.model, plan.adaptations, plan.study.seeds) == ("UniSRec", ["finetune"], [7])
    assert [row.label for row in plan.study.tables[0].rows] == [
        "UniSRec (scratch)", "ContentKNN", "UniSRec (finetune) from A"
    ]  # fmt: skip
