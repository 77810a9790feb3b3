"""Recommendations and comparisons as functions."""

from pathlib import Path

import pytest

from recbole_xfer import stages
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import load
from recbole_xfer.quick_start import compare, evaluate, run
from recbole_xfer.testing.data import settings, write_small


def test_evaluate_writes_nothing(tmp_path: Path) -> None:
    write_small(tmp_path)
    folder = run("SASRec", "Small", overrides=settings(tmp_path, "SASRec")).folder
    assert (tmp_path / "log_tensorboard").is_dir()
    before = set(tmp_path.rglob("*"))
    evaluate([folder], {"topk": [5]})
    assert set(tmp_path.rglob("*")) == before


def test_a_comparison_rejects_run_dir(tmp_path: Path) -> None:
    write_small(tmp_path)
    plan = tmp_path / "plan.yaml"
    plan.write_text("dataset: Small\nrun_dir: out\nrows: [{model: Pop}, {model: SASRec}]")
    with pytest.raises(XferError, match="'run_dir' is the folder of one run, and a comparison has many. Set check"):
        compare(plan, {"data_path": str(tmp_path)})


def test_a_comparison_is_one_table(tmp_path: Path) -> None:
    write_small(tmp_path)
    plan = tmp_path / "plan.yaml"
    plan.write_text("dataset: Small\nmask_history: [True, False]\nrows: [{model: Pop}]")
    with pytest.raises(XferError, match="plan.yaml has several tables. Use study"):
        compare(plan, {"data_path": str(tmp_path)})


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        ("seeds: [1, 2, 1]\nrows: [{model: Pop}]", r"seeds=\[1, 2, 1\] is invalid: each seed must occur once"),
        ("rows: [{model: Pop}, {model: BPR}, {model: Pop, name: Other}]", r"rows 1 and 3 \(Pop\) are the same run"),
        ("rows: [{model: BPR}, {model: BPR, embedding_size: 64}]", r"rows 1 and 2 \(BPR\) are the same run"),
        ("rows: [{model: Pop, config_files: 3}]", "config_files=3 is invalid"),
        ("rows: [{model: Pop, config_files: none.yaml}]", "none.yaml"),
    ],
)
def test_a_comparison_rejects_equal_runs(tmp_path: Path, plan: str, message: str) -> None:
    write_small(tmp_path)
    file = tmp_path / "plan.yaml"
    file.write_text(f"dataset: Small\n{plan}")
    with pytest.raises(XferError, match=message):
        compare(file, {"data_path": str(tmp_path)})


def test_a_row_has_the_keys_of_its_config_files(tmp_path: Path) -> None:
    """Its own keys win over them, and the plan's dataset and seeds over both."""
    write_small(tmp_path)
    best, plan = tmp_path / "best.yaml", tmp_path / "plan.yaml"
    best.write_text("model: BPR\ndataset: Other\nseed: 7\nembedding_size: 8\nlearning_rate: 0.5\n")
    plan.write_text(
        "dataset: Small\nepochs: 1\ntopk: [5, 10]\nseeds: [3]\n"
        f"rows: [{{config_files: {best}, learning_rate: 0.25, name: Tuned}}, {{model: Pop}}]"
    )
    tuned, _ = compare(plan, {"data_path": str(tmp_path), "show_progress": False}).results
    assert (tuned.label, tuned.dataset, tuned.seed) == ("Tuned", "Small", 3)
    settings = load(tuned.folder).config
    assert (settings["model"], settings["embedding_size"], settings["learning_rate"]) == ("BPR", 8, 0.25)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_comparison_reuses_runs_of_models_with_a_string_that_looks_like_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small(tmp_path)
    plan = tmp_path / "plan.yaml"
    plan.write_text("dataset: Small\nepochs: 1\ntopk: [5, 10]\nrows: [{model: FEARec}, {model: KD_DAGFM}]")
    keys = {"data_path": str(tmp_path), "show_progress": False}
    first = compare(plan, keys).results
    monkeypatch.setattr(stages, "fit", lambda *_: pytest.fail("a run is trained again"))
    assert [result.test for result in compare(plan, keys).results] == [result.test for result in first]
