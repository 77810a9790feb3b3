"""Searches: spaces in both forms, and trials on a local Ray, chosen on validation; the test split is read once."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import yaml
from rich.console import Console

from recbole_xfer import quick_start
from recbole_xfer.cli import main as cli
from recbole_xfer.config.config import XferConfig
from recbole_xfer.config.properties import folder
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.errors import XferError
from recbole_xfer.search import search, trials
from recbole_xfer.search.record import Search, Trial
from recbole_xfer.search.space import Choice, Interval, draw, read_space
from recbole_xfer.testing.data import settings, write_small
from recbole_xfer.trainer.run_folder import RunFolder

EPOCHS = 8


def space_file(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# --- spaces ----------------------------------------------------------------------------------------------------------


def test_yaml_and_recbole_hyper_files_are_equivalent(tmp_path: Path) -> None:
    hyper = tmp_path / "hyper.test"
    hyper.write_text(
        "learning_rate loguniform -8,0\ndropout choice [0.1, 0.2]\nx uniform 0.0,1.0\n\nn quniform 1,10,1\n"
        "mlp choice ['[64,64]', None]\n"
    )
    path = space_file(
        tmp_path,
        f"""
learning_rate: {{loguniform: [{math.exp(-8)!r}, 1.0]}}
dropout: [0.1, 0.2]  # the same as {{choice: [0.1, 0.2]}}
x: {{uniform: [0.0, 1.0]}}
n: {{quniform: [1, 10, 1]}}
mlp: {{choice: ['[64,64]', null]}}
""",
    )
    assert read_space(hyper) == read_space(path)
    assert read_space(path) == {
        "learning_rate": Interval(math.exp(-8), 1.0, logarithmic=True),
        "dropout": Choice([0.1, 0.2]),
        "x": Interval(0.0, 1.0),
        "n": Choice(list(range(1, 11))),
        "mlp": Choice(["[64,64]", None]),
    }


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("quniform: [0, 1, 1e-12]", "more than 100,000 values"),
        ("quniform: [0, 1, 5e-324]", "more than 100,000 values"),
        ("quniform: [0, 1e308, 1]", "at most 9.0072e\\+15 apart"),
        ("randint: [0, 18446744073709551616]", "at most 9.0072e\\+15 apart"),
        ("uniform: [-1e308, 1e308]", "at most 9.0072e\\+15 apart"),
    ],
)
def test_absurd_distributions_are_rejected(tmp_path: Path, spec: str, reason: str) -> None:
    with pytest.raises(XferError, match=rf"space.yaml, key 'x': .* is invalid: .*{reason}"):
        read_space(space_file(tmp_path, f"x: {{{spec}}}"))


def test_a_space_with_few_values_ends(tmp_path: Path) -> None:
    space = read_space(space_file(tmp_path, "x: {uniform: [1.0, 1.0000000000000004]}"))
    with pytest.raises(XferError, match=r"too few different configurations: set --trials="):
        draw(space, 100, 0)
    fine = read_space(space_file(tmp_path, "x: {quniform: [0, 1.0e-11, 1.0e-13]}"))
    assert len(draw(fine, 100, 0)) == 11


def test_quniform_and_randint_include_both_bounds(tmp_path: Path) -> None:
    space = read_space(space_file(tmp_path, "a: {quniform: [0, 0.3, 0.1]}\nb: {randint: [2, 4]}"))
    assert space == {"a": Choice([0.0, 0.1, 0.2, 0.3]), "b": Choice(range(2, 5))}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have lines"),
        ("a: 0.1", "key 'a' must be a list"),
        ("a: []", "no values"),
        ("a: {normal: [0, 1]}", "one of choice, uniform"),
        ("a: {uniform: [1, 0]}", "1 must be below 0"),
        ("a: {uniform: [0]}", "missing 1 required"),
        ("a: {uniform: [0, .inf]}", "finite"),
        ("a: {loguniform: [0, 1]}", "positive"),
        ("a: {randint: [0.5, 2]}", "integers"),
        ("a: {quniform: [0, 1, yes]}", "numbers"),
        ("a choice [0.1\nb uniform 0,1", r"line 'a choice \[0.1' is invalid"),
        ("a choice __import__('os').getcwd()", "is invalid"),
        ("a loguniform x,0", "is invalid"),
        ("a: [1\nb", "is not valid yaml"),
    ],
)
def test_invalid_space_is_rejected(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(XferError, match=message):
        read_space(space_file(tmp_path, text))


def test_missing_space_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(XferError, match=r"absent\.yaml is missing"):
        read_space(tmp_path / "absent.yaml")


def test_grid_is_complete_and_samples_are_distinct_and_extendable() -> None:
    grid = {"a": Choice([1, 2, 3]), "b": Choice(["x", "y"])}
    assert draw(grid, None, 0) == draw(grid, 99, 0) == [{"a": a, "b": b} for a in (1, 2, 3) for b in ("x", "y")]
    five = draw(grid, 5, 0)
    assert len({tuple(keys.values()) for keys in five}) == 5
    assert draw(grid, 3, 0) == five[:3]
    assert draw(grid, 3, 1) != five[:3]

    numbers = {"rate": Interval(1e-4, 1e-2, logarithmic=True), "width": Interval(2, 3)}
    drawn = draw(numbers, 2000, 0)
    assert all(1e-4 <= keys["rate"] <= 1e-2 and 2 <= keys["width"] <= 3 for keys in drawn)
    assert sum(keys["rate"] < 1e-3 for keys in drawn) == pytest.approx(1000, abs=100)


def test_infinite_space_needs_a_number_of_trials() -> None:
    with pytest.raises(XferError, match=r"'rate' can have any value.*--trials=N"):
        draw({"a": Choice([1]), "rate": Interval(0, 1)}, None, 0)
    with pytest.raises(XferError, match="--trials=0"):
        draw({"a": Choice([1])}, 0, 0)


@pytest.mark.parametrize("path", sorted((folder() / "space").glob("*.yaml")), ids=lambda path: path.stem)
def test_spaces_of_this_package_are_valid(path: Path, tmp_path: Path) -> None:
    write_small(tmp_path)
    space = read_space(path)
    search.check_space(space, XferConfig(path.stem, "Small", overrides=settings(tmp_path, path.stem)), {})
    assert draw(space, 2, 0)


# --- searches that are rejected --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "keys", "message"),
    [
        ("learning_rat: [0.1]", {}, "Did you mean 'learning_rate'"),
        ("valid_metric: [MRR@10, NDCG@10]", {}, "'valid_metric' cannot be searched"),
        ("learning_rate: [0.1]", {"learning_rate": "0.2"}, "both in the space and fixed"),
        ("learning_rate: [0.1]", {"run_dir": "here"}, "run_dir"),
        ("learning_rate: [0.1]", {"eval_step": 0}, "needs validation"),
        ("learning_rate: [0.1]", {"dataset": "Absent"}, "Absent"),
        ("learning_rate: [0.1]", {"source": "Small2"}, "need --adaptation"),
        (None, {"model": "SASRec"}, "no search space for SASRec"),
    ],
)
def test_mistakes_are_rejected_before_ray_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, keys: dict, message: str
) -> None:
    write_small(tmp_path)
    monkeypatch.setattr(search, "run_trials", lambda *_: pytest.fail("trials were started"))
    file = space_file(tmp_path, text) if text else None
    keys = {"model": "ANT", "dataset": "Small", **settings(tmp_path, keys.get("model", "ANT")), **keys}
    with pytest.raises(XferError, match=message):
        search.tune(file, overrides=keys)


def test_first_message_is_the_error_if_all_trials_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path)
    monkeypatch.setattr(search, "run_trials", lambda record, _: record.failures.extend(["first", "second"]))
    space = space_file(tmp_path, "learning_rate: [0.1]")
    with pytest.raises(XferError, match=r"All trials failed.* first$"):
        search.tune(space, overrides={"model": "ANT", "dataset": "Small", **settings(tmp_path)})


def test_keys_that_change_pretraining(tmp_path: Path) -> None:
    write_small(tmp_path)
    config = XferConfig("ANT", "Small", overrides=settings(tmp_path))
    changing = [key for key in ("learning_rate", "stopping_step", "pretrain_epochs", "item_embedding", "show_progress")
                if search.changes_pretraining(config, key)]  # fmt: skip
    assert changing == ["learning_rate", "pretrain_epochs"]


# --- a search on a local Ray -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search: a good learning rate, a weak one that is stopped, and one that fails."""
    folder = tmp_path_factory.mktemp("tune")
    write_small(folder)
    users, length, items = 60, 8, 25
    interactions = pd.DataFrame([
        {"user_id": f"u{user}", "item_id": f"i{(user * 3 + step) % items}", "timestamp": float(step)}
        for user in range(users) for step in range(length)
    ])  # fmt: skip
    write_domain(folder, "Cycle", interactions, pd.DataFrame({"item_id": [f"i{item}" for item in range(items)]}))
    for modality in ("text", "image"):
        source = folder / "Small" / f"Small.{modality}.parquet"
        (folder / "Cycle" / f"Cycle.{modality}.parquet").write_bytes(source.read_bytes())

    space = space_file(folder, "learning_rate: [0.01, 0.0, 1.0e+38]")
    keys = {**settings(folder), "epochs": EPOCHS, "data_path": ".", "checkpoint_dir": "saved", "item_embedding": True}
    options = [f"--{key}={value}" for key, value in keys.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("HOME", str(folder / "home"))
        patch.setattr(
            trials.ray, "init", partial(trials.ray.init, num_cpus=1)
        )  # one trial after another, so that ASHA can compare
        status = cli.main([
            "tune", "--model=ANT", "--dataset=Cycle", f"--space={space}", *options,
        ])  # fmt: skip
    assert status == 0
    return folder


def search_json(folder: Path) -> list[dict]:
    (path,) = folder.glob("saved/tune-*/search.json")
    return json.loads(path.read_text())["trials"]


def test_best_yaml_is_the_complete_best_trial_by_validation(folder: Path) -> None:
    best, other = search_json(folder)
    assert best["score"] == best["valid"]["ndcg@10"] > other["score"]
    values = yaml.safe_load((folder / "best.yaml").read_text())
    assert values["learning_rate"] == best["keys"]["learning_rate"] == 0.01
    assert values["model"] == "ANT"
    assert values["dataset"] == "Cycle"
    assert values["hidden_size"] == settings(folder)["hidden_size"]


def test_only_the_best_trial_reads_the_test_split(folder: Path) -> None:
    best, _ = search_json(folder)
    (path,) = folder.glob("saved/**/result.json")
    result = json.loads(path.read_text())
    assert folder / best["folder"] == path.parent
    assert result["valid"] == best["valid"]
    assert set(result["test"]) == set(result["valid"])
    assert result["best_epoch"] == best["best_epoch"]


def test_asha_stops_the_weak_trial_and_failed_trials_are_left_out(folder: Path) -> None:
    best, other = search_json(folder)
    assert best["finished"]
    assert best["epochs"] == EPOCHS
    assert other["keys"] == {"learning_rate": 0.0}
    assert not other["finished"]
    assert other["epochs"] == trials.GRACE_EPOCHS < EPOCHS
    (log,) = folder.glob("saved/tune-*/tune-*.log")
    assert "The loss of ANT is no longer a number" in log.read_text()


def test_no_temporary_files_remain(folder: Path) -> None:
    assert not (folder / "home" / "ray_results").exists()
    assert not list(folder.glob("saved/**/.ray*"))
    assert not list(folder.glob(f"saved/**/{RunFolder.STATE}"))
    assert trials.ray.is_initialized() is False


def test_identical_search_reuses_ended_trials(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = search_json(folder)
    monkeypatch.setattr(search, "run_trials", lambda *_: pytest.fail("trials were started"))
    values = yaml.safe_load((folder / "best.yaml").read_text())
    del values["learning_rate"]
    again = search.tune(space_file(folder, "learning_rate: [0.01, 0.0]"), overrides=values)
    assert [asdict(trial) for trial in again.ranked()] == before
    assert again.result is not None
    assert again.result.caption().startswith("60 test targets; leave one out")


def test_run_with_the_best_yaml_gives_the_same_result(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (path,) = folder.glob("saved/tune-*/*/result.json")
    again = quick_start.run(config_files=["best.yaml"], overrides={"show_progress": False})
    assert again.test == pytest.approx(json.loads(path.read_text())["test"])


def test_damaged_search_file_is_rejected(folder: Path, tmp_path: Path) -> None:
    (path,) = folder.glob("saved/tune-*/search.json")
    (tmp_path / "search.json").write_text(path.read_text()[:-20])
    config = XferConfig("ANT", "Cycle", overrides=settings(folder))
    damaged = Search(config, [], {}, [], tmp_path, 1, 0)
    with pytest.raises(XferError, match=r"search\.json is damaged"):
        damaged.read()
    assert replace(damaged, folder=tmp_path / "absent").read() is None


def test_markup_in_values_is_escaped(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    keys = {"pre_model_path": "runs[/x]"}
    trial = Trial(keys, 0.5, {}, 3, 1, 1.0, "runs", finished=True)
    config = XferConfig("ANT", "Small", overrides=settings(tmp_path))
    made = Search(config, [], {}, [keys], tmp_path, 1, 0, trials=[trial])
    Console(width=120).print(made.table())
    assert "runs[/x]" in capsys.readouterr().out
