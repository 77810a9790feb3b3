"""ANT keeps the contract of every model."""

from recbole_xfer.testing.contract import CausalContract


class TestANT(CausalContract):
    model = "ANT"


class TestANTWithItemEmbeddingsAndInBatchNegatives(TestANT):
    keys = {"item_embedding": True, "negatives": "in_batch", "alignment_weight": 0.01}


class TestANTWithABiasOfRepeats(TestANT):
    keys = {"repeat_bias": True}
