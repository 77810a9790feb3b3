"""Interrupts a training, as Ctrl-C does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from recbole_xfer.trainer.trainer import XferTrainer


@contextmanager
def interrupted_in_epoch(number: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Interrupts the training in the block when this epoch begins; the block must be a training that reaches it."""
    original = XferTrainer._set_learning_rate

    def dies(self: Any, epoch: int) -> None:
        original(self, epoch)
        if epoch == number:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(XferTrainer, "_set_learning_rate", dies)
        with pytest.raises(KeyboardInterrupt):
            yield
