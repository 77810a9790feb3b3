"""The trainer of ContentKNN, which has nothing to train."""

from __future__ import annotations

from typing import Any

import torch

from recbole_xfer.trainer.trainer import XferTrainer


class ContentKNNTrainer(XferTrainer):
    """Has one epoch, without steps, whatever ``epochs`` is: its model is only validated and saved."""

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        super().__init__(config, model)
        self.epochs = self.eval_step = 1

    def _train_epoch(self, train_data: Any, epoch_idx: int, *args: Any, **kwargs: Any) -> float:
        self.history.append({"epoch": epoch_idx, "phase": self.phase, "train": {"loss": 0.0}})
        self.folder.save_epochs(self.history)
        return 0.0
