"""RETR keeps the contract of every model."""

from recbole_xfer.testing.contract import CausalContract


class TestRETR(CausalContract):
    model = "RETR"


class TestRETRWithoutPathwayByCrossEntropy(TestRETR):
    keys = {"pathway": False, "loss_type": "CE"}


class TestRETRAsInTable7(TestRETR):
    keys = {"pathway_hierarchical": False, "pathway_temperature": 0.5}


class TestRETRWithABiasOfRepeats(TestRETR):
    keys = {"repeat_bias": True}
