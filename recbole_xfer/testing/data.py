"""Small random datasets, and configurations of small models on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_xfer.config.config import XferConfig, known_keys
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.vectors import write_vectors
from recbole_xfer.evaluation.result import Result
from recbole_xfer.experiment import build, fit
from recbole_xfer.stages import train_and_evaluate

SMALL = {
    "train_batch_size": 64, "epochs": 2, "MAX_ITEM_LIST_LENGTH": 10, "show_progress": False, "topk": [5, 10],
}  # fmt: skip
SIZES = {
    "hidden_size": 16, "inner_size": 16, "n_heads": 2, "n_layers": 2, "projection_heads": 3, "price_size": 8,
    "codes": 4, "code_values": 8,
}  # fmt: skip
"""Keys that make a model small; each is set for the models that know it."""


def write_small(
    root: Path, name: str = "Small", users: int = 40, items: int = 25, seed: int = 0, holes: bool = True
) -> Path:
    """Writes a domain of random histories (lengths 1 to 24); items have text, image and price, some missing.

    Args:
        root: the folder of domains.
        name: of the domain.
        users, items: their numbers.
        seed: equal seeds make equal files.
        holes: False: no text, image or price is missing.

    Returns:
        The domain's folder.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 25, users)
    user = np.repeat(np.arange(users), lengths)
    interactions = pd.DataFrame(
        {
            "user_id": [f"u{number}" for number in user],
            "item_id": [f"i{number}" for number in rng.integers(0, items, lengths.sum())],
            "timestamp": rng.permutation(lengths.sum()).astype(float) + 1.4e9,
        }
    )
    ids = [f"i{number}" for number in range(items)]
    price = rng.uniform(1, 20, items).round(2)
    if holes:
        price[::5] = np.nan
    write_domain(root, name, interactions, pd.DataFrame({"item_id": ids, "text": "some words", "price": price}))
    for modality, width, gap in (("text", 12, 7), ("image", 9, 4)):
        kept = [index for index in range(items) if not holes or index % gap]
        vectors = rng.normal(size=(len(kept), width)).astype(np.float32)
        path = root / name / f"{name}.{modality}.parquet"
        write_vectors(path, [ids[index] for index in kept], vectors, encoder=f"test {modality}", source="random")
    return root / name


def write_joined(root: Path, domains: Sequence[str] = "ABC", users: int = 60, items: int = 12, seed: int = 0) -> None:
    """Writes domains with common users, whose random interactions alternate between their domains.

    Every domain has the item tokens i0, i1, ... and lists its users and one without interactions.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        own = rng.permutation(len(domains))[: rng.integers(1, len(domains) + 1)]
        times = 1.4e9 + rng.uniform(0, 1e6, rng.integers(4, 20))
        rows += [(f"u{user}", f"i{rng.integers(items)}", time, rng.choice(own)) for time in np.sort(times)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "domain"])
    for number, domain in enumerate(domains):
        own_rows = table[table["domain"] == number].drop(columns="domain")
        write_domain(root, domain, own_rows, pd.DataFrame({"item_id": [f"i{item}" for item in range(items)]}))
        listed = [*own_rows["user_id"].unique(), "nobody"]
        (root / domain / f"{domain}.user").write_text("\n".join(["user_id:token", *listed]), encoding="utf-8")


def config(root: Path, model: str = "ANT", dataset: str = "Small", **keys: Any) -> XferConfig:
    """A configuration of a small model on data below ``root``, with its runs below ``root/saved``."""
    return XferConfig(model, dataset, overrides={**settings(root, model), **keys})


def settings(root: Path, model: str = "ANT") -> dict[str, Any]:
    """The keys of :func:`config`, for functions that build a configuration themselves."""
    known = known_keys(model, "Small")
    sizes = {key: value for key, value in SIZES.items() if key in known}
    return {**SMALL, **sizes, **paths(root)}


def paths(root: Path) -> dict[str, str]:
    """Keys for data below ``root`` and runs below ``root/saved``."""
    return {"data_path": str(root), "checkpoint_dir": str(root / "saved")}


def whole_and_interrupted(root: Path, model: str, **keys: Any) -> tuple[Result, Result]:
    """The results of a run on the data of :func:`write_small`, and of an identical one that was killed and resumed."""
    whole, broken, again = (config(root, model, run_dir=str(root / name), epochs=3, **keys) for name in ("a", "b", "b"))
    first = train_and_evaluate(whole, None)
    experiment = build(broken)
    experiment.trainer.epochs = 2  # as if killed in the third epoch, after its state was saved
    fit(experiment)
    experiment.trainer._save_state(2)
    return first, train_and_evaluate(again, None)
