"""RETR keeps the contract of every model."""

import torch

from recbole_xfer.experiment import Experiment
from recbole_xfer.testing.contract import CausalContract


class TestRETR(CausalContract):
    model = "RETR"

    def states(self, experiment: Experiment, items: torch.Tensor) -> torch.Tensor:
        return experiment.model.encode(items)


class TestRETRWithoutPathwayByCrossEntropy(TestRETR):
    keys = {"pathway": False, "loss_type": "CE"}


class TestRETRAsInTable7(TestRETR):
    keys = {"pathway_hierarchical": False, "pathway_temperature": 0.5}
