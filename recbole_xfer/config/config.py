"""The configuration of a run: RecBole's Config with our defaults; values are parsed, not evaluated, and checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from recbole.config import Config
from recbole.utils import ModelType, argument_list

from recbole_xfer.collectives import total
from recbole_xfer.config import properties
from recbole_xfer.config.model_checks import TP_MODEL, check_model, check_together, learns_repeats, trained_by_tp
from recbole_xfer.config.properties import STAGE_PREFIX
from recbole_xfer.config.recbole_keys import STAGES
from recbole_xfer.config.schema import check_keys, check_values, typed
from recbole_xfer.config.values import YamlLoader, in_order, parse_values, read_yaml_files
from recbole_xfer.errors import XferError
from recbole_xfer.processes import count, own_gpu

DERIVED = {
    "MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type", "valid_metric_bigger", "device", "single_spec", "local_rank",
    "valid_neg_sample_args", "test_neg_sample_args",
}  # fmt: skip
"""Keys whose values RecBole derives from the others."""

FIELDS = ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD")
"""Keys that name the columns of an interaction."""


class XferConfig(Config):
    """RecBole's Config with the defaults of properties/; keys and values are checked before anything is loaded.

    Priority, the first wins: ``overrides``, ``config_files`` (the last first), our properties/, RecBole's own.

    Args:
        model: name of a model of RecBole or of this package.
        dataset: name of a dataset, or several joined by ``+``.
        config_files: yaml files.
        overrides: values by key; text is parsed as yaml.

    Raises:
        XferError: for an unknown model or key, a file that is missing or not a yaml mapping, or an invalid value.
    """

    def __init__(
        self,
        model: str | None = None,
        dataset: str | None = None,
        config_files: Iterable[str | Path] = (),
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        files = [Path(file) for file in config_files]
        given = self._load_config_files(files) | parse_values(overrides)
        model, dataset = model or given.get("model"), dataset or given.get("dataset")
        for key, value in (("model", model), ("dataset", dataset)):
            if not value:
                raise XferError(f"The key '{key}' is missing. Add --{key}=NAME, or '{key}: NAME' to a config file.")
        if model == properties.TP:
            model = trained_by_tp(given.pop(TP_MODEL, None))
        check_model(str(model))
        check_keys(given, known_keys(str(model), str(dataset)))
        check_values({**given, "dataset": dataset}, str(model), properties.defaults(str(model), str(dataset)))
        try:
            super().__init__(str(model), str(dataset), config_file_list=files, config_dict=dict(overrides or {}))
        except XferError:
            raise
        except (ValueError, TypeError, KeyError, NotImplementedError, RuntimeError, AttributeError) as error:
            raise XferError(f"The configuration of {model} on {dataset} is invalid: {error}") from error
        self._fixed = frozenset(self.final_config_dict)

    def __setitem__(self, key: str, value: Any) -> None:
        """Adds a name that RecBole needs while it works; the values of a complete configuration are fixed.

        Raises:
            TypeError: if the key has a value.
        """
        if key in getattr(self, "_fixed", ()):
            raise TypeError(f"The configuration is complete: use replace({key}=...) for another one.")
        super().__setitem__(key, value)

    def replace(self, **values: Any) -> XferConfig:
        """A configuration with some values replaced; it shares none with this one, which does not change."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__, final_config_dict={**deepcopy(self.final_config_dict), **values})
        return other

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        super()._load_internal_config_dict(model, model_class, dataset)
        if model not in properties.models():  # these have our defaults in RecBole's Config too
            add_defaults(self, model, model_class, dataset)
        if stages(model):
            self.internal_config_dict["train_stage"] = None  # all of them, one after another

    def _update_internal_config_dict(self, file: str) -> dict[str, Any]:
        """Reads RecBole's own files only: a dataset named as a path would lead to another file."""
        own = Path(file).resolve().is_relative_to(properties.recbole_folder().resolve())
        return super()._update_internal_config_dict(file) if own else {}

    def _load_config_files(self, file_list: Iterable[Path] | None) -> dict[str, Any]:
        return read_yaml_files(file_list or ())

    def _load_variable_config_dict(self, config_dict: dict[str, Any] | None) -> dict[str, Any]:
        return parse_values(config_dict)

    def _merge_external_config_dict(self) -> None:
        super()._merge_external_config_dict()
        if isinstance(self.external_config_dict.get("source"), str):
            self.external_config_dict["source"] = in_order(self.external_config_dict["source"])
        self.external_config_dict.pop(TP_MODEL, None)  # the model's name includes it

    def _load_cmd_line(self) -> dict[str, Any]:
        return {}  # cli/ reads the command line

    def _init_device(self) -> None:
        if not self.final_config_dict["use_gpu"]:  # RecBole does not read this key of its own
            self.final_config_dict["gpu_id"] = ""
        elif count() > 1:
            self.final_config_dict["gpu_id"] = own_gpu(self.final_config_dict["gpu_id"])
        super()._init_device()
        on_gpu = int(total(torch.tensor(int(self.final_config_dict["device"].type != "cpu"))))
        if 0 < on_gpu < count():
            raise XferError(
                f"Some of the {count()} processes have no GPU. Start one process for each GPU, or set --use_gpu=False."
            )


def add_defaults(config: Config, model: str, model_class: type, dataset: str) -> None:
    """Adds our defaults to those of a configuration, and derives others from the given values."""
    defaults, given = config.internal_config_dict, config.external_config_dict
    defaults.update({key: None for key, value in defaults.items() if value == "None"})  # as our reader of yaml
    if given.get("threshold"):
        defaults["eval_args"]["order"] = "TO"
    else:  # all models rank the same targets; RecBole's defaults differ by type
        split = {"LS": "valid_and_test"}
        defaults["eval_args"] = {"split": split, "order": "TO", "group_by": "user", "mode": "full"}
    defaults.update(properties.defaults(model, dataset))
    check_together({**defaults, **given}, model_class)
    defaults.update(_defaults_by_type(defaults, given))
    if {**defaults, **given}.get("repeat_bias", False) is None:
        defaults["repeat_bias"] = learns_repeats({**defaults, **given})
        given.pop("repeat_bias", None)
    defaults["load_col"] = _columns(defaults, given)
    if "valid_metric" not in given and "topk" in given:
        defaults["valid_metric"] = re.sub(r"@\d+", f"@{cutoff(given['topk'])}", defaults["valid_metric"])
    for key, value in given.items():
        default = defaults.get(key)
        given[key] = default if value == default else typed(key, value, model)  # 1 is no other configuration than 1.0
    if "eval_args" in given:  # RecBole replaces a missing order by a random one
        given["eval_args"] = {**defaults["eval_args"], **given["eval_args"]}


def _defaults_by_type(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults of negatives for the type of the model.

    Raises:
        XferError: for negatives of a loss over all items.
    """
    kind, found = defaults["MODEL_TYPE"], dict[str, Any]()
    if kind == ModelType.CONTEXT and not given.get("threshold"):
        # without ratings, sampled negatives are the only rows with label 0
        found["train_neg_sample_args"] = {"distribution": "uniform", "sample_num": 1}
    loss = given.get("loss_type", defaults.get("loss_type"))
    if kind == ModelType.TRADITIONAL or (kind == ModelType.SEQUENTIAL and loss == "CE"):
        negatives = given.get("train_neg_sample_args")
        if kind == ModelType.SEQUENTIAL and negatives and negatives.get("distribution") != "none":
            raise XferError(
                "loss_type=CE compares a target with all items and draws no negatives. "
                "Leave out train_neg_sample_args, or set another loss_type, such as BPR."
            )
        # RecBole's cross-entropy refuses its default of one negative, and its Pop counts the negative as popular
        found["train_neg_sample_args"] = None
    return found


def _columns(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, list[str]]:
    """The default of ``load_col``, under the user's names of columns, with the features or graph of the model."""
    names = {defaults[key]: given[key] for key in FIELDS if key in given}
    columns = {"inter": [names.get(column, column) for column in defaults["load_col"]["inter"]]}
    features = item_features({**defaults, **given})
    if features:
        columns["item"] = [names.get("item_id", "item_id"), *features]
    if defaults["MODEL_TYPE"] == ModelType.KNOWLEDGE:
        field = {**defaults, **given}
        columns["kg"] = [field[key] for key in ("HEAD_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "TAIL_ENTITY_ID_FIELD")]
        columns["link"] = [field["ITEM_ID_FIELD"], field["ENTITY_ID_FIELD"]]
    return {**defaults["load_col"], **columns}


def cutoff(topk: int | Sequence[int]) -> int:
    """The length of ranking whose metrics count: 10 if it is among them, else the longest."""
    lengths = [topk] if isinstance(topk, int) else topk
    return 10 if 10 in lengths else max(lengths)


def item_features(config: Mapping[str, Any]) -> list[str]:
    """The item columns that a model of RecBole (FDSA, SASRecF, S3Rec, ...) reads, by its configuration."""
    features = config.get("selected_features") or config.get("item_attribute") or []
    return [features] if isinstance(features, str) else list(features)


def stages(model: str) -> tuple[str, ...]:
    """The stages in which a model is trained, in their order; empty for a model without stages."""
    return STAGES.get(properties.recbole_model(model) or model, ())


def stages_of(config: Config) -> tuple[str, ...]:
    """The stages that a run trains: all of its model's, or the one that ``train_stage`` names."""
    return (config["train_stage"],) if config["train_stage"] else stages(config["model"])


def settings(config: Config) -> dict[str, Any]:
    """All values from which an equal configuration can be built.

    Excludes what RecBole derives from them or adds at run time, such as the field names of its transforms.
    """
    known = known_keys(config["model"], config["dataset"]) - DERIVED
    values = {key: value for key, value in config.final_config_dict.items() if key in known}
    values["data_path"] = str(Path(values["data_path"]).parent)
    if values["train_neg_sample_args"]["distribution"] == "none":
        values["train_neg_sample_args"] = None
    return values


def known_keys(model: str, dataset: str) -> set[str]:
    """All keys that RecBole or this package reads for the model."""
    keys = {key for name in dir(argument_list) if name.endswith("_arguments") for key in getattr(argument_list, name)}
    theirs = properties.recbole_folder()
    files = [
        theirs / "overall.yaml",
        theirs / "dataset" / "sample.yaml",
        theirs / "model" / f"{model}.yaml",
        *theirs.glob("quick_start_config/*.yaml"),
    ]
    keys = keys.union(*map(_keys_of, files))
    keys |= set(properties.defaults(model, dataset)) | {"model", "dataset", "config_files", "encoding", "transform"}
    if model in properties.models():
        keys |= {f"{STAGE_PREFIX}{key}" for key in keys if not key.startswith(STAGE_PREFIX)}
    return keys


@cache
def _keys_of(file: Path) -> frozenset[str]:
    """The keys of one of RecBole's yaml files, which is parsed once; none without the file."""
    return frozenset(yaml.load(file.read_text(encoding="utf-8"), Loader=YamlLoader) or {} if file.is_file() else {})
