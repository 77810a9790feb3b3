"""ANT keeps the contract of every model."""

import torch

from recbole_xfer.experiment import Experiment
from recbole_xfer.testing.contract import CausalContract


class TestANT(CausalContract):
    model = "ANT"

    def states(self, experiment: Experiment, items: torch.Tensor) -> torch.Tensor:
        return experiment.model.encode_users(experiment.model.catalogue()[items], items > 0)


class TestANTWithItemEmbeddingsAndInBatchNegatives(TestANT):
    keys = {"item_embedding": True, "negatives": "in_batch", "alignment_weight": 0.01}
