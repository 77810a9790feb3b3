"""Encoding on Ray gives the bytes of encoding in one process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from recbole_xfer.cluster import local_ray
from recbole_xfer.prepare.encode import encode_pictures, encode_texts
from recbole_xfer.prepare.picture_inputs import ImageRecipe
from recbole_xfer.prepare.ray_encoding import EncodesShards
from recbole_xfer.prepare.text_inputs import TextRecipe
from tests.helpers.encoding import write_timm_model
from tests.prepare.test_encode import domain as text_domain
from tests.prepare.test_encode import encoder  # noqa: F401  a fixture
from tests.prepare.test_encode_pictures import domain as picture_domain


@pytest.fixture
def one_process() -> Iterator[None]:
    """As many threads as cores, so that Ray has room for one process, which loads the encoder once."""
    threads = torch.get_num_threads()
    torch.set_num_threads(os.cpu_count() or 1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_process")
def test_texts_and_pictures_have_equal_bytes(
    tmp_path: Path,
    encoder: str,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(TextRecipe, "shard", 2)
    monkeypatch.setattr(ImageRecipe, "shard", 2)
    model = write_timm_model(tmp_path / "timm")
    texts = encode_texts(text_domain(tmp_path / "one"), "D", encoder=encoder)
    pictures = encode_pictures(picture_domain(tmp_path / "two"), "D", encoder=model)
    with local_ray(2**27):
        found = encode_texts(text_domain(tmp_path / "ray"), "D", encoder=encoder, ray=True)
        assert found.read_bytes() == texts.read_bytes()
        found = encode_pictures(picture_domain(tmp_path / "ray"), "D", encoder=model, ray=True)
        assert found.read_bytes() == pictures.read_bytes()


@pytest.mark.usefixtures("one_process")
def test_a_process_returns_the_sentence_of_an_error(tmp_path: Path) -> None:
    recipe = TextRecipe(encoder=str(tmp_path))
    process = EncodesShards(recipe, recipe.find(), 1)
    (tmp_path / "config.json").write_text("{}")
    found = process({"start": 7, "values": '["red tea"]'})
    assert found["start"] == 7 and "cannot be loaded" in found["error"]
