"""What RecBole must be told, so that its own functions find this package's models, datasets and defaults.

RecBole looks its parts up by name: a model ``ANT`` is the class ``ANT`` of a module
``recbole.model.sequential_recommender.ant``, its dataset is ``recbole.data.dataset.ANTDataset`` and its trainer
``recbole.trainer.ANTTrainer``. These names are added here and nothing of RecBole's is replaced, except for one
method: default values have no such hook (see :func:`patch_defaults`).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import recbole
import yaml

MODELS = {
    "ANT": "recbole_xfer.model.ant",
    "RETR": "recbole_xfer.model.retr",
    "SyNCRec": "recbole_xfer.model.syncrec",
    "UniSRec": "recbole_xfer.model.unisrec",
    "XSASRec": "recbole_xfer.model.unisrec",
    "XRETR": "recbole_xfer.model.unisrec",
    "XLightSANs": "recbole_xfer.model.unisrec",
    "RecGURU": "recbole_xfer.model.recguru",
    "PathwayBERT4Rec": "recbole_xfer.model.pathway",
    "PathwayLightSANs": "recbole_xfer.model.pathway",
    "PathwayS3Rec": "recbole_xfer.model.pathway",
    **dict.fromkeys(
        (
            "TPSASRec", "TPGRU4Rec", "TPCaser", "TPRETR", "TPCORE", "TPFDSA", "TPFOSSIL", "TPGCSAN", "TPHGN",
            "TPLightSANs", "TPNARM", "TPNextItNet", "TPNPE", "TPSASRecF", "TPSINE", "TPSRGNN", "TPSTAMP",
        ),
        "recbole_xfer.model.tp",
    ),
}  # fmt: skip
"""Model names and the modules that define them."""

TRAINERS = {"RecGURU": "recbole_xfer.trainer.recguru"}
"""The models with a trainer of their own and the modules that define it; the others keep RecBole's."""

TP = "TP"
"""Begins the names of models that TP trains."""

PREFIXES = ("Pathway", TP)
"""Begin the names of models that are another with something added: they keep its trainer."""

LIKE = "like"
"""Key of a model's yaml file: the files, ours or RecBole's, whose values it starts from."""

RECBOLE_PROPERTIES = Path(recbole.__file__).parent / "properties"
"""RecBole's own yaml files."""

STAGE_PREFIX = "pretrain_"
"""Keys with it replace those without it while a model is pre-trained."""

DATASET_ARGUMENTS = [
    "histories", "overlap", "overlap_file", "single_domain", "train_rows", "window_stride", "held_out_targets",
    "modalities",
]  # fmt: skip
"""Our keys that change what a dataset holds; RecBole compares them before it loads a dataset that it saved."""


def register() -> None:
    """Adds the models, their datasets and trainers, and the defaults to RecBole."""
    import recbole.data.dataset as datasets
    import recbole.trainer as trainers
    from recbole.utils import ModelType, argument_list

    from recbole_xfer.data.dataset import TransferDataset
    from recbole_xfer.trainer.trainer import trainer_class

    for name, module_name in MODELS.items():
        module = importlib.import_module(module_name)
        sys.modules[f"recbole.model.sequential_recommender.{name.lower()}"] = module
        setattr(datasets, f"{name}Dataset", TransferDataset)
        if name in TRAINERS:
            trainer = getattr(importlib.import_module(TRAINERS[name]), f"{name}Trainer")
        else:
            trainer = trainer_class(ModelType.SEQUENTIAL, underlying(name) or name)
        setattr(trainers, f"{name}Trainer", trainer)
    argument_list.dataset_arguments.extend(
        key for key in DATASET_ARGUMENTS if key not in argument_list.dataset_arguments
    )
    patch_defaults()


def patch_defaults() -> None:
    """Lets RecBole's own Config read our models' yaml files after its own.

    RecBole applies its ``sequential.yaml`` after a model's yaml, and reads both from its own folder only.
    """
    from recbole.config import Config

    original = Config._load_internal_config_dict
    if getattr(original, "reads_recbole_xfer", False):
        return

    def load(self: Any, model: str, model_class: type, dataset: str) -> None:
        original(self, model, model_class, dataset)
        if model in MODELS:
            self.internal_config_dict.update(defaults(model, dataset))

    load.reads_recbole_xfer = True  # type: ignore[attr-defined]
    Config._load_internal_config_dict = load


def properties() -> Path:
    """The folder of yaml files: inside an installed package, at the top level of a source tree."""
    installed = Path(__file__).parent / "properties"
    return installed if installed.is_dir() else Path(__file__).parent.parent / "properties"


def defaults(model: str, dataset: str) -> dict[str, Any]:
    """Our default values for a model on a dataset: overall, then the model's, then those of the dataset's family."""
    values: dict[str, Any] = {}
    for path in _default_files(model, dataset):
        values.update(read_yaml(path))
    values.pop(LIKE, None)
    return values


def underlying(model: str) -> str | None:
    """The model below one of ``PREFIXES``, such as ``LightSANs`` below ``TPLightSANs``."""
    if model not in MODELS:
        return None
    return next((model.removeprefix(prefix) for prefix in PREFIXES if model.startswith(prefix)), None)


def _default_files(model: str, dataset: str) -> Iterator[Path]:
    yield properties() / "overall.yaml"
    yield from _model_files(model)
    for family in dict.fromkeys(name.split("-")[0] for name in dataset.split("+")):
        path = properties() / f"dataset/{family}.yaml"
        if path.is_file():
            yield path


def _model_files(model: str) -> Iterator[Path]:
    """A model's yaml file behind those that its key ``like`` names; none for a model of RecBole's."""
    path = properties() / f"model/{model}.yaml"
    below = underlying(model)
    names = [below, TP] if below else []  # where there is none: a model of RecBole's, trained by TP
    if path.is_file():
        names = read_yaml(path).get(LIKE, [])
    for name in names:
        ours = path.with_name(f"{name}.yaml")
        yield from _model_files(name) if ours.is_file() else [RECBOLE_PROPERTIES / f"model/{name}.yaml"]
    if path.is_file():
        yield path


@cache
def _parsed(path: Path) -> Any:
    from recbole_xfer.config import YamlLoader

    return yaml.load(path.read_text(encoding="utf-8"), Loader=YamlLoader)


def read_yaml(path: Path) -> dict[str, Any]:
    """A yaml file of ours as a dictionary of its own."""
    return dict(_parsed(path) or {})
