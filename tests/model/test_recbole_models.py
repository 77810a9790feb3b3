"""RecBole's own models with the shims of compat, run by RecBole's entry points and by ours."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.data.dataloader import NegSampleEvalDataLoader
from recbole.quick_start import run_recbole
from recbole.sampler import RepeatableSampler
from recbole.trainer import Trainer
from recbole.utils import get_model, get_trainer, init_seed

from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build
from recbole_xfer.quick_start import evaluate, run
from recbole_xfer.testing.data import config, settings, write_joined, write_small
from tests.conftest import ROOT
from tests.helpers.recbole_models import write, write_tiny

SETTINGS: dict[str, Any] = {
    "epochs": 2,
    "train_batch_size": 256,
    "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "class"]},
    "MAX_ITEM_LIST_LENGTH": 10,
    "train_neg_sample_args": None,
    "embedding_size": 16,
    "hidden_size": 16,
    "inner_size": 16,
    "n_layers": 1,
    "show_progress": False,
    "state": "ERROR",
    "gpu_id": "",
}
NEGATIVES = {"train_neg_sample_args": {"distribution": "uniform", "sample_num": 1}}
MODELS = {
    "SASRec": {},
    "BERT4Rec": {},
    "GRU4Rec": {},
    "Caser": {},
    "FDSA": {},
    "NPE": {},
    "LightSANs": {},
    "BPR": NEGATIVES,
    "LightGCN": NEGATIVES,
    "Pop": {},
    "ItemKNN": {},
    "EASE": {},
}


@pytest.fixture
def tiny(in_tmp_path: Path) -> Path:
    """A dataset in the working directory: 40 users walk a circle of 30 items, each in one of three classes."""
    folder = in_tmp_path / "dataset" / "tiny"
    folder.mkdir(parents=True)
    starts = np.random.default_rng(0).integers(30, size=40)
    rows = [f"u{user}\ti{(start + step) % 30}\t{step}" for user, start in enumerate(starts) for step in range(8)]
    folder.joinpath("tiny.inter").write_text("\n".join(["user_id:token\titem_id:token\ttimestamp:float", *rows]))
    items = [f"i{item}\tclass{item % 3} all" for item in range(30)]
    folder.joinpath("tiny.item").write_text("\n".join(["item_id:token\tclass:token_seq", *items]))
    return in_tmp_path


def train(model: str, **settings: Any) -> dict[str, Any]:
    return run_recbole(model, "tiny", config_dict=SETTINGS | settings)


def only_checkpoint(folder: Path) -> Path:
    [path] = folder.joinpath("saved").iterdir()
    return path


@pytest.mark.parametrize("model", MODELS)
def test_a_model_trains_saves_and_is_evaluated(model: str, tiny: Path) -> None:
    result = train(model, **MODELS[model])
    assert 0 <= result["test_result"]["recall@10"] <= 1
    assert torch.load(only_checkpoint(tiny), weights_only=True)["config"]["model"] == model


def test_s3rec_pretrains_and_is_finetuned(tiny: Path) -> None:
    train("S3Rec", train_stage="pretrain", pretrain_epochs=1, save_step=1)
    result = train("S3Rec", train_stage="finetune", pre_model_path=str(only_checkpoint(tiny)))
    assert 0 <= result["test_result"]["recall@10"] <= 1


IN_A_FRESH_PROCESS = """
import json, sys
import recbole_xfer
from recbole.quick_start import load_data_and_model
from recbole.utils import get_trainer

config, model, _, _, _, test_data = load_data_and_model(sys.argv[1])
trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
print(json.dumps(trainer.evaluate(test_data, load_best_model=False)))
"""


@pytest.mark.parametrize("model", ["SASRec", "FDSA"])
def test_a_fresh_process_reloads_the_same_model(model: str, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    expected = train(model)["test_result"]
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, str(only_checkpoint(tiny))]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(answer.splitlines()[-1]) == pytest.approx(expected)


@pytest.fixture
def sasrec(tiny: Path) -> Callable[[int], Any]:
    """Returns a function that builds the trainer of a new SASRec for some epochs, with its data."""

    def make(epochs: int) -> Any:
        config = Config("SASRec", "tiny", config_dict=SETTINGS | {"epochs": epochs})
        init_seed(config["seed"], True)
        train_data, valid_data, _ = data_preparation(config, create_dataset(config))
        model = get_model("SASRec")(config, train_data.dataset)
        return get_trainer(config["MODEL_TYPE"], "SASRec")(config, model), train_data, valid_data

    return make


def test_an_interrupted_training_resumes(sasrec: Callable[[int], Any], tiny: Path) -> None:
    trainer, train_data, valid_data = sasrec(1)
    trainer.fit(train_data, valid_data)
    resumed, train_data, valid_data = sasrec(3)
    resumed.resume_checkpoint(only_checkpoint(tiny))
    assert resumed.start_epoch == 1
    assert resumed.optimizer.state_dict()["state"]
    for ours, theirs in zip(resumed.model.parameters(), trainer.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    resumed.fit(train_data, valid_data)
    assert sorted(resumed.train_loss_dict) == [1, 2]


OURS = {"MAX_ITEM_LIST_LENGTH": 10, "epochs": 1, "show_progress": False, "topk": [5], "valid_metric": "NDCG@5"}


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("FDSA", {}),  # reads the item column 'class', which load_col does not name
        ("SASRecF", {"selected_features": ["class"]}),
        ("GCMC", {}),  # two of its parameters share memory
        ("FM", {}),  # its only labels are the interactions
        ("RaCT", {"pretrain_epochs": 2}),  # in three stages
    ],
)
def test_run_trains_a_model_without_further_keys(model: str, keys: dict[str, Any], tiny: Path) -> None:
    result = run(model, "tiny", overrides=OURS | keys)
    assert result.rows == 40
    assert 0 <= result.test["ndcg@5"] <= 1


def test_run_trains_a_model_that_looks_up_rows_of_the_dataset(tmp_path: Path) -> None:
    write_small(tmp_path)
    assert run("FEARec", "Small", overrides=settings(tmp_path, "FEARec") | OURS).valid


PRICE = {"load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "price"]}}


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        ("BPR", {"train_neg_sample_args": None}, "BPR learns from negatives, but train_neg_sample_args draws none"),
        ("LightGCN", {"train_neg_sample_args": None}, "LightGCN learns from negatives"),
        ("SASRec", {"train_neg_sample_args": None, "loss_type": "BPR"}, "SASRec learns from negatives"),
        ("KGCN", {"train_neg_sample_args": None}, "KGCN learns from negatives"),
        ("FM", {"train_neg_sample_args": None}, "FM learns from labels, but .* Tiny has no column 'label'"),
        ("DIN", {"train_neg_sample_args": None}, "DIN learns from labels"),
        ("NeuMF", {"train_neg_sample_args": None}, "NeuMF learns from labels"),
        (
            "SASRecF",
            {**PRICE, "selected_features": ["price"]},
            "SASRecF reads the column 'price', which has numbers",
        ),
        ("DSSM", PRICE, r"DSSM reads the column 'price', which has numbers. Set --numerical_features='\[price\]'"),
        ("KGAT", {"dataset": "Tiny+Tiny2"}, "KGAT reads one knowledge graph"),
        ("xgboost", {}, "RecBole's xgboost learns decision trees, which is not supported"),
        ("FM", {"eval_args": {"mode": "labeled"}}, "mode=labeled evaluates labels, which needs metrics such as"),
        (
            "FM",
            {"eval_args": {"mode": "labeled"}, "metrics": ["AUC"], "valid_metric": "AUC"},
            "mode=labeled needs the column 'label', which Tiny does not have. Set --threshold",
        ),
    ],
)
def test_what_a_model_cannot_learn_from_is_one_sentence(
    model: str, keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_tiny(tmp_path)
    dataset = keys.get("dataset", "Tiny")
    with pytest.raises(XferError, match=message):
        run(model, dataset, overrides={**settings(tmp_path, model), "topk": [5], "epochs": 1, **keys})


@pytest.mark.parametrize("model", ["FM", "DIN", "SASRec"])
def test_labels_of_ratings_are_predicted(model: str, tmp_path: Path) -> None:
    write_tiny(tmp_path, users=60)
    labels = {
        "load_col": {"inter": ["user_id", "item_id", "timestamp", "rating"]},
        "threshold": {"rating": 3},
        "train_neg_sample_args": None,
        "eval_args": {"mode": "labeled", "split": {"RS": [6, 2, 2]}, "group_by": None},
        "metrics": ["AUC", "LogLoss"],
        "valid_metric": "AUC",
    }
    result = run(model, "Tiny", overrides={**settings(tmp_path, model), "topk": [5], "epochs": 1, **labels})
    assert "ratio [6, 2, 2] by time, over all users; labels of interactions predicted" in result.caption()
    assert 0 < result.test["auc"] < 1


@pytest.mark.parametrize("model", ["FEARec", "DIEN", "CFKG", "FM"])
def test_an_equal_run_is_reused(model: str, tmp_path: Path) -> None:
    write_tiny(tmp_path)
    keys = {**settings(tmp_path, model), "topk": [5], "epochs": 1}
    first, again = (run(model, "Tiny", overrides=keys) for _ in range(2))
    assert (again.folder, again.test) == (first.folder, first.test)
    assert evaluate([first.folder]).results[0].test == first.test


def test_fearec_ends_if_all_histories_before_a_target_are_equal(tmp_path: Path) -> None:
    """RecBole's FEARec draws histories until one differs."""
    walks = [(f"u{user}", f"i{step}", 10 * user + step) for user in range(8) for step in range(6)]
    write(tmp_path, "inter", ["user_id:token", "item_id:token", "timestamp:float"], walks)
    assert run("FEARec", "Tiny", overrides={**settings(tmp_path, "FEARec"), "topk": [3], "epochs": 1}).rows == 8


@pytest.mark.parametrize("mode", ["full", "uni2"])
def test_user_who_interacted_with_every_item_is_ranked(mode: str, tmp_path: Path) -> None:
    """With masked history only the target is ranked, unless negatives are sampled, of which there are none."""
    walks = [("all", f"i{step % 8}", step) for step in range(8)]
    walks += [(f"u{user}", f"i{(user + step) % 8}", 10 * user + step) for user in range(8) for step in range(5)]
    write(tmp_path, "inter", ["user_id:token", "item_id:token", "timestamp:float"], walks)
    keys = {**settings(tmp_path, "BPR"), "topk": [3], "epochs": 1, "mask_history": True, "eval_args": {"mode": mode}}
    if mode == "full":
        assert run("BPR", "Tiny", overrides=keys).rows == 9
        return
    with pytest.raises(XferError, match="only 1 different items|only 0 different items"):
        run("BPR", "Tiny", overrides=keys)


def test_model_without_negatives_trains_on_a_user_of_every_item(tmp_path: Path) -> None:
    walks = [("all", f"i{step % 8}", step) for step in range(12)]
    walks += [(f"u{user}", f"i{(user + step) % 8}", 10 * user + step) for user in range(8) for step in range(5)]
    write(tmp_path, "inter", ["user_id:token", "item_id:token", "timestamp:float"], walks)
    assert run("MultiVAE", "Tiny", overrides={**settings(tmp_path, "MultiVAE"), "topk": [3], "epochs": 1}).rows == 9
    with pytest.raises(XferError, match="The user all interacted with all 8 items, so no negative can be drawn"):
        run("BPR", "Tiny", overrides={**settings(tmp_path, "BPR"), "topk": [3]})


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"unused_col": {"kg": ["head_id"]}}, r"unused_col.kg=\['head_id'\] is invalid for Tiny: there is no .kg file"),
        ({"unused_col": {"inter": ["item_id"]}}, "the column 'item_id' is required"),
        ({"additional_feat_suffix": ["item"]}, "additional_feat_suffix=item names a file that is always read"),
        ({"additional_feat_suffix": ["none"]}, r"Tiny\.none does not exist"),
    ],
)
def test_keys_of_files_are_checked(keys: dict[str, Any], message: str, tmp_path: Path) -> None:
    write_tiny(tmp_path)
    with pytest.raises(XferError, match=message):
        build(config(tmp_path, "FM", "Tiny", topk=[3], **keys))


def test_unused_columns_are_no_features(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    used = {"load_col": {"inter": ["user_id", "item_id", "timestamp", "rating"]}, "numerical_features": ["rating"]}
    for unused, number in ((None, 3), ({"inter": ["rating"]}, 2)):
        made = build(config(tmp_path, "FM", "Tiny", topk=[3], **used, unused_col=unused))
        assert made.model.num_feature_field == number


def test_run_trains_a_single_stage_of_s3rec(tiny: Path) -> None:
    run("S3Rec", "tiny", overrides=OURS | {"train_stage": "pretrain", "pretrain_epochs": 1, "save_step": 1})
    stage = {"train_stage": "finetune", "pre_model_path": "saved/S3Rec-tiny-1.pth"}
    assert run("S3Rec", "tiny", overrides=OURS | stage).valid


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        ("FDSA", {"selected_features": ["colour"]}, r"reads the item column 'colour'.*selected_features='\[text\]'"),
        ("S3Rec", {"train_stage": "pretrain", "item_attribute": "colour"}, "reads the item column 'colour'"),
        ("KGAT", {}, r"The file .*tiny\.kg does not exist"),
    ],
)
def test_an_error_names_what_a_model_lacks(model: str, keys: dict[str, Any], message: str, tiny: Path) -> None:
    with pytest.raises(XferError, match=message):
        run(model, "tiny", overrides=OURS | keys)


@pytest.mark.parametrize("model", ["SASRec", "BERT4Rec", "GRU4Rec", "Caser", "NPE", "LightSANs", "RETR", "SyNCRec"])
def test_sampled_candidates_have_the_scores_of_recboles_trainer(model: str, tmp_path: Path) -> None:
    write_joined(tmp_path, ["A", "B"])
    made = build(config(tmp_path, model, "A+B", eval_args={"mode": "uni20"}, rank_within_domain=False))
    made.trainer.evaluate(made.test_data, load_best_model=False)
    sampler = RepeatableSampler(["train", "valid", "test"], made.dataset, "uniform").set_phase("test")
    for batch in NegSampleEvalDataLoader(made.config, made.test_data._dataset, sampler):
        ours, theirs = (
            trainer._neg_sample_batch_eval(made.trainer, batch) for trainer in (type(made.trainer), Trainer)
        )
        assert torch.allclose(ours[1], theirs[1], atol=1e-6)
        assert (ours[1] > -torch.inf).sum() > len(batch[0]) / 2  # a negative may be drawn twice
