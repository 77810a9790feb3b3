"""Studies: tables of several datasets and histories, failed runs, processes that die, estimates and written files."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from recbole_xfer import stages
from recbole_xfer.cli.main import main
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build
from recbole_xfer.quick_start import ensemble
from recbole_xfer.study import ensembles, searching
from recbole_xfer.study.cells import DIED, Cell, run_cells, share_of, waiting
from recbole_xfer.study.estimate import estimate
from recbole_xfer.study.plan import make_plan, read_plan
from recbole_xfer.study.study import Study, run_study
from recbole_xfer.testing.data import SMALL, paths, write_small
from recbole_xfer.testing.isolation import isolate

SHARED = {**SMALL, "epochs": 1, "metrics": ["NDCG"], "topk": [10]}
SIZES = {"hidden_size": 8, "inner_size": 8, "n_layers": 1, "n_heads": 1}
PLAN: dict[str, Any] = {
    "datasets": ["Small", "Other"],
    "seeds": [1, 2],
    "mask_history": [False, True],
    "baseline": "Pop",
    "rows": [{"model": "Pop"}, {"model": "SASRec", **SIZES}],
    "published": {
        "source": "A paper, Table 1", "same_data": False, "mask_history": True,
        "figures": {"Small": {"Pop": {"ndcg@10": 0.25}, "Theirs": {"ndcg@10": 0.5}}},
    },
    **SHARED,
}  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two domains and the plan."""
    folder = tmp_path_factory.mktemp("study")
    for seed, name in enumerate(("Small", "Other")):
        write_small(folder, name, seed=seed)
    (folder / "plan.yaml").write_text(yaml.safe_dump({**PLAN, **paths(folder)}), encoding="utf-8")
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(folder, monkeypatch)
        yield folder


@pytest.fixture(scope="module")
def study(root: Path) -> Study:
    return run_study(read_plan(root / "plan.yaml"))


def test_a_table_for_each_dataset_and_history(study: Study) -> None:
    names = [f"{dataset}, history {kind}" for dataset in ("Small", "Other") for kind in ("kept", "masked")]
    assert [table.name for table in study.tables] == names and not study.failures and study.cells == 8
    for table in study.tables:
        assert list(table.by_label()) == ["Pop", "SASRec"]
        assert [change.label for change in table.changes()] == ["SASRec"]
        assert "vs Pop: change of NDCG@10" in table.caption()
        assert "of the targets are repeats" in table.caption() or "which count as misses" in table.caption()
    kept, masked = study.tables[:2]
    assert [result.folder for result in kept.results] == [result.folder for result in masked.results]
    assert kept.summary() != masked.summary()


def test_published_figures_are_in_the_table_of_their_history(study: Study) -> None:
    assert [bool(table.figures) for table in study.tables] == [False, True, False, False]
    lines = {line.names[0]: [entry.text for entry in line.entries] for line in study.tables[1].layout().lines}
    assert list(lines) == ["Pop", "Pop, published", "SASRec", "Theirs, published"]
    assert lines["Theirs, published"] == ["0.5000", ""]
    assert "published: A paper, Table 1, not the same data" in study.tables[1].caption()


def test_a_second_call_trains_nothing_and_writes_the_same(
    root: Path, study: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(stages, "fit", None)
    assert main(["compare", str(root / "plan.yaml"), f"--output={tmp_path / 'made'}"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("Test results on") == 4 and "study.tex" in printed
    content = json.loads((tmp_path / "made" / "study.json").read_text())
    assert [table["runs"] for table in content["tables"]] == [
        [json.loads(json.dumps(result.as_dict())) for result in table.results] for table in study.tables
    ]
    assert content["tables"][0]["against"]["baseline"] == "Pop"
    frame = pd.read_csv(tmp_path / "made" / "study.csv")
    assert len(frame) == 4 * 2 and set(frame["seeds"]) == {2}
    assert frame["published"].notna().sum() == 1 and frame["p_corrected"].notna().sum() == 4
    assert (tmp_path / "made" / "study.md").read_text().count("| SASRec |") == 4
    assert (tmp_path / "made" / "study.tex").read_text().count(r"\begin{table}") == 1  # parts of one table


def test_fractions_of_users_have_tables_a_curve_and_pictures(
    root: Path, study: Study, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The runs on all users are those of a study without fractions."""
    command = ["compare", str(root / "plan.yaml"), "--datasets=[Small]", "--published=None", "--train_share=0.2,1"]
    assert main([*command, f"--output={tmp_path}"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert printed.count("Test results on Small, 20% of the users") == 2
    assert printed.count("ndcg@10 by users trained on Small, history") == 2
    content = json.loads((tmp_path / "study.json").read_text())
    assert [curve["curve"] for curve in content["curves"]] == ["Small, history kept", "Small, history masked"]
    assert [table["runs"] for table in content["tables"][2:]] == [
        [json.loads(json.dumps(result.as_dict())) for result in table.results] for table in study.tables[:2]
    ]
    some, every = (content["tables"][number]["summary"]["SASRec"]["ndcg@10"] for number in (0, 2))
    points = [point for point in content["curves"][0]["points"] if point["row"] == "SASRec"]
    assert [(point["train_share"], point["mean"], point["spread"]) for point in points] == [
        (0.2, some["mean"], some["spread"]), (1.0, every["mean"], every["spread"]),
    ]  # fmt: skip
    assert (tmp_path / "study.md").read_text().count("## ndcg@10 by users trained") == 2
    shares = pd.read_csv(tmp_path / "curve.csv")["train_share"]
    assert set(shares) == {0.2, 1} and f"Draw it: recbole-xfer report {tmp_path}" in printed


def test_an_ensemble_joins_rows_seed_by_seed(root: Path, study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains nothing; each result is that of the verb ``ensemble`` on the runs of the seed."""
    monkeypatch.setattr(stages, "fit", None)
    plan = {**PLAN, "datasets": ["Small"], "ensembles": {"both": ["Pop", "SASRec"]}, "baseline": "both"}
    made = run_study(make_plan({**plan, "published": None, **paths(root)}))
    assert not made.failures
    for table, alone in zip(made.tables, study.tables, strict=False):
        rows = table.by_label()
        assert list(rows) == ["Pop", "SASRec", "both"]
        assert [change.label for change in table.changes()] == ["Pop", "SASRec"]
        masked, weights = rows["both"][0].protocol.history_masked, []
        for number, joined in enumerate(rows["both"]):
            folders = [alone.by_label()[label][number].folder for label in ("Pop", "SASRec")]
            expected = ensemble(folders, {"mask_history": masked})
            weights.append(list(expected.weights.values()))
            assert joined.test == expected.results[-1].test and joined.seed == number + 1
        shares = np.mean(weights, axis=0)
        note = f"mean weights chosen on the validation split, Pop {shares[0]:.2f}, SASRec {shares[1]:.2f}"
        assert f"both: scores joined with {note}" in table.caption()


def test_an_ensemble_without_one_of_its_runs_fails_alone(root: Path) -> None:
    rows = [{"model": "Pop"}, {"model": "SASRec", **SIZES}, {"model": "FDSA", "selected_features": ["colour"]}]
    of_rows = {"both": ["Pop", "SASRec"], "all": ["Pop", "SASRec", "FDSA"]}
    plan = {**PLAN, "datasets": ["Small"], "rows": rows, "mask_history": False, "published": None}
    made = run_study(make_plan({**plan, "ensembles": of_rows, **paths(root)}))
    assert list(made.tables[0].by_label()) == ["Pop", "SASRec", "both"]
    assert [(f.label, f.seed, f.reason) for f in made.tables[0].failed if f.label == "all"] == [
        ("all", 1, "FDSA failed"), ("all", 2, "FDSA failed"),
    ]  # fmt: skip
    assert [failure.split(":")[0] for failure in made.failures] == ["FDSA on Small, seeds 1, 2 failed"]


@pytest.mark.parametrize(("options", "verb"), [(["--dry-run"], "cannot run"), ([], "failed")])
def test_what_every_row_fails_for_is_said_once(
    root: Path, options: list[str], verb: str, capsys: pytest.CaptureFixture
) -> None:
    command = ["compare", str(root / "plan.yaml"), "--datasets=[Small]", "--published=None", "--mask_history=False"]
    assert main([*command, "--user_inter_num_interval=[1000,inf)", *options]) == 2
    error = capsys.readouterr().err.partition("error: ")[2]
    assert error.count("Filtering removes all users of Small") == 1
    assert re.search(rf".* on Small.* and \d other rows? {verb}: Filtering", error)


def test_runs_that_cannot_be_joined_are_a_failure(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def refuse(*_: Any) -> None:
        raise XferError("Their users differ.")

    monkeypatch.setattr(ensembles, "join_runs", refuse)
    command = ["compare", str(root / "plan.yaml"), "--datasets=[Small]", "--seeds=[1]", "--published=None"]
    assert main([*command, "--ensembles={both: [Pop, SASRec]}", "--mask_history=False"]) == 2
    printed = capsys.readouterr()
    assert "error: both on Small, seed 1 failed: Their users differ." in printed.err
    assert "both failed with seed 1" in " ".join(printed.out.split())


def test_a_dry_run_says_what_is_finished_and_leaves_nothing(
    root: Path, study: Study, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    before = set(root.rglob("*"))
    assert main(["compare", str(root / "plan.yaml"), "--datasets=[Small]", "--seeds=[2, 3]", "--dry-run"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "Small Pop 2 3 1 0 s" in printed and "SASRec 2 3 1 " in printed
    assert "2 runs to do, 2 finished: at most" in printed
    assert set(root.rglob("*")) == before


def test_a_dry_run_builds_the_data_of_a_source_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("Source", "Target"):
        write_small(tmp_path, name)
    ant = {"model": "ANT", "source": "Source", "modalities": ["text"], "pretrain_seed": 1, **SIZES}
    rows = [{**ant, "adaptation": "relearn"}, {**ant, "adaptation": "finetune"}, {**ant, "adaptation": "scratch"}]
    plan = make_plan({**SHARED, **paths(tmp_path), "dataset": "Target", "seeds": [1, 2], "rows": rows})
    built = []

    def counted(*args: Any, **keys: Any) -> Any:
        built.append(keys["stage"])
        return build(*args, **keys)

    monkeypatch.setattr(stages, "build", counted)
    estimated = estimate(plan)
    estimated.check()
    assert [row.missing for row in estimated.rows] == [[1, 2]] * 3
    assert built == ["pretrain"]


def test_a_failed_run_does_not_stop_the_others(root: Path, capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    rows = [{"model": "Pop"}, {"model": "FDSA", "selected_features": ["colour"]}]
    plan = {**PLAN, "datasets": ["Small"], "rows": rows, "seeds": [1, 2], "mask_history": False, "published": None}
    (root / "failing.yaml").write_text(yaml.safe_dump({**plan, **paths(root)}), encoding="utf-8")
    assert main(["compare", str(root / "failing.yaml"), "--result=failing.json"]) == 2
    printed = capsys.readouterr()
    assert "error: FDSA on Small, seeds 1, 2 failed: FDSA reads the item column 'colour'" in printed.err
    assert "FDSA" in printed.out and "failed" in printed.out
    failed, _ = json.loads(Path("failing.json").read_text())["tables"][0]["failed"]
    assert failed["label"] == "FDSA" and "colour" in failed["reason"]


def test_an_unexpected_error_is_one_line_and_its_traceback_is_kept(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "train_and_evaluate", lambda *_, **__: 1 / 0)
    keys = {"model": "Pop", "dataset": "Small", "seed": 1, "checkpoint_dir": "broken"}
    (outcome,) = run_cells([Cell("Pop on Small", keys)])
    assert outcome.failure == f"ZeroDivisionError: division by zero (see {Path('broken') / 'failed.log'})"
    assert Path("broken/failed.log").read_text().startswith("Pop on Small, seed 1\nTraceback")


class Deadly(Cell):
    """A cell whose process dies."""

    def __reduce__(self) -> tuple:
        return _die, (os.getpid(),)


def _die(driver: int) -> None:
    if os.getpid() != driver:
        os._exit(1)


def test_processes_give_the_same_results_and_a_dead_one_ends_its_cell_only(
    root: Path, study: Study, caplog: pytest.LogCaptureFixture
) -> None:
    keys = {**SHARED, **paths(root), "dataset": "Small", "mask_history": False, "seed": 2}
    keys["checkpoint_dir"] = str(root / "on_ray")
    cells = [Cell("a", {**keys, "model": "SASRec", **SIZES}, (False, True)), Deadly("b", keys)]
    with caplog.at_level("INFO", logger="recbole_xfer"):
        outcome, dead = run_cells(cells, workers=2)
    assert caplog.messages[0].startswith("2 runs, 2 at a time.")
    assert dead.failure == DIED
    for result, table in zip(outcome.results, study.tables, strict=False):
        (own,) = (one for one in table.by_label()["SASRec"] if one.seed == 2)
        assert result.test == own.test and (result.by_row == own.by_row).all()


def test_cells_that_adapt_one_pretraining_wait_for_the_first_of_them() -> None:
    """Otherwise a process would only wait while another one pre-trains."""
    ant = {"model": "ANT", "dataset": "Shop", "source": "A", "epochs": 3}
    keys = [
        {**ant, "adaptation": "scratch", "source": None},
        {**ant, "adaptation": "relearn"},
        {**ant, "adaptation": "finetune", "dataset": "Other", "train_share": 0.1},
        {**ant, "adaptation": "relearn", "source": "B"},
        {**ant, "adaptation": "relearn", "epochs": 4},  # also epochs of pre-training
        {**ant, "adaptation": "relearn", "pretrained": "folder"},
        {"model": "Pop", "dataset": "Shop"},
    ]
    cells = [Cell("", {**own, "seed": 1}) for own in keys]
    assert waiting(cells) == {1: [2], 3: [], 4: []}
    own_lengths = [Cell("", {**own, "seed": 1, "pretrain_epochs": 2, "pretrain_seed": 5}) for own in keys]
    seeds = [Cell("", {**cell.keys, "seed": 2}) for cell in own_lengths]
    assert waiting([*own_lengths, *seeds]) == {1: [2, 4, 8, 9, 11], 3: [10]}


def test_what_a_process_gets() -> None:
    two_cores, cluster = {"CPU": 2.0}, {"CPU": 32.0, "GPU": 4.0}
    parts = [share_of(two_cores, 1, 2), share_of(two_cores, 1, 4), share_of(cluster, 2, None), share_of(cluster, 2, 8)]
    assert [(part.cpus, part.gpus, part.threads) for part in parts] == [(1, 0, 1), (0.5, 0, 1), (8, 1, 8), (4, 0.5, 4)]
    assert share_of({"CPU": 32.0}, 2, None).threads == 16  # one process per machine


def test_searched_rows_have_the_keys_of_the_best_trial(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = []

    def tune(space: str | None, trials: int | None, overrides: dict) -> Any:
        asked.append((space, trials, overrides["seed"]))
        best = type("Trial", (), {"keys": {"learning_rate": 0.25}})
        return type("Search", (), {"best": best, "configurations": [{}] * 3})

    monkeypatch.setattr(searching, "_tune", tune)
    space = tmp_path / "space.yaml"
    space.write_text("learning_rate: [0.1, 0.01, 0.25]\n", encoding="utf-8")
    rows = [{"model": "Pop"}, {"model": "BPR", "search": str(space), "trials": 3}]
    plan = {**PLAN, "datasets": ["Small"], "rows": rows, "mask_history": False, "published": None}
    (tmp_path / "plan.yaml").write_text(yaml.safe_dump({**plan, **paths(root)}), encoding="utf-8")
    made = searching.searched(read_plan(tmp_path / "plan.yaml"))
    assert asked == [(str(space), 3, 1)]
    assert [cell.keys.get("learning_rate") for cell in made.cells().values()] == [None, None, 0.25, 0.25]
    assert made.tables[0].notes == ["as given: Pop", "searched on validation, 3 trials: BPR"]
