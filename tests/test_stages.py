"""Pre-training, adaptation and the runs that follow from them."""

import json
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_xfer import stages
from recbole_xfer.data.vectors import write_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, build, fit, load
from recbole_xfer.quick_start import compare, evaluate, pretrain, run
from recbole_xfer.stages import train_and_evaluate
from recbole_xfer.testing.data import config, settings, whole_and_interrupted, write_small
from recbole_xfer.trainer.run_folder import RunFolder
from recbole_xfer.trainer.trainer import XferTrainer
from tests.helpers.recbole_models import write, write_tiny


def test_only_an_identical_pretraining_is_reused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path, "A", seed=1)
    write_small(tmp_path, "B", seed=2)
    keys = {**settings(tmp_path), "pretrain_epochs": 1}
    first = pretrain("ANT", "A+B", overrides=keys)
    trained = (first / RunFolder.WEIGHTS).stat().st_mtime_ns
    with monkeypatch.context() as patched:
        patched.setattr(stages, "build", None)  # nor is the data of the sources built again
        assert pretrain("ANT", "A+B", overrides=keys) == first
    stages._folders.clear()  # as in another process
    assert pretrain("ANT", "A+B", overrides=keys) == first
    assert (first / RunFolder.WEIGHTS).stat().st_mtime_ns == trained
    assert pretrain("ANT", "A+B", overrides={**keys, "pretrain_learning_rate": 0.01}) != first
    write_small(tmp_path, "B", seed=3)
    assert pretrain("ANT", "A+B", overrides=keys) != first


def test_one_of_two_concurrent_identical_pretrainings_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path, "A", seed=1)
    trained = []

    def slowly(experiment: Experiment) -> Any:
        trained.append(experiment.folder.path)
        time.sleep(0.5)
        return fit(experiment)

    monkeypatch.setattr(stages, "fit", slowly)
    keys = {**settings(tmp_path), "pretrain_epochs": 1}
    with ThreadPoolExecutor() as pool:
        folders = list(pool.map(lambda _: pretrain("ANT", "A", overrides=keys), range(2)))
    assert trained == folders[:1] == folders[1:]


def test_of_two_concurrent_identical_runs_one_trains_and_the_other_reuses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small(tmp_path)
    trained, began = [], Event()

    def slowly(experiment: Experiment, *arguments: Any) -> Any:
        trained.append(experiment.folder.path)
        began.set()
        time.sleep(2)
        return fit(experiment, *arguments)

    monkeypatch.setattr(stages, "fit", slowly)
    keys = settings(tmp_path, "SASRec")
    experiments = [build(config(tmp_path, "SASRec")) for _ in range(3)]
    monkeypatch.setattr(stages, "build", lambda *_: experiments.pop())
    with ThreadPoolExecutor() as pool:
        first = pool.submit(train_and_evaluate, config(tmp_path, "SASRec"), None)
        began.wait(60)
        second = pool.submit(train_and_evaluate, config(tmp_path, "SASRec"), None)
        assert first.result().test == second.result().test
    assert len(trained) == 1
    run("SASRec", "Small", overrides=keys)  # one after another, each trains
    assert len(trained) == 2


def test_a_run_is_not_reused_once_its_pretrained_model_has_changed(tmp_path: Path) -> None:
    write_small(tmp_path)
    write_small(tmp_path, "A", seed=1)
    keys = {**settings(tmp_path), "adaptation": "relearn", "epochs": 1}
    pretrained = [
        pretrain("ANT", "A", overrides={**settings(tmp_path), "pretrain_epochs": 1, "seed": seed}) for seed in (1, 2)
    ]
    model = tmp_path / "model"
    folders = []
    for source in (*pretrained, pretrained[0]):
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(source, model)
        folders.append(run("ANT", "Small", overrides={**keys, "pretrained": str(model)}, reuse=True).folder)
    assert folders[0] == folders[2] != folders[1]
    mine = {**keys, "pretrained": str(pretrained[0]), "run_dir": str(tmp_path / "mine")}
    run("ANT", "Small", overrides=mine)
    with pytest.raises(XferError, match=r"mine has a run with pretrained_digest=weights/\w+\. "):
        run("ANT", "Small", overrides={**mine, "pretrained": str(pretrained[1])}, reuse=True)


def test_the_order_of_sources_does_not_matter(tmp_path: Path) -> None:
    write_small(tmp_path)
    write_small(tmp_path, "A", seed=1)
    write_small(tmp_path, "B", seed=2)
    keys = {**settings(tmp_path), "pretrain_epochs": 1, "epochs": 1}
    assert pretrain("ANT", "B+A", overrides=keys) == pretrain("ANT", "A+B", overrides=keys)
    adapted = [
        run("ANT", "Small", overrides={**keys, "source": source, "adaptation": "relearn"}) for source in ("B+A", "A+B")
    ]
    assert adapted[0].test == adapted[1].test and adapted[0].folder == adapted[1].folder
    assert len(list((tmp_path / "saved").iterdir())) == 2


def test_a_share_of_users_is_one_of_the_target_and_makes_another_run(tmp_path: Path) -> None:
    write_small(tmp_path)
    write_small(tmp_path, "A", seed=1)
    keys = {**settings(tmp_path), "pretrain_epochs": 1, "epochs": 1, "source": "A", "adaptation": "relearn"}
    whole, some = (run("ANT", "Small", overrides={**keys, "train_share": share}) for share in (1.0, 0.3))
    assert len(list((tmp_path / "saved").glob("ANT-A-pretrained-*"))) == 1 and whole.folder != some.folder
    assert some.protocol.split == "leave one out by time, 30% of the users trained"
    assert some.rows == whole.rows and some.test != whole.test
    own = stages.source_config("ANT", "A", [], {**keys, "train_share": 0.1, "pretrain_train_share": 0.5})
    assert own["train_share"] == 0.5


def test_a_share_without_a_training_target_is_an_error(tmp_path: Path) -> None:
    rows = [("long", "a", 1), ("long", "b", 2), ("long", "c", 3), *((f"u{n}", "abc"[n % 3], n) for n in range(1, 40))]
    write(tmp_path, "inter", ["user_id:token", "item_id:token", "timestamp:float"], rows)
    for model in ("SASRec", "BPR"):
        with pytest.raises(XferError, match="train_share=0.01 leaves no training target of Tiny. Raise it."):
            build(config(tmp_path, model, "Tiny", topk=[2], train_share=0.01))


def test_transfer_is_one_command(tmp_path: Path) -> None:
    write_small(tmp_path)
    write_small(tmp_path, "A", seed=1)
    for adaptation in ("relearn", "finetune"):
        keys = {**settings(tmp_path), "pretrain_epochs": 1, "source": "A", "adaptation": adaptation}
        result = run("ANT", "Small", overrides=keys)
        assert result.label == f"ANT ({adaptation})"
        assert result.source == "A"
        saved = json.loads((Path(result.folder) / "result.json").read_text())
        assert saved["protocol"] == {
            "split": "leave one out by time",
            "candidates": "all 25 items",
            "history_masked": False,
        }


def test_a_pretraining_has_its_own_folder(tmp_path: Path) -> None:
    write_small(tmp_path)
    write_small(tmp_path, "A", seed=1)
    file = tmp_path / "keys.yaml"
    file.write_text(f"run_dir: {tmp_path / 'mine'}")
    keys = {**settings(tmp_path), "pretrain_epochs": 1, "source": "A", "adaptation": "relearn"}
    result = run("ANT", "Small", [file], keys)
    assert result.folder == str(tmp_path / "mine")
    again = run("ANT", "Small", [file], keys, reuse=True)
    assert again.test == result.test
    assert [path.name.startswith("ANT-A-pretrained-") for path in (tmp_path / "saved").iterdir()] == [True]


def test_a_target_cannot_be_a_source(tmp_path: Path) -> None:
    write_small(tmp_path)
    write_small(tmp_path, "A", seed=1)
    with pytest.raises(XferError, match="Small is both source and target"):
        run("ANT", "Small", overrides={**settings(tmp_path), "source": "A+Small", "adaptation": "relearn"})


def test_adaptation_and_source_need_each_other(tmp_path: Path) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match="needs --source=DOMAINS or --pretrained=FOLDER"):
        run("ANT", "Small", overrides={**settings(tmp_path), "adaptation": "relearn"})
    with pytest.raises(XferError, match="need --adaptation=relearn or --adaptation=finetune"):
        run("ANT", "Small", overrides={**settings(tmp_path), "source": "A"})
    with pytest.raises(XferError, match="need a model that can be adapted"):
        run("RETR", "Small", overrides={**settings(tmp_path, "RETR"), "source": "A"})


@pytest.mark.parametrize(
    ("model", "adaptation", "message"), [("SASRec", "relearn", "cannot be adapted"), ("ANT", "fine", "must be relearn")]
)
def test_an_invalid_adaptation_is_rejected_before_pretraining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, adaptation: str, message: str
) -> None:
    monkeypatch.setattr("recbole_xfer.stages.pretrain", lambda *_: pytest.fail("pre-training began"))
    with pytest.raises(XferError, match=message):
        run(model, "Small", overrides={**settings(tmp_path, model), "adaptation": adaptation, "source": "A"})


def test_an_unfinished_pretraining_is_not_adapted(tmp_path: Path) -> None:
    write_small(tmp_path)
    folder = pretrain("ANT", "Small", overrides=settings(tmp_path))
    (folder / RunFolder.RESULT).unlink()
    write_small(tmp_path, "A", seed=1)
    keys = {**settings(tmp_path), "adaptation": "relearn", "pretrained": str(folder)}
    with pytest.raises(XferError, match="is not finished .* Resume it with the same command"):
        run("ANT", "A", overrides=keys)


@pytest.mark.parametrize("model", ["SASRec", "FEARec", "DIEN", "FM", "CFKG", "MKR"])
def test_recbole_models_run_and_resume(model: str, tmp_path: Path) -> None:
    write_tiny(tmp_path)
    first, second = whole_and_interrupted(tmp_path, model, dataset="Tiny")
    assert first.test == second.test
    assert first.valid == second.valid
    assert RunFolder(tmp_path / "a").epochs() == RunFolder(tmp_path / "b").epochs()


def test_a_run_that_is_trained_again_and_interrupted_is_unfinished(tmp_path: Path) -> None:
    write_small(tmp_path)
    folder = Path(run("Pop", "Small", overrides=settings(tmp_path, "Pop")).folder)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("Pop", "Small", overrides=settings(tmp_path, "Pop"), on_epoch=stop)
    assert RunFolder(folder).result() is None


ALL_STAGES = {
    "S3Rec": ("pretrain", "finetune"),
    "PathwayS3Rec": ("pretrain", "finetune"),
    "RaCT": ("actor_pretrain", "critic_pretrain", "finetune"),
}


def staged(root: Path, model: str, **keys: Any) -> dict[str, Any]:
    """Keys of a model that is trained in stages, two epochs each."""
    attribute = {} if model == "RaCT" else {"item_attribute": "text"}
    return {**settings(root, model), "pretrain_epochs": 2, **attribute, **keys}


@pytest.mark.parametrize("model", ALL_STAGES)
def test_a_run_trains_all_stages_of_a_model(tmp_path: Path, model: str, capfd: pytest.CaptureFixture) -> None:
    write_small(tmp_path)
    result = run(model, "Small", overrides=staged(tmp_path, model))
    folder = RunFolder(result.folder)
    expected = [(stage, epoch) for stage in ALL_STAGES[model] for epoch in (0, 1)]
    assert [(epoch["phase"], epoch["epoch"]) for epoch in folder.epochs()] == expected
    assert [bool(epoch.get("valid")) for epoch in folder.epochs()] == [stage == "finetune" for stage, _ in expected]
    assert {path.parent for path in (tmp_path / "saved").rglob("*.*")} == {folder.path}  # no file of RecBole's
    assert evaluate([folder.path]).results[0].test == result.test
    assert load(folder.path).model.train_stage == "finetune"
    assert run(model, "Small", overrides=staged(tmp_path, model), reuse=True).test == result.test
    assert "Logging error" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("model", "stage"), [("S3Rec", 0), ("S3Rec", 1), ("PathwayS3Rec", 1), ("RaCT", 1), ("RaCT", 2)]
)
def test_a_run_resumes_in_each_stage(tmp_path: Path, model: str, stage: int, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path)
    whole, broken = (staged(tmp_path, model, run_dir=str(tmp_path / name)) for name in ("a", "b"))
    first = run(model, "Small", overrides=whole)
    train, epochs = XferTrainer._train_epoch, [0]

    def killed(self: Any, *args: Any, **kwargs: Any) -> Any:
        epochs[0] += 1
        losses = train(self, *args, **kwargs)
        if epochs[0] == 2 * (stage + 1):
            raise KeyboardInterrupt
        return losses

    monkeypatch.setattr(XferTrainer, "_train_epoch", killed)
    with pytest.raises(KeyboardInterrupt):
        run(model, "Small", overrides=broken)
    monkeypatch.setattr(XferTrainer, "_train_epoch", train)
    assert run(model, "Small", overrides=broken).test == first.test
    assert RunFolder(tmp_path / "b").epochs() == RunFolder(tmp_path / "a").epochs()
    weights = [RunFolder(tmp_path / name).weights() for name in ("a", "b")]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_resumed_run_keeps_the_numbers_of_a_model(tmp_path: Path) -> None:
    """MultiVAE anneals a loss by the number of its steps."""
    write_small(tmp_path)
    whole_and_interrupted(tmp_path, "MultiVAE")
    assert RunFolder(tmp_path / "b").epochs() == RunFolder(tmp_path / "a").epochs()


def test_a_comparison_trains_all_stages(tmp_path: Path) -> None:
    write_small(tmp_path)
    plan = tmp_path / "plan.yaml"
    plan.write_text("dataset: Small\nepochs: 1\nrows: [{model: S3Rec, item_attribute: text}, {model: Pop}]")
    compared = compare(plan, {**settings(tmp_path, "Pop"), "pretrain_epochs": 1, "epochs": 1})
    assert [epoch["phase"] for epoch in RunFolder(compared.results[0].folder).epochs()] == ["pretrain", "finetune"]


@pytest.mark.parametrize(
    ("model", "rest"),
    [
        ("S3Rec", ", which trains its stages pretrain, finetune one after another"),
        ("RaCT", ", which trains its stages actor_pretrain, critic_pretrain, finetune one after another"),
        ("SASRec", ""),
        ("RETR", ""),
    ],
)
def test_only_models_that_can_be_adapted_are_pretrained_on_sources(tmp_path: Path, model: str, rest: str) -> None:
    command = f"recbole-xfer run --dataset=A --data_path={tmp_path} --model={model}"
    message = f"{model} cannot be adapted .* Use `{command}`{rest}\\."
    with pytest.raises(XferError, match=message):
        pretrain(model, "A", overrides=settings(tmp_path, model))


@pytest.mark.parametrize(
    ("items", "keys", "warned"),
    [
        (2, {}, True),
        (1, {}, False),
        (24, {}, True),
        (24, {"modalities": ["text", "image"]}, False),
        (2, {"item_embedding": True}, False),
    ],
)
def test_items_with_the_same_vectors_are_named(
    tmp_path: Path, items: int, keys: dict[str, Any], warned: bool, caplog: pytest.LogCaptureFixture
) -> None:
    folder = write_small(tmp_path, holes=False)
    table = pd.read_parquet(folder / "Small.text.parquet")
    vectors = np.stack(table["vector"].to_numpy())
    vectors[: items + 1] = vectors[0]
    write_vectors(folder / "Small.text.parquet", list(table["item_id"]), vectors, encoder="test", source="random")
    run("ANT", "Small", overrides={**settings(tmp_path), "modalities": ["text"], "epochs": 1, **keys})
    sentence = f"{items + 1} of the 25 items have the vectors of another item, or none, so that ANT cannot distinguish"
    assert (sentence in caplog.text) == warned
