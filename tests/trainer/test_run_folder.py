"""The files of a run are complete or missing, and run no code."""

import errno
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_xfer.config.config import settings as all_settings
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build, fit
from recbole_xfer.quick_start import run
from recbole_xfer.testing.data import config, settings, write_small
from recbole_xfer.trainer.run_folder import RunFolder


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
    interrupted = build(config(tmp_path, "SASRec", run_dir=keys["run_dir"], epochs=2))
    fit(interrupted)
    interrupted.trainer._save_state(1)
    with pytest.raises(XferError, match=r"mine has a run with .*epochs=2.* start again with --resume=False"):
        run("SASRec", "Small", overrides=keys)
    run("SASRec", "Small", overrides={**keys, "resume": False})


def test_the_name_of_a_folder_of_many_domains_is_short(tmp_path: Path) -> None:
    domains = [f"Department-{number}" for number in range(20)]
    names = [RunFolder.of(config(tmp_path, "Pop", "+".join(chosen))).name for chosen in (domains, domains[::-1])]
    assert names[0].startswith("Pop-Department-0+19-more-") and names[1].startswith("Pop-Department-19+19-more-")
    others = RunFolder.of(config(tmp_path, "Pop", "+".join([*domains[:19], "Other"]))).name
    assert others.startswith("Pop-Department-0+19-more-") and others != names[0]
