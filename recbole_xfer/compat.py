"""Makes RecBole 1.2 run on current numpy, torch, scipy and ray.

:func:`apply` applies every shim once, when RecBole is imported. Each shim acts only where its cause exists; its
docstring names the cause and says when the shim can be removed. Neither ray nor transformers is imported here.
"""

from __future__ import annotations

import copyreg
import importlib.util
import inspect
import warnings
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from functools import cached_property
from logging import getLogger
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import scipy.sparse
import torch

from recbole_xfer.files import replacing
from recbole_xfer.import_hooks import after_import
from recbole_xfer.processes import is_first

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
"""Names that numpy removed, with the types that RecBole's Config gives them."""

_kept: list[torch.library.Library] = []  # an operator exists as long as the Library object that defines it


def apply() -> None:
    """Applies all shims; a second call changes nothing."""
    restore_numpy_names()
    restore_dok_update()
    make_checkpoints_plain()
    hide_chained_assignment()
    after_import("recbole.model.context_aware_recommender.kd_dagfm", look_up_teacher)
    after_import("recbole.model.general_recommender.ldiffrec", refuse_pickled_vectors)
    after_import("recbole.trainer.trainer", create_event_files_late)
    after_import("recbole.model.general_recommender.pop", count_every_interaction)
    after_import("recbole.model.general_recommender.ract", train_all_stages)
    after_import("recbole.model.sequential_recommender.sine", disable_anomaly_detection)
    after_import("recbole.model.sequential_recommender.dien", skip_empty_auxiliary_loss)
    after_import("recbole.model.sequential_recommender.fearec", compare_different_histories)
    after_import("recbole.quick_start.quick_start", report_as_dict)


def restore_numpy_names() -> None:
    """Restores ``np.float``, ``np.float_`` and other names.

    Cause: RecBole uses them; numpy 1.24 and 2.0 removed them. RecBole's Config sets some of them, but reads others to
    do so, and never runs in a process that only unpickles a Config. Remove when RecBole supports numpy 2.
    """
    for name, meaning in NUMPY_NAMES.items():
        if name not in vars(np):  # hasattr would make numpy warn
            setattr(np, name, meaning)


def restore_dok_update() -> None:
    """Restores scipy's private method ``dok_matrix._update``.

    Cause: RecBole's graph models call it; scipy 1.13 and later do not have it, and before 1.17 ``update`` always
    raises. Remove when LightGCN and the other graph models of RecBole build their matrices without it.
    """
    if not hasattr(scipy.sparse.dok_matrix, "_update"):
        scipy.sparse.dok_matrix._update = lambda matrix, values: matrix._dict.update(values)


def define_torchvision_ops() -> None:
    """Defines the two operators that torchvision needs at import, where its own cannot be loaded.

    Cause: a torchvision built for CUDA cannot load its operators with a CPU-only torch, and its import fails. timm and
    the models of transformers import it, but never call these operators. Remove when torchvision can be imported
    without its operators.
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
    """Lets RecBole write checkpoints that ``torch.load(weights_only=True)`` reads, so that loading runs no code.

    Cause: this is the default since torch 2.6. RecBole's checkpoints hold a pickled Config with classes in it, and for
    some models a whole layer with the dataset inside. Their pickle protocol is not supported by this mode. Remove when
    RecBole's own checkpoints load with ``weights_only=True``.
    """
    from recbole.config import Config
    from recbole.model.abstract_recommender import AbstractRecommender
    from recbole.trainer import Trainer
    from recbole.utils import EvaluatorType, InputType, ModelType

    Config.__reduce__ = _reduced_config
    Trainer._save_checkpoint = _save_checkpoint
    AbstractRecommender.other_parameter = _other_parameter

    numpy_builders = [np.float64(0).__reduce__()[0], np.empty(0).__reduce__()[0]]  # in modules that differ by version
    dtypes = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["Float"] + "?"}
    arrays = [np.ndarray, np.matrix, np.dtype, *numpy_builders, *dtypes, scipy.sparse.csr_matrix]
    enums = [EvaluatorType, InputType, ModelType]
    for enum in enums:
        copyreg.pickle(enum, _reduced_enum)  # some releases of Python 3.11 write a call of getattr, which fails
    torch.serialization.add_safe_globals([restored_config, frozenset, *enums, *arrays])


def _reduced_enum(member: Enum) -> tuple[type[Enum], tuple[Any]]:
    return type(member), (member.value,)


def restored_config(values: dict[str, Any]) -> Any:
    """Returns RecBole's Config with these attributes; looks up its two classes by name."""
    from recbole.config import Config
    from recbole.utils import get_model

    config = object.__new__(Config)
    config.__dict__.update(values)
    config.yaml_loader = config._build_yaml_loader()
    with suppress(AttributeError, ImportError, ValueError):  # a class that a user passed has no known name
        config.model_class = get_model(config.model)
    return config


def _reduced_config(self: Any) -> tuple[Callable[..., Any], tuple[dict[str, Any]]]:
    return restored_config, ({k: v for k, v in vars(self).items() if k not in ("model_class", "yaml_loader")},)


def _other_parameter(self: Any) -> dict[str, Any]:
    """Returns the values that RecBole saves with the weights: without layers, and with plain sparse matrices."""
    values = {name: getattr(self, name) for name in getattr(self, "other_parameter_name", ())}
    return {
        name: value.tocsr() if scipy.sparse.issparse(value) else value
        for name, value in values.items()
        if not isinstance(value, torch.nn.Module)
    }


def _save_checkpoint(self: Any, epoch: int, verbose: bool = True, saved_model_file: str | None = None) -> None:
    """RecBole's Trainer._save_checkpoint with torch's default pickle protocol; never writes half a file."""
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


def look_up_teacher(kd_dagfm: ModuleType) -> None:
    """Lets RecBole's KD_DAGFM look its teacher up by name.

    Cause: it evaluates the value of ``teacher`` as Python. Remove when KD_DAGFM has a table of its teachers.
    """
    teachers = {name: getattr(kd_dagfm, name) for name in ("CrossNet", "CIN", "CINComp")}
    kd_dagfm.eval = teachers.__getitem__  # type: ignore[attr-defined]


def refuse_pickled_vectors(ldiffrec: ModuleType) -> None:
    """Lets RecBole's LDiffRec read vectors of items, but no pickle.

    Cause: it reads ``item_emb.npy`` with ``allow_pickle=True``. Remove when it does not.
    """
    ldiffrec.np = SimpleNamespace(**{**vars(np), "load": lambda path, **_: np.load(path)})  # type: ignore[attr-defined]


def hide_chained_assignment() -> None:
    """Hides the FutureWarnings of pandas 2 about RecBole's code.

    Cause: RecBole fills missing values by chained assignment, which pandas 3 refuses. Remove when RecBole does not.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"recbole\.")


class LateWriter:
    """A SummaryWriter of TensorBoard that is created when it is first used; of several processes, the first writes."""

    def __init__(self, logger: Any) -> None:
        self._logger = logger

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name) if is_first() else lambda *_, **__: None

    @cached_property
    def _writer(self) -> Any:
        from recbole.utils import get_tensorboard

        return get_tensorboard(self._logger)


def create_event_files_late(trainer: ModuleType) -> None:
    """Lets RecBole's trainers create their TensorBoard folder with the first scalar of training.

    Cause: they create it when they are built, also where they only evaluate. Remove when RecBole's Trainer creates its
    SummaryWriter in ``fit``.
    """
    trainer.get_tensorboard = LateWriter  # type: ignore[attr-defined]


def count_every_interaction(pop: ModuleType) -> None:
    """Lets RecBole's Pop count every interaction.

    Cause: ``count[items] += 1`` counts an item once per batch, however often the batch has it. Remove when Pop counts
    with ``index_add_``.
    """

    def calculate_loss(self: Any, interaction: Any) -> torch.Tensor:
        items = interaction[self.ITEM_ID]
        self.item_cnt.index_add_(0, items, torch.ones_like(items)[:, None])
        self.max_cnt = self.item_cnt.max(dim=0)[0]
        return torch.nn.Parameter(torch.zeros(1, device=items.device))

    pop.Pop.calculate_loss = calculate_loss


def train_all_stages(ract: ModuleType) -> None:
    """Lets RecBole's RaCT train its later stages.

    Cause: it logs the file that it loads as an argument of a message without a place for it, so that logging prints a
    traceback, and it measures NDCG with ``metrics_k`` weights where there are fewer items. Remove when RaCT mends both.
    """
    logger = SimpleNamespace(info=lambda *words: getLogger().info(" ".join(map(str, words))))
    ract.RaCT.logger = property(lambda _: logger, lambda *_: None)
    measure = ract.RaCT.calculate_ndcg

    def calculate_ndcg(self: Any, predicted: torch.Tensor, true: torch.Tensor, read: torch.Tensor, k: int) -> Any:
        return measure(self, predicted, true, read, min(k, predicted.shape[1]))

    ract.RaCT.calculate_ndcg = calculate_ndcg


def disable_anomaly_detection(_sine: ModuleType) -> None:
    """Disables PyTorch's check for NaN after every operation, which costs a fifth of a training step of any model.

    Cause: RecBole's SINE enables it, and is imported with every sequential model. Remove when SINE does not change
    PyTorch's settings.
    """
    torch.autograd.set_detect_anomaly(False)


def compare_different_histories(fearec: ModuleType) -> None:
    """Lets RecBole's FEARec contrast a history only if another history before the same target differs from it.

    Cause: it draws histories until one differs, which never ends if all are equal. Remove when its loop ends.
    """
    original = fearec.FEARec.get_same_item_index

    def get_same_item_index(self: Any, dataset: Any) -> dict[int, np.ndarray]:
        rows = dataset.inter_feat[self.ITEM_SEQ].numpy()
        found = original(self, dataset)
        return {item: of if (rows[of] != rows[of[0]]).any() else of[:1] for item, of in found.items()}

    fearec.FEARec.get_same_item_index = get_same_item_index


def skip_empty_auxiliary_loss(dien: ModuleType) -> None:
    """Lets RecBole's DIEN train on a batch of histories of one item, which have no next item to contrast.

    Cause: its auxiliary loss is then a mean of nothing, which is NaN. Remove when it is 0.
    """
    original = dien.InterestExtractorNetwork.auxiliary_loss

    def auxiliary_loss(self: Any, states: torch.Tensor, *args: torch.Tensor) -> torch.Tensor:
        return original(self, states, *args) if (args[-1] > 0).any() else states.new_zeros(())

    dien.InterestExtractorNetwork.auxiliary_loss = auxiliary_loss


def report_as_dict(quick_start: ModuleType) -> None:
    """Lets RecBole report a trial to Ray.

    Cause: RecBole calls ``tune.report(**metrics)``; since Ray 2.7 the function takes one dictionary. Remove when
    RecBole's objective_function passes a dictionary.
    """
    report = quick_start.tune.report
    if "metrics" in inspect.signature(report).parameters:
        quick_start.tune = SimpleNamespace(report=lambda **values: report(values))  # type: ignore[attr-defined]
