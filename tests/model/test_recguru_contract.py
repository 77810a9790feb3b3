"""RecGURU keeps the contract of every model, in all its variants."""

from pathlib import Path

import pytest

from recbole_xfer.testing.contract import CausalContract, ModelContract
from recbole_xfer.testing.data import write_small


class TestRecGURU(ModelContract):
    model = "RecGURU"
    dataset = "Small+Other"
    history = ["Small/i1", "Small/i2"]
    keys = {"autoencoder_epochs": 1, "adversarial_epochs": 1, "n_layers": 1}

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        write_small(tmp_path)
        write_small(tmp_path, "Other", users=20, seed=1)
        return tmp_path


class TestAutoRecOnOneDomain(ModelContract):
    model = "RecGURU"
    keys = {"variant": "AutoRec", "autoencoder_epochs": 1, "reconstruction_negatives": None, "n_layers": 1}


class TestSeqRec(CausalContract):
    model = "RecGURU"
    keys = {"variant": "SeqRec", "n_layers": 1}
