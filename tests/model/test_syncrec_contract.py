"""SyNCRec keeps the contract of every model, on three joined domains."""

from recbole_xfer.testing.contract import CausalContract, ModelContract

FEW_EXPERTS = {"n_experts": 2, "cross_experts": 1}


class TestSyNCRec(ModelContract):
    model = "SyNCRec"
    keys = FEW_EXPERTS
    dataset = "A+B+C"
    history = ["A/i1", "B/i1"]


class TestSyNCRecWithAGateAtEachPosition(CausalContract):
    model = "SyNCRec"
    keys = {
        **FEW_EXPERTS, "gate": "position", "bounded_scores": True, "harmonic_factor": 1.0, "loss_correction": False,
    }  # fmt: skip
    dataset = "A+B+C"
    history = ["A/i1", "B/i1"]


class TestSyNCRecRankingByBothSequences(ModelContract):
    model = "SyNCRec"
    keys = {**FEW_EXPERTS, "ranking_sequence": "both"}
    dataset = "A+B+C"
    history = ["A/i1", "B/i1"]
