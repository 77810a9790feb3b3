"""Models and their default values, as the yaml files of ``properties/`` and of other packages declare them.

A yaml file in ``properties/model`` with the key ``module`` declares a model of that name. Another package declares a
model by an entry point of the group ``recbole_xfer.models``: its name is the model, its value the module, and the yaml
file is in the folder of the module. The keys ``module``, ``like`` and ``trainer`` are about the file, not about a run.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from recbole_xfer.config.values import read_yaml_file, split_domains
from recbole_xfer.errors import XferError

ENTRY_POINTS = "recbole_xfer.models"
"""Group of the entry points by which other packages add models."""

MODULE = "module"
"""Key of a model's yaml file: the module that defines the class."""
LIKE = "like"
"""Key of a yaml file: files, ours or RecBole's, whose values it inherits."""
TRAINER = "trainer"
"""Key of a model's yaml file: the module of its own trainer, ``<model>Trainer``."""

TP = "TP"
"""Prefix of the names of models that TP trains."""

TREES = {"lightgbm", "xgboost"}
"""Models of RecBole that learn decision trees with other libraries, which is not supported."""

STAGE_PREFIX = "pretrain_"
"""Keys with this prefix replace those without it during pre-training."""


@dataclass(frozen=True)
class Model:
    """A model of this package or of one that extends it.

    Attributes:
        name: its class and its name on the command line.
        file: its yaml file.
        module: defines the class.
        trainer: module of its own trainer; None if it uses RecBole's.
    """

    name: str
    file: Path
    module: str
    trainer: str | None


def folder() -> Path:
    """The folder of yaml files: inside an installed package, at the top level of a source tree."""
    package = Path(__file__).parents[1]
    installed = package / "properties"
    return installed if installed.is_dir() else package.parent / "properties"


@cache
def recbole_folder() -> Path:
    """RecBole's own yaml files."""
    spec = importlib.util.find_spec("recbole")
    if spec is None or spec.origin is None:
        raise XferError("The package recbole is missing. Run `pip install recbole`.")
    return Path(spec.origin).parent / "properties"


@cache
def models() -> dict[str, Model]:
    """All models by name, except RecBole's own."""
    files = {file.stem: file for file in sorted(folder().glob("model/*.yaml")) if MODULE in read_yaml(file)}
    for entry in entry_points(group=ENTRY_POINTS):
        spec = importlib.util.find_spec(entry.module)
        if spec is None or spec.origin is None:
            raise XferError(
                f"The module {entry.module} of the model {entry.name} is missing. Install its package again."
            )
        files[entry.name] = Path(spec.origin).with_name(f"{entry.name}.yaml")
    return {name: _declared(name, file) for name, file in files.items()}


def _declared(name: str, file: Path) -> Model:
    values = read_yaml(file)
    return Model(name, file, values[MODULE], values.get(TRAINER))


def defaults(model: str, dataset: str) -> dict[str, Any]:
    """Default values of a model on a dataset. Later ones win: general, of the model, of the dataset's family."""
    values: dict[str, Any] = {}
    for file in _default_files(model, dataset):
        values.update(read_yaml(file))
    return {key: value for key, value in values.items() if key not in (LIKE, MODULE, TRAINER)}


def recbole_model(model: str) -> str | None:
    """RecBole's model that a model starts from, such as LightSANs for TPLightSANs; None if there is none."""
    return next((file.stem for file in _model_files(model) if file.parent.parent == recbole_folder()), None)


def recbole_models() -> set[str]:
    """Names of RecBole's models, without :data:`TREES`."""
    names = {file.stem for file in recbole_folder().glob("model/*.yaml")}
    return names - TREES | {"Random"}  # Random has no file


def _default_files(model: str, dataset: str) -> Iterator[Path]:
    yield folder() / "overall.yaml"
    if model in models():
        yield from _model_files(model)
    for family in dict.fromkeys(name.split("-")[0] for name in split_domains(dataset)):
        file = folder() / f"dataset/{family}.yaml"
        if file.is_file():
            yield file


def _model_files(name: str) -> Iterator[Path]:
    """The yaml files of a name, in the order in which they apply: those of the names in ``like``, then its own."""
    known = models().get(name)
    file = known.file if known else folder() / f"model/{name}.yaml"
    if not file.is_file():
        yield recbole_folder() / f"model/{name}.yaml"
        return
    for other in read_yaml(file).get(LIKE, []):
        yield from _model_files(other)
    yield file


@cache
def _parsed(file: Path) -> dict[str, Any]:
    return read_yaml_file(file)


def read_yaml(file: Path) -> dict[str, Any]:
    """A yaml file of defaults as a new dictionary."""
    return dict(_parsed(file))
