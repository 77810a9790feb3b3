"""RecBole's Trainer with stages that leave artifacts, go on exactly where they were interrupted, and mask history.

:class:`RunFolder` works over any trainer of RecBole, so that RecBole's own models gain the same.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import NegSampleEvalDataLoader
from recbole.evaluator import Evaluator
from recbole.evaluator.collector import DataStruct
from recbole.trainer import Trainer
from recbole.utils import EvaluatorType, ModelType, get_local_time, get_trainer
from torch import Tensor
from tqdm import tqdm

from recbole_xfer.config.config import settings
from recbole_xfer.data.batches import WindowDataLoader
from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.data.negatives import WithinDomain, within_domain
from recbole_xfer.device import has_fast_bfloat16
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation import domain_ranking as domains
from recbole_xfer.hooks import hooks_of
from recbole_xfer.log import logger
from recbole_xfer.trainer import run_folder as artifacts

OTHER = "other_parameter."
"""Begins the names of what RecBole calls so: the state of a model beside its parameters."""


class RunFolder(Trainer):
    """A trainer of RecBole whose run lives in a folder (see :mod:`recbole_xfer.trainer.run_folder`).

    Reads ``run_dir``, ``precision``, ``learning_rate_decay``, ``mask_history`` and ``rank_within_domain``.

    Attributes:
        history: a record of each epoch, as ``epochs.json`` has it: ``epoch``, ``phase``, ``train`` (its scalars) and,
            where it was validated, ``valid`` (all metrics).
        phase: what is trained, where a trainer has several phases.
        learning_rate_key: the key of the learning rate at hand.
    """

    phase: str | None = None
    learning_rate_key = "learning_rate"

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        try:
            super().__init__(config, model)
        except ImportError as error:  # RecBole's W&B logger
            raise XferError("log_wandb=True needs the package wandb. Run `pip install wandb`.") from error
        name = f"{config['model']}-{config['dataset']}-{get_local_time()}"
        self.run_dir = Path(config["run_dir"] or Path(config["checkpoint_dir"]) / name)
        self.saved_model_file = str(self.run_dir / artifacts.WEIGHTS)
        self.valid_metric = domains.metric_key(config["valid_metric"])
        self.evaluator = KeepingEvaluator(config)
        self.history: list[dict[str, Any]] = []
        self.best_epoch = -1
        self.enable_amp = self._reduced_precision()

    def _reduced_precision(self) -> bool:
        precision = self.config["precision"] or "auto"
        if precision not in ("auto", "bf16", "float32"):
            raise XferError(f"precision={precision} must be auto, bf16 or float32.")
        fast = has_fast_bfloat16(self.device)
        if precision == "bf16" and not fast:
            logger.warning("precision=bf16 is slower than float32 on this processor, which has no instructions for it.")
        if self.device.type == "cuda":
            torch.set_autocast_dtype("cuda", torch.bfloat16)
        return precision == "bf16" or (precision == "auto" and fast and self.device.type == "cuda")

    def _build_optimizer(self, **kwargs: Any) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        optimizer = super()._build_optimizer(**{"params": trained or self.model.parameters(), **kwargs})
        if isinstance(optimizer, (torch.optim.Adam, torch.optim.AdamW)):
            for group in optimizer.param_groups:
                group["fused"] = True  # one pass over the parameters instead of ten
        return optimizer

    # --- training --------------------------------------------------------------------------------------------------

    def fit(
        self, train_data: Any, valid_data: Any = None, *args: Any, show_progress: bool = False, **kwargs: Any
    ) -> Any:
        """RecBole's fit; a loader of windows takes the place of RecBole's where the model is trained on windows."""
        if valid_data:
            domains.check_valid_metric(self.config)
        self._train_data = self.train_loader(train_data)
        artifacts.save_config(self.run_dir, settings(self.config))
        with tqdm(desc=self.run_dir.name, leave=False, disable=not show_progress, dynamic_ncols=True) as self._bar:
            return super().fit(self._train_data, valid_data, *args, **kwargs)

    def train_loader(self, train_data: Any) -> Any:
        """The loader that the model is trained on: RecBole's, or the one that the model names.

        Raises:
            XferError: if the model can read no windows, and the data has no other rows.
        """
        dataset = train_data._dataset
        loader = hooks_of(self.model).loader
        if loader is None and self.config["train_rows"] == "windows":
            raise XferError(f"train_rows=windows is for models of this package. {self.config['model']} needs prefixes.")
        if loader is None or not isinstance(dataset, TransferDataset):
            return train_data
        sampler = getattr(train_data, "_sampler", None)
        if self.config["negatives_within_domain"] and sampler is not None:
            sampler = within_domain(sampler)
        return loader.of(self.config, dataset, sampler)

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> Any:
        if epoch_idx > self.start_epoch:
            self._save_state(epoch_idx)
        if isinstance(train_data, WindowDataLoader):
            train_data.set_epoch(epoch_idx)
        self._set_learning_rate(epoch_idx)
        self._bar.reset(total=len(train_data))
        self._bar.set_description(f"{self.config['model']} on {self.config['dataset']}, epoch {epoch_idx}")
        losses = super()._train_epoch(Ticking(train_data, self._bar), epoch_idx, *args, **kwargs)
        scalars = self._scalars(losses, len(train_data))
        for name, value in scalars.items():
            self.tensorboard.add_scalar(f"{self.phase}/{name}" if self.phase else name, value, epoch_idx)
        self.history.append({"epoch": epoch_idx, "phase": self.phase, "train": scalars})
        artifacts.save_history(self.run_dir, self.history)
        return losses

    def _check_nan(self, loss: Tensor) -> None:
        if torch.isnan(loss):
            raise XferError(
                f"The loss of {self.config['model']} is no longer a number. Lower {self.learning_rate_key}, now "
                f"{self.learning_rate:g}, or set clip_grad_norm, such as --clip_grad_norm='{{max_norm: 5}}'."
            )

    def _scalars(self, losses: Any, steps: int) -> dict[str, float]:
        """What is kept of an epoch: its loss, a mean over steps, and what the model's ``epoch_scalars()`` gives."""
        loss = sum(losses) if isinstance(losses, tuple) else losses
        return {"loss": loss / steps, **hooks_of(self.model).epoch_scalars()}

    def _set_learning_rate(self, epoch: int) -> None:
        """Puts the learning rate of an epoch into the optimizer."""
        decay = self.config["learning_rate_decay"] or 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * decay**epoch

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, dict[str, float]]:
        score, result = super()._valid_epoch(valid_data, show_progress)
        better = max if self.valid_metric_bigger else min
        best = better(score, float(self.best_valid_score))
        self.history[-1]["valid"] = {name: float(value) for name, value in result.items()}
        artifacts.save_history(self.run_dir, self.history)
        self._bar.set_postfix_str(f"{self.config['valid_metric']} {score:.4f}, best {best:.4f}")
        return score, result

    def _save_checkpoint(self, epoch: int, verbose: bool = True, **kwargs: Any) -> None:
        """Keeps the parameters of the epoch: RecBole calls this whenever validation improved."""
        self.best_epoch = epoch
        artifacts.save_weights(self.run_dir, self._weights())

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """RecBole's S3Rec and RaCT call this in the stages (``train_stage``) before the last."""
        super().save_pretrained_model(epoch, saved_model_file)
        self._save_checkpoint(epoch)
        stages = "--train_stage=finetune (RaCT: critic_pretrain first)"
        logger.info(f"Go on with {stages} --pre_model_path={saved_model_file}")

    def _weights(self) -> dict[str, Tensor]:
        """Parameters and buffers, with what a RecBole model keeps besides them (Pop's counts)."""
        weights = self.model.state_dict()
        for name, value in self.model.other_parameter().items():
            weights |= artifacts.as_tensors(OTHER + name, value)
        return weights

    def _load_weights(self, weights: Mapping[str, Tensor]) -> None:
        on_device = {key: value.to(self.device) for key, value in weights.items()}
        others = {key.removeprefix(OTHER): on_device.pop(key) for key in weights if key.startswith(OTHER)}
        self.model.load_state_dict(on_device)
        self.model.load_other_parameter(artifacts.from_tensors(others))

    # --- going on ----------------------------------------------------------------------------------------------------

    def _save_state(self, epoch: int) -> None:
        """Writes what :meth:`_state` holds when ``epoch`` starts."""
        artifacts.save_state(self.run_dir, self._state(epoch))

    def _state(self, epoch: int) -> dict[str, Any]:
        """Everything that the epochs to come depend on, tensors and plain values."""
        loader_generator = getattr(self._train_data, "generator", None)
        return {
            "epoch": epoch,
            "cur_step": self.cur_step,
            "best_epoch": self.best_epoch,
            "best_valid_score": float(self.best_valid_score),
            "best_valid_result": {key: float(value) for key, value in (self.best_valid_result or {}).items()},
            "model": self._weights(),
            "optimizer": self.optimizer.state_dict(),
            "random": _random_state(),
            "loader": None if loader_generator is None else loader_generator.get_state(),
        }

    def resume(self, train_data: Any) -> bool:
        """Takes up an interrupted run of this folder, so that it ends as if it had not been interrupted.

        Returns:
            whether there was one.

        Raises:
            XferError: if it was made with other keys, or its state is damaged.
        """
        state = artifacts.load_state(self.run_dir)
        if state is None:
            return False
        artifacts.check_same_run(self.run_dir, settings(self.config))
        self._restore(state, train_data)
        return True

    def _restore(self, state: Mapping[str, Any], train_data: Any) -> None:
        """Takes up what :meth:`_state` gave."""
        self.start_epoch, self.cur_step, self.best_epoch = state["epoch"], state["cur_step"], state["best_epoch"]
        self.best_valid_score, self.best_valid_result = state["best_valid_score"], state["best_valid_result"] or None
        self._load_weights(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        _restore_random_state(state["random"])
        comes_next = state.get("phase"), state["epoch"]
        self.history = list(
            takewhile(lambda e: (e["phase"], e["epoch"]) != comes_next, artifacts.load_history(self.run_dir))
        )
        if state["loader"] is not None:
            train_data.generator.set_state(state["loader"])

    # --- evaluation --------------------------------------------------------------------------------------------------

    def evaluate(
        self, eval_data: Any, load_best_model: bool = True, model_file: str | None = None, show_progress: bool = False
    ) -> Any:
        """RecBole's evaluate, with the best epoch read from ``model.safetensors``; never in bf16, which makes ties."""
        self._evaluated = eval_data._dataset
        self.evaluator.ranking = self._domain_ranking(eval_data)
        if load_best_model:
            self._load_weights(artifacts.load_weights(Path(model_file).parent if model_file else self.run_dir))
        return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)

    def _domain_ranking(self, eval_data: Any) -> domains.DomainRanking | None:
        if not self.config["rank_within_domain"]:
            return None
        if self.config["eval_type"] != EvaluatorType.RANKING:
            raise XferError(f"rank_within_domain=True needs metrics of rankings, not {self.config['metrics']}.")
        if isinstance(eval_data, NegSampleEvalDataLoader) and not isinstance(eval_data._sampler, WithinDomain):
            raise XferError(
                "RecBole's own functions sample the negatives of evaluation from all domains. Use recbole_xfer's run, "
                "or rank all items, eval_args.mode full."
            )
        item_domain = torch.from_numpy(self._evaluated.item_domain).long().to(self.device)
        return domains.DomainRanking(self._evaluated.domains, item_domain)

    def _full_sort_batch_eval(self, batched_data: tuple) -> tuple:
        """Ranks a batch; which earlier items are left out is decided by ``mask_history`` alone, for every model."""
        interaction, seen, positive_u, positive_i = batched_data
        if not self.config["mask_history"]:
            seen = None
        elif seen is None and isinstance(self._evaluated, TransferDataset):
            seen = self._evaluated.seen_items(interaction)
        return self._ranked(*super()._full_sort_batch_eval((interaction, seen, positive_u, positive_i)))

    def _neg_sample_batch_eval(self, batched_data: tuple) -> tuple:
        """RecBole's, but that a sequential model encodes a history once, and not once for each candidate."""
        interaction, row, positive_u, positive_i = batched_data
        ranking = self.config["eval_type"] == EvaluatorType.RANKING
        if self.config["MODEL_TYPE"] != ModelType.SEQUENTIAL or not ranking:
            return self._ranked(*super()._neg_sample_batch_eval(batched_data))
        interaction = interaction.to(self.device)
        users, histories = interaction[self.model.USER_ID], interaction[self.model.ITEM_SEQ]
        _, history = torch.cat([users[:, None], histories], dim=1).unique(dim=0, return_inverse=True)
        place = torch.arange(len(history), device=self.device)
        first = torch.empty_like(place).scatter_(0, history, place)[: int(history.max()) + 1]  # a row of each
        item = interaction[self.model.ITEM_ID]
        scores = self.model.full_sort_predict(interaction[first]).view(len(first), -1)[history, item]
        table = scores.new_full((int(positive_u[-1]) + 1, self.tot_item_num), -torch.inf)
        table[row.to(self.device), item] = scores
        return self._ranked(interaction, table, positive_u, positive_i)

    def _ranked(self, interaction: Any, scores: Tensor, row: Tensor, item: Tensor) -> tuple:
        """What RecBole collects of a batch, within domains where that is asked for."""
        if self.evaluator.ranking is not None:
            scores, row = self.evaluator.ranking.restrict(scores, row, item)
        return interaction, scores, row, item


class Ticking:
    """A loader that moves a progress bar with each batch."""

    def __init__(self, loader: Any, bar: tqdm) -> None:
        self.loader, self.bar, self.shuffle = loader, bar, loader.shuffle

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            yield batch
            self.bar.update()


class KeepingEvaluator(Evaluator):
    """RecBole's Evaluator that keeps what it measured, for results by row, and has results of each domain.

    Attributes:
        collected: what RecBole collected in the last evaluation.
        ranking: of the pass at hand, where targets are ranked within their domains.
    """

    collected: DataStruct
    ranking: domains.DomainRanking | None = None

    @property
    def topk(self) -> Tensor | None:
        """For each evaluated row, hits at every rank and behind them the number of positives, [N, k + 1]."""
        return self.collected.get("rec.topk") if "rec.topk" in self.collected else None

    def evaluate(self, dataobject: DataStruct) -> Any:
        self.collected = dataobject
        result = self.measure(dataobject)
        if self.ranking is not None:
            places = self.config["metric_decimal_place"]
            result.update(self.ranking.results(dataobject, self.measure, places))
        return result

    def measure(self, collected: DataStruct) -> Any:
        """RecBole's metrics of what was collected, or of some of its rows."""
        return super().evaluate(collected)


@cache
def trainer_class(model_type: ModelType, model: str) -> type[RunFolder]:
    """RecBole's trainer for a model, with the run folder added where it is not one of ours already."""
    theirs = get_trainer(model_type, model)
    return theirs if issubclass(theirs, RunFolder) else type(f"{theirs.__name__}InFolder", (RunFolder, theirs), {})


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
