"""Fixtures that all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

import recbole_xfer  # noqa: F401  tests import RecBole, which needs compat first

ROOT = Path(__file__).resolve().parents[1]

torch.set_num_threads(1)  # sums in one order on every machine, and small tensors gain nothing from a second thread


@pytest.fixture(autouse=True)
def no_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """RecBole's Config reads pytest's arguments as its own otherwise."""
    monkeypatch.setattr(sys, "argv", sys.argv[:1])


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data: RECBOLE_XFER_DATA, or shared/data beside the repository; skips where it is absent."""
    path = Path(os.environ.get("RECBOLE_XFER_DATA") or ROOT.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip("the real data is not here; RECBOLE_XFER_DATA names its folder")
    return path


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder as the working directory, for RecBole writes log/, log_tensorboard/ and saved/ there."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
