"""A refit is trained on everything, carries its data, and is resumed like any run."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_xfer.cli.main import main
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build, load
from recbole_xfer.quick_start import evaluate, pretrain, recommend, refit, run
from recbole_xfer.report.report import report
from recbole_xfer.report.runs import list_runs
from recbole_xfer.serving.refit import scaled
from recbole_xfer.testing.data import config, settings, write_joined, write_small
from recbole_xfer.trainer.run_folder import RunFolder
from tests.helpers.interrupting import interrupted_in_epoch
from tests.helpers.recbole_models import keys as tiny_keys
from tests.helpers.recbole_models import write_tiny

RECGURU = {"autoencoder_epochs": 1, "adversarial_epochs": 1, "user_batch_size": 16}


def finished(root: Path, model: str = "SASRec", dataset: str = "Small", **keys: Any) -> Path:
    """The folder of a run."""
    return Path(run(model, dataset, overrides={**settings(root, model), **keys}).folder)


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RunFolder.RESULT).read_text())


def trained_pairs(folder: Path) -> list[tuple[str, str]]:
    """The users and items of the rows that a run trains on, sorted."""
    data = load(folder).train_data._dataset
    users, items = (data.id2token(field, data.inter_feat[field]) for field in (data.uid_field, data.iid_field))
    return sorted(zip(users, items, strict=True))


def log(root: Path, name: str = "Small") -> pd.DataFrame:
    return pd.read_csv(root / name / f"{name}.inter", sep="\t").set_axis(["user", "item", "time"], axis=1)


def pairs(table: pd.DataFrame) -> list[tuple[str, str]]:
    return sorted(zip(table["user"], table["item"], strict=True))


def without_first(table: pd.DataFrame) -> pd.DataFrame:
    ordered = table.sort_values("time")
    return ordered[ordered["user"].duplicated()]


# --- what is trained on ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", [{"LS": "valid_and_test"}, {"RS": [8, 1, 1]}, {"HU": [8, 1, 1]}, {"NU": 0.3}])
@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_every_interaction_is_trained_on(tmp_path: Path, model: str, split: dict[str, Any]) -> None:
    write_small(tmp_path)
    folder = finished(tmp_path, model, epochs=1, eval_args={"split": split})
    live = refit(folder, tmp_path / "live")
    table = log(tmp_path)  # histories of one item included, of which a sequential model can learn nothing
    assert trained_pairs(live) == pairs(table if model == "BPR" else without_first(table))
    assert result(live)["interactions"] == len(table)


def test_the_parts_of_given_files_are_trained_on(tmp_path: Path) -> None:
    write_small(tmp_path)
    table, lines = log(tmp_path), (tmp_path / "Small/Small.inter").read_text().splitlines()
    last = ~table.sort_values("time", ascending=False)["user"].duplicated().sort_index().to_numpy()
    for part, chosen in (("a", ~last & (table.index % 5 > 0)), ("b", ~last & (table.index % 5 == 0)), ("c", last)):
        rows = [line for line, kept in zip(lines[1:], chosen, strict=True) if kept]
        (tmp_path / f"Small/Small.{part}.inter").write_text("\n".join([lines[0], *rows]) + "\n")
    (tmp_path / "Small/Small.inter").unlink()
    folder = finished(tmp_path, "Pop", benchmark_filename=["a", "b", "c"])
    live = refit(folder, tmp_path / "live")
    assert {path.name for path in (live / "data/Small").glob("*.inter")} == {f"Small.{part}.inter" for part in "abc"}
    assert trained_pairs(live) == pairs(table)


def test_one_of_the_joined_domains_is_trained_on(tmp_path: Path) -> None:
    write_joined(tmp_path, "AB")
    folder = finished(tmp_path, "Pop", "A+B", single_domain="A")
    live = refit(folder, tmp_path / "live")
    shutil.rmtree(tmp_path / "A")
    shutil.rmtree(tmp_path / "B")
    assert trained_pairs(live) == pairs(log(live / "data", "A"))


def test_a_run_with_nothing_held_out_is_rejected(tmp_path: Path) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match=r"eval_args.split=.* holds nothing out to test on. .* `recbole-xfer refit`"):
        finished(tmp_path, eval_args={"split": {"LS": "none"}})


# --- how long --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("epochs", "steps", "steps_now", "expected"), [(10, 8, 10, 8), (1, 1, 9, 1), (3, 5, 5, 3), (0, 2, 3, 0)]
)
def test_a_refit_takes_as_many_steps_as_the_run_to_its_best_epoch(
    epochs: int, steps: int, steps_now: int, expected: int
) -> None:
    assert scaled(epochs, steps, steps_now) == expected


def test_the_best_epoch_of_the_run_decides_the_epochs(tmp_path: Path) -> None:
    write_small(tmp_path)
    folder = finished(tmp_path, epochs=1, train_batch_size=32)
    values = result(folder) | {"best_epoch": 3}
    (folder / RunFolder.RESULT).write_text(json.dumps(values))
    live = refit(folder, tmp_path / "live")
    before, now = (len(load(path).train_data) for path in (folder, live))
    assert before < now
    epochs = round(4 * before / now)
    assert [record["epoch"] for record in RunFolder(live).epochs()] == list(range(epochs))
    assert not any("valid" in record for record in RunFolder(live).epochs())
    made = result(live)
    assert (made["epochs"], made["steps"], made["best_epoch"]) == (epochs, epochs * now, epochs - 1)
    assert result(refit(folder, tmp_path / "longer", {"epochs": 2}))["epochs"] == 2


def test_earlier_phases_have_their_configured_epochs(tmp_path: Path) -> None:
    write_joined(tmp_path, "AB", users=30)
    folder = finished(tmp_path, "RecGURU", "A+B", epochs=2, **{**RECGURU, "autoencoder_epochs": 2})
    live = refit(folder, tmp_path / "live", {"epochs": 1})
    phases = [record["phase"] for record in RunFolder(live).epochs()]
    assert phases == ["autoencoder", "autoencoder", "adversarial", "recommendation"]


@pytest.mark.parametrize(
    ("kind", "model"),
    [
        ("sequential", "S3Rec"),
        ("general", "RaCT"),
        ("knowledge_aware", "CFKG"),
        ("sequential", "GRU4RecKG"),
        ("context_aware", "FM"),
    ],
)
def test_stages_and_every_file_that_was_read_are_kept(tmp_path: Path, kind: str, model: str) -> None:
    write_tiny(tmp_path)
    folder = finished(tmp_path, model, "Tiny", epochs=1, **tiny_keys(kind, model))
    live = refit(folder, tmp_path / "live")
    assert len(RunFolder(live).epochs()) == len(RunFolder(folder).epochs())
    shutil.rmtree(tmp_path / "Tiny")
    load(live)


# --- the folder ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["ANT", "EASE", "LightGCN", "SASRec"])
def test_a_refit_needs_no_other_data_and_can_be_moved(tmp_path: Path, model: str) -> None:
    write_small(tmp_path)
    (tmp_path / "Small/images").mkdir()
    (tmp_path / "Small/images/i1.jpg").touch()
    folder = finished(tmp_path, model)
    live = refit(folder, tmp_path / "live")
    before, recommended = load(live), recommend(live, k=3)
    shutil.rmtree(tmp_path / "Small")
    moved = Path(shutil.move(live, tmp_path / "elsewhere"))
    after = load(moved)
    assert not list(moved.glob("**/*.jpg")) and not [path for path in moved.glob("**/*") if path.is_symlink()]
    assert (moved / "data/Small/Small.text.parquet").exists() == (model == "ANT")
    for name, value in before.model.state_dict().items():
        assert torch.equal(after.model.state_dict()[name], value), name
    assert recommend(moved, k=3).equals(recommended)


def test_the_file_of_common_users_is_carried(tmp_path: Path) -> None:
    write_joined(tmp_path, "AB")
    users = [set(log(tmp_path, domain)["user"]) for domain in "AB"]
    common = sorted(users[0] & users[1])[:10]
    (tmp_path / "overlap.csv").write_text("A\tB\n" + "".join(f"{user}\t{user}\n" for user in common))
    folder = finished(tmp_path, "Pop", "A+B", overlap_file=str(tmp_path / "overlap.csv"))
    live = refit(folder, tmp_path / "live")
    (tmp_path / "overlap.csv").unlink()
    assert load(live).dataset.shared_users == 10


def test_other_data_can_still_be_named(tmp_path: Path) -> None:
    write_small(tmp_path)
    live = refit(finished(tmp_path), tmp_path / "live")
    write_small(tmp_path / "grown", items=30)
    with pytest.raises(XferError, match="live was trained on other data of Small"):
        load(live, {"data_path": str(tmp_path / "grown")})


@pytest.mark.parametrize("model", ["ANT", "RecGURU"])
def test_a_resumed_refit_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    write_joined(tmp_path, "AB", users=30) if model == "RecGURU" else write_small(tmp_path)
    keys = RECGURU if model == "RecGURU" else {}
    folder = finished(tmp_path, model, "A+B" if model == "RecGURU" else "Small", **keys)
    whole = refit(folder, tmp_path / "whole", {"epochs": 3})
    with interrupted_in_epoch(2, monkeypatch):
        refit(folder, tmp_path / "broken", {"epochs": 3})
    assert not (tmp_path / "broken/result.json").exists() and (tmp_path / "broken/data").is_dir()
    broken = refit(folder, tmp_path / "broken", {"epochs": 3})
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    states = [RunFolder(path).optimizer() for path in (whole, broken)]
    assert states[0] and states[0].keys() == states[1].keys()
    for name, values in states[0].items():
        assert all(torch.equal(values[key], states[1][name][key]) for key in values), name
    ignored = {"seconds", "origins"}
    first, second = (
        {key: value for key, value in result(path).items() if key not in ignored} for path in (whole, broken)
    )
    assert first == second
    assert not (broken / "state.pt").exists()


def test_a_finished_refit_is_reused(tmp_path: Path) -> None:
    write_small(tmp_path)
    folder = finished(tmp_path)
    live = refit(folder, tmp_path / "live")
    trained = (live / RunFolder.WEIGHTS).stat().st_mtime_ns
    assert refit(folder, tmp_path / "live") == live
    assert (live / RunFolder.WEIGHTS).stat().st_mtime_ns == trained


def test_another_run_is_replaced_only_on_request(tmp_path: Path) -> None:
    write_small(tmp_path)
    write_small(tmp_path, "Other", seed=1)
    folder, other = finished(tmp_path), finished(tmp_path, dataset="Other")
    live = refit(folder, tmp_path / "live")
    with pytest.raises(XferError, match=r"live has a run with .*dataset=Small.* Set another folder with --output"):
        refit(other, live)
    with pytest.raises(XferError, match=r"--output=.* is the folder of the run itself. Name another one"):
        refit(folder, folder)
    refit(other, live, {"resume": False})
    assert [path.name for path in (live / "data").iterdir()] == ["Other"]
    assert load(live).dataset.dataset_name == "Other"


def test_no_file_of_a_refit_is_a_pickle_of_objects(tmp_path: Path) -> None:
    write_small(tmp_path)
    live = refit(finished(tmp_path), tmp_path / "live")
    state = torch.load(live / RunFolder.OPTIMIZER, weights_only=True)
    assert state["item_embedding.weight"]["exp_avg"].shape == RunFolder(live).weights()["item_embedding.weight"].shape
    assert sorted(path.name for path in live.iterdir() if path.suffix != ".log") == [
        "config.yaml", "data", "epochs.json", "lock", "model.safetensors", "optimizer.pt", "result.json",
    ]  # fmt: skip


# --- adapted runs ----------------------------------------------------------------------------------------------------


def test_an_adapted_run_is_refitted_from_its_pretrained_model(tmp_path: Path) -> None:
    write_small(tmp_path)
    write_small(tmp_path, "A", seed=1)
    keys = {**settings(tmp_path), "pretrain_epochs": 1}
    pretrained = pretrain("ANT", "A", overrides=keys)
    folder = finished(tmp_path, "ANT", source="A", adaptation="relearn", pretrain_epochs=1)
    live = refit(folder, tmp_path / "live")
    weights, theirs = RunFolder(live).weights(), RunFolder(pretrained).weights()
    kept = [name for name in weights if name.startswith("user_model.")]
    assert kept and all(torch.equal(weights[name], theirs[name]) for name in kept)
    shutil.move(pretrained, tmp_path / "moved")
    with pytest.raises(XferError, match=r"was adapted from .*, which does not exist any more. Restore this folder"):
        refit(folder, tmp_path / "again")
    again = refit(folder, tmp_path / "again", {"pretrained": str(tmp_path / "moved")})
    assert (again / RunFolder.WEIGHTS).read_bytes() == (live / RunFolder.WEIGHTS).read_bytes()
    other = pretrain("ANT", "A", overrides={**keys, "seed": 1})
    with pytest.raises(XferError, match=r"is not the model that .* was adapted from. Name that one"):
        refit(folder, tmp_path / "third", {"pretrained": str(other)})
    load(live)  # needs no pre-trained model


# --- what is refused, and what the other verbs say -------------------------------------------------------------------


def test_only_finished_runs_are_refitted_and_only_as_they_are(tmp_path: Path) -> None:
    write_small(tmp_path)
    folder = finished(tmp_path, "ANT", epochs=1)
    live = refit(folder, tmp_path / "live")
    with pytest.raises(XferError, match=r"live was already trained on all interactions. .*`recbole-xfer update`"):
        refit(live, tmp_path / "again")
    with pytest.raises(XferError, match=r"The run's own learning_rate is kept. Remove --learning_rate"):
        refit(folder, tmp_path / "again", {"learning_rate": 0.1})
    with pytest.raises(XferError, match="epochs=many is invalid"):
        refit(folder, tmp_path / "again", {"epochs": "many"})
    with pytest.raises(XferError, match="is a pre-training. Name the folder of a finished run"):
        refit(pretrain("ANT", "Small", overrides={**settings(tmp_path), "pretrain_epochs": 1}), tmp_path / "again")
    with pytest.raises(XferError, match="nothing is not the folder of a run"):
        refit(tmp_path / "nothing", tmp_path / "again")
    (folder / RunFolder.RESULT).unlink()
    with pytest.raises(XferError, match="is not finished. Name the folder of a finished run"):
        refit(folder, tmp_path / "again")
    assert not (tmp_path / "again").exists()


def test_the_other_verbs_know_that_a_refit_has_no_test_result(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_small(tmp_path)
    folder = finished(tmp_path)
    assert main(["refit", str(folder), "--output=saved/live", "--epochs=2", "--show_progress=False"]) == 0
    said = capsys.readouterr().out
    sentence = f"No test result belongs to saved/live; those of {folder} estimate it."
    assert "saved/live has SASRec, trained on all" in said and said.endswith(f"{sentence}\n")
    listed = next(listed for listed in list_runs(Path("saved")) if listed.folder.name == "live")
    assert listed.name == "SASRec (refit) on Small" and listed.score("test") == listed.score("valid") == ""
    assert "unfinished" not in listed.row()
    with pytest.raises(XferError, match=rf"live was trained on all interactions. {sentence} Evaluate that run"):
        evaluate([folder, "saved/live"])
    with pytest.raises(XferError, match="live was trained on all interactions, so it cannot be tested"):
        load("saved/live", {"eval_args": {"split": {"LS": "valid_and_test"}}})
    assert not any("not finished" in line for line in report(["saved/live"]).lines())


def test_the_split_is_named(tmp_path: Path) -> None:
    write_small(tmp_path)
    experiment = build(config(tmp_path, "Pop", eval_args={"split": {"LS": "none"}}))
    assert experiment.dataset.split_text == "nothing held out"
    assert experiment.valid_data is experiment.test_data is None
    assert np.array_equal(experiment.train_data._dataset.target_ranges[1], experiment.dataset.sequences.ends)
