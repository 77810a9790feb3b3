"""Training in bfloat16, and the warning on devices without instructions for it."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from recbole_xfer.device import has_fast_bfloat16
from recbole_xfer.experiment import build, fit
from recbole_xfer.testing.data import config, write_joined, write_small
from recbole_xfer.trainer import ranking, trainer


@pytest.mark.parametrize("fast", [True, False])
def test_a_gpu_that_emulates_bfloat16_is_not_fast_in_it(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: fast or including_emulation)
    assert has_fast_bfloat16(torch.device("cuda")) == fast


@pytest.mark.parametrize(
    ("precision", "fast", "reduced", "warned"),
    [
        ("auto", True, False, False),
        ("auto", False, False, False),
        ("bf16", True, True, False),
        ("bf16", False, True, True),
        ("float32", False, False, False),
    ],
)
def test_precision_and_warning_on_a_cpu(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    precision: str,
    fast: bool,
    reduced: bool,
    warned: bool,
) -> None:
    monkeypatch.setattr(trainer, "has_fast_bfloat16", lambda device: fast)
    write_small(tmp_path)
    with caplog.at_level(logging.WARNING, logger="recbole_xfer"):
        experiment = build(config(tmp_path, "SASRec", precision=precision, gpu_id=""))
        assert experiment.trainer.enable_amp == reduced
    assert ("no instructions for it" in caplog.text) == warned


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("ANT", {}),
        ("RETR", {}),
        ("RETR", {"loss_type": "BPR"}),
        ("PathwayBERT4Rec", {}),
        ("PathwayLightSANs", {}),
        ("UniSRec", {"item_embedding": True}),
        ("XRETR", {}),
        ("CARCA", {}),
        ("NOVA", {}),
        ("VQRec", {}),
        ("SyNCRec", {"dataset": "A+B+C"}),
        ("LightSANs", {}),
    ],
)
def test_a_model_trains_in_bfloat16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, keys: dict[str, Any]
) -> None:
    """The default on a GPU; RecGURU and TP have tests of their own."""
    write_small(tmp_path)
    write_joined(tmp_path)
    experiment = build(config(tmp_path, model, precision="bf16", epochs=1, **keys))
    score, _ = fit(experiment)
    assert score > 0
    monkeypatch.setattr(ranking, "vectors_of", lambda *_: None)  # ranks by scores as the model computes them
    ranked = set()
    original = experiment.trainer._ranked
    experiment.trainer._ranked = lambda *batch: (ranked.add(batch[1].dtype), original(*batch))[1]
    experiment.trainer.evaluate(experiment.valid_data)
    assert ranked == {torch.float32}
    assert all(parameter.dtype == torch.float32 for parameter in experiment.model.parameters())
