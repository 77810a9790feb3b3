"""Finished runs are loaded with identical data and keys, or rejected."""

from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from recbole.model.sequential_recommender import SASRec

from recbole_xfer.config.config import settings as all_settings
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, build, fit, load
from recbole_xfer.quick_start import evaluate, pretrain, recommend, run
from recbole_xfer.stages import train_and_evaluate
from recbole_xfer.testing.data import config, settings, write_small
from recbole_xfer.trainer.run_folder import RunFolder

LOAD_COL = {"inter": ["user_id", "item_id", "timestamp"]}
FDSA = {"load_col": {**LOAD_COL, "item": ["item_id", "text"]}, "selected_features": ["text"]}


def add_line(path: Path, line: str) -> None:
    with path.open("a") as file:
        file.write(f"{line}\n")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"hidden_size": 32}, "was trained with hidden_size=16, not 32. Remove the key"),
        ({"n_heads": 4}, "was trained with n_heads=2, not 4"),  # whose weights have equal shapes
        ({"dataset": "A"}, "was trained with dataset=Small, not A"),
        ({"hidden_size": 16, "topk": [3]}, None),
        ({"data_path": "grown"}, "was trained on other data of Small"),
    ],
)
def test_a_run_is_loaded_only_as_it_was_trained(tmp_path: Path, keys: dict, message: str | None) -> None:
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
def test_an_adapted_encoder_has_the_pretrained_keys(tmp_path: Path, model: str, key: str, value: Any) -> None:
    write_small(tmp_path)
    write_small(tmp_path, "A", seed=1)
    keys = {**settings(tmp_path, model), "source": "A", "adaptation": "finetune", "pretrain_epochs": 1, "epochs": 1}
    pretrained = pretrain(model, "A", overrides=keys)
    with pytest.raises(XferError, match=rf"{pretrained.name} was pre-trained with {key}=.* Set --{key}="):
        build(config(tmp_path, model, adaptation="finetune", **{key: value}), RunFolder(pretrained))
    build(config(tmp_path, model, adaptation="finetune"), RunFolder(pretrained))


@pytest.mark.parametrize("model", ["Pop", "ItemKNN", "EASE", "SASRec", "BERT4Rec", "FDSA"])
def test_a_recbole_model_is_loaded_with_its_other_parameters(tmp_path: Path, model: str) -> None:
    write_small(tmp_path)
    keys: dict[str, Any] = {"run_dir": str(tmp_path / model)}
    if model == "FDSA":
        keys |= FDSA
    result = train_and_evaluate(config(tmp_path, model, **keys), None)
    loaded = load(tmp_path / model)
    for name in loaded.model.other_parameter():
        setattr(loaded.model, name, None)  # the data could have given it again; here the artifact must
    loaded.trainer.load_weights(RunFolder(tmp_path / model).weights())
    assert loaded.trainer.evaluate(loaded.test_data, load_best_model=False) == result.test


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
def test_a_run_is_not_loaded_with_changed_data(
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


def test_an_inductive_model_is_loaded_with_changed_data(tmp_path: Path) -> None:
    """Zero-shot: an item that came after training is ranked by its features, and the others as before."""
    write_small(tmp_path, holes=False)
    columns = {**LOAD_COL, "item": ["item_id"]}
    folder = run("ANT", "Small", overrides={**settings(tmp_path), "load_col": columns}).folder
    before = recommend(load(folder), [["i1", "i2"]], k=25).set_index("item_id")["score"].to_dict()
    add_line(tmp_path / "Small/Small.item", "new\tsome words\t3.5")
    after = recommend(load(folder), [["i1", "i2"]], k=25).set_index("item_id")["score"].to_dict()
    assert after.keys() - before.keys() == {"new"}
    assert {token: after[token] for token in before} == pytest.approx(before, abs=1e-5)
    (tmp_path / "Small/Small.image.parquet").unlink()
    with pytest.raises(XferError, match="was trained on other data of Small"):
        load(folder)


@pytest.mark.parametrize("model", ["ANT", "BPR"])
def test_metrics_of_the_training_data_are_measured_again(tmp_path: Path, model: str) -> None:
    write_small(tmp_path)
    metrics = ["NDCG", "ItemCoverage", "AveragePopularity", "GiniIndex", "TailPercentage"]
    keys = {**settings(tmp_path, model), "metrics": metrics}
    first = run(model, "Small", overrides=keys)
    assert run(model, "Small", overrides=keys, reuse=True).test == first.test
    assert evaluate([first.folder]).results[0].test == first.test


@pytest.mark.parametrize(("items", "remedy"), [(1, 1), (3, 3), (25, 5)])
def test_the_remedy_for_rankings_longer_than_the_catalogue_holds(tmp_path: Path, items: int, remedy: int) -> None:
    write_small(tmp_path, items=items, holes=False)
    with pytest.raises(XferError, match=rf"exceeds the {items} items of Small. .* such as --topk=\[{remedy}\]"):
        build(config(tmp_path, "Pop", topk=[30]))
    build(config(tmp_path, "Pop", topk=[remedy]))


@pytest.mark.parametrize(("best", "validated", "warned"), [(4, [2, 4], True), (2, [2, 4], False), (0, [0], False)])
def test_a_best_epoch_that_was_the_last_one_is_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, best: int, validated: list[int], warned: bool
) -> None:
    history = [{"epoch": epoch, "valid": {}} if epoch in validated else {"epoch": epoch} for epoch in range(6)]
    experiment = Experiment(config(tmp_path, "SASRec", resume=False), *[None] * 5)
    experiment.trainer = SimpleNamespace(
        fit=lambda *_, **__: (0.1, {}), history=history, best_epoch=best, epochs=6, model=experiment.model
    )
    assert fit(experiment) == (0.1, {})
    sentence = "The best epoch of SASRec on Small was the last one, 4: training may not be at its end. Raise the number"
    assert (sentence in caplog.text) == warned


def test_no_model_changes_the_identity_of_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path)
    made = config(tmp_path, "SASRec")
    before, expected = all_settings(made), build(made)
    original = SASRec.__init__

    def write(self: Any, own: Any, dataset: Any) -> None:
        own["A_NAME_OF_RECBOLE"] = "noted"
        own["topk"].append(3)
        own["eval_args"]["mode"] = "changed"
        own.final_config_dict["hidden_size"] = 8
        original(self, own, dataset)

    monkeypatch.setattr(SASRec, "__init__", write)
    experiment = build(made)
    assert experiment.model.hidden_size == 8
    assert experiment.folder.path == expected.folder.path
    assert all_settings(experiment.config) == all_settings(expected.config)
    assert all_settings(made) == before
