"""Fine-tuning of VQ-Rec: first the permutation of code embeddings alone, then everything."""

from __future__ import annotations

from typing import Any

import torch

from recbole_xfer.trainer.phases import PhasedTrainer

ALIGNMENT, RECOMMENDATION = "alignment", "recommendation"


class VQRecTrainer(PhasedTrainer):
    """Trains the alignment of a model that has one for ``align_epochs``, then all parameters."""

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        super().__init__(config, model)
        aligns = config["adaptation"] == "align" and config["align_epochs"]
        self.phases = [ALIGNMENT, RECOMMENDATION] if aligns else [RECOMMENDATION]
        self._begin(self.phases[0])

    def _begin(self, phase: str, train_data: Any = None) -> None:
        super()._begin(phase, train_data)
        self.epochs = self.config["align_epochs" if phase == ALIGNMENT else "epochs"]
        self.model.align_alone(phase == ALIGNMENT)
        self.optimizer = None  # built anew when training needs it
