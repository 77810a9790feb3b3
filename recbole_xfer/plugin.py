"""Registers this package's models, datasets, trainers and defaults with RecBole.

RecBole finds its parts by name: a model ``ANT`` is the class ``ANT`` of a module
``recbole.model.sequential_recommender.ant``, its dataset is ``recbole.data.dataset.ANTDataset`` and its trainer
``recbole.trainer.ANTTrainer``. These names lead here, and a part is imported when RecBole asks for it. One method of
RecBole is replaced, since default values have no such hook (:func:`read_our_defaults`).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from recbole_xfer import compat
from recbole_xfer.config import properties
from recbole_xfer.import_hooks import after_import

SEQUENTIAL = "recbole.model.sequential_recommender"

DATASET_ARGUMENTS = [
    "histories", "overlap", "overlap_file", "single_domain", "train_rows", "window_stride", "held_out_targets",
    "train_share", "modalities",
]  # fmt: skip
"""Our keys that change a dataset's content; RecBole compares them before it reuses a saved dataset."""


def register() -> None:
    """Makes RecBole run on the installed libraries, and adds the models, datasets, trainers and defaults to it."""
    compat.apply()
    if not any(isinstance(finder, ModelFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, ModelFinder())
    after_import("recbole.data.dataset", lambda module: answer(module, "Dataset", dataset_class))
    after_import("recbole.trainer", lambda module: answer(module, "Trainer", trainer_class))
    after_import("recbole.utils.argument_list", add_dataset_arguments)
    after_import("recbole.config.configurator", read_our_defaults)


class ModelFinder(MetaPathFinder, Loader):
    """Finds ``recbole.model.sequential_recommender.<model in lower case>``, a module with the model's class."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if self._model(name) else None

    def exec_module(self, module: ModuleType) -> None:
        """Imports the class from the module that defines it."""
        model = self._model(module.__name__)
        assert model is not None
        setattr(module, model.name, getattr(import_module(model.module), model.name))

    @staticmethod
    def _model(module: str) -> properties.Model | None:
        package, _, wanted = module.rpartition(".")
        if package != SEQUENTIAL:
            return None
        return next((model for name, model in properties.models().items() if name.lower() == wanted), None)


def answer(module: ModuleType, suffix: str, part: Callable[[properties.Model], type]) -> None:
    """Lets a module of RecBole answer ``<model><suffix>`` with a part of the model (PEP 562)."""

    def find(name: str) -> type:
        model = properties.models().get(name.removesuffix(suffix))
        if model is None or not name.endswith(suffix):
            raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'")
        return part(model)

    module.__getattr__ = find  # type: ignore[method-assign]


def dataset_class(_model: properties.Model) -> type:
    """The dataset of our models."""
    from recbole_xfer.data.dataset import TransferDataset

    return TransferDataset


def trainer_class(model: properties.Model) -> type:
    """The trainer that a model's yaml file names; by default RecBole's trainer for the model it is like."""
    from recbole.utils import ModelType

    from recbole_xfer.trainer.phases import trainer_class as class_on_recbole

    if model.trainer:
        return getattr(import_module(model.trainer), f"{model.name}Trainer")
    return class_on_recbole(ModelType.SEQUENTIAL, properties.recbole_model(model.name) or "")


def add_dataset_arguments(argument_list: Any) -> None:
    """Adds :data:`DATASET_ARGUMENTS` to RecBole's list."""
    known = argument_list.dataset_arguments
    known.extend(key for key in DATASET_ARGUMENTS if key not in known)


def read_our_defaults(configurator: Any) -> None:
    """Lets RecBole's own Config read our models' yaml files after its own, and derive defaults as ours does.

    RecBole applies its ``sequential.yaml`` after a model's yaml file, and reads both from its own folder only.
    """
    config_class = configurator.Config
    original = config_class._load_internal_config_dict
    if getattr(original, "reads_recbole_xfer", False):
        return

    def load(self: Any, model: str, model_class: type, dataset: str) -> None:
        from recbole_xfer.config.config import add_defaults

        original(self, model, model_class, dataset)
        if model in properties.models():
            add_defaults(self, model, model_class, dataset)

    load.reads_recbole_xfer = True  # type: ignore[attr-defined]
    config_class._load_internal_config_dict = load
