"""RecBole's Config for our verbs: our defaults, values parsed and never evaluated, keys checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from recbole.config import Config
from recbole.utils import ModelType, argument_list

from recbole_xfer.config import properties
from recbole_xfer.config.schema import check_heads, check_keys, check_values, nearest
from recbole_xfer.config.values import YamlLoader, parse_values, read_yaml_files
from recbole_xfer.errors import XferError
from recbole_xfer.hooks import hooks_of

DERIVED = {
    "MODEL_TYPE", "MODEL_INPUT_TYPE", "eval_type", "valid_metric_bigger", "device", "single_spec", "local_rank",
    "valid_neg_sample_args", "test_neg_sample_args",
}  # fmt: skip
"""What RecBole works out of the other values."""

FIELDS = ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD")
"""Keys that name the columns of an interaction."""

TP_MODEL = "tp_model"
"""Key that names the model which ``model: TP`` trains: with ``LightSANs`` the model is ``TPLightSANs``."""


class XferConfig(Config):
    """RecBole's Config with the defaults of properties/.

    Priority, the first wins: ``overrides``, ``config_files`` (the last first), our properties/, RecBole's own.

    Args:
        model: name of a model of RecBole or of this package.
        dataset: name of a dataset, or several joined by ``+``.
        config_files: yaml files.
        overrides: values by key; text is parsed as yaml.

    Raises:
        XferError: for an unknown model or key, a file that is missing or no yaml mapping, or a value that cannot be
            meant or that RecBole refuses.
    """

    def __init__(
        self,
        model: str | None = None,
        dataset: str | None = None,
        config_files: Iterable[str | Path] = (),
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        files = [Path(file) for file in config_files]
        given = self._load_config_files(files) | dict(overrides or {})
        model, dataset = model or given.get("model"), dataset or given.get("dataset")
        for key, value in (("model", model), ("dataset", dataset)):
            if not value:
                raise XferError(f"No {key} was named. Add --{key}=NAME, or the key '{key}' to a config file.")
        if model == properties.TP:
            model = trained_by_tp(given.pop(TP_MODEL, None))
        check_model(str(model))
        check_keys(given, known_keys(str(model), str(dataset)))
        try:
            super().__init__(str(model), str(dataset), config_file_list=files, config_dict=dict(overrides or {}))
        except XferError:
            raise
        except (ValueError, TypeError, KeyError, NotImplementedError, RuntimeError, AttributeError) as error:
            raise XferError(f"The configuration of {model} on {dataset} is wrong: {error}") from error
        check_heads(self.final_config_dict)

    def _load_internal_config_dict(self, model: str, model_class: type, dataset: str) -> None:
        super()._load_internal_config_dict(model, model_class, dataset)
        self.internal_config_dict.update(properties.defaults(model, dataset))
        kind = self.internal_config_dict["MODEL_TYPE"]
        given = self.external_config_dict
        check_values(given, self.internal_config_dict)
        check_adaptation(model_class, given.get("adaptation"))
        if kind != ModelType.SEQUENTIAL and not given.get("threshold"):
            # so that models without sequences are ranked on the rows of those with
            split = {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"}
            self.internal_config_dict["eval_args"] = split
        if isinstance(given.get("eval_args"), dict):
            # what is left out stays as it is; RecBole would take its order at random
            given["eval_args"] = {**self.internal_config_dict["eval_args"], **given["eval_args"]}
        if kind == ModelType.CONTEXT and not given.get("threshold"):
            # no rating tells what was liked: what was not taken stands against what was
            self.internal_config_dict["train_neg_sample_args"] = {"distribution": "uniform", "sample_num": 1}
        loss = given.get("loss_type", self.internal_config_dict.get("loss_type"))
        losses = hooks_of(model_class).loss_types
        if kind == ModelType.SEQUENTIAL and loss is not None and loss not in losses:
            raise XferError(f"loss_type={loss} must be {' or '.join(losses)}.")
        if kind == ModelType.TRADITIONAL or (kind == ModelType.SEQUENTIAL and loss == "CE"):
            # RecBole's default of one negative is refused by its cross-entropy and counted as popular by its Pop
            self.internal_config_dict["train_neg_sample_args"] = None
        if "valid_metric" not in given and "topk" in given:
            length, metric = cutoff(given["topk"]), self.internal_config_dict["valid_metric"]
            self.internal_config_dict["valid_metric"] = re.sub(r"@\d+", f"@{length}", metric)
        self.internal_config_dict["load_col"] = self._columns(given)

    def _columns(self, given: Mapping[str, Any]) -> dict[str, list[str]]:
        """The columns to read where the user leaves that open: under the user's names, with those the model needs."""
        columns = self.internal_config_dict["load_col"]
        names = {self.internal_config_dict[key]: given[key] for key in FIELDS if key in given}
        read = {"inter": [names.get(column, column) for column in columns["inter"]]}
        features = item_features({**self.internal_config_dict, **given})
        if features:
            read["item"] = [names.get("item_id", "item_id"), *features]
        return {**columns, **read}

    def _load_config_files(self, file_list: Iterable[Path] | None) -> dict[str, Any]:
        return read_yaml_files(file_list or ())

    def _load_variable_config_dict(self, config_dict: dict[str, Any] | None) -> dict[str, Any]:
        return parse_values(config_dict)

    def _merge_external_config_dict(self) -> None:
        super()._merge_external_config_dict()
        self.external_config_dict.pop(TP_MODEL, None)  # it is in the model's name by now

    def _load_cmd_line(self) -> dict[str, Any]:
        return {}  # cli.py reads the command line

    def _init_device(self) -> None:
        if not self.final_config_dict["use_gpu"]:  # which RecBole has, and does not read
            self.final_config_dict["gpu_id"] = ""
        super()._init_device()


def cutoff(topk: int | Sequence[int]) -> int:
    """Of several lengths of rankings the one that counts: 10 where it is among them, else the longest."""
    lengths = [topk] if isinstance(topk, int) else topk
    return 10 if 10 in lengths else max(lengths)


def item_features(config: Mapping[str, Any]) -> list[str]:
    """The item columns that a model of RecBole (FDSA, SASRecF, S3Rec, ...) names in its configuration."""
    features = config.get("selected_features") or config.get("item_attribute") or []
    return [features] if isinstance(features, str) else list(features)


def settings(config: Config) -> dict[str, Any]:
    """All values of a configuration, as an equal one can be made of them again.

    Without what RecBole derives from them, or adds while it works (the field names of its transforms).
    """
    known = known_keys(config["model"], config["dataset"]) - DERIVED
    values = {key: value for key, value in config.final_config_dict.items() if key in known}
    values["data_path"] = str(Path(values["data_path"]).parent)
    if values["train_neg_sample_args"]["distribution"] == "none":
        values["train_neg_sample_args"] = None
    return values


def check_model(name: str) -> None:
    """Raises XferError if neither RecBole nor this package has the model, in these capitals."""
    names = {properties.TP, *properties.models(), *properties.recbole_models()}
    if name not in names:
        raise XferError(f"The model '{name}' does not exist{nearest(name, names)}")


def check_adaptation(model: type, adaptation: Any) -> None:
    """Raises XferError if the model cannot be adapted, or not in this way."""
    ways = list(hooks_of(model).kept)
    if adaptation in (None, "scratch"):
        return
    if not ways:
        raise XferError(f"{model.__name__} cannot be adapted. Leave out --adaptation, --source and --pretrained.")
    if adaptation not in ways:
        raise XferError(f"adaptation={adaptation} must be {', '.join(ways)} or scratch.")


def trained_by_tp(name: str | None) -> str:
    """The registered name of a model as TP trains it.

    Raises:
        XferError: if no model is named, or TP cannot train it.
    """
    if not name:
        raise XferError(f"model={properties.TP} needs a model to train. Add --{TP_MODEL}=NAME, such as SASRec.")
    if f"{properties.TP}{name}" not in properties.models():
        fit = sorted(known[len(properties.TP) :] for known in properties.models() if known.startswith(properties.TP))
        raise XferError(
            f"{TP_MODEL}={name} is no model with the sequence embedding that TP needs{nearest(name, fit)} "
            f"These are: {', '.join(fit)}."
        )
    return f"{properties.TP}{name}"


def known_keys(model: str, dataset: str) -> set[str]:
    """Every key that RecBole or this package reads for the model."""
    keys = {key for name in dir(argument_list) if name.endswith("_arguments") for key in getattr(argument_list, name)}
    theirs = properties.recbole_folder()
    files = [
        theirs / "overall.yaml",
        theirs / "dataset" / "sample.yaml",
        theirs / "model" / f"{model}.yaml",
        *theirs.glob("quick_start_config/*.yaml"),
    ]
    for file in files:
        if file.is_file():
            keys |= set(yaml.load(file.read_text(encoding="utf-8"), Loader=YamlLoader) or {})
    keys |= set(properties.defaults(model, dataset)) | {"model", "dataset", "config_files", "encoding", "transform"}
    if model in properties.models():
        keys |= {f"{properties.STAGE_PREFIX}{key}" for key in keys}
    return keys
