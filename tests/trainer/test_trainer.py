"""Errors of the trainer."""

import sys
from pathlib import Path

import pytest

from recbole_xfer.errors import XferError
from recbole_xfer.quick_start import run
from recbole_xfer.testing.data import settings, write_small


def test_missing_wandb_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path)
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(XferError, match="pip install wandb"):
        run("ANT", "Small", overrides={**settings(tmp_path), "log_wandb": True})


@pytest.mark.parametrize("model", ["RETR", "SASRec", "TPSASRec"])
def test_a_loss_of_nan_ends_the_run_with_advice(tmp_path: Path, model: str) -> None:
    write_small(tmp_path)
    message = rf"(The loss of {model} is no longer a number|not finite).*\. Lower learning_rate, now 1e\+30"
    with pytest.raises(XferError, match=message):
        run(model, "Small", overrides={**settings(tmp_path, model), "learning_rate": 1e30, "epochs": 3})
