"""Explanations show the computation of the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from recbole_xfer.cli.main import main
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import load
from recbole_xfer.quick_start import run
from recbole_xfer.report.explain import explain, write
from recbole_xfer.testing.data import settings, write_small


@pytest.fixture
def folder(tmp_path: Path) -> str:
    write_small(tmp_path)
    return run("RETR", "Small", overrides={**settings(tmp_path, "RETR"), "n_heads": 4}).folder


def user_with(experiment, length: int) -> tuple[str, int]:
    """A user whose test history has ``length`` items, and the row."""
    rows = experiment.test_data._dataset[np.arange(len(experiment.test_data._dataset))]
    row = int((rows["item_length"] == length).nonzero()[0])
    return str(experiment.dataset.field2id_token["user_id"][rows["user_id"][row]]), row


def test_explanation_shows_the_computation_of_the_model(folder: str) -> None:
    experiment = load(folder)
    user, row = user_with(experiment, 6)
    (explanation,) = explain(folder, user)
    rows = experiment.test_data._dataset[np.array([row])]
    items = rows["item_id_list"][:, :6]
    trace = experiment.model.encoder.trace(experiment.model.embed(items))
    assert explanation.titles == ["some words"] * 6  # the text of every item
    assert explanation.routes.tolist() == torch.cat(trace.routes).tolist()
    assert explanation.attention.shape == (6,)
    assert explanation.attention.sum() == pytest.approx(1, abs=1e-5)
    scores = experiment.model.full_sort_predict(rows)[0, 1:]
    assert explanation.rank == int((scores > scores[rows["item_id"] - 1]).sum()) + 1


@pytest.mark.parametrize("routed", ["query", "input", "key"])
def test_weights_are_the_attention_of_the_layer(folder: str, routed: str) -> None:
    """The values weighted by them give the layer's output."""
    layer = load(folder).model.encoder.layers[0]
    layer.routed = routed
    x, route = torch.randn(2, 7, 16), torch.randint(2, (2, 7)).float()
    value = layer.query_key_value(x)[..., 32:].view(2, 7, 4, 4).transpose(1, 2)
    mixed = (layer.weights(x, route) @ value).transpose(1, 2).reshape(2, 7, 16)
    assert torch.allclose(layer.norm(x + layer.out(mixed)), layer(x, route), atol=1e-5)


def test_page_and_picture_compare_with_plain_attention(tmp_path: Path, folder: str, capsys) -> None:
    plain = run("RETR", "Small", overrides={**settings(tmp_path, "RETR"), "n_heads": 4, "pathway": False}).folder
    user, _ = user_with(load(folder), 6)
    output = tmp_path / "page.html"
    assert main(["explain", f"--run={folder}", f"--user={user}", f"--other={plain}", f"--output={output}"]) == 0
    page = output.read_text()
    assert "plain attention" in page and "<svg" in page and "rank of the held-out item" in page
    with Image.open(output.with_suffix(".png")) as picture:
        assert picture.width > 400 and len(picture.convert("L").getcolors()) > 5
    assert capsys.readouterr().out.split() == [str(output), str(output.with_suffix(".png"))]


def test_a_last_item_off_the_route_attends_to_all_alike_and_the_page_says_so(tmp_path: Path) -> None:
    write_small(tmp_path)
    folder = run("RETR", "Small", overrides={**settings(tmp_path, "RETR"), "pathway_route": "random"}).folder
    rows = load(folder).test_data._dataset
    some = np.unique(rows[np.arange(len(rows))]["item_length"].numpy(), return_index=True)[1][:8]  # a route each
    users = rows.field2id_token["user_id"][rows[some]["user_id"]]
    explained = [explain(folder, user)[0] for user in users]
    off_route = [not each.routes[-1, -1] for each in explained]
    assert {*off_route} == {True, False}
    for each, off in zip(explained, off_route, strict=True):
        assert np.allclose(each.attention, 1 / len(each.titles)) == each.without_query == off
        page, _ = write([each], tmp_path / "page.html")
        assert ("RETR: the last item is off the route of the last block" in page.read_text(encoding="utf-8")) == off


@pytest.mark.parametrize(("dataset", "keys"), [("Other", {}), ("Small", {"MAX_ITEM_LIST_LENGTH": 4})])
def test_runs_with_different_items_are_rejected(tmp_path: Path, folder: str, dataset: str, keys: dict) -> None:
    write_small(tmp_path, "Other", seed=1)
    other = run("RETR", dataset, overrides={**settings(tmp_path, "RETR"), "n_heads": 4, **keys}).folder
    user, _ = user_with(load(folder), 10)
    with pytest.raises(XferError, match=f"use different items of the user '{user}'"):
        explain(folder, user, other=other)


def test_unknown_user_and_unsupported_model(tmp_path: Path, folder: str) -> None:
    with pytest.raises(XferError, match="'u999' is not in Small"):
        explain(folder, "u999")
    other = run("Pop", "Small", overrides=settings(tmp_path, "Pop")).folder
    with pytest.raises(XferError, match="Pop cannot be explained"):
        explain(other, "u1")
