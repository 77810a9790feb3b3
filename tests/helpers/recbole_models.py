"""The models of RecBole, and a tiny domain with all that they read: features of users and items, and a graph."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

INTER = ["user_id", "item_id", "timestamp"]
GRAPH = {"kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
FEATURES = {"user": ["user_id", "city"], "item": ["item_id", "kinds", "brand", "price"]}
KINDS = {"item": ["item_id", "kinds"]}
VECTORS = {
    "load_col": {"inter": INTER, **GRAPH, "ent": ["ent_id", "ent_vector"], "rel": ["rel_id", "rel_vector"]},
    "additional_feat_suffix": ["ent", "rel"],
    "preload_weight": {"ent_id": "ent_vector", "rel_id": "rel_vector"},
    "alias_of_entity_id": ["ent_id"],
    "alias_of_relation_id": ["rel_id"],
    "embedding_size": 8,
}
OF_FEATURES = {"load_col": {"inter": INTER, **FEATURES}, "numerical_features": ["price"]}
OF_MODEL: dict[str, dict[str, Any]] = {
    "DIEN": OF_FEATURES,
    "DIN": OF_FEATURES,
    "FDSA": {"load_col": {"inter": INTER, **KINDS}, "selected_features": ["kinds"]},
    "GRU4RecF": {"load_col": {"inter": INTER, **KINDS}, "selected_features": ["kinds"]},
    "GRU4RecKG": VECTORS,
    "KSR": {**VECTORS, "kg_embedding_size": 8},
    "NCL": {"num_clusters": 3},
    "RaCT": {"pretrain_epochs": 1, "save_step": 1},
    "S3Rec": {"item_attribute": "kinds", "pretrain_epochs": 1, "save_step": 1},
    "SASRecF": {
        "load_col": {"inter": INTER, "item": ["item_id", "kinds", "price"]},
        "selected_features": ["kinds", "price"],
        "numerical_features": ["price"],
    },
}
"""Keys of models that read more than interactions, or train in stages."""

OF_TYPE: dict[str, dict[str, Any]] = {
    "general": {},
    "sequential": {},
    "context_aware": OF_FEATURES,
    "knowledge_aware": {"load_col": {"inter": INTER, **GRAPH}},
}


def models(kind: str) -> list[str]:
    """The models of one of RecBole's packages, such as ``general``; a module has a model of its name."""
    package = importlib.import_module(f"recbole.model.{kind}_recommender")
    found = []
    for module in pkgutil.iter_modules(package.__path__):
        classes = inspect.getmembers(importlib.import_module(f"{package.__name__}.{module.name}"), inspect.isclass)
        found += [name for name, _ in classes if name.lower() == module.name]
    return found


def keys(kind: str, model: str) -> dict[str, Any]:
    """The keys of a model on the domain of :func:`write_tiny`."""
    return {"train_batch_size": 64, "MAX_ITEM_LIST_LENGTH": 5, **OF_MODEL.get(model, OF_TYPE[kind])}


def write_tiny(root: Path, users: int = 24, items: int = 15) -> pd.DataFrame:
    """Writes the domain ``Tiny``, and returns its interactions: user, item, time and rating.

    The rows are shuffled, and their times differ by one second, which float32 cannot distinguish.
    """
    random = np.random.default_rng(0)
    lengths = random.integers(4, 8, users)
    log = pd.DataFrame({"user_id": np.repeat([f"u{user}" for user in range(users)], lengths)}).sample(
        frac=1, random_state=0, ignore_index=True
    )
    log["item_id"] = [f"i{item}" for item in random.integers(0, items, len(log))]
    log["timestamp"] = 1_600_000_000 + random.permutation(len(log))
    log["rating"] = random.integers(1, 6, len(log))
    write(root, "inter", ["user_id:token", "item_id:token", "timestamp:float", "rating:float"], log.to_numpy())
    write(root, "user", ["user_id:token", "city:token"], [(f"u{user}", f"c{user % 3}") for user in range(users)])
    described = [(f"i{item}", f"k{item % 3} all", f"b{item % 2}", item + 0.5) for item in range(items)]
    write(root, "item", ["item_id:token", "kinds:token_seq", "brand:token", "price:float"], described)
    triples = [(f"e{item}", f"r{item % 2}", f"e{(item + step) % items}") for item in range(items) for step in (1, 3)]
    write(root, "kg", ["head_id:token", "relation_id:token", "tail_id:token"], triples)
    write(root, "link", ["item_id:token", "entity_id:token"], [(f"i{item}", f"e{item}") for item in range(items)])
    for suffix, number in (("ent", items), ("rel", 2)):
        vectors = [(f"{suffix[0]}{n}", " ".join(map(str, random.normal(size=8).round(3)))) for n in range(number)]
        write(root, suffix, [f"{suffix}_id:token", f"{suffix}_vector:float_seq"], vectors)
    return log


def write(root: Path, suffix: str, header: list[str], rows: Sequence[Any], name: str = "Tiny") -> None:
    """Writes an atomic file of a domain."""
    (root / name).mkdir(exist_ok=True)
    lines = ["\t".join(map(str, row)) for row in [header, *rows]]
    (root / name / f"{name}.{suffix}").write_text("\n".join(lines) + "\n", encoding="utf-8")
