"""ANT finds the truth planted in the toy domains, and what each modality contributes."""

from recbole_xfer.testing.planted import PlantedTruth


class TestANT(PlantedTruth):
    model = "ANT"
    keys = {
        "hidden_size": 64, "inner_size": 64, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1,
        "train_batch_size": 256, "learning_rate": 0.003, "epochs": 12, "stopping_step": 5, "pretrain_epochs": 13,
        "pretrain_negatives": "full",
    }  # fmt: skip
