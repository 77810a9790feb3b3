"""Every key has one type, bounds and allowed values; invalid values are rejected in one sentence."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml

from recbole_xfer.comparison.plan import load_plan
from recbole_xfer.config import properties, schema
from recbole_xfer.config.config import XferConfig, known_keys
from recbole_xfer.config.value_types import fits, words
from recbole_xfer.config.values import YamlLoader, read_yaml_file
from recbole_xfer.errors import XferError
from recbole_xfer.layers.encoder import ACTIVATIONS
from recbole_xfer.search.search import set_up_search
from recbole_xfer.testing.data import config, settings, write_small

OURS = sorted(properties.folder().glob("model/*.yaml")) + sorted(properties.folder().glob("dataset/*.yaml"))
OURS.append(properties.folder() / "overall.yaml")
THEIRS = [
    properties.recbole_folder() / "overall.yaml",
    properties.recbole_folder() / "dataset/sample.yaml",
    *sorted(properties.recbole_folder().glob("quick_start_config/*.yaml")),
    *sorted(properties.recbole_folder().glob("model/*.yaml")),
]
ABOUT_THE_FILE = {properties.LIKE, properties.MODULE, properties.TRAINER}


def model_with(key: str) -> str:
    """A model that reads a key."""
    candidates = ["RETR", "RecGURU", "SyNCRec", "ANT", "UniSRec", "TPCaser", *sorted(properties.recbole_models())]
    return next(name for name in candidates if key in known_keys(name, "Small"))


# --- the schema and the yaml files -----------------------------------------------------------------------------------


@pytest.mark.parametrize("file", OURS, ids=lambda file: file.stem)
def test_our_defaults_are_valid(file: Path) -> None:
    defaults = {key: value for key, value in read_yaml_file(file).items() if key not in ABOUT_THE_FILE}
    assert [key for key in defaults if schema.kind_of(key, file.stem) is None] == []
    schema.check_values(defaults, file.stem)


@pytest.mark.parametrize("file", THEIRS, ids=lambda file: file.stem)
def test_recboles_defaults_are_valid(file: Path) -> None:
    model = file.stem if file.parent.name == "model" else ""
    defaults = yaml.load(file.read_text(), Loader=YamlLoader) or {}
    assert [key for key in defaults if schema.kind_of(key, model) is None] == []
    schema.check_values(defaults, model)


def test_every_known_key_has_a_type() -> None:
    for model in [*properties.models(), "SASRec", "BPR"]:
        assert [key for key in known_keys(model, "CJ-A") if schema.kind_of(key, model) is None] == []


def test_every_key_of_ours_has_a_default_or_a_description() -> None:
    with_default = {key for file in OURS for key in read_yaml_file(file)}
    assert set(schema.OURS) <= with_default | set(schema.WITHOUT_DEFAULT)
    assert not with_default & set(schema.WITHOUT_DEFAULT)


def test_every_type_is_described() -> None:
    kinds = [*schema.KEYS.values(), *(kind for keys in schema.BY_MODEL.values() for kind in keys.values())]
    assert [kind for kind in kinds if not re.fullmatch(r"[\w'\"{\[].*", words(kind)) or "typing" in words(kind)] == []


def test_the_activations_are_those_of_our_layers() -> None:
    assert all(fits(name, schema.KEYS["hidden_act"]) for name in ACTIVATIONS)
    assert words(schema.KEYS["hidden_act"]) == "gelu, relu, swish, tanh or sigmoid"
    assert len(ACTIVATIONS) == 5


def render_keys() -> ModuleType:
    path = properties.folder().parent / "docs/render_keys.py"
    spec = importlib.util.spec_from_file_location("render_keys", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_documented_keys_are_up_to_date() -> None:
    assert render_keys().outdated() == []


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value", "wanted"),
    [
        ("learning_rate", "fast", "a number of at least 0"),
        ("autoencoder_learning_rate", -1, "a number of at least 0"),
        ("hidden_dropout_prob", 2, "a number from 0 to 1"),
        ("epochs", -1, "an integer of at least 0"),
        ("epochs", 10.0, "an integer of at least 0"),
        ("pretrain_epochs", "many", "an integer of at least 0"),
        ("train_batch_size", True, "an integer of at least 1"),
        ("hidden_size", 0, "an integer of at least 1"),
        ("weight_decay", -0.1, "a number of at least 0"),
        ("seed", "lucky", "an integer from 0 to 4294967295"),
        ("seed", -1, "an integer from 0 to 4294967295"),
        ("seed", 1.5, "an integer from 0 to 4294967295"),
        ("cross_experts", 2.5, "an integer of at least 1"),
        ("harmonic_factor", 1.5, "a number from 0 to 1"),
        ("weight_temperature", 0, "a number above 0"),
        ("pathway_temperature", 0, "a number above 0"),
        ("pathway_temperature", -0.5, "a number above 0"),
        ("price_size", 7, "an even integer of at least 2"),
        ("window_stride", 1.5, "an integer of at least 1"),
        ("held_out_targets", -3, "an integer of at least 1"),
        ("train_share", 0, "a number above 0, at most 1"),
        ("train_share", 1.5, "a number above 0, at most 1"),
        ("histories", "perdomain", "across or per_domain"),
        ("train_rows", "prefix", "prefixes or windows"),
        ("modalities", "text", "a list of some of text, image, price, or None"),
        ("eval_groups", [5], "a name or a list of different names"),
        ("overlap_file", 5, "a path (in quotes"),
        ("source", ["A", "B"], "a name, or several joined by +"),
        ("clip_grad_norm", 5, "a mapping with max_norm, such as {max_norm: 5}"),
        ("clip_grad_norm", {"norm": 5}, "a mapping with max_norm, such as {max_norm: 5}"),
        ("mask_history", "perhaps", "True or False"),
        ("load_col", "user_id", "a mapping from kinds of files to columns"),
        ("user_inter_num_interval", 5, "an interval such as '[5,inf)'"),
        ("user_inter_num_interval", "[a,b)", "an interval such as '[5,inf)'"),
        ("user_inter_num_interval", "[9,5)", "an interval such as '[5,inf)'"),
        ("val_interval", "[0,inf)", "a mapping from columns to intervals"),
        ("val_interval", {"timestamp": 5}, "a mapping from columns to intervals"),
        ("learner", "adamx", "adam, adamw, sgd, adagrad, rmsprop or sparse_adam"),
        ("topk", 0, "an integer of at least 1 or a list of them"),
        ("topk", "best", "an integer of at least 1 or a list of them"),
        ("epochs", None, "an integer of at least 0"),
        ("seed", None, "an integer from 0 to 4294967295"),
        ("topk", None, "an integer of at least 1 or a list of them"),
        ("metrics", [], "a list of metrics"),
        ("metrics", None, "a list of metrics"),
        ("valid_metric", None, "a metric, such as NDCG@10"),
        ("valid_metric", 5, "a metric, such as NDCG@10"),
        ("field_separator", "tab", "one character"),
        ("encoding", 8, "the name of an encoding"),
        ("critic_layers", 2.5, "an integer of at least 1"),
        ("paths", 1.5, "an integer of at least 1"),
        ("item_drop", 7, "a number from 0 to 1"),
        ("warmup_steps", 0, "an integer of at least 1"),
        ("learning_rate_decay", -1, "a number above 0"),
        ("layer_norm_eps", "tiny", "a number above 0"),
        ("betas", [2], "two numbers of at least 0 and below 1"),
        ("adversarial_betas", [float("inf"), 0], "two numbers of at least 0 and below 1"),
        ("autoencoder_betas", [0.9, 0.9, 0.9], "two numbers of at least 0 and below 1"),
        ("fusion_weight", float("nan"), "a number of at least 0"),
        ("temperature", float("inf"), "a number above 0"),
        ("hidden_act", [0], "gelu, relu, swish, tanh or sigmoid"),
        ("pathway_route", "randomly", "learned or random"),
        ("precision", "fp16", "auto, bf16 or float32"),
        ("augmentation", ["item_crop"], "a list of some of item_drop, word_drop, or None"),
        ("modalities", ["sound"], "a list of some of text, image, price, or None"),
        ("gpu_id", "abc", "the number of a GPU"),
        ("gpu_id", -2, "the number of a GPU"),
        ("MAX_ITEM_LIST_LENGTH", None, "an integer of at least 1"),
        ("train_batch_size", "eight", "an integer of at least 1"),
        ("run_dir", 2024, "a path (in quotes if it looks like a number), or None"),
        ("checkpoint_dir", 64, "a path (in quotes if it looks like a number)"),
        ("pretrained", ["a"], "a path (in quotes if it looks like a number), or None"),
        ("single_domain", 5, "a name (in quotes if it looks like a number), or None"),
        ("threshold", 4, "a mapping from one column to a number"),
        ("threshold", {"rating": 4, "age": 2}, "a mapping from one column to a number"),
        ("threshold", {"rating": "high"}, "a mapping from one column to a number"),
        ("alias_of_user_id", "friend", "a list of different names, such as [a, b], or None"),
        ("preload_weight", ["item_id"], "a mapping from columns of ids to columns of vectors"),
        ("normalize_field", "price", "a list of different names"),
        ("numerical_features", ["price", "price"], "a list of different names"),
        ("metrics", ["NDCG", "NDCG"], "a list of metrics"),
        ("numerical_features", None, "a list of different names"),
        ("discretization", {"price": {"method": "ED"}}, "a mapping from columns to methods"),
        ("discretization", {"price": 10}, "a mapping from columns to methods"),
        ("transform", "mask", "mask_itemseq, inverse_itemseq"),
        ("rm_dup_inter", True, "first or last, or None"),
        ("NEG_PREFIX", 5, "a name"),
        ("LIST_SUFFIX", "", "a name"),
        ("ITEM_LIST_LENGTH_FIELD", None, "a name"),
        ("load_col", {"inter": None}, "a mapping from kinds of files to columns"),
        ("seq_len", {"genres": 0}, "a mapping from columns to lengths"),
        ("benchmark_filename", "train", "a list of different names"),
        ("state", "loud", "debug, info, warning, error or critical, or None"),
        ("show_progress", 1, "True or False"),
        ("metrics", ["NDCG", "Recal"], "a list of metrics"),
        ("valid_metric", "NDCG@ten", "a metric, such as NDCG@10"),
        ("eval_args", "full", "a mapping"),
        ("train_neg_sample_args", 5, "a mapping"),
    ],
)
def test_an_invalid_value_is_rejected(tmp_path: Path, key: str, value: object, wanted: str) -> None:
    with pytest.raises(XferError, match=re.escape(f"{key}={value} is invalid: it must be {wanted}")):
        config(tmp_path, model_with(key), **{key: value})


@pytest.mark.parametrize(
    ("model", "key", "value", "wanted"),
    [
        ("RecGURU", "negatives", float("inf"), "an integer of at least 1"),
        ("RecGURU", "negatives", "full", "an integer of at least 1"),
        ("ANT", "negatives", 20, "full, sampled or in_batch"),
        ("ANT", "pretrain_negatives", "batch", "full, sampled or in_batch"),
        ("ANT", "pretrain_modalities", "text", "a list of some of text, image, price"),
        ("RETR", "loss_type", "BCE", "BPR or CE"),
        ("TPSASRec", "loss_type", "MSE", "BCE, BPR or CE"),
        ("CDAE", "loss_type", "BPR", "BCE or MSE"),
        ("RaCT", "critic_layers", 4, "a list of integers of at least 1"),
        ("S3Rec", "train_stage", "actor_pretrain", "pretrain or finetune"),
        ("PathwayS3Rec", "train_stage", "actor_pretrain", "pretrain or finetune"),
        ("FEARec", "std", 0.01, "True or False"),
        ("HGN", "reg_weight", 0.1, "two numbers of at least 0"),
        ("KD_DAGFM", "teacher", "print(1)", "CrossNet, CIN or CINComp"),
    ],
)
def test_a_key_can_have_another_type_in_another_model(model: str, key: str, value: object, wanted: str) -> None:
    with pytest.raises(XferError, match=re.escape(f"{key}={value} is invalid: it must be {wanted}")):
        XferConfig(model, "Small", overrides={key: value})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("train_neg_sample_args", {"distribution": "zipf"}, "train_neg_sample_args.distribution=zipf is invalid"),
        ("train_neg_sample_args", {"sample_num": 0}, "train_neg_sample_args.sample_num=0 is invalid"),
        (
            "train_neg_sample_args",
            {"distributon": "uniform"},
            "Unknown key 'train_neg_sample_args.distributon'",
        ),
        ("clip_grad_norm", {"max_norm": 0}, "clip_grad_norm.max_norm=0 is invalid: it must be a number above 0"),
        ("clip_grad_norm", {"max_norm": 5, "norm": 2}, "Unknown key 'clip_grad_norm.norm'"),
        ("pretrain_eval_args", {"mode": "all"}, "pretrain_eval_args.mode=all is invalid: it must be full"),
    ],
)
def test_keys_inside_a_value_are_checked(tmp_path: Path, key: str, value: object, message: str) -> None:
    with pytest.raises(XferError, match=re.escape(message)):
        config(tmp_path, "RETR", **{key: value})


def test_an_invalid_dataset_is_rejected() -> None:
    with pytest.raises(XferError, match=r"dataset=\['A'\] is invalid: it must be a name, or several joined by \+"):
        XferConfig("RETR", ["A"])  # type: ignore[arg-type]


def test_a_key_of_another_package_has_the_type_of_its_default() -> None:
    defaults = {"speed": 1.5, "fast": True, "tables": {"a": 1}, "open": None}
    schema.check_values({"speed": 2, "pretrain_fast": False, "tables": {}, "open": "anything"}, defaults=defaults)
    for key, value in (("speed", "2"), ("pretrain_speed", True), ("fast", 1), ("tables", [])):
        with pytest.raises(XferError, match=f"{key}=.* is invalid: it must be"):
            schema.check_values({key: value}, defaults=defaults)


def test_config_files_are_validated(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("paths: 1.5\n")
    with pytest.raises(XferError, match="paths=1.5 is invalid: it must be an integer of at least 1"):
        XferConfig("TPSASRec", "Small", [file])


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("seeds: [1, -2]", r"seeds=\[1, -2\] is invalid: it must be a list of integers"),
        ("alone: 5", "alone=5 is invalid: it must be True or False, or a name"),
        ("rows: [{model: Pop, name: [a]}]", r"name=\['a'\] is invalid: it must be a name"),
    ],
)
def test_the_keys_of_a_comparison_are_validated(tmp_path: Path, keys: str, message: str) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text(f"dataset: Small\nrows: [{{model: Pop}}]\n{keys}\n")
    with pytest.raises(XferError, match=message):
        load_plan(file)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("n_layers: [1, two]", "n_layers=two is invalid: it must be an integer of at least 1"),
        ("hidden_size: {uniform: [8, 32]}", "hidden_size=8.0 is invalid: it must be an integer of at least 1"),
        ("n_layers: {randint: [0, 3]}", "n_layers=0 is invalid: it must be an integer of at least 1"),
    ],
)
def test_the_values_of_a_search_are_validated(tmp_path: Path, line: str, message: str) -> None:
    write_small(tmp_path)
    file = tmp_path / "space.yaml"
    file.write_text(f"{line}\n")
    given = {key: value for key, value in settings(tmp_path, "RETR").items() if key not in ("n_layers", "hidden_size")}
    with pytest.raises(XferError, match=message):
        set_up_search(file, None, [], {"model": "RETR", "dataset": "Small", **given}, 1, None)


@pytest.mark.parametrize(
    ("eval_args", "message"),
    [
        ({"split": "LS"}, "split=LS is invalid: it must be one of LS, RS, HU or NU with its argument"),
        ({"split": {"LS": "valid_only", "RS": [8, 1, 1]}}, "split={.*} is invalid: it must be one of LS, RS, HU or NU"),
        ({"split": {"LS": 5}}, "split.LS=5 is invalid: it must be valid_and_test, valid_only, test_only or none"),
        ({"split": {"RS": 0.8}}, "split.RS=0.8 is invalid: it must be three numbers"),
        (
            {"split": {"RS": [8, 2]}},
            r"split.RS=\[8, 2\] is invalid: it must be three .* as \[8, 1, 1\]",
        ),
        ({"split": {"RS": [0, 0, 0]}}, ".* is invalid: it must be three numbers"),
        ({"split": {"HU": [8, 2]}}, r"split.HU=\[8, 2\] is invalid: it must be three numbers"),
        ({"mode": "uni-3"}, "mode=uni-3 is invalid: it must be full, labeled, or such as uni100 or pop100"),
        (
            {"mode": {"valid": "full", "test": "uni0"}},
            "mode=.* is invalid: it must be full, labeled",
        ),
        ({"split": {"NU": 1}}, "split.NU=1 is invalid: it must be a number between 0 and 1"),
        ({"order": "TR"}, "order=TR is invalid: it must be TO or RO"),
        ({"group_by": "item"}, "group_by=item is invalid: it must be user or none, or None"),
    ],
)
def test_invalid_eval_args_are_rejected(tmp_path: Path, eval_args: dict, message: str) -> None:
    with pytest.raises(XferError, match=f"eval_args.{message}"):
        config(tmp_path, "RETR", eval_args=eval_args)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("user_inter_num_interval", "[5,9]"),  # in yaml, a list
        ("item_inter_num_interval", "(0,1];[ 3, 1e3 )"),
        ("val_interval", {"timestamp": "[-1.5,inf)", "item_id": ["i1"]}),
        ("eval_args", {"mode": {"valid": "full", "test": "pop100"}, "split": {"HU": [0.8, 0, 0.2]}}),
        ("eval_args", {"mode": {"valid": "full", "test": "uni100000000"}}),
        ("eval_groups", "new"),
        ("run_dir", Path("runs/first")),
        ("gpu_id", "0,1"),
        ("gpu_id", "GPU-8932f937-d72c"),
        ("learner", "AdamW"),
        ("discretization", {"price": {"method": "LD"}, "age": {"method": "ED", "bucket": 5}}),
        ("train_neg_sample_args", {"distribution": "popularity", "sample_num": 2}),
        ("unload_col", {"inter": ["rating"]}),
        ("clip_grad_norm", {"max_norm": 5, "norm_type": 2}),
    ],
)
def test_valid_values_are_accepted(tmp_path: Path, key: str, value: object) -> None:
    accepted = config(tmp_path, "RETR", loss_type="BPR", **{key: value})[key]
    if isinstance(value, dict):
        assert accepted == {**accepted, **value}  # eval_args has more keys
    else:
        assert str(accepted).replace(" ", "") == str(value).replace(" ", "")  # as RecBole reads an interval or a list


def test_none_and_numpys_numbers_are_accepted(tmp_path: Path) -> None:
    values = {"learning_rate": np.float32(0.5), "item_inter_num_interval": None, "learner": "Adam"}
    made = config(tmp_path, "RETR", epochs=np.int64(3), **values)
    assert made["epochs"] == 3 and made["learning_rate"] == 0.5
