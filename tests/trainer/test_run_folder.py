"""The files of a run are complete or missing, and run no code."""

import errno
import json
import pickle
import resource
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

from recbole_xfer.config.config import settings as all_settings
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build, fit, load
from recbole_xfer.files import replacing
from recbole_xfer.quick_start import run
from recbole_xfer.report.report import report
from recbole_xfer.testing.data import config, settings, write_small
from recbole_xfer.trainer.run_folder import RunFolder
from recbole_xfer.trainer.run_identity import weights_digest


@pytest.mark.parametrize("written", ["weights", "state", "result", "config"])
def test_a_full_disk_is_explained_and_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    save = {
        "weights": lambda: RunFolder(tmp_path).save_weights({"w": torch.ones(3)}),
        "state": lambda: RunFolder(tmp_path).save_state({"epoch": 1}),
        "result": lambda: RunFolder(tmp_path).finish({"test": 1}),
        "config": lambda: RunFolder(tmp_path).begin({"key": 1}),
    }[written]
    save()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("recbole_xfer.files.os.replace", full)
    with pytest.raises(XferError, match="The disk is full: .* was not written"):
        save()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("damage", ["truncated", "not there", "a pickle"])
def test_damaged_weights_are_rejected(tmp_path: Path, damage: str) -> None:
    RunFolder(tmp_path).save_weights({"w": torch.ones(1000)})
    path = tmp_path / RunFolder.WEIGHTS
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "not there":
        path.unlink()
    else:
        path.write_bytes(pickle.dumps({"w": [1.0]}))
    with pytest.raises(XferError, match=r"damaged or incomplete|has no trained model"):
        RunFolder(tmp_path).weights()


class Malicious:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("touched"),))


def test_a_state_that_would_run_code_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"epoch": Malicious()}, tmp_path / RunFolder.STATE)
    with pytest.raises(XferError, match="is damaged"):
        RunFolder(tmp_path).state()
    assert not (tmp_path / "touched").exists()


def test_a_saved_configuration_is_read_back_identically(tmp_path: Path) -> None:
    from recbole_xfer.config.config import XferConfig

    write_small(tmp_path)
    for model in ("ANT", "SASRec", "BPR"):
        first = config(
            tmp_path, model, seed=7, eval_args={"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "uni9"}
        )
        RunFolder(tmp_path).begin(all_settings(first))
        second = XferConfig(config_files=[tmp_path / RunFolder.CONFIG])
        assert all_settings(first) == all_settings(second)


def test_a_folder_is_not_reused_for_another_run(tmp_path: Path) -> None:
    write_small(tmp_path)
    keys = {**settings(tmp_path, "SASRec"), "run_dir": str(tmp_path / "mine"), "epochs": 1}
    made = run("SASRec", "Small", overrides=keys)
    assert run("SASRec", "Small", overrides=keys, reuse=True).test == made.test
    with pytest.raises(XferError, match=r"mine has a run with learning_rate=0.001. Set another folder"):
        run("SASRec", "Small", overrides={**keys, "learning_rate": 0.01}, reuse=True)
    interrupted = build(config(tmp_path, "SASRec", run_dir=keys["run_dir"], epochs=2, resume=False))
    fit(interrupted)
    interrupted.trainer._save_state(1)
    with pytest.raises(XferError, match=r"mine has a run with .*epochs=2.* replace the run with --resume=False"):
        run("SASRec", "Small", overrides=keys)
    run("SASRec", "Small", overrides={**keys, "resume": False})


@pytest.mark.parametrize("earlier", ["finished", "interrupted in its first epoch"])
def test_another_run_is_not_replaced_without_a_word(tmp_path: Path, earlier: str) -> None:
    write_small(tmp_path)
    keys = {**settings(tmp_path, "Pop"), "run_dir": str(tmp_path / "mine")}
    run("Pop", "Small", overrides=keys)
    if earlier != "finished":
        (tmp_path / "mine" / RunFolder.RESULT).unlink()
    before = {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir() if path.suffix != ".log"}
    others = {**settings(tmp_path, "SASRec"), "run_dir": keys["run_dir"]}
    with pytest.raises(XferError, match=r"mine has a run with .*and \d+ other values.* replace .* --resume=False"):
        run("SASRec", "Small", overrides=others)
    assert before.items() <= {path.name: path.read_bytes() for path in (tmp_path / "mine").iterdir()}.items()
    assert run("SASRec", "Small", overrides={**others, "resume": False}).model == "SASRec"


def test_a_run_that_starts_again_never_continues_from_the_state_of_another(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.save_weights({"w": torch.ones(1)})
    folder.save_epochs([{"epoch": 0, "phase": "", "train": {"loss": 1.0}}])
    folder.finish({"test": 1})
    folder.save_state({"epoch": 1})
    folder.begin({"key": 1}, resumed=True)
    assert folder.state() and folder.epochs() and not folder.result()
    folder.begin({"key": 2})
    assert sorted(path.name for path in tmp_path.iterdir()) == [RunFolder.CONFIG]


def test_a_locked_folder_has_no_files_of_killed_processes(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.save_state({"epoch": 1})
    with folder.lock():
        assert folder.state()  # of an interrupted run
    with replacing(folder.path / RunFolder.RESULT) as temporary:
        temporary.write_text("{}")  # as if killed before the state was removed
    for name in (".state.pt.abcd_123", ".model.safetensors.12345678"):
        (folder.path / name).mkdir()
    (folder.path / ".model.safetensors.12345678" / "model.safetensors").touch()
    with folder.lock():
        assert sorted(path.name for path in folder.path.iterdir()) == [RunFolder.LOCK, RunFolder.RESULT]


def test_a_full_disk_during_a_save_of_the_state_is_explained(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(XferError, match=r"state.pt was not written: .* Free some space"):
            RunFolder(tmp_path).save_state({"w": torch.ones(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(XferError, match=r"file/run cannot be written"), RunFolder(tmp_path / "file" / "run").lock():
        pass


def test_equal_parameters_have_one_digest() -> None:
    weights = {"a": torch.arange(6).view(2, 3).float(), "b": torch.tensor(True)}
    transposed = weights["a"].T.contiguous().T
    assert weights_digest({"b": weights["b"], "a": transposed}) == weights_digest(weights)
    assert weights_digest({**weights, "a": weights["a"] + 1e-6}) != weights_digest(weights)
    assert weights_digest({**weights, "a": weights["a"].view(3, 2)}) != weights_digest(weights)


def test_the_name_of_a_folder_of_many_domains_is_short(tmp_path: Path) -> None:
    domains = [f"Department-{number}" for number in range(20)]
    names = [RunFolder.of(config(tmp_path, "Pop", "+".join(chosen))).name for chosen in (domains, domains[::-1])]
    assert names[0].startswith("Pop-Department-0+19-more-") and names[1].startswith("Pop-Department-19+19-more-")
    others = RunFolder.of(config(tmp_path, "Pop", "+".join([*domains[:19], "Other"]))).name
    assert others.startswith("Pop-Department-0+19-more-") and others != names[0]


# --- given folders ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of Pop, which has parameters and other state."""
    root = tmp_path_factory.mktemp("given")
    write_small(root)
    keys = {**settings(root, "SASRec"), "eval_groups": ["head", "tail"], "epochs": 1, "hidden_size": 8}
    return Path(run("SASRec", "Small", overrides=keys).folder)


@pytest.fixture
def given(finished: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return Path(shutil.copytree(finished, tmp_path / finished.name))


RECORD = {"epoch": 0, "phase": None, "train": {"loss": 1.0}, "valid": {"ndcg@10": 0.1}}


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("result.json", "[]", "should be an object|valid dictionary"),
        ("result.json", "[" * 100_000, "recursion limit exceeded"),
        ("result.json", '{"seed": ' + "9" * 5000 + "}", "number out of range"),
        ("result.json", '{"label": "\\ud800"}', "hex escape"),
        ("result.json", "", "Invalid JSON"),
        ("result.json", {"seed": None}, "seed: "),
        ("result.json", {"seed": "<b>"}, "seed: "),
        ("result.json", {"best_epoch": "0"}, "best_epoch: "),
        ("result.json", {"test": [1]}, "test: "),
        ("result.json", {"test": {"ndcg@10": "x"}}, "test.ndcg@10: "),
        ("result.json", {"protocol": "x"}, "protocol: "),
        ("result.json", {"protocol": {}}, "protocol.split: Field required"),
        ("result.json", {"groups": {"head": {"rows": 1}}}, "groups.head.test: Field required"),
        ("result.json", "{}", "Field required"),
        ("epochs.json", "{}", "valid list|valid array"),
        ("epochs.json", "[" * 100_000, "recursion limit exceeded"),
        ("epochs.json", "[1]", "0: "),
        ("epochs.json", json.dumps([RECORD, {**RECORD, "epoch": "1"}]), "1.epoch: "),
        ("epochs.json", json.dumps([{**RECORD, "train": {}}]), "0.train: "),
        ("epochs.json", json.dumps([{"epoch": 0}]), "0.phase: Field required"),
    ],
)
def test_damaged_json_of_a_given_run_is_one_sentence(
    given: Path, name: str, content: str | dict[str, Any], reason: str
) -> None:
    path = given / name
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content)
    path.write_text(content)
    with pytest.raises(XferError, match=rf"{name} is damaged: .*({reason})"):
        report([given])


@pytest.mark.parametrize("key", ["model", "dataset", "seed", "valid_metric", "eval_args"])
@pytest.mark.parametrize("value", ["missing", None, {"a": [1]}])
def test_invalid_configuration_of_a_given_run_is_one_sentence(given: Path, key: str, value: Any) -> None:
    path = given / RunFolder.CONFIG
    content = yaml.safe_load(path.read_text()) | {key: value}
    if value == "missing":
        del content[key]
    path.write_text(yaml.safe_dump(content))
    message = f"has no key '{key}'" if value == "missing" else rf"{key}\S*=.* is invalid|Unknown key '{key}"
    for reader in (lambda folder: report([folder]), load):
        with pytest.raises(XferError, match=message):
            reader(given)


def test_unknown_values_of_a_newer_version_are_ignored(given: Path) -> None:
    before = report([given]).lines()
    for name in (RunFolder.RESULT, RunFolder.EPOCHS):
        content = json.loads((given / name).read_text())
        for record in content if isinstance(content, list) else [content, content["protocol"]]:
            record["newer"] = {"value": [1]}
        (given / name).write_text(json.dumps(content))
    with (given / RunFolder.CONFIG).open("a") as file:
        file.write("newer: 1\n")
    assert report([given]).lines() == before


@pytest.mark.parametrize("damage", ["missing", "extra", "misshapen", "other missing", "unknown other", "invalid other"])
def test_parameters_that_do_not_fit_are_rejected(given: Path, damage: str) -> None:
    weights = RunFolder(given).weights()
    name = "item_embedding.weight"
    change: dict[str, Any] = {
        "missing": {name: None},
        "extra": {"more.weight": torch.ones(3)},
        "misshapen": {name: weights[name][:-1].clone()},
        "other missing": {"other_parameter.x": torch.ones(3)},
        "unknown other": {"other_parameter.forward.tensor": torch.ones(3)},
        "invalid other": {"other_parameter.x.sparse.data": torch.ones(3)},
    }[damage]
    kept = {key: value for key, value in {**weights, **change}.items() if value is not None}
    save_file(kept, given / RunFolder.WEIGHTS)
    with pytest.raises(XferError, match=r"The parameters in .* do not fit SASRec: .* Copy the folder again"):
        load(given)


@pytest.mark.parametrize("damage", ["a list", "epoch", "model", "random", "optimizer", "loader", "a number"])
def test_a_state_without_its_values_is_rejected(tmp_path: Path, damage: str) -> None:
    write_small(tmp_path)
    experiment = build(config(tmp_path, "SASRec", run_dir=str(tmp_path / "run"), epochs=1))
    fit(experiment)
    experiment.trainer._save_state(1)
    state = experiment.folder.state()
    assert state is not None
    if damage in state:
        del state[damage]
    torch.save(
        {"a list": [state], "a number": {**state, "epoch": {}, "random": 3}}.get(damage, state),
        tmp_path / "run" / RunFolder.STATE,
    )
    with pytest.raises(XferError, match=r"state.pt is damaged: .* Remove it to start the run again"):
        fit(build(config(tmp_path, "SASRec", run_dir=str(tmp_path / "run"), epochs=1)))
