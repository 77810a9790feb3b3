"""RETR's pathway in RecBole's transformers: only routers are added."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, build, fit, load
from recbole_xfer.layers.pathway import PathwayRouter
from recbole_xfer.quick_start import run
from recbole_xfer.stages import train_and_evaluate
from recbole_xfer.testing.data import config, settings, write_small

MODELS: dict[str, dict[str, Any]] = {
    "BERT4Rec": {},
    "LightSANs": {"k_interests": 2},
    "S3Rec": {"train_stage": "pretrain", "item_attribute": "text", "pretrain_epochs": 1, "save_step": 1},
}


def made(root: Path, model: str, **keys: Any) -> Experiment:
    write_small(root)
    return build(config(root, model, **MODELS[model.removeprefix("Pathway")], **keys))


@pytest.mark.parametrize("model", MODELS)
def test_with_full_routes_it_equals_recboles_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """Its other parameters start equal, and so do its scores."""
    monkeypatch.setattr(PathwayRouter, "decide", lambda self, z, route: torch.ones_like(route))
    scores = []
    for name in (model, f"Pathway{model}"):
        experiment = made(tmp_path, name)
        rows = experiment.test_data._dataset[np.arange(20)]
        scores.append(experiment.model.eval().full_sort_predict(rows).view(20, -1))
    assert torch.equal(*scores)


@pytest.mark.parametrize("model", ["BERT4Rec", "LightSANs"])
def test_routers_learn_and_are_saved(tmp_path: Path, model: str) -> None:
    experiment = made(tmp_path, f"Pathway{model}")
    attention = experiment.model.trm_encoder.layer[0].multi_head_attention
    before = attention.query.router.keep.first.weight.clone()
    fit(experiment)
    assert not torch.equal(attention.query.router.keep.first.weight, before)
    result = train_and_evaluate(config(tmp_path, f"Pathway{model}", **MODELS[model]), None)
    loaded = load(result.folder)
    assert loaded.trainer.evaluate(loaded.test_data, load_best_model=False) == result.test


def test_routes_only_shrink_and_exclude_padding(tmp_path: Path) -> None:
    experiment = made(tmp_path, "PathwayBERT4Rec", n_layers=3)
    rows = experiment.test_data._dataset[np.arange(20)]
    for parameter in experiment.model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    experiment.model.train().full_sort_predict(rows)
    real, *routes = experiment.model.pathway.routes
    assert len(routes) == 3
    for before, after in pairwise([real, *routes]):
        assert (after <= before).all()
    assert 0 < routes[0].mean() < real.mean() < 1


def test_s3rec_keeps_its_pre_trained_routers(tmp_path: Path) -> None:
    write_small(tmp_path)
    keys = {**settings(tmp_path, "PathwayS3Rec"), **MODELS["S3Rec"]}
    pretrained = load(run("PathwayS3Rec", "Small", overrides=keys).folder)
    file = str(tmp_path / "saved" / "PathwayS3Rec-Small-1.pth")
    stage = {"train_stage": "finetune", "pre_model_path": file}
    finetuned = build(config(tmp_path, "PathwayS3Rec", item_attribute="text", **stage))
    for name, value in pretrained.model.state_dict().items():
        assert torch.equal(value, finetuned.model.state_dict()[name]), name
    assert run("PathwayS3Rec", "Small", overrides={**keys, **stage}).valid


def test_what_the_route_acts_on(tmp_path: Path) -> None:
    """Off the route a query is zero, or the bias of its projection; keys cannot be routed in RecBole's models."""
    write_small(tmp_path)
    for acts_on in ("query", "input"):
        model = build(config(tmp_path, "PathwayBERT4Rec", pathway_acts_on=acts_on)).model.eval()
        routed = model.trm_encoder.layer[0].multi_head_attention.query
        torch.nn.init.normal_(routed.query.bias)
        routed.router.decide = lambda z, route: torch.zeros_like(route)
        model.pathway.start(torch.ones(1, 3, dtype=torch.long))
        expected = routed.query.bias if acts_on == "input" else torch.zeros_like(routed.query.bias)
        assert torch.equal(routed(torch.randn(1, 3, len(expected)))[0, 1], expected)
    with pytest.raises(XferError, match="PathwayBERT4Rec routes queries only"):
        build(config(tmp_path, "PathwayBERT4Rec", pathway_acts_on="key"))
