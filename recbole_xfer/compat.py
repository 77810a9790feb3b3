"""Makes RecBole 1.2 run on current numpy, torch, scipy and ray.

:func:`apply` applies every shim once, when RecBole is imported. A shim acts only where its cause exists, and says when
it can be removed. Neither ray nor transformers is imported here.
"""

from __future__ import annotations

import copyreg
import importlib.util
import inspect
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import scipy.sparse
import torch

from recbole_xfer.files import replacing
from recbole_xfer.import_hooks import after_import

NUMPY_NAMES: dict[str, type] = {
    "bool": np.bool_,
    "int": np.int_,
    "float": np.float64,
    "complex": np.complex128,
    "object": np.object_,
    "str": np.str_,
    "long": np.int_,
    "unicode": np.str_,
    "float_": np.float64,
    "complex_": np.complex128,
    "unicode_": np.str_,
}
"""Names that numpy dropped, with the meaning that RecBole's Config gives them."""

_kept: list[torch.library.Library] = []  # operators vanish with the Library object that defined them


def apply() -> None:
    """Applies all shims; a second call changes nothing."""
    give_back_numpy_names()
    give_back_dok_update()
    make_checkpoints_plain()
    after_import("recbole.model.general_recommender.pop", count_every_interaction)
    after_import("recbole.model.sequential_recommender.sine", end_anomaly_detection)
    after_import("recbole.quick_start.quick_start", report_as_dict)


def give_back_numpy_names() -> None:
    """RecBole uses ``np.float``, ``np.float_`` and others, gone in numpy 1.24 and 2.0.

    RecBole's Config sets some of them itself, but needs others to do so, and a process that only unpickles a Config
    has none. Can go when RecBole supports numpy 2.
    """
    for name, meaning in NUMPY_NAMES.items():
        if name not in vars(np):  # hasattr would make numpy warn
            setattr(np, name, meaning)


def give_back_dok_update() -> None:
    """RecBole's graph models fill a ``dok_matrix`` with its private ``_update``, which scipy dropped for ``update``.

    Can go when LightGCN and its relatives build their matrices without it.
    """
    if not hasattr(scipy.sparse.dok_matrix, "_update"):
        scipy.sparse.dok_matrix._update = scipy.sparse.dok_matrix.update


def define_torchvision_ops() -> None:
    """A torchvision built for CUDA cannot load its operators beside a CPU-only torch, and then fails at import.

    timm and the models of transformers import it, but never call these two. Can go when torchvision imports without
    its operators.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return
    for library in Path(spec.origin).parent.glob("_C.*"):
        with suppress(OSError):
            torch.ops.load_library(library)
    if not hasattr(torch.ops.torchvision, "nms"):
        definitions = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            definitions.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        _kept.append(definitions)


def make_checkpoints_plain() -> None:
    """torch 2.6 reads only plain data unless told otherwise, and RecBole's checkpoints hold more.

    They hold a pickled Config with classes in it, for some models a whole layer with the dataset inside, and use a
    pickle protocol that the strict reader does not know. Here they are written so that the strict reader takes them:
    loading a checkpoint runs no code of the file. Can go when RecBole's checkpoints load with ``weights_only=True``.
    """
    from recbole.config import Config
    from recbole.model.abstract_recommender import AbstractRecommender
    from recbole.trainer import Trainer
    from recbole.utils import EvaluatorType, InputType, ModelType

    Config.__reduce__ = _reduced_config
    Trainer._save_checkpoint = _save_checkpoint
    AbstractRecommender.other_parameter = _other_parameter

    numpy_builders = [np.float64(0).__reduce__()[0], np.empty(0).__reduce__()[0]]  # their module depends on numpy
    dtypes = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"}
    arrays = [np.ndarray, np.matrix, np.dtype, *numpy_builders, *dtypes, scipy.sparse.csr_matrix]
    enums = [EvaluatorType, InputType, ModelType]
    for enum in enums:
        copyreg.pickle(enum, _reduced_enum)  # some releases of Python 3.11 write a call of getattr, which is refused
    torch.serialization.add_safe_globals([restored_config, *enums, *arrays])


def _reduced_enum(member: Enum) -> tuple[type[Enum], tuple[Any]]:
    return type(member), (member.value,)


def restored_config(values: dict[str, Any]) -> Any:
    """RecBole's Config with these attributes; its two classes are found by name again."""
    from recbole.config import Config
    from recbole.utils import get_model

    config = object.__new__(Config)
    config.__dict__.update(values)
    config.yaml_loader = config._build_yaml_loader()
    with suppress(AttributeError, ImportError, ValueError):  # a class that a user handed over is not found by its name
        config.model_class = get_model(config.model)
    return config


def _reduced_config(self: Any) -> tuple[Callable[..., Any], tuple[dict[str, Any]]]:
    return restored_config, ({k: v for k, v in vars(self).items() if k not in ("model_class", "yaml_loader")},)


def _other_parameter(self: Any) -> dict[str, Any]:
    """What RecBole saves beside the weights: no layers, whose weights are saved already, and plain sparse matrices."""
    values = {name: getattr(self, name) for name in getattr(self, "other_parameter_name", ())}
    return {
        name: value.tocsr() if scipy.sparse.issparse(value) else value
        for name, value in values.items()
        if not isinstance(value, torch.nn.Module)
    }


def _save_checkpoint(self: Any, epoch: int, verbose: bool = True, saved_model_file: str | None = None) -> None:
    """RecBole's Trainer._save_checkpoint in torch's own pickle protocol, never leaving half a file."""
    if not self.config["single_spec"] and self.config["local_rank"] != 0:
        return
    path = saved_model_file or self.saved_model_file
    state = {
        "config": self.config,
        "epoch": epoch,
        "cur_step": self.cur_step,
        "best_valid_score": self.best_valid_score,
        "state_dict": self.model.state_dict(),
        "other_parameter": self.model.other_parameter(),
        "optimizer": self.optimizer.state_dict(),
    }
    with replacing(path) as temporary:
        torch.save(state, temporary)
    if verbose:
        self.logger.info(f"Saving current: {path}")


def count_every_interaction(pop: ModuleType) -> None:
    """RecBole's Pop counts an item once a batch, for ``count[items] += 1`` takes an item that is there twice once.

    Can go when it counts with ``index_add_``.
    """

    def calculate_loss(self: Any, interaction: Any) -> torch.Tensor:
        items = interaction[self.ITEM_ID]
        self.item_cnt.index_add_(0, items, torch.ones_like(items)[:, None])
        self.max_cnt = self.item_cnt.max(dim=0)[0]
        return torch.nn.Parameter(torch.zeros(1, device=items.device))

    pop.Pop.calculate_loss = calculate_loss


def end_anomaly_detection(_sine: ModuleType) -> None:
    """RecBole's SINE, imported with every sequential model, has PyTorch look for NaN behind every operation.

    That takes a fifth of a training step of any model. Can go when SINE leaves PyTorch's settings alone.
    """
    torch.autograd.set_detect_anomaly(False)


def report_as_dict(quick_start: ModuleType) -> None:
    """RecBole reports a trial as ``tune.report(**metrics)``; ray takes one dictionary since 2.7.

    Can go when RecBole's objective_function passes a dictionary.
    """
    report = quick_start.tune.report
    if "metrics" in inspect.signature(report).parameters:
        quick_start.tune = SimpleNamespace(report=lambda **values: report(values))  # type: ignore[attr-defined]
