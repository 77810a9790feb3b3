"""Runs each test in a folder of its own, as the tests of ``contract`` and ``planted`` already do.

A package uses it for its other tests by a line in its ``conftest.py``:
``from recbole_xfer.testing.isolation import in_tmp_path``.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch


def isolate(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes a folder the working directory, where RecBole writes its logs, and hides pytest's arguments from RecBole.

    Computes on one thread, so that sums have one order.
    """
    torch.set_num_threads(1)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", sys.argv[:1])


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A test's ``tmp_path`` as its working directory."""
    isolate(tmp_path, monkeypatch)
    return tmp_path
