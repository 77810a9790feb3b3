"""bf16 where a device is fast in it, and a word where it is not."""

import logging
from pathlib import Path

import pytest
import torch

from recbole_xfer.experiment import build
from recbole_xfer.precision import has_fast_bfloat16
from recbole_xfer.trainer import trainer
from tests.data import config, write_small


@pytest.mark.parametrize("fast", [True, False])
def test_a_gpu_that_only_emulates_bfloat16_is_not_fast_in_it(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
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
def test_on_a_cpu(
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
