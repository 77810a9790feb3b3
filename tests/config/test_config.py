"""Values are parsed, not evaluated; unknown names are rejected; RecBole's own entry points see our defaults."""

from pathlib import Path
from typing import Any

import pytest
import torch
from recbole.config import Config

from recbole_xfer.config import properties
from recbole_xfer.config.config import XferConfig, known_keys
from recbole_xfer.config.schema import USUAL_NAMES
from recbole_xfer.config.values import parse_value
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build
from recbole_xfer.testing.data import config, settings, write_small
from recbole_xfer.trainer.run_identity import digest


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


def test_an_expression_stays_a_string(tmp_path: Path) -> None:
    evil = "__import__('os').system('touch owned')"
    assert config(tmp_path, wandb_project=evil)["wandb_project"] == evil


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("learning_rat", "learning_rate"),
        ("fusion_wieght", "fusion_weight"),
        ("pretrain_epoch", "pretrain_epochs"),
        ("batch_size", "train_batch_size"),  # eval_batch_size is spelt more similarly
        ("device", "gpu_id"),  # no key is spelt similarly
        ("early_stop", "stopping_step"),  # eval_step is spelt similarly
        ("optimizer", "learner"),
    ],
)
def test_an_unknown_key_suggests_the_nearest(tmp_path: Path, key: str, near: str) -> None:
    with pytest.raises(XferError, match=f"Unknown key '{key}'. Did you mean '{near}'"):
        config(tmp_path, **{key: 1})
    file = tmp_path / "my.yaml"
    file.write_text(f"{key}: 1\n")
    with pytest.raises(XferError, match=near):
        XferConfig("ANT", "Small", [file])


@pytest.mark.parametrize("key", ["nproc", "world_size", "group_offset", "k_fold", "grad_clip", "verbose", "tau"])
def test_an_unknown_key_that_resembles_none_has_no_suggestion(tmp_path: Path, key: str) -> None:
    with pytest.raises(XferError, match=rf"^Unknown key '{key}'\.$"):
        config(tmp_path, **{key: 1})


@pytest.mark.parametrize("value", ["abc", "cuda:0", "0;1", "[-2]", "1.5"])
def test_an_invalid_gpu_is_an_error(tmp_path: Path, value: str) -> None:
    with pytest.raises(XferError, match=r"gpu_id=.* is invalid: it must be the number of a GPU, several as '0,1', or"):
        config(tmp_path, gpu_id=value)


def test_usual_names_suggest_existing_keys() -> None:
    known = known_keys("ANT", "Small")
    assert set(USUAL_NAMES.values()) <= known and not known & set(USUAL_NAMES)


@pytest.mark.parametrize(
    ("keys", "device"), [({}, "cuda"), ({"gpu_id": 1}, "cuda"), ({"gpu_id": ""}, "cpu"), ({"use_gpu": False}, "cpu")]
)
def test_a_gpu_is_used_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: dict, device: str) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")  # RecBole writes it
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert config(tmp_path, **keys)["device"] == torch.device(device)


def test_a_model_inherits_the_defaults_of_the_models_in_like() -> None:
    unisrec, xretr = (properties.defaults(model, "Small") for model in ("UniSRec", "XRETR"))
    changed = {key for key in xretr if key not in unisrec or xretr[key] != unisrec[key]}
    pathway = {
        "pathway_context", "pathway_route", "pathway_hierarchical", "pathway_temperature", "pathway_acts_on",
    }  # fmt: skip
    assert changed == {"item_embedding", "n_heads", "MAX_ITEM_LIST_LENGTH"} | pathway
    lightsans = properties.defaults("PathwayLightSANs", "Small")
    assert lightsans["k_interests"] == 5  # from RecBole's file
    assert lightsans["pathway_context"] == "window" and lightsans["pathway_route"] == "learned"


@pytest.mark.parametrize(
    ("model", "key"), [("UniSRec", "pathway_route"), ("SASRec", "pathway_route"), ("XRETR", "like"), ("RETR", "like")]
)
def test_a_key_of_another_model_is_unknown(tmp_path: Path, model: str, key: str) -> None:
    with pytest.raises(XferError, match=f"Unknown key '{key}'"):
        config(tmp_path, model, **{key: "random"})


def test_an_unknown_model_suggests_the_nearest() -> None:
    for name in ("SASRek", "sasrec"):
        with pytest.raises(XferError, match=f"'{name}' does not exist. Did you mean 'SASRec'"):
            XferConfig(name, "Small")
    XferConfig("Random", "Small")  # RecBole has no yaml file for it
    with pytest.raises(XferError, match="The key 'dataset' is missing"):
        XferConfig("SASRec")


def test_tp_model_selects_the_model_that_tp_trains(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("model: TP\ntp_model: LightSANs\ninner_steps: 3\n")
    named = XferConfig("TP", "Small", overrides={"tp_model": "LightSANs", "inner_steps": 3})
    for made in (named, XferConfig(dataset="Small", config_files=[file])):
        direct = XferConfig("TPLightSANs", "Small", overrides={"inner_steps": 3})
        assert made.final_config_dict == direct.final_config_dict  # so the run's folder and label are the same


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        ("TP", {}, r"model=TP needs a model to train. Add --tp_model=NAME"),
        ("TP", {"tp_model": "LightSAN"}, "tp_model=LightSAN is not a model with .*. Did you mean 'LightSANs'"),
        ("TP", {"tp_model": "BERT4Rec"}, "tp_model=BERT4Rec is not a model with .* These are: CORE, Caser, .*, STAMP"),
        ("SASRec", {"tp_model": "SASRec"}, "Unknown key 'tp_model'"),
    ],
)
def test_an_invalid_tp_model(model: str, keys: dict, message: str) -> None:
    with pytest.raises(XferError, match=message):
        XferConfig(model, "Small", overrides=keys)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is missing"),
        ("- a list\n", "must have lines"),
        ("a: [1", "is not valid yaml"),
        ("5: 3", "Unknown key '5'"),
    ],
)
def test_invalid_config_files(tmp_path: Path, content: str | None, message: str) -> None:
    file = tmp_path / "my.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(XferError, match=message):
        XferConfig("ANT", "Small", [file])


def test_a_config_file_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "plan.yaml").write_text("epochs: 3\n")
    with pytest.raises(XferError, match=r"plan\.yml is missing\. Did you mean 'plan\.yaml'"):
        XferConfig("ANT", "Small", [tmp_path / "plan.yml"])
    with pytest.raises(XferError, match=r"is a folder\. Name a yaml file"):
        XferConfig("ANT", "Small", [tmp_path])


def test_priority_of_values(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("fusion_weight: 0.7\ntemperature: 0.1\n")
    made = XferConfig("ANT", "Small", [file], {"temperature": "0.2"})
    assert made["fusion_weight"] == 0.7
    assert made["temperature"] == 0.2
    assert made["price_size"] == 64


@pytest.mark.parametrize(
    ("model", "key", "whole", "number"),
    [
        ("ANT", "train_share", 1, 1.0),  # the default is a float
        ("ANT", "alignment_weight", 0, 0.0),  # the default is an integer
        ("ANT", "pretrain_learning_rate", 1, 1.0),
        ("SASRec", "hidden_dropout_prob", "0", "0.0"),
        ("TPSASRec", "inner_rate", 10, 10.0),
        ("VQRec", "random_codes", 1, 1.0),
        ("BPR", "eval_args", {"split": {"RS": [8, 1, 1]}}, {"split": {"RS": [8.0, 1.0, 1.0]}}),
        ("BPR", "train_neg_sample_args", *({"distribution": "popularity", "alpha": one} for one in (1, 1.0))),
    ],
)
def test_equal_numbers_are_one_configuration(model: str, key: str, whole: Any, number: Any) -> None:
    first, second = (XferConfig(model, "Small", overrides={key: value}) for value in (whole, number))
    assert digest(first.final_config_dict) == digest(second.final_config_dict)


def test_a_default_is_no_other_configuration() -> None:
    plainly = XferConfig("ANT", "Small").final_config_dict
    for key, value in {"train_share": 1, "alignment_weight": 0.0, "fusion_weight": plainly["fusion_weight"]}.items():
        assert digest(XferConfig("ANT", "Small", overrides={key: value}).final_config_dict) == digest(plainly), key


def test_invalid_topk_and_metrics(tmp_path: Path) -> None:
    with pytest.raises(XferError, match="topk"):
        config(tmp_path, topk=[0])
    with pytest.raises(XferError, match=r"metrics=\['Recal'\] is invalid: it must be a list of metrics"):
        config(tmp_path, metrics=["Recal"], valid_metric="Recall@10")


def test_recboles_own_entry_point_sees_the_defaults(in_tmp_path: Path) -> None:
    from recbole.quick_start import run_recbole

    write_small(in_tmp_path)
    assert Config("ANT", "Small")["projection_heads"] == 8
    plain = Config("SASRec", "Small", config_dict={"train_neg_sample_args": None})
    assert "projection_heads" not in plain and plain["topk"] == [10]  # RecBole's own models keep RecBole's defaults
    keys = {"data_path": str(in_tmp_path), "epochs": 2, "hidden_size": 16, "topk": [10], "show_progress": False}
    result = run_recbole("ANT", "Small", config_dict=keys)
    assert 0 <= result["test_result"]["ndcg@10"] <= 1


@pytest.mark.parametrize("model", ["RETR", "SASRec", "BPR"])
def test_missing_keys_of_eval_args_keep_their_defaults(model: str) -> None:
    config = XferConfig(model, "any", overrides={"eval_args": "{'mode': 'uni100'}"})
    assert config["eval_args"]["split"] == {"LS": "valid_and_test"}
    assert config["eval_args"]["order"] == "TO"
    assert config["eval_args"]["mode"] == {"valid": "uni100", "test": "uni100"}


@pytest.mark.parametrize(
    ("model", "adaptation", "message"),
    [
        ("ANT", "fine", "adaptation=fine is invalid: it must be relearn, finetune, auto or scratch"),
        ("UniSRec", "relearn", "adaptation=relearn is invalid: it must be finetune, auto or scratch"),
        ("SASRec", "finetune", "SASRec cannot be adapted. Leave out --adaptation"),
    ],
)
def test_an_invalid_adaptation(tmp_path: Path, model: str, adaptation: str, message: str) -> None:
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
def test_the_validation_metric_follows_topk(tmp_path: Path, model: str, topk: object, metric: str) -> None:
    assert XferConfig(model, "Small", overrides={"topk": topk})["valid_metric"] == metric
    assert XferConfig(model, "Small", overrides={"topk": topk, "valid_metric": "MRR@3"})["valid_metric"] == "MRR@3"


def test_recboles_own_entry_point_derives_the_same_values(tmp_path: Path) -> None:
    columns = {"USER_ID_FIELD": "user", "eval_args": {"mode": "uni5"}, "topk": [5]}
    theirs = Config("ANT", "Small", config_dict={**settings(tmp_path), **columns})
    ours = config(tmp_path, "ANT", **columns)
    assert theirs["valid_metric"] == "NDCG@5"
    assert all(theirs[key] == ours[key] for key in ("valid_metric", "load_col", "eval_args", "train_neg_sample_args"))


def test_a_bar_is_a_valid_separator(tmp_path: Path) -> None:
    assert config(tmp_path, field_separator="|")["field_separator"] == "|"  # in yaml, a bar starts a block of text


def test_values_that_do_not_fit_together(tmp_path: Path) -> None:
    with pytest.raises(XferError, match="hidden_size=64 is invalid: it must be a multiple of n_heads=3"):
        config(tmp_path, "SASRec", hidden_size=64, n_heads=3)
    with pytest.raises(XferError, match=r"Unknown key 'eval_args.splitt'. Did you mean 'split'"):
        config(tmp_path, "SASRec", eval_args={"splitt": {"LS": "valid_only"}})
    whole = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "uni100"}
    assert config(tmp_path, "SASRec", eval_args=whole)["eval_args"]["mode"] == {"valid": "uni100", "test": "uni100"}


@pytest.mark.parametrize("model", ["RETR", "SASRec"])
def test_an_unknown_activation(tmp_path: Path, model: str) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match="hidden_act=soft is invalid: it must be gelu, relu, swish, tanh or sigmoid"):
        build(config(tmp_path, model, hidden_act="soft"))


@pytest.mark.parametrize(("model", "keys"), [("RETR", {}), ("SASRec", {"loss_type": "CE"})])
def test_a_loss_over_all_items_draws_no_negatives(model: str, keys: dict[str, Any]) -> None:
    with pytest.raises(XferError, match="loss_type=CE .* draws no negatives. Leave out train_neg_sample_args, or"):
        XferConfig(model, "Small", overrides={**keys, "train_neg_sample_args": {"sample_num": 2}})
    assert XferConfig(model, "Small", overrides={**keys, "train_neg_sample_args": None})["loss_type"] == "CE"
