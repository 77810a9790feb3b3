"""A process that is killed while it encodes leaves nothing that the next run does not complete."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from recbole_xfer.prepare.encode import encode_pictures, encode_texts
from recbole_xfer.prepare.picture_inputs import ImageRecipe
from recbole_xfer.prepare.text_inputs import TextRecipe
from tests.helpers.encoding import picture, write_timm_model
from tests.prepare.test_encode import WORDS, encoder  # noqa: F401  a fixture
from tests.prepare.test_encode import domain as text_domain
from tests.prepare.test_encode_pictures import ITEMS
from tests.prepare.test_encode_pictures import domain as picture_domain


def encode_both(root: Path, encoder: str, model: str) -> list[bytes]:  # noqa: F811
    torch.set_num_threads(1)  # a fork has no other threads
    texts = encode_texts(root / "texts" / "D", "D", encoder=encoder)
    return [path.read_bytes() for path in (texts, encode_pictures(root / "pictures" / "D", "D", encoder=model))]


def domains(root: Path) -> Path:
    """Twenty different texts, and four items with pictures."""
    text_domain(root / "texts", **{f"i{number}": " ".join(WORDS[: number % 10 + 1] * 2) for number in range(20)})
    picture_domain(root / "pictures", {f"{item}.png": picture(seed, form="PNG") for seed, item in enumerate(ITEMS)})
    return root


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_killed_at_three_moments(tmp_path: Path, encoder: str, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(TextRecipe, "shard", 1)
    monkeypatch.setattr(ImageRecipe, "shard", 1)
    threads, model = torch.get_num_threads(), write_timm_model(tmp_path / "timm")
    try:
        started = time.monotonic()
        whole = encode_both(domains(tmp_path / "whole"), encoder, model)
        seconds = time.monotonic() - started
        root, context = domains(tmp_path / "killed"), multiprocessing.get_context("fork")
        for moment in (0.2, 0.5, 0.8):
            process = context.Process(target=encode_both, args=(root, encoder, model))
            process.start()
            process.join(moment * seconds)
            if process.exitcode is None:
                os.kill(process.pid or 0, signal.SIGKILL)
            process.join()
        assert encode_both(root, encoder, model) == whole
        assert sorted(os.listdir(root / "texts" / "D")) == ["D.inter", "D.item", "D.text.parquet"]
        assert sorted(os.listdir(root / "pictures" / "D")) == ["D.image.parquet", "D.item", "images"]
    finally:
        torch.set_num_threads(threads)
