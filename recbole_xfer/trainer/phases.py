"""Trains a model in phases, one after another, in one run that can be resumed in each of them."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import torch
from recbole.utils import ModelType, get_trainer

from recbole_xfer.config.config import stages, stages_of
from recbole_xfer.log import logger
from recbole_xfer.trainer.trainer import XferTrainer


class PhasedTrainer(XferTrainer):
    """Trains phases one after another; only the last is validated, and its best epoch is kept.

    Epochs are counted from 0 in each phase.

    Attributes:
        phases: their names, in their order.
        phase: the current or last phase.
    """

    phases: Sequence[str]
    phase: str

    def fit(self, train_data: Any, valid_data: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Trains the current phase and the following ones; returns score and metrics of the last."""
        for following in self.phases[self.phases.index(self.phase) + 1 :]:
            super().fit(train_data, None, *args, **{**kwargs, "saved": False})
            self._end(following)
            self._begin(following, train_data)
            self._save_state(0)
        return super().fit(train_data, valid_data, *args, **kwargs)

    def steps(self, train_data: Any) -> int:
        """How many steps an epoch of the last phase has."""
        current, self.phase = self.phase, self.phases[-1]
        try:
            return super().steps(train_data)
        finally:
            self.phase = current

    def begin_last_phase(self) -> None:
        """Leaves out earlier phases of training, for a model whose parameters have passed them."""
        self._begin(self.phases[-1], None)

    def _begin(self, phase: str, train_data: Any) -> None:
        """Prepares model and optimizer for a phase, which starts with epoch 0."""
        self.phase, self.start_epoch = phase, 0
        self.train_loss_dict.clear()

    def _end(self, following: str) -> None:
        """Changes the trained model before the following phase begins."""

    def _restore(self, state: Mapping[str, Any], train_data: Any) -> None:
        if state["phase"] != self.phase:
            self._begin(state["phase"], train_data)
        super()._restore(state, train_data)
        logger.info(f"The interrupted run was in its {self.phase} phase.")


class StagedTrainer(PhasedTrainer):
    """Trains all stages of a model of RecBole in one run.

    RecBole trains the stage that ``train_stage`` names, and its models read the parameters of the stage before from a
    file when they are built. Here each stage has a model of its own, which reads them from memory.
    """

    model: torch.nn.Module

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        super().__init__(config, model)
        self.phases = stages_of(config)
        self.phase = self.phases[0]

    def _begin(self, phase: str, train_data: Any) -> None:
        super()._begin(phase, train_data)
        earlier = Parameters(self.model)
        config = self.config.replace(train_stage=phase, pre_model_path=earlier)
        self.model = type(self.model)(config, train_data._dataset).to(self.device)
        self.optimizer = self._build_optimizer()

    def begin_last_phase(self) -> None:
        """See :meth:`PhasedTrainer.begin_last_phase`; the model must be in its last stage."""
        self.phase = self.phases[-1]

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """RecBole calls this in the stages before the last. Only a run of a single stage writes the file."""
        if len(self.phases) == 1:
            super().save_pretrained_model(epoch, saved_model_file)
            self._save_checkpoint(epoch)
            logger.info(f"Train the next stage with --pre_model_path={saved_model_file} and its --train_stage.")


class Parameters(io.BytesIO):
    """A file in memory with the parameters of a model, as RecBole's models read it."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        torch.save({"state_dict": model.state_dict()}, self)
        self.seek(0)

    def __str__(self) -> str:
        return "the previous stage"


@cache
def trainer_class(model_type: ModelType, model: str) -> type[XferTrainer]:
    """The trainer of a model: ours on top of RecBole's trainer for that model."""
    theirs = get_trainer(model_type, model)
    ours = StagedTrainer if stages(model) else XferTrainer
    return theirs if issubclass(theirs, XferTrainer) else type(f"Xfer{theirs.__name__}", (ours, theirs), {})
