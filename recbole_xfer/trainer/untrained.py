"""Trainers of models that have no epochs."""

from __future__ import annotations

from typing import Any

import torch

from recbole_xfer.config.joined import CONTENT
from recbole_xfer.trainer.selection import choose_weights
from recbole_xfer.trainer.trainer import XferTrainer


class UntrainedTrainer(XferTrainer):
    """Has one epoch, without steps, whatever ``epochs`` is: its model is only validated and saved."""

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        super().__init__(config, model)
        self.epochs = self.eval_step = 1

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> float:
        self.history.append({"epoch": epoch_idx, "phase": self.phase, "train": {"loss": 0.0}})
        self.folder.save_epochs(self.history)
        return 0.0


class ContentKNNTrainer(UntrainedTrainer):
    """The trainer of ContentKNN, which has nothing to train."""


class JoinedTrainer(UntrainedTrainer):
    """Chooses the weights of joined models, which are trained, on the validation split; without one, they stay.

    With few validation targets ranks by ContentKNN, which needs no training, or else by the model from scratch.
    """

    def fit(self, train_data: Any, valid_data: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Chooses the weights, and validates the joined models."""
        if valid_data is not None:
            names = list(self.model.members)
            fallback = names.index(CONTENT) if CONTENT in names else 0
            self.model.shares = choose_weights(self, valid_data, fallback).tolist()
        return super().fit(train_data, valid_data, *args, **kwargs)
