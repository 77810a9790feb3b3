"""What a run leaves is whole or not there, and runs nobody's code."""

import errno
import json
import pickle
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_xfer import quick_start
from recbole_xfer.config.config import settings as all_settings
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, build, fit, load, run_name
from recbole_xfer.files import replacing
from recbole_xfer.quick_start import compare, evaluate, pretrain, recommend, run, train_and_evaluate
from recbole_xfer.testing.data import config, settings, whole_and_interrupted, write_small
from recbole_xfer.trainer import run_folder as artifacts

LOAD_COL = {"inter": ["user_id", "item_id", "timestamp"]}
FDSA = {"load_col": {**LOAD_COL, "item": ["item_id", "text"]}, "selected_features": ["text"]}


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.name.startswith("."))


def test_a_file_is_replaced_only_when_it_is_whole(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    with replacing(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert not left_over(tmp_path)


@pytest.mark.parametrize("written", ["weights", "state", "result", "config"])
def test_a_full_disk_is_explained_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    save = {
        "weights": lambda: artifacts.save_weights(tmp_path, {"w": torch.ones(3)}),
        "state": lambda: artifacts.save_state(tmp_path, {"epoch": 1}),
        "result": lambda: artifacts.save_result(tmp_path, {"test": 1}),
        "config": lambda: artifacts.save_config(tmp_path, {"key": 1}),
    }[written]
    save()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("recbole_xfer.files.os.replace", full)
    with pytest.raises(XferError, match="The disk is full: .* was not written"):
        save()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_really_full_device_is_explained(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(XferError, match="The disk is full"),
        replacing(tmp_path / "file"),
        open("/dev/full", "w") as file,
    ):
        file.write("x" * 100_000)
    assert not left_over(tmp_path)


@pytest.mark.parametrize("damage", ["truncated", "not there", "a pickle"])
def test_damaged_weights_are_refused(tmp_path: Path, damage: str) -> None:
    artifacts.save_weights(tmp_path, {"w": torch.ones(1000)})
    path = tmp_path / artifacts.WEIGHTS
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:500])
    elif damage == "not there":
        path.unlink()
    else:
        path.write_bytes(pickle.dumps({"w": [1.0]}))
    with pytest.raises(XferError, match=r"damaged or incomplete|holds no pre-trained model"):
        artifacts.load_weights(tmp_path)


class Malicious:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("touched"),))


def test_a_state_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"epoch": Malicious()}, tmp_path / artifacts.STATE)
    with pytest.raises(XferError, match="is damaged"):
        artifacts.load_state(tmp_path)
    assert not (tmp_path / "touched").exists()


def test_the_saved_configuration_makes_an_equal_one(tmp_path: Path) -> None:
    from recbole_xfer.config.config import XferConfig

    write_small(tmp_path)
    for model in ("ANT", "SASRec", "BPR"):
        first = config(
            tmp_path, model, seed=7, eval_args={"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "uni9"}
        )
        artifacts.save_config(tmp_path, all_settings(first))
        second = XferConfig(config_files=[tmp_path / artifacts.CONFIG])
        assert all_settings(first) == all_settings(second)


def test_an_equal_pretraining_is_reused_and_a_changed_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small(tmp_path, "A", seed=1)
    write_small(tmp_path, "B", seed=2)
    keys = {**settings(tmp_path), "pretrain_epochs": 1}
    first = pretrain("ANT", "A+B", overrides=keys)
    trained = (first / artifacts.WEIGHTS).stat().st_mtime_ns
    assert pretrain("ANT", "A+B", overrides=keys) == first
    assert (first / artifacts.WEIGHTS).stat().st_mtime_ns == trained
    assert pretrain("ANT", "A+B", overrides={**keys, "pretrain_learning_rate": 0.01}) != first
    write_small(tmp_path, "B", seed=3)
    assert pretrain("ANT", "A+B", overrides=keys) != first


def test_of_two_equal_pretrainings_at_a_time_one_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path, "A", seed=1)
    trained = []

    def slowly(experiment: Experiment) -> Any:
        trained.append(experiment.folder)
        time.sleep(0.5)
        return fit(experiment)

    monkeypatch.setattr(quick_start, "fit", slowly)
    keys = {**settings(tmp_path), "pretrain_epochs": 1}
    with ThreadPoolExecutor() as pool:
        folders = list(pool.map(lambda _: pretrain("ANT", "A", overrides=keys), range(2)))
    assert trained == folders[:1] == folders[1:]


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
            "split": "leave one out by time (valid_and_test)",
            "candidates": "all 25 items",
            "history_masked": False,
        }


def test_a_folder_of_one_run_is_not_taken_for_another(tmp_path: Path) -> None:
    write_small(tmp_path)
    keys = {**settings(tmp_path, "SASRec"), "run_dir": str(tmp_path / "mine"), "epochs": 1}
    made = run("SASRec", "Small", overrides=keys)
    assert run("SASRec", "Small", overrides=keys, reuse=True).test == made.test
    with pytest.raises(XferError, match=r"mine holds a run with learning_rate=0.001. Name another folder"):
        run("SASRec", "Small", overrides={**keys, "learning_rate": 0.01}, reuse=True)
    interrupted = build(config(tmp_path, "SASRec", run_dir=keys["run_dir"], epochs=2))
    fit(interrupted)
    interrupted.trainer._save_state(1)
    with pytest.raises(XferError, match=r"mine holds a run with .*epochs=2.* start over with --resume=False"):
        run("SASRec", "Small", overrides=keys)
    run("SASRec", "Small", overrides={**keys, "resume": False})


def test_a_pretraining_has_a_folder_of_its_own(tmp_path: Path) -> None:
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


def test_a_comparison_has_more_runs_than_one_folder_holds(tmp_path: Path) -> None:
    write_small(tmp_path)
    plan = tmp_path / "plan.yaml"
    plan.write_text("dataset: Small\nrun_dir: out\nrows: [{model: Pop}, {model: SASRec}]")
    with pytest.raises(XferError, match="'run_dir' names one run, and a comparison has many. Use checkpoint_dir"):
        compare(plan, {"data_path": str(tmp_path)})


def test_source_equal_to_target(tmp_path: Path) -> None:
    write_small(tmp_path)
    write_small(tmp_path, "A", seed=1)
    with pytest.raises(XferError, match="Small is both source and target"):
        run("ANT", "Small", overrides={**settings(tmp_path), "source": "A+Small", "adaptation": "relearn"})


def test_adaptation_without_a_source_and_a_source_without_adaptation(tmp_path: Path) -> None:
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
def test_a_wrong_adaptation_is_told_before_pretraining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, adaptation: str, message: str
) -> None:
    monkeypatch.setattr("recbole_xfer.quick_start.pretrain", lambda *_: pytest.fail("pre-training began"))
    with pytest.raises(XferError, match=message):
        run(model, "Small", overrides={**settings(tmp_path, model), "adaptation": adaptation, "source": "A"})


def test_an_interrupted_pretraining_is_not_adapted(tmp_path: Path) -> None:
    write_small(tmp_path)
    folder = pretrain("ANT", "Small", overrides=settings(tmp_path))
    (folder / artifacts.RESULT).unlink()
    write_small(tmp_path, "A", seed=1)
    keys = {**settings(tmp_path), "adaptation": "relearn", "pretrained": str(folder)}
    with pytest.raises(XferError, match="was interrupted .* Finish it with the same pretrain command"):
        run("ANT", "A", overrides=keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"hidden_size": 32}, "was trained with hidden_size=16, not 32. Leave it out"),
        ({"n_heads": 4}, "was trained with n_heads=2, not 4"),  # whose weights have equal shapes
        ({"dataset": "A"}, "was trained with dataset=Small, not A"),
        ({"hidden_size": 16, "topk": [3]}, None),
        ({"data_path": "grown"}, "was trained on other data of Small"),
    ],
)
def test_a_finished_run_is_loaded_as_it_was_trained(tmp_path: Path, keys: dict, message: str | None) -> None:
    write_small(tmp_path)
    write_small(tmp_path, "A", seed=1)
    write_small(tmp_path / "grown", items=30)
    folder = run("RETR", "Small", overrides={**settings(tmp_path, "RETR"), "epochs": 1}).folder
    with pytest.raises(XferError, match=message) if message else nullcontext():
        load(folder, keys)


@pytest.mark.parametrize(
    ("model", "key", "value"),
    [("ANT", "n_heads", 4), ("UniSRec", "hidden_act", "relu"), ("XRETR", "pathway_hierarchical", False)],
)
def test_a_pretrained_encoder_computes_what_it_did(tmp_path: Path, model: str, key: str, value: Any) -> None:
    write_small(tmp_path)
    write_small(tmp_path, "A", seed=1)
    keys = {**settings(tmp_path, model), "source": "A", "adaptation": "finetune", "pretrain_epochs": 1, "epochs": 1}
    pretrained = pretrain(model, "A", overrides=keys)
    with pytest.raises(XferError, match=rf"{pretrained.name} was pre-trained with {key}=.* Set --{key}="):
        build(config(tmp_path, model, adaptation="finetune", **{key: value}), pretrained)
    build(config(tmp_path, model, adaptation="finetune"), pretrained)


def test_wandb_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(XferError, match="pip install wandb"):
        run("ANT", "Small", overrides={**settings(tmp_path), "log_wandb": True})


@pytest.mark.parametrize("masked", [False, True])
def test_history_masking_holds_for_every_model(tmp_path: Path, masked: bool) -> None:
    """One key for models with and without sequences, RecBole's and ours."""
    write_small(tmp_path, users=60, items=25)
    for model in ("ANT", "SASRec", "BPR", "Pop"):
        experiment = build(config(tmp_path, model, mask_history=masked, epochs=1))
        fit(experiment)
        ranked: list[torch.Tensor] = []
        collect = experiment.trainer.eval_collector.eval_batch_collect

        def spy(scores: torch.Tensor, *rest: Any, ranked: list = ranked, collect: Any = collect) -> None:
            ranked.append(torch.isinf(scores[:, 1:]).sum(dim=1))
            collect(scores, *rest)

        experiment.trainer.eval_collector.eval_batch_collect = spy
        experiment.trainer.evaluate(experiment.test_data, load_best_model=False)
        left_out = torch.cat(ranked)
        assert (left_out > 0).any() == masked, model


SPLITS = [{"LS": "valid_and_test"}, {"RS": [0.8, 0.1, 0.1]}, {"HU": [6, 2, 2]}, {"NU": 0.3}]


@pytest.mark.parametrize("split", SPLITS, ids=lambda split: next(iter(split)))
def test_with_history_masking_no_sampled_negative_is_in_the_history(tmp_path: Path, split: dict[str, Any]) -> None:
    """Not even its first item, or what a held-out user took before the ranked items; the same for either kind."""
    write_small(tmp_path, users=60, items=40)
    eval_args = {"split": split, "order": "TO", "group_by": "user", "mode": "uni9"}
    for model in ("RETR", "BPR"):
        made = build(config(tmp_path, model, mask_history=True, eval_args=eval_args))
        test = made.test_data._dataset
        taken: dict[int, set[int]] = {}
        for number, user in enumerate(test.sequences.users.tolist()):
            start, end = (int(of[number]) for of in (test.sequences.starts, test.target_ranges[1]))
            taken[user] = set(test.sequences.items[start:end].tolist())
        drawn = 0
        for candidates, row, target_row, targets in made.test_data:
            own = set(zip(target_row.tolist(), targets.tolist(), strict=True))
            pairs = zip(candidates["user_id"].tolist(), row.tolist(), candidates["item_id"].tolist(), strict=True)
            negatives = [(user, item) for user, place, item in pairs if (place, item) not in own]
            assert all(item not in taken[user] for user, item in negatives)
            drawn += len(negatives)
        assert drawn == 9 * len(test)


def test_recboles_models_run_through_the_same_verb_and_resume(tmp_path: Path) -> None:
    write_small(tmp_path)
    first, second = whole_and_interrupted(tmp_path, "SASRec")
    assert first.test == second.test
    assert first.valid == second.valid


def test_a_finished_run_that_is_trained_again_and_interrupted_is_not_finished(tmp_path: Path) -> None:
    write_small(tmp_path)
    folder = Path(run("Pop", "Small", overrides=settings(tmp_path, "Pop")).folder)

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("Pop", "Small", overrides=settings(tmp_path, "Pop"), on_epoch=stop)
    assert artifacts.load_result(folder) is None


@pytest.mark.parametrize("model", ["Pop", "ItemKNN", "EASE", "SASRec", "BERT4Rec", "FDSA"])
def test_a_finished_run_of_recboles_model_is_loaded_with_all_that_it_learned(tmp_path: Path, model: str) -> None:
    write_small(tmp_path)
    keys: dict[str, Any] = {"run_dir": str(tmp_path / model)}
    if model == "FDSA":
        keys |= FDSA
    result = train_and_evaluate(config(tmp_path, model, **keys), None)
    loaded = load(tmp_path / model)
    for name in loaded.model.other_parameter():
        setattr(loaded.model, name, None)  # the data could have given it again; here the artifact must
    loaded.trainer._load_weights(artifacts.load_weights(tmp_path / model))
    assert loaded.trainer.evaluate(loaded.test_data, load_best_model=False) == result.test


def add_line(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")


@pytest.mark.parametrize(
    ("model", "keys", "file", "line"),
    [
        ("Pop", {}, "inter", "u0\ti24\t1.0"),  # the earliest row: ids follow the order of appearance
        ("SASRec", {}, "inter", "u0\tnew\t1.0"),
        ("ANT", {"item_embedding": True}, "inter", "u0\ti24\t1.0"),
        ("FM", {}, "inter", "u0\ti24\t1.0"),
        ("FDSA", FDSA, "item", "i99\tother words\t1.0"),
    ],
)
def test_a_run_is_not_loaded_with_other_data(
    tmp_path: Path, model: str, keys: dict[str, Any], file: str, line: str
) -> None:
    write_small(tmp_path)
    keys = {**settings(tmp_path, model), **keys, "epochs": 1}
    folder = Path(run(model, "Small", overrides=keys).folder)
    load(folder, {"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}, "order": "TO"}})  # another split is no other data
    add_line(tmp_path / f"Small/Small.{file}", line)
    with pytest.raises(XferError, match=rf"{folder.name} was trained on other data of Small: .* Train it again"):
        load(folder)
    assert run(model, "Small", overrides=keys, reuse=True).folder != str(folder)


def test_items_without_embeddings_may_be_others_than_in_training(tmp_path: Path) -> None:
    """Zero-shot: an item that came after training is ranked by its features, and the others as before."""
    write_small(tmp_path, holes=False)
    columns = {**LOAD_COL, "item": ["item_id"]}
    folder = run("ANT", "Small", overrides={**settings(tmp_path), "load_col": columns}).folder
    before = dict(recommend(load(folder), ["i1", "i2"], k=30))
    add_line(tmp_path / "Small/Small.item", "new\tsome words\t3.5")
    after = dict(recommend(load(folder), ["i1", "i2"], k=30))
    assert after.keys() - before.keys() == {"new"}
    assert {token: after[token] for token in before} == pytest.approx(before, abs=1e-5)
    (tmp_path / "Small/Small.image.parquet").unlink()
    with pytest.raises(XferError, match="was trained on other data of Small"):
        load(folder)


@pytest.mark.parametrize(
    ("model", "history", "k", "message"),
    [
        ("BPR", ["i1"], 5, "BPR reads no history. Recommend with a sequential model"),
        ("ItemKNN", ["i1"], 5, "ItemKNN reads no history"),
        ("Pop", ["i1"], 0, "k=0 is invalid: it must be an integer of at least 1"),
        ("Pop", ["[PAD]"], 5, r"The item '\[PAD\]' is not in Small\."),
        ("Pop", [1], 5, "Items are named by text: write '1' instead of 1"),
    ],
)
def test_what_cannot_be_recommended_is_explained(
    tmp_path: Path, model: str, history: list[Any], k: int, message: str
) -> None:
    write_small(tmp_path)
    experiment = build(config(tmp_path, model))
    with pytest.raises(XferError, match=message):
        recommend(experiment, history, k)


@pytest.mark.parametrize("model", ["ANT", "BPR"])
def test_metrics_that_look_at_the_training_data_are_measured_again(tmp_path: Path, model: str) -> None:
    write_small(tmp_path)
    metrics = ["NDCG", "ItemCoverage", "AveragePopularity", "GiniIndex", "TailPercentage"]
    keys = {**settings(tmp_path, model), "metrics": metrics}
    first = run(model, "Small", overrides=keys)
    assert run(model, "Small", overrides=keys, reuse=True).test == first.test
    assert evaluate([first.folder]).results[0].test == first.test


def test_a_folder_of_many_joined_domains_has_a_name_that_file_systems_take(tmp_path: Path) -> None:
    domains = [f"Department-{number}" for number in range(20)]
    names = [run_name(config(tmp_path, "Pop", "+".join(chosen)), None, "run") for chosen in (domains, domains[::-1])]
    assert names[0].startswith("Pop-Department-0+19-more-") and names[1].startswith("Pop-Department-19+19-more-")
    others = run_name(config(tmp_path, "Pop", "+".join([*domains[:19], "Other"])), None, "run")
    assert others.startswith("Pop-Department-0+19-more-") and others != names[0]


@pytest.mark.parametrize("model", ["RETR", "SASRec", "TPSASRec"])
def test_a_loss_that_is_no_number_ends_the_run_with_advice(tmp_path: Path, model: str) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match=rf"The loss of {model} is no longer a number. Lower learning_rate, now 1e\+30"):
        run(model, "Small", overrides={**settings(tmp_path, model), "learning_rate": 1e30, "epochs": 3})
