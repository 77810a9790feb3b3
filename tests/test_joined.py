"""``adaptation: auto``: what is joined, by which weights, and what can be done with such a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_xfer.config.joined import member_configs
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import Result
from recbole_xfer.experiment import load
from recbole_xfer.probing.separability import separability
from recbole_xfer.quick_start import compare, ensemble, evaluate, export, recommend, refit, run, transfer, update
from recbole_xfer.testing.data import config, settings, write_small
from recbole_xfer.trainer import untrained
from recbole_xfer.trainer.run_folder import RunFolder
from recbole_xfer.trainer.selection import choose_weights

NAMES = ["scratch", "relearn", "finetune", "ContentKNN"]
KEYS: dict[str, Any] = {"epochs": 1, "pretrain_epochs": 1, "source": "Source"}


def joined(root: Path, model: str = "ANT", dataset: str = "Small", **keys: Any) -> Result:
    """The result of a run with ``adaptation: auto``."""
    return run(model, dataset, overrides={**settings(root, model), **KEYS, "adaptation": "auto", **keys})


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A target and a source."""
    folder = tmp_path_factory.mktemp("joined")
    write_small(folder)
    write_small(folder, "Source", seed=1)
    return folder


@pytest.fixture(scope="module")
def made(root: Path) -> Result:
    return joined(root)


@pytest.fixture(scope="module")
def members(root: Path, made: Result) -> dict[str, Result]:
    """The runs that are joined, as commands of their own name them."""
    keys = {**settings(root), **KEYS}
    scratch = {key: value for key, value in keys.items() if key != "source"} | {"adaptation": "scratch"}
    found = {"scratch": run("ANT", "Small", overrides=scratch, reuse=True)}
    for way in ("relearn", "finetune"):
        found[way] = run("ANT", "Small", overrides={**keys, "adaptation": way}, reuse=True)
    (content,) = [folder for folder in (root / "saved").glob("ContentKNN-*") if folder.is_dir()]
    return {**found, "ContentKNN": evaluate([content]).results[0]}


def test_each_member_is_a_run_of_its_own_which_is_trained_once(
    root: Path, made: Result, members: dict[str, Result]
) -> None:
    assert list(made.weights or {}) == NAMES
    runs = [folder.name for folder in (root / "saved").iterdir() if (folder / RunFolder.RESULT).is_file()]
    assert len(runs) == len(NAMES) + 2  # the pre-training and the joined run
    assert made.label == "ANT (auto)"
    assert made.seconds >= sum(member.seconds for member in members.values()) - 0.1  # which are rounded


def test_the_scores_are_the_weighted_sum_of_those_of_the_members(made: Result, members: dict[str, Result]) -> None:
    model: Any = load(made.folder).model
    model.weights = [0.5, 2.0, 0.25, 1.0]
    expected: Any = 0
    for weight, (name, member) in zip(model.weights, members.items(), strict=True):
        loaded = load(member.folder)
        rows = next(iter(loaded.test_data))[0]
        if name != "ContentKNN":
            for own in (loaded.model, model.members[name]):  # as after more than one epoch
                torch.nn.init.constant_(own.repeat_bias.weight, weight)
        expected = expected + weight * loaded.model.full_sort_predict(rows)
    rows = next(iter(load(made.folder).test_data))[0]
    found = model.full_sort_predict(rows)
    assert torch.allclose(found[:, 1:], expected[:, 1:], atol=1e-5)
    own = found.gather(1, rows["item_id"][:, None])[:, 0]
    assert torch.allclose(model.predict(rows), own, atol=1e-5)


def test_without_caution_weights_and_metrics_are_those_of_the_ensemble_command(
    root: Path, made: Result, members: dict[str, Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(untrained, "choose_weights", lambda trainer, loader, _: choose_weights(trainer, loader))
    again = joined(root, run_dir=str(root / "as_an_ensemble"))
    table = ensemble([member.folder for member in members.values()])
    assert list((again.weights or {}).values()) == pytest.approx(list(table.weights.values()), abs=1e-6)
    assert again.test == table.results[-1].test
    assert again.valid == table.results[-1].valid
    assert "scores joined with weights chosen on the validation split, scratch " in made.caption()


def test_a_finished_run_is_measured_again(made: Result) -> None:
    assert evaluate([made.folder]).results[0].test == made.test
    masked = evaluate([made.folder], {"mask_history": True}).results[0]
    assert masked.weights == made.weights
    assert masked.protocol.history_masked


def test_the_same_command_again_ends_in_the_same_metrics(root: Path, made: Result) -> None:
    """Everything is built anew from the members' finished runs, as after a kill."""
    (Path(made.folder) / RunFolder.RESULT).unlink()
    assert joined(root).test == made.test


def test_a_joined_run_recommends_and_is_exported(root: Path, made: Result) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    assert len(recommend(made.folder, k=3, part="test"))
    exported = export(made.folder, root / "exported")
    assert (exported / "user_encoder.onnx").is_file()
    items = recommend(made.folder, [["i1", "i2"]], k=3, items="Source")
    assert items.iloc[:, 2].str.startswith("Source/").all()


def test_the_vectors_of_a_joined_run_are_probed(made: Result) -> None:
    model: Any = load(made.folder).model
    assert set(model.features.modalities) == {"text", "image", "price"}
    with pytest.raises(XferError, match="Use more data"):
        separability(["Small", "Source"], run=made.folder)


def test_a_refit_refits_the_members_and_keeps_the_weights(root: Path, made: Result, members: dict[str, Result]) -> None:
    folder = refit(made.folder, root / "refit")
    model: Any = load(folder).model
    before: Any = load(made.folder).model
    assert model.weights == before.weights and model.weight_of() == before.weight_of()
    own = load(refit(members["relearn"].folder, root / "relearn")).model.state_dict()
    assert all(value.equal(own[name]) for name, value in model.members["relearn"].state_dict().items())
    assert {path.name for path in folder.iterdir()} >= {"data", RunFolder.WEIGHTS, RunFolder.RESULT}
    assert not (folder / "members").exists()
    assert len(recommend(folder, [["i1", "i2"]], k=3)) == 3
    with pytest.raises(XferError, match=r"ANT \(auto\) joins several models, so it is not updated"):
        update(folder, root / "updated")


def test_a_row_of_a_plan_and_a_column_of_a_matrix(root: Path, made: Result) -> None:
    plan = root / "plan.yaml"
    rows = "rows: [{model: ANT, adaptation: scratch}, {model: ANT, adaptation: auto}]"
    plan.write_text(f"dataset: Small\nsource: Source\nseeds: [2020]\n{rows}\n", encoding="utf-8")
    keys = {key: value for key, value in {**settings(root), **KEYS}.items() if key != "source"}
    table = compare(plan, keys)
    assert table.by_label()["ANT (auto)"][0].test == made.test
    assert "ANT (auto): scores joined with weights chosen on the validation split, scratch 0." in table.caption()
    study = transfer("ANT", "Small", ["Source"], ["relearn", "auto"], overrides=keys)
    assert "ANT (auto) from Source" in study.tables[0].by_label()


@pytest.mark.parametrize(
    ("model", "names"),
    [("UniSRec", ["scratch", "finetune", "ContentKNN"]), ("VQRec", ["scratch", "align", "finetune", "ContentKNN"])],
)
def test_every_model_that_can_be_adapted_can_be_joined(root: Path, model: str, names: list[str]) -> None:
    own = {"align_epochs": 1} if model == "VQRec" else {}
    assert sorted(joined(root, model, **own).weights or {}) == sorted(names)


def test_a_domain_of_joined_ones_is_ranked_as_by_its_members(root: Path) -> None:
    made = config(root, dataset="Small+Source", adaptation="auto", source="X", single_domain="Small")
    content = member_configs(made)["ContentKNN"]
    for key in ("single_domain", "histories", "dataset", "seed", "eval_args"):
        assert content[key] == made[key]


def test_what_cannot_be_joined(root: Path) -> None:
    with pytest.raises(XferError, match="SASRec cannot be adapted"):
        run("SASRec", "Small", overrides={**settings(root, "SASRec"), "adaptation": "auto"})
    with pytest.raises(XferError, match="adaptation=auto needs --source"):
        run("ANT", "Small", overrides={**settings(root), "adaptation": "auto"})
    with pytest.raises(XferError, match="adaptation=auto chooses weights on a validation split"):
        joined(root, eval_args={"split": {"LS": "test_only"}})
