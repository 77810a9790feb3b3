"""TP over each of its models keeps the contract of every model."""

import torch

from recbole_xfer.experiment import Experiment
from recbole_xfer.testing.contract import CausalContract

FEW = {"paths": 4, "embedding_size": 16, "learning_rate": 0.01}


class TestTPSASRec(CausalContract):
    model = "TPSASRec"
    keys = {"paths": 4, "learning_rate": 0.01}

    def states(self, experiment: Experiment, items: torch.Tensor) -> torch.Tensor:
        return torch.stack([experiment.model.states({"item_id_list": row}) for row in items])


class TestTPRETR(TestTPSASRec):
    model = "TPRETR"


class TestTPGRU4Rec(TestTPSASRec):
    model = "TPGRU4Rec"
    keys = FEW


class TestTPCaser(TestTPSASRec):
    model = "TPCaser"
    keys = FEW

    def states(self, experiment: Experiment, items: torch.Tensor) -> torch.Tensor:
        user = torch.tensor(1)
        return torch.stack([experiment.model.states({"item_id_list": row, "user_id": user}) for row in items])


class TestTPSASRecOnePathByCrossEntropy(TestTPSASRec):
    keys = {"paths": 1, "loss_type": "CE"}
