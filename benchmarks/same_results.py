"""Trains every model on the toy domains and prints a digest of each result, to prove that a change alters none.

    python -m benchmarks.same_results > before.txt     # on the commit before the change
    python -m benchmarks.same_results > after.txt      # on the commit after it
    diff before.txt after.txt

Each line has a name and a digest of the run's parameters, losses and metrics of each epoch, and final metrics. Times
and folders are left out. A comparison, an adaptation and a search have lines too. Runs on one thread, in some minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from recbole_xfer.cli.main import main
from recbole_xfer.config import properties
from recbole_xfer.config.config import known_keys
from recbole_xfer.quick_start import compare, pretrain, run

NOT_RESULTS = {"seconds", "folder", "source", "pretrained"}
"""Keys of ``result.json`` that differ between identical runs."""

RECBOLES = ("Pop", "BPR", "SASRec", "GRU4Rec", "FM", "S3Rec")
"""RecBole's own models, one of each kind."""

SOURCE = "Toy-Books+Toy-Music"
ADAPTATIONS = {
    "ANT": ("relearn", "finetune"),
    "UniSRec": ("finetune",),
    "XRETR": ("finetune",),
    "XSASRec": ("finetune",),
    "XLightSANs": ("finetune",),
}

SHARED = {
    "epochs": 2,
    "MAX_ITEM_LIST_LENGTH": 10,
    "train_batch_size": 1024,
    "show_progress": False,
    "use_gpu": False,
    "topk": [5, 10],
}
SIZES = {
    "hidden_size": 16,
    "inner_size": 16,
    "n_heads": 2,
    "n_layers": 2,
    "projection_heads": 2,
    "price_size": 8,
    "paths": 8,
    "embedding_size": 16,
    "pretrain_epochs": 2,
}
"""Keys that make a run short; each is set for the models that know it."""

PLAN = """
dataset: Toy-Books+Toy-Games
rank_within_domain: True
seeds: [1, 2]
rows:
  - {model: SASRec, alone: True}
  - {model: SyNCRec, hidden_size: 16, n_heads: 2, alone: SASRec}
"""


def keys(model: str, dataset: str) -> dict[str, Any]:
    """The keys of a short run of a model."""
    known = known_keys(model, dataset)
    values = {key: value for key, value in {**SHARED, **SIZES}.items() if key in known}
    if model == "RecGURU":
        values |= {"autoencoder_epochs": 1, "adversarial_epochs": 1, "critic_steps": 2}
    if model.endswith("S3Rec"):
        values |= {"item_attribute": "text", "train_stage": "pretrain", "pretrain_epochs": 2, "save_step": 2}
    if "SASRecF" in model or "FDSA" in model:
        values |= {"selected_features": ["text"]}
    return values


def of_folder(folder: Path) -> str:
    """The digest of a finished run."""
    digest = hashlib.blake2b(digest_size=8)
    for name, tensor in sorted(load_file(folder / "model.safetensors").items()):
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    result = json.loads((folder / "result.json").read_text())
    for content in (json.loads((folder / "epochs.json").read_text()), numbers(result)):
        digest.update(json.dumps(numbers(content), sort_keys=True).encode())
    return digest.hexdigest()


def numbers(value: Any) -> Any:
    """The numbers of a nested value, without its words."""
    if isinstance(value, Mapping):
        kept = {key: numbers(item) for key, item in value.items() if key not in NOT_RESULTS}
        return {key: item for key, item in kept.items() if item is not None}
    if isinstance(value, (list, tuple)):
        return [numbers(item) for item in value]
    return value if isinstance(value, (int, float)) else None


Job = tuple[str, Callable[[], str]]
"""The name of a result, and what computes its digest."""


def jobs() -> Iterator[Job]:
    """A run of each model, then transfers, a comparison and a search."""
    for model in (*RECBOLES, *sorted(properties.models())):
        dataset = "Toy-Books+Toy-Games" if model in ("SyNCRec", "RecGURU") else "Toy-Games"
        yield f"{model} on {dataset}", partial(of_run, model, dataset)
    for model, adaptations in ADAPTATIONS.items():
        yield f"{model}, pre-training", partial(of_pretraining, model)
        for adaptation in adaptations:
            yield f"{model}, {adaptation}", partial(of_adaptation, model, adaptation)
    yield "comparison", of_comparison
    yield "search", of_search


def of_run(model: str, dataset: str) -> str:
    """The digest of a run."""
    return of_folder(Path(run(model, dataset, overrides=keys(model, dataset)).folder))


def of_pretraining(model: str) -> str:
    """The digest of a pre-training."""
    return of_folder(pretrain(model, SOURCE, overrides=keys(model, SOURCE)))


def of_adaptation(model: str, adaptation: str) -> str:
    """The digest of an adapted model; pre-trains it, or reuses an identical pre-training."""
    values = {**keys(model, "Toy-Games"), "source": SOURCE, "adaptation": adaptation}
    return of_folder(Path(run(model, "Toy-Games", overrides=values).folder))


def of_comparison() -> str:
    """The digest of a comparison's numbers."""
    Path("plan.yaml").write_text(PLAN, encoding="utf-8")
    content = compare("plan.yaml", {**SHARED, "hidden_size": 16, "n_heads": 2, "inner_size": 16}).as_dict()
    return hashlib.blake2b(json.dumps(numbers(content), sort_keys=True).encode(), digest_size=8).hexdigest()


def of_search() -> str:
    """The digest of a search's best run."""
    Path("space.yaml").write_text("learning_rate: [0.001, 0.01]\n", encoding="utf-8")
    options = [f"--{key}={value}" for key, value in keys("RETR", "Toy-Games").items()]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        main(["tune", "--model=RETR", "--dataset=Toy-Games", "--space=space.yaml", *options])
    return of_folder(Path(output.getvalue().strip().splitlines()[-1]).parent)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="print lines whose name contains this")
    only = parser.parse_args().only
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        with contextlib.redirect_stdout(io.StringIO()):
            main(["prepare", "toy"])
        for name, digest in jobs():
            if only in name:
                print(f"{name}: {digest()}", flush=True)
