"""Keys are checked, values are parsed and never evaluated, and RecBole's own entry points see our defaults."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_xfer.config import properties
from recbole_xfer.config.config import XferConfig, known_keys
from recbole_xfer.config.schema import USUAL_NAMES
from recbole_xfer.config.values import parse_value
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build
from recbole_xfer.testing.data import config, write_small


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("0.5", 0.5),
        ("3", 3),
        ("true", True),
        ("False", False),
        ("None", None),
        ("['text', 'image']", ["text", "image"]),
        ("{'LS': 'valid_and_test'}", {"LS": "valid_and_test"}),
        ("{'RS':[0.8,0.1,0.1]}", {"RS": [0.8, 0.1, 0.1]}),
        ("[5,inf)", "[5,inf)"),
        ("Books+Toys", "Books+Toys"),
        ("__import__('os').system('touch owned')", "__import__('os').system('touch owned')"),
        ("!!python/object/apply:os.system ['touch owned']", "!!python/object/apply:os.system ['touch owned']"),
    ],
)
def test_values_are_parsed(text: str, value: object, in_tmp_path: Path) -> None:
    assert parse_value(text) == value
    assert not (in_tmp_path / "owned").exists()


def test_an_expression_stays_text_in_a_configuration(tmp_path: Path) -> None:
    evil = "__import__('os').system('touch owned')"
    assert config(tmp_path, wandb_project=evil)["wandb_project"] == evil


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("learning_rat", "learning_rate"),
        ("fusion_wieght", "fusion_weight"),
        ("pretrain_epoch", "pretrain_epochs"),
        ("batch_size", "train_batch_size"),  # by its spelling eval_batch_size
        ("device", "gpu_id"),  # by its spelling nothing
    ],
)
def test_a_misspelt_key_names_the_nearest(tmp_path: Path, key: str, near: str) -> None:
    with pytest.raises(XferError, match=f"The key '{key}' is not known. Did you mean '{near}'"):
        config(tmp_path, **{key: 1})
    file = tmp_path / "my.yaml"
    file.write_text(f"{key}: 1\n")
    with pytest.raises(XferError, match=near):
        XferConfig("ANT", "Small", [file])


def test_the_names_of_keys_elsewhere_lead_to_keys_of_some_model() -> None:
    known = known_keys("ANT", "Small")
    assert set(USUAL_NAMES.values()) <= known and not known & set(USUAL_NAMES)


@pytest.mark.parametrize(
    ("keys", "device"), [({}, "cuda"), ({"gpu_id": 1}, "cuda"), ({"gpu_id": ""}, "cpu"), ({"use_gpu": False}, "cpu")]
)
def test_a_gpu_is_used_unless_it_is_declined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict, device: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # RecBole changes it
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert config(tmp_path, **keys)["device"] == torch.device(device)


def test_a_models_file_starts_from_those_that_it_names() -> None:
    unisrec, xretr = (properties.defaults(model, "Small") for model in ("UniSRec", "XRETR"))
    changed = {key for key in xretr if key not in unisrec or xretr[key] != unisrec[key]}
    pathway = {"pathway_context", "pathway_route", "pathway_hierarchical", "pathway_temperature"}
    assert changed == {"item_embedding", "n_heads", "MAX_ITEM_LIST_LENGTH"} | pathway
    lightsans = properties.defaults("PathwayLightSANs", "Small")
    assert lightsans["k_interests"] == 5  # of RecBole's file
    assert lightsans["pathway_context"] == "window" and lightsans["pathway_route"] == "learned"


@pytest.mark.parametrize(
    ("model", "key"), [("UniSRec", "pathway_route"), ("SASRec", "pathway_route"), ("XRETR", "like"), ("RETR", "like")]
)
def test_a_key_of_another_model_is_unknown(tmp_path: Path, model: str, key: str) -> None:
    with pytest.raises(XferError, match=f"The key '{key}' is not known"):
        config(tmp_path, model, **{key: "random"})


def test_an_unknown_model_names_the_nearest() -> None:
    for name in ("SASRek", "sasrec"):
        with pytest.raises(XferError, match=f"'{name}' does not exist. Did you mean 'SASRec'"):
            XferConfig(name, "Small")
    XferConfig("Random", "Small")  # RecBole has no file of its values
    with pytest.raises(XferError, match="No dataset was named"):
        XferConfig("SASRec")


def test_tp_model_names_what_tp_trains(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("model: TP\ntp_model: LightSANs\ninner_steps: 3\n")
    named = XferConfig("TP", "Small", overrides={"tp_model": "LightSANs", "inner_steps": 3})
    for made in (named, XferConfig(dataset="Small", config_files=[file])):
        direct = XferConfig("TPLightSANs", "Small", overrides={"inner_steps": 3})
        assert made.final_config_dict == direct.final_config_dict  # and so one folder, one label


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        ("TP", {}, r"model=TP needs a model to train. Add --tp_model=NAME"),
        ("TP", {"tp_model": "LightSAN"}, "tp_model=LightSAN is no model with .*. Did you mean 'LightSANs'"),
        ("TP", {"tp_model": "BERT4Rec"}, "tp_model=BERT4Rec is no model with .* These are: CORE, Caser, .*, STAMP"),
        ("SASRec", {"tp_model": "SASRec"}, "The key 'tp_model' is not known"),
    ],
)
def test_a_tp_model_that_there_is_not(model: str, keys: dict, message: str) -> None:
    with pytest.raises(XferError, match=message):
        XferConfig(model, "Small", overrides=keys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        ("- a list\n", "must have lines"),
        ("a: [1", "is not valid yaml"),
        ("5: 3", "The key '5' is not known"),
    ],
)
def test_wrong_config_files(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "my.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(XferError, match=message):
        XferConfig("ANT", "Small", [file])


def test_priority_of_values(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("fusion_weight: 0.7\ntemperature: 0.1\n")
    made = XferConfig("ANT", "Small", [file], {"temperature": "0.2"})
    assert made["fusion_weight"] == 0.7
    assert made["temperature"] == 0.2
    assert made["price_size"] == 64


def test_a_value_that_recbole_refuses(tmp_path: Path) -> None:
    with pytest.raises(XferError, match="topk"):
        config(tmp_path, topk=[0])
    with pytest.raises(XferError, match="no metric named"):
        config(tmp_path, metrics=["Recal"], valid_metric="Recall@10")


def test_recboles_own_entry_point_sees_the_defaults(in_tmp_path: Path) -> None:
    from recbole.config import Config
    from recbole.quick_start import run_recbole

    write_small(in_tmp_path)
    assert Config("ANT", "Small")["projection_heads"] == 8
    plain = Config("SASRec", "Small", config_dict={"train_neg_sample_args": None})
    assert "projection_heads" not in plain and plain["topk"] == [10]  # RecBole's own models keep RecBole's defaults
    keys = {"data_path": str(in_tmp_path), "epochs": 2, "hidden_size": 16, "topk": [10], "show_progress": False}
    result = run_recbole("ANT", "Small", config_dict=keys)
    assert 0 <= result["test_result"]["ndcg@10"] <= 1


@pytest.mark.parametrize("model", ["RETR", "SASRec", "BPR"])
def test_what_eval_args_leaves_out_stays_as_it_is(model: str) -> None:
    config = XferConfig(model, "any", overrides={"eval_args": "{'mode': 'uni100'}"})
    assert config["eval_args"]["split"] == {"LS": "valid_and_test"}
    assert config["eval_args"]["order"] == "TO"
    assert config["eval_args"]["mode"] == {"valid": "uni100", "test": "uni100"}


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("learning_rate", "fast", "a number from 0 on"),
        ("autoencoder_learning_rate", -1, "a number from 0 on"),
        ("hidden_dropout_prob", 2, "a share from 0 to 1"),
        ("epochs", -1, "a whole number from 0 on"),
        ("epochs", 10.0, "a whole number from 0 on"),
        ("pretrain_epochs", "many", "a whole number from 0 on"),
        ("train_batch_size", True, "a whole number from 1 on"),
        ("hidden_size", 0, "a whole number from 1 on"),
        ("weight_decay", -0.1, "a number from 0 on"),
        ("seed", "lucky", "a whole number from 0"),
        ("seed", -1, "a whole number from 0"),
        ("seed", 1.5, "a whole number from 0"),
        ("cross_experts", 2.5, "a whole number from 1 on"),
        ("harmonic_factor", 1.5, "a share from 0 to 1"),
        ("weight_temperature", 0, "a number above 0"),
        ("pathway_temperature", 0, "a number above 0"),
        ("pathway_temperature", -0.5, "a number above 0"),
        ("price_size", 7, "an even number from 2 on"),
        ("window_stride", 1.5, "a whole number from 1 on"),
        ("held_out_targets", -3, "a whole number from 1 on"),
        ("histories", "perdomain", "across or per_domain"),
        ("train_rows", "prefix", "prefixes or windows"),
        ("modalities", "text", "a list, such as [text, image]"),
        ("eval_groups", [5], "a group or a list of them"),
        ("overlap_file", 5, "the name of a file"),
        ("source", ["A", "B"], "a name, or several joined by +"),
        ("clip_grad_norm", 5, "a largest norm, as {max_norm: 5}"),
        ("clip_grad_norm", {"norm": 5}, "a largest norm, as {max_norm: 5}"),
        ("mask_history", "perhaps", "True or False"),
        ("load_col", "user_id", "keys with lists"),
        ("user_inter_num_interval", 5, "an interval such as '[5,inf)'"),
        ("user_inter_num_interval", "[a,b)", "an interval such as '[5,inf)'"),
        ("user_inter_num_interval", "[9,5)", "an interval such as '[5,inf)'"),
        ("val_interval", "[0,inf)", "columns with intervals"),
        ("val_interval", {"timestamp": 5}, "columns with intervals"),
        ("learner", "adamw", "one of adam, sgd"),
        ("topk", 0, "lengths of rankings from 1 on"),
        ("topk", "best", "lengths of rankings from 1 on"),
        ("epochs", None, "a whole number from 0 on"),
        ("seed", None, "a whole number from 0"),
        ("topk", None, "lengths of rankings from 1 on"),
        ("metrics", [], "a metric or a list of them"),
        ("metrics", None, "a metric or a list of them"),
        ("valid_metric", None, "a metric with a length"),
        ("valid_metric", 5, "a metric with a length"),
        ("field_separator", "tab", "one character"),
        ("encoding", 8, "the name of an encoding"),
    ],
)
def test_a_value_that_cannot_be_meant(tmp_path: Path, key: str, value: object, wanted: str) -> None:
    model = next(name for name in ("RETR", "RecGURU", "SyNCRec", "ANT") if key in known_keys(name, "Small"))
    with pytest.raises(XferError, match=re.escape(f"{key}={value} must be {wanted}")):
        config(tmp_path, model, **{key: value})


@pytest.mark.parametrize(
    ("eval_args", "message"),
    [
        ({"split": "LS"}, "split=LS must be one of LS, RS, HU, NU with its value"),
        ({"split": {"LS": "valid_only", "RS": [8, 1, 1]}}, "split={.*} must be one of LS, RS, HU, NU with its value"),
        ({"split": {"LS": 5}}, "split LS=5 must be valid_and_test or valid_only or test_only"),
        ({"split": {"RS": 0.8}}, "split RS=0.8 must be three shares"),
        ({"split": {"RS": [8, 2]}}, r"split RS=\[8, 2\] must be three shares, such as \[8, 1, 1\]"),
        ({"split": {"RS": [0, 0, 0]}}, ".* must be three shares"),
        ({"split": {"HU": [8, 2]}}, r"split HU=\[8, 2\] must be three shares"),
        ({"mode": "uni-3"}, "mode=uni-3 must be full, labeled, or such as uni100 or pop100"),
        ({"mode": {"valid": "full", "test": "uni0"}}, "mode=.* must be full, labeled, or such as uni100"),
    ],
)
def test_a_way_to_evaluate_that_cannot_be_meant(tmp_path: Path, eval_args: dict, message: str) -> None:
    with pytest.raises(XferError, match=f"eval_args.{message}"):
        config(tmp_path, "RETR", eval_args=eval_args)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("user_inter_num_interval", "[5,9]"),  # a list to yaml
        ("item_inter_num_interval", "(0,1];[ 3, 1e3 )"),
        ("val_interval", {"timestamp": "[-1.5,inf)", "item_id": ["i1"]}),
        ("eval_args", {"mode": {"valid": "full", "test": "pop100"}, "split": {"HU": [0.8, 0, 0.2]}}),
        ("eval_groups", "new"),
        ("clip_grad_norm", {"max_norm": 5, "norm_type": 2}),
    ],
)
def test_values_that_can_be_meant(tmp_path: Path, key: str, value: object) -> None:
    taken = config(tmp_path, "RETR", **{key: value})[key]
    if isinstance(value, dict):
        assert taken == {**taken, **value}  # eval_args has more keys
    else:
        assert str(taken).replace(" ", "") == str(value).replace(" ", "")  # as RecBole reads an interval, or a list


@pytest.mark.parametrize(
    ("model", "adaptation", "message"),
    [
        ("ANT", "fine", "adaptation=fine must be relearn, finetune or scratch"),
        ("UniSRec", "relearn", "adaptation=relearn must be finetune or scratch"),
        ("SASRec", "finetune", "SASRec cannot be adapted. Leave out --adaptation"),
    ],
)
def test_an_adaptation_that_there_is_not(tmp_path: Path, model: str, adaptation: str, message: str) -> None:
    with pytest.raises(XferError, match=message):
        config(tmp_path, model, adaptation=adaptation)


@pytest.mark.parametrize(
    ("model", "topk", "metric"),
    [
        ("RETR", "[5]", "NDCG@5"),
        ("SASRec", 7, "NDCG@7"),
        ("ANT", [20, 10], "NDCG@10"),
        ("RecGURU", [3, 5], "NDCG@5 [mean]"),
    ],
)
def test_what_chooses_the_epoch_is_measured(tmp_path: Path, model: str, topk: object, metric: str) -> None:
    assert XferConfig(model, "Small", overrides={"topk": topk})["valid_metric"] == metric
    assert XferConfig(model, "Small", overrides={"topk": topk, "valid_metric": "MRR@3"})["valid_metric"] == "MRR@3"


def test_a_bar_separates_columns(tmp_path: Path) -> None:
    assert config(tmp_path, field_separator="|")["field_separator"] == "|"  # to yaml it begins a text of many lines


def test_a_value_may_be_left_empty_and_numbers_may_be_numpys(tmp_path: Path) -> None:
    values = {"learning_rate": np.float32(0.5), "item_inter_num_interval": None, "learner": "Adam"}
    made = config(tmp_path, "RETR", epochs=np.int64(3), **values)
    assert made["epochs"] == 3 and made["learning_rate"] == 0.5


def test_values_that_do_not_go_together(tmp_path: Path) -> None:
    with pytest.raises(XferError, match="hidden_size=64 must be a multiple of n_heads=3"):
        config(tmp_path, "SASRec", hidden_size=64, n_heads=3)
    with pytest.raises(XferError, match=r"The key 'eval_args.splitt' is not known. Did you mean 'split'"):
        config(tmp_path, "SASRec", eval_args={"splitt": {"LS": "valid_only"}})
    whole = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni100"}
    assert config(tmp_path, "SASRec", eval_args=whole)["eval_args"]["mode"] == {"valid": "uni100", "test": "uni100"}


@pytest.mark.parametrize("model", ["RETR", "SASRec"])
def test_an_activation_that_does_not_exist(tmp_path: Path, model: str) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match="hidden_act=soft must be|RecBole's SASRec rejects this configuration: 'soft'"):
        build(config(tmp_path, model, hidden_act="soft"))
