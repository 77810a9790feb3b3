"""Vectors of items are centred and scaled by the training items, and a model keeps how."""

from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_xfer.data.features import ItemFeatures
from recbole_xfer.data.vectors import VectorTable, allocate
from recbole_xfer.experiment import build, load
from recbole_xfer.layers.items import FeatureTables
from recbole_xfer.quick_start import run
from recbole_xfer.testing.data import config, settings, write_small
from recbole_xfer.trainer.run_folder import EARLIER, RunFolder
from tests.reference.ant import standardize

NUMBERS = np.random.default_rng(0)


def table(offset: float = 3.0, size: float = 0.05, memory_limit: int = 2**30) -> VectorTable:
    """Thirty vectors of eight small values around an offset; the padding item and every fourth item have none."""
    present = np.arange(30) % 4 != 0
    values = allocate((30, 8), np.dtype(np.float32), memory_limit)
    values[:] = (offset + size * NUMBERS.normal(size=(30, 8))) * present[:, None]
    return VectorTable(values, present)


@pytest.mark.parametrize("memory_limit", [0, 2**30], ids=["in a file", "in memory"])
def test_standard_scaling_equals_its_definition(memory_limit: int) -> None:
    text, ids = table(memory_limit=memory_limit), torch.arange(30)
    rows = FeatureTables(ItemFeatures(text, None, None), "standard").rows("text", ids).numpy()
    np.testing.assert_allclose(rows[text.present], standardize(text.values, text.present)[text.present], atol=1e-3)
    assert np.square(rows[text.present]).mean() == pytest.approx(1, abs=1e-4)


def test_scale_alone_keeps_directions_and_none_keeps_the_file() -> None:
    text, ids = table(), torch.arange(30)
    rows = {way: FeatureTables(ItemFeatures(text, None, None), way).rows("text", ids) for way in ("scale", "none")}
    assert torch.equal(rows["none"], torch.from_numpy(text.values))
    assert torch.nn.functional.cosine_similarity(*rows.values())[text.present].min() > 0.9999
    assert rows["scale"][text.present].square().mean().item() == pytest.approx(1, abs=1e-4)


def test_equal_vectors_are_not_scaled() -> None:
    text = VectorTable(np.ones((5, 4), np.float32), np.ones(5, dtype=bool))
    assert not FeatureTables(ItemFeatures(text, None, None), "standard").rows("text", torch.arange(5)).any()


@pytest.mark.parametrize("model", ["ANT", "UniSRec", "XRETR"])
def test_scaling_of_the_encoder_does_not_matter(tmp_path: Path, model: str) -> None:
    """Vectors of another length and offset give the same representations: what the router reads is scaled."""
    write_small(tmp_path, holes=False)
    made = build(config(tmp_path, model)).model
    other = FeatureTables(
        ItemFeatures(
            VectorTable(made.features.text.numpy() * 0.01 + 5, made.features.text_present.numpy()), None, None
        ),
        "standard",
    )
    ids = torch.arange(1, made.n_items)
    assert torch.allclose(made.features.rows("text", ids), other.rows("text", ids), atol=1e-2)


def test_a_run_from_before_the_key_is_loaded_as_it_was_trained(tmp_path: Path) -> None:
    write_small(tmp_path)
    keys = {"vector_scaling": "none", "repeat_bias": False}
    folder = Path(run("ANT", "Small", overrides={**settings(tmp_path), **keys}).folder)
    file = folder / RunFolder.CONFIG
    text = file.read_text(encoding="utf-8")
    for line in ("vector_scaling: none\n", "repeat_bias: false\n"):
        assert line in text
        text = text.replace(line, "")
    file.write_text(text, encoding="utf-8")
    loaded = load(folder)
    assert {key: loaded.config[key] for key in keys} == {key: EARLIER[key] for key in keys} == keys
    assert float(loaded.model.features.text_scale) == 1
    assert loaded.model.repeat_bias is None


@pytest.mark.parametrize("model", ["SASRec", "Pop"])
def test_other_models_have_no_such_key(tmp_path: Path, model: str) -> None:
    write_small(tmp_path)
    folder = run(model, "Small", overrides=settings(tmp_path, model)).folder
    assert load(folder).config["repeat_bias"] is None


def test_a_model_keeps_its_mean_and_scale_on_other_items(tmp_path: Path) -> None:
    write_small(tmp_path)
    folder = run("ANT", "Small", overrides=settings(tmp_path)).folder
    before = load(folder).model.features
    write_small(tmp_path, items=40, seed=1)
    after = load(folder).model.features
    assert torch.equal(before.text_center, after.text_center)
    assert torch.equal(before.image_scale, after.image_scale)
