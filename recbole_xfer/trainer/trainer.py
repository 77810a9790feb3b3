"""RecBole's Trainer, whose runs here have a folder and can be resumed exactly.

:class:`XferTrainer` works on top of any trainer of RecBole, so that RecBole's own models can do the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.utils import get_local_time
from torch import Tensor
from tqdm import tqdm

from recbole_xfer.collectives import add_gradients, own_draws, total
from recbole_xfer.config.config import settings
from recbole_xfer.config.recbole_keys import SPARSE_ADAM
from recbole_xfer.data.batches import WindowDataLoader
from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.data.negatives import within_domain
from recbole_xfer.device import has_fast_bfloat16
from recbole_xfer.errors import XferError, explaining_recbole
from recbole_xfer.evaluation.domain_ranking import check_valid_metric
from recbole_xfer.hooks import hooks_of
from recbole_xfer.log import logger, progress_bar
from recbole_xfer.processes import count, is_first, own
from recbole_xfer.trainer.other_parameters import (
    as_tensors,
    check_other_parameters,
    from_tensors,
    numbers,
    set_numbers,
)
from recbole_xfer.trainer.ranking import RankingTrainer
from recbole_xfer.trainer.run_folder import RunFolder
from recbole_xfer.trainer.sparse_adam import SparseAdam

OTHER = "other_parameter."
"""Prefix of the names of state that a RecBole model keeps in addition to its parameters."""


class XferTrainer(RankingTrainer):
    """A trainer of RecBole whose run has a folder and can be resumed exactly.

    Reads ``run_dir``, ``precision``, ``learning_rate_decay`` and ``train_rows``.

    Attributes:
        folder: the run's files.
        history: a record of each epoch, as in ``epochs.json``: ``epoch``, ``phase``, ``train`` (its scalars) and, if it
            was validated, ``valid`` (all metrics).
        phase: the current phase, for trainers with several phases.
        learning_rate_key: the key of the current learning rate.
    """

    phase: str | None = None
    learning_rate_key = "learning_rate"
    clip_grad_norm: Any
    _optimizer: Any

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        try:
            super().__init__(config if is_first() else config.replace(log_wandb=False), model)
        except ImportError as error:  # RecBole's W&B logger
            raise XferError("log_wandb=True needs the package wandb. Run `pip install wandb`.") from error
        name = f"{config['model']}-{config['dataset']}-{get_local_time()}"
        self.folder = RunFolder(config["run_dir"] or Path(config["checkpoint_dir"]) / name)
        self.saved_model_file = str(self.folder.path / RunFolder.WEIGHTS)
        self.history: list[dict[str, Any]] = []
        self.best_epoch = -1
        self._evaluation_bar = progress_bar(shown=False)
        self._fresh = True
        self._clipping = self.clip_grad_norm
        if count() > 1:
            self.clip_grad_norm = None  # RecBole would clip before the gradients are added up
        self.enable_amp = self._reduced_precision()

    def _reduced_precision(self) -> bool:
        """Whether training runs in bf16."""
        precision = self.config["precision"]
        fast = has_fast_bfloat16(self.device)
        if precision == "bf16" and not fast:
            logger.warning("precision=bf16 is slower than float32 on this processor, which has no instructions for it.")
        if self.device.type == "cuda":
            torch.set_autocast_dtype("cuda", torch.bfloat16)
        return precision == "bf16" or (precision == "auto" and fast and self.device.type == "cuda")

    @property
    def optimizer(self) -> Any:
        """Built when training first needs it, because PyTorch takes seconds to import its optimizers."""
        if self._optimizer is None:
            self._optimizer = self._build_optimizer()
        return self._optimizer

    @optimizer.setter
    def optimizer(self, optimizer: Any) -> None:
        self._optimizer = optimizer

    def _build_optimizer(self, **kwargs: Any) -> Any:
        if not kwargs and not hasattr(self, "_optimizer"):
            return None  # in RecBole's constructor
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        kwargs = {"params": [{"params": trained}], "learning_rate": self.learning_rate, **kwargs}
        if self.learner.lower() == SPARSE_ADAM:
            if not any(getattr(module, "sparse", False) for module in self.model.modules()):
                raise XferError(
                    f"learner={self.learner} needs item embeddings with sparse gradients, such as those of RETR. "
                    f"{self.config['model']} has none here. Set --learner=adam."
                )
            optimizer: Any = SparseAdam(kwargs["params"], kwargs["learning_rate"])
        else:
            optimizer = super()._build_optimizer(**kwargs)
        if isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)):
            for group in optimizer.param_groups:
                group["fused"] = True  # one pass over the parameters instead of ten
        if count() > 1:
            # no hook, which would run twice where a step calls that of its parent
            optimizer.step = partial(self._step_together, optimizer, optimizer.step)
        return optimizer

    def _step_together(self, optimizer: Any, step: Any, *args: Any, **kwargs: Any) -> Any:
        """Makes a step with the gradients of all processes, clipped where RecBole clips."""
        add_gradients([parameter for group in optimizer.param_groups for parameter in group["params"]])
        if self._clipping and optimizer is self.optimizer:
            torch.nn.utils.clip_grad_norm_(self.model.parameters(), **self._clipping)
        return step(*args, **kwargs)

    # --- training --------------------------------------------------------------------------------------------------

    def fit(
        self, train_data: Any, valid_data: Any = None, *args: Any, show_progress: bool = False, **kwargs: Any
    ) -> Any:
        """RecBole's fit; models that train on windows get a loader of windows instead of RecBole's."""
        if valid_data:
            check_valid_metric(self.config)
        self._train_data = self.train_loader(train_data)
        self.folder.begin(settings(self.config), resumed=not self._fresh)
        self._fresh = False  # the next phase continues this run
        with progress_bar(show_progress, desc=self.folder.name, leave=False) as self._bar:
            return super().fit(self._train_data, valid_data, *args, **kwargs)

    def train_loader(self, train_data: Any) -> Any:
        """The loader of training batches: RecBole's, or the one that the model declares.

        Raises:
            XferError: if the data has only windows and the model cannot read them, or has no labels that it needs.
        """
        dataset = train_data._dataset
        label = getattr(self.model, "LABEL", getattr(self.model, "LABEL_FIELD", None))
        negatives = self.config["train_neg_sample_args"]["distribution"] != "none"
        if label is not None and not negatives and label not in dataset.inter_feat:
            raise XferError(
                f"{self.config['model']} learns from labels, but train_neg_sample_args draws no negatives, and "
                f"{self.config['dataset']} has no column '{label}'. Leave the key out, or set --threshold, such as "
                f"--threshold='{{rating: 4}}'."
            )
        loader = hooks_of(self.model).loader
        if loader is None and self.config["train_rows"] == "windows":
            raise XferError(f"train_rows=windows is for models of this package. {self.config['model']} needs prefixes.")
        if loader is None or not isinstance(dataset, TransferDataset):
            return train_data if count() == 1 else OwnRows(train_data)
        sampler = getattr(train_data, "_sampler", None)
        if self.config["negatives_within_domain"] and sampler is not None:
            sampler = within_domain(sampler, dataset)
        return loader.of(self.config, dataset, sampler)

    def steps(self, train_data: Any) -> int:
        """How many steps an epoch has; in several phases, one of the last phase."""
        return len(self.train_loader(train_data))

    def begin_last_phase(self) -> None:
        """Leaves out earlier phases of training, for a model whose parameters have passed them."""

    def optimizer_state(self) -> dict[str, dict[str, Any]]:
        """The optimizer's state of each parameter, by the parameter's name."""
        state = self.optimizer.state
        return {name: state[parameter] for name, parameter in self.model.named_parameters() if parameter in state}

    def set_optimizer_state(self, state: Mapping[str, Mapping[str, Any]]) -> None:
        """Sets what :meth:`optimizer_state` returned; parameters that it lacks keep a new state."""
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        trained = [names[parameter] for group in self.optimizer.param_groups for parameter in group["params"]]
        by_number = {number: dict(state[name]) for number, name in enumerate(trained) if name in state}
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": by_number})

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        if epoch_idx > self.start_epoch:
            self._save_state(epoch_idx)
        if isinstance(train_data, WindowDataLoader):
            train_data.set_epoch(epoch_idx)
        self._set_learning_rate(epoch_idx)
        self._bar.reset(total=len(train_data))
        self._bar.set_description(f"{self.config['model']} on {self.config['dataset']}, epoch {epoch_idx}")
        with own_draws(self.config["seed"], epoch_idx):
            losses = super()._train_epoch(Ticking(train_data, self._bar), epoch_idx, *args, **kwargs)
        if count() > 1:
            losses = _total(losses)
        scalars = self._scalars(losses, len(train_data))
        for name, value in scalars.items():
            self.tensorboard.add_scalar(f"{self.phase}/{name}" if self.phase else name, value, epoch_idx)
        self.history.append({"epoch": epoch_idx, "phase": self.phase, "train": scalars})
        self.folder.save_epochs(self.history)
        return losses

    def _check_nan(self, loss: Tensor) -> None:
        if torch.isnan(loss):
            raise XferError(
                f"The loss of {self.config['model']} is no longer a number. Lower {self.learning_rate_key}, now "
                f"{self.learning_rate:g}, or set clip_grad_norm, such as --clip_grad_norm='{{max_norm: 5}}'."
            )

    def _scalars(self, losses: Any, steps: int) -> dict[str, float]:
        """The scalars of an epoch: its loss, a mean over steps, and the model's ``epoch_scalars()``."""
        loss = sum(losses) if isinstance(losses, tuple) else losses
        return {"loss": loss / steps, **hooks_of(self.model).epoch_scalars()}

    def _set_learning_rate(self, epoch: int) -> None:
        """Sets the optimizer's learning rate for an epoch."""
        decay = self.config["learning_rate_decay"] or 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * decay**epoch

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, float]]:
        score, result = super()._valid_epoch(valid_data, show_progress)
        better = max if self.valid_metric_bigger else min
        best = better(score, float(self.best_valid_score))
        self.history[-1]["valid"] = {name: float(value) for name, value in result.items()}
        self.folder.save_epochs(self.history)
        self._bar.set_postfix_str(f"{self.config['valid_metric']} {score:.4f}, best {best:.4f}")
        return score, result

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """Saves the parameters of the epoch. RecBole calls this whenever validation improved."""
        self.best_epoch = epoch
        self.folder.save_weights(self.weights())

    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers, and the other state of RecBole's models, such as Pop's counts."""
        weights = self.model.state_dict()
        for name, value in self.model.other_parameter().items():
            weights |= as_tensors(OTHER + name, value)
        return weights

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Loads what :meth:`weights` returned into the model.

        Raises:
            XferError: if a tensor is missing, unknown to the model, or of another shape.
        """
        on_device = {key: value.to(self.device) for key, value in weights.items()}
        others = {key.removeprefix(OTHER): on_device.pop(key) for key in weights if key.startswith(OTHER)}
        try:
            self.model.load_state_dict(on_device)
            values = from_tensors(others)
            check_other_parameters(self.model, values)
        except (LookupError, RuntimeError, TypeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise XferError(
                f"The parameters in {self.folder} do not fit {self.config['model']}: {reason}. "
                f"Copy the folder again, or train again."
            ) from error
        self.model.load_other_parameter(values)

    # --- resuming ----------------------------------------------------------------------------------------------------

    def _save_state(self, epoch: int) -> None:
        """Writes the state at the start of ``epoch``."""
        self.folder.save_state(self._state(epoch))

    def _state(self, epoch: int) -> dict[str, Any]:
        """Everything that the following epochs depend on, as tensors and plain values."""
        generators = [generator.get_state() for generator in _generators(self._train_data)]
        return {
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_epoch": self.best_epoch,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": {key: float(value) for key, value in (self.best_valid_result or {}).items()},
            "model": self.weights(),
            "numbers": numbers(self.model),
            "phase": self.phase,
            "optimizer": self.optimizer.state_dict(),
            "random": _random_state(),
            "loader": torch.cat(generators) if generators else None,
        }

    def resume(self, train_data: Any) -> bool:
        """Resumes the interrupted run in the folder, so that its result is identical to an uninterrupted one.

        Returns:
            whether there was an interrupted run.

        Raises:
            XferError: if its state is damaged.
        """
        state = self.folder.state()
        if state is None:
            return False
        self._fresh = False
        try:
            self._restore(state, train_data)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            missing = f"it has no value '{error.args[0]}'" if isinstance(error, KeyError) else error
            raise self.folder.damaged(RunFolder.STATE, missing) from error
        return True

    def _restore(self, state: Mapping[str, Any], train_data: Any) -> None:
        """Restores what :meth:`_state` returned."""
        self.start_epoch, self.cur_step, self.best_epoch = state["epoch"], state["cur_step"], state["best_epoch"]
        self.best_valid_score, self.best_valid_result = state["best_valid_score"], state["best_valid_result"] or None
        self.load_weights(state["model"])
        set_numbers(self.model, state["numbers"])
        self.optimizer.load_state_dict(state["optimizer"])
        _restore_random_state(state["random"])
        following = state["phase"], state["epoch"]
        self.history = list(takewhile(lambda e: (e["phase"], e["epoch"]) != following, self.folder.epochs()))
        if state["loader"] is not None:
            generators = _generators(train_data)
            for generator, value in zip(generators, state["loader"].chunk(len(generators)), strict=True):
                generator.set_state(value.clone())  # a view crashes torch

    # --- evaluation --------------------------------------------------------------------------------------------------

    def evaluate(
        self, eval_data: Any, load_best_model: bool = True, model_file: str | None = None, show_progress: bool = False
    ) -> Any:
        """RecBole's evaluate, of the best epoch's parameters; never in bf16, which would round scores to ties."""
        if load_best_model:
            folder = RunFolder(Path(model_file).parent) if model_file else self.folder
            self.load_weights(folder.weights())
        title = f"Evaluating {self.config['model']} on {self.config['dataset']}"
        bar = progress_bar(show_progress, desc=title, total=len(eval_data or ()), leave=False)
        with bar as self._evaluation_bar, explaining_recbole(f"evaluate {self.config['model']}"):
            return super().evaluate(eval_data, load_best_model=False)

    def _full_sort_batch_eval(self, batched_data: tuple) -> tuple:
        self._evaluation_bar.update()
        return super()._full_sort_batch_eval(batched_data)

    def _neg_sample_batch_eval(self, batched_data: tuple) -> tuple:
        self._evaluation_bar.update()
        return super()._neg_sample_batch_eval(batched_data)


def _total(losses: Any) -> Any:
    """The sum of RecBole's loss, or of each of its losses, over all processes."""
    summed = total(torch.tensor(losses, dtype=torch.float64)).tolist()
    return tuple(summed) if isinstance(losses, tuple) else summed


class OwnRows:
    """A loader of RecBole that makes the batches of all processes, and yields the rows of this one."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)  # such as shuffle, and set_mode of knowledge graphs

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            yield batch[own(len(batch))]


class Ticking(OwnRows):
    """A loader that advances a progress bar with each batch."""

    def __init__(self, loader: Any, bar: tqdm) -> None:
        super().__init__(loader)
        self.bar = bar

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            yield batch
            self.bar.update()


def _generators(loader: Any) -> list[torch.Generator]:
    """The generators of a training loader, which shuffle; RecBole's for knowledge graphs has two loaders inside."""
    inside = [vars(loader).get(name) for name in ("general_dataloader", "kg_dataloader")]
    loaders = [part for part in inside if part is not None] or [loader]
    return [part.generator for part in loaders if getattr(part, "generator", None) is not None]


def _random_state() -> dict[str, Any]:
    name, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": list(torch.cuda.get_rng_state_all()) if torch.cuda.is_available() else [],
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "python": random.getstate(),
    }


def _restore_random_state(state: dict[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if torch.cuda.is_available() and state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    random.setstate(_tuples(state["python"]))


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, Iterable) else value
