"""Random values of configuration keys, mostly valid, from Python or the command line."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from hypothesis import strategies as st
from pydantic.fields import FieldInfo
from recbole.utils import get_model

from recbole_xfer.cli.keys import separate
from recbole_xfer.config import properties
from recbole_xfer.config import value_types as t
from recbole_xfer.config.config import XferConfig, known_keys
from recbole_xfer.config.schema import KEYS, kind_of
from recbole_xfer.config.values import parse_value
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build
from recbole_xfer.hooks import hooks_of
from recbole_xfer.stages import train_and_evaluate
from recbole_xfer.testing.data import SIZES, write_small

MODELS = ("SASRec", "BPR", "Pop", "FM", "ANT", "RETR", "SyNCRec", "RecGURU", "UniSRec", "S3Rec", "TPSASRec")
OF_TWO_DOMAINS = ("RecGURU", "SyNCRec")
DISTRIBUTED = {"local_rank", "nproc", "world_size", "ip", "port", "group_offset", "offset"}
"""Keys with which RecBole waits for other processes."""
FIXED = DISTRIBUTED | {
    "model", "dataset", "tp_model", "data_path", "checkpoint_dir", "gpu_id", "use_gpu", "worker", "epochs",
    "log_wandb", "save_step",
}  # fmt: skip
"""Keys that the check sets, or that would only make it slow."""
CHEAP = {
    **SIZES, "topk": [5, 10], "MAX_ITEM_LIST_LENGTH": 6, "train_batch_size": 64, "user_batch_size": 16,
    "autoencoder_epochs": 1, "adversarial_epochs": 1, "pretrain_epochs": 1, "critic_size": 8, "paths": 4,
    "embedding_size": 8, "show_progress": False, "item_attribute": "text",
}  # fmt: skip
"""Values that keep a run short; each is set for the models that know it."""
LARGE = 1000
"""Integers above it are accepted, but a model of this size is not built."""

PLAIN_TEXT = st.text(st.sampled_from("abcXYZ019.,:-_+*#&|[]{}()<>'\\ %?ä@/~"), max_size=10)
"""Text of the command line; without tags, dates and anchors of yaml."""
ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-3, 300), st.integers(), st.floats(), PLAIN_TEXT,
        st.sampled_from(["full", "uni100", "NDCG@10", "LS", "RO", "user", "CE", "gelu", "text", "[5,inf)", "1e-3"]),
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from([*KEYS, "x"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
COLUMNS = st.sampled_from(["user_id", "item_id", "timestamp", "text", "price"])
INTERVALS = st.sampled_from(["[0,inf)", "[2,inf)", "(1,20]", "[0,3];[5,inf)"])
METRIC_NAMES = st.sampled_from(["Recall", "NDCG", "MRR", "Hit", "MAP", "Precision", "ItemCoverage", "GiniIndex"])
EXAMPLES: dict[Any, st.SearchStrategy[Any]] = {
    t.Name: COLUMNS,
    t.Text: COLUMNS,
    t.FilePath: st.sampled_from(["a", "b/c"]),
    t.Metrics: METRIC_NAMES | st.lists(METRIC_NAMES, min_size=1, max_size=3, unique=True),
    t.MetricOfRank: METRIC_NAMES.map(lambda name: f"{name}@10"),
    t.Interval: INTERVALS,
    t.Filter: st.dictionaries(st.sampled_from(["timestamp", "price"]), INTERVALS, max_size=1),
    t.Clipping: st.fixed_dictionaries({"max_norm": st.floats(0.1, 10)}),
    t.Buckets: st.just({"price": {"method": "ED", "bucket": 3}}),
    t.Ratios: st.sampled_from([[8, 1, 1], [0.5, 0.25, 0.25], [1, 1, 1]]),
    t.Mode: st.sampled_from(["full", "uni5", "pop3", {"valid": "uni2", "test": "full"}]),
    t.GpuIds: st.just(""),
    t.Encoding: st.sampled_from(["utf-8", "latin-1", "utf-16"]),
    t.Tokens: st.lists(COLUMNS),
    t.NormType: st.sampled_from([1.0, 2.0, float("inf")]),
    t.Columns: st.just({"inter": ["user_id", "item_id", "timestamp"]}),
}
"""Valid values of types from which they cannot be derived, and those of columns that the data has."""


OF_KEYS: dict[str, st.SearchStrategy[Any]] = {
    "eval_args": st.fixed_dictionaries(
        {},
        optional={
            "split": st.sampled_from([{"LS": "valid_and_test"}, {"RS": [8, 1, 1]}, {"HU": [8, 1, 1]}, {"NU": 0.3}]),
            "mode": st.sampled_from(["full", "uni5", "pop3"]),
            "group_by": st.sampled_from(["user", "none"]),
            "order": st.sampled_from(["TO", "RO"]),
        },
    ),
    "train_neg_sample_args": st.none()
    | st.fixed_dictionaries(
        {"distribution": st.sampled_from(["uniform", "popularity"]), "sample_num": st.integers(1, 2)}
    ),
    "hidden_size": st.sampled_from([8, 16, 24]),
    "n_heads": st.sampled_from([1, 2, 4]),
    "single_domain": st.none(),
    "item_attribute": st.just("text"),
    "pretrained": st.none(),
    "adaptation": st.none() | st.just("scratch"),
    "source": st.none(),
    "overlap_file": st.none(),
    "additional_feat_suffix": st.none(),
    "benchmark_filename": st.none(),
    "augmentation": st.none() | st.just(["item_drop"]),
    **{key: st.just(value) for key, value in {"USER_ID_FIELD": "user_id", "ITEM_ID_FIELD": "item_id"}.items()},
}
"""Valid values of keys that depend on other keys, on the model or on the data."""


def valid_for(key: str, model: str) -> st.SearchStrategy[Any]:
    """Valid values of a key in a model."""
    name = key.removeprefix(properties.STAGE_PREFIX)
    if name == "loss_type":
        return st.sampled_from(hooks_of(get_model(model)).loss_types)
    return OF_KEYS[name] if name in OF_KEYS else valid(kind_of(key, model))


def valid(kind: Any) -> st.SearchStrategy[Any]:
    """Valid values of a type of configuration values; numbers are mostly small."""
    if kind in EXAMPLES:
        return EXAMPLES[kind]
    if get_origin(kind) in (Union, UnionType):
        return st.one_of([valid(part) for part in get_args(kind)])
    if get_origin(kind) is Literal:
        return st.sampled_from(get_args(kind))
    if get_origin(kind) is Annotated:
        base, *notes = get_args(kind)
        fields = [note for note in notes if isinstance(note, FieldInfo)]
        limits = {name: value for field in fields for part in field.metadata for name, value in vars_of(part).items()}
        if base in (int, float):
            return small(base, limits)
        if get_origin(base) is list:
            low, high = limits.get("min_length", 0), limits.get("max_length", 3)
            return st.lists(valid(get_args(base)[0]), min_size=low, max_size=high)
        if base is Any and fields and fields[0].description:
            return st.sampled_from([name for name in re.split(", | or ", fields[0].description) if name])
        return valid(base)
    if get_origin(kind) is dict:
        return st.dictionaries(COLUMNS, valid(get_args(kind)[1]), min_size=1, max_size=1)
    return {bool: st.booleans(), NoneType: st.none(), str: COLUMNS, int: st.integers(1, 8)}.get(kind, ANYTHING)


def vars_of(part: Any) -> dict[str, Any]:
    """The limits that a part of a type's metadata sets, such as ``ge`` or ``max_length``."""
    names = ("ge", "gt", "le", "lt", "multiple_of", "min_length", "max_length")
    return {name: getattr(part, name) for name in names if getattr(part, name, None) is not None}


def small(base: type, limits: Mapping[str, Any]) -> st.SearchStrategy[Any]:
    """Numbers within limits, near the lower one."""
    low = limits.get("ge", limits.get("gt", 0))
    if base is int:
        step = limits.get("multiple_of", 1)
        high = min(limits.get("le", low + 8), limits.get("lt", low + 9) - 1)
        return (
            st.integers(low, high).map(lambda number: number // step * step or step)
            if step > 1
            else st.integers(low, high)
        )
    high = min(limits.get("le", low + 2.0), limits.get("lt", low + 2.0))
    return st.floats(low, high, exclude_min="gt" in limits, exclude_max="lt" in limits, width=32)


@st.composite
def keys(draw: st.DrawFn) -> tuple[str, dict[str, Any], bool, bool]:
    """A model, values by key, whether they come from a command line, and whether the model is trained.

    Of 20 values, 17 are valid, two are of another number or length, and one is anything.
    """
    model = draw(st.sampled_from(MODELS))
    known = sorted(known_keys(model, "D") - FIXED)
    own = sorted(set(properties.defaults(model, "D")) & set(known)) or known
    names = st.sampled_from(own) | st.sampled_from(known)
    values: dict[str, Any] = {}
    for name in draw(st.lists(names, min_size=1, max_size=4, unique=True)):
        kind, chance = kind_of(name, model), draw(st.integers(0, 19))
        if kind is None or chance == 7:  # Hypothesis often draws the first and the last number
            values[name] = draw(ANYTHING)
        elif chance in (11, 13):
            values[name] = draw(st.sampled_from([0, 1, -1, 2.5, [], "", None, 10**12, float("inf"), [0], [1, 1, 1]]))
        else:
            values[name] = draw(valid_for(name, model))
    if draw(st.integers(0, 19)) == 7:
        values[draw(PLAIN_TEXT)] = draw(ANYTHING)
    return model, values, draw(st.booleans()), draw(st.integers(0, 7)) == 5


@cache
def data_of_keys() -> Path:
    """A folder with two small domains, for this process."""
    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    for number, name in enumerate(("D", "E")):
        write_small(Path(folder.name), name, users=24, items=14, seed=number)
    return Path(folder.name)


def check_keys(given_keys: tuple[str, dict[str, Any], bool, bool], folder: Path) -> bool:
    """Builds the data and a small model with values of Python or the words of a command line; may train it."""
    model, values, from_words, trained = given_keys
    for value in values.values():
        if isinstance(value, int):
            assert parse_value(str(value)) == value
    dataset, known = "D+E" if model in OF_TWO_DOMAINS else "D", known_keys(model, "D")
    places = {"data_path": str(data_of_keys()), "checkpoint_dir": str(folder / "saved")}
    try:
        if from_words:
            words = [part for key, value in values.items() for part in (f"--{key}", str(value))]
            others, values = separate(words, lambda name: name == "--output")
            assert len(others) + 2 * len(values) <= len(words)
            assert all(isinstance(value, str) for value in values.values())
        cheap = {key: value for key, value in CHEAP.items() if key in known}
        config = XferConfig(model, dataset, overrides={**cheap, "epochs": 1, **values, **places, "use_gpu": False})
        assert config["model"] == model
        large = is_large({key: config[key] for key in values})
        if trained and not large:
            with inside(folder):
                result = train_and_evaluate(config, None)
            assert all(math.isfinite(value) for value in result.test.values())
        elif not large:
            assert build(config).config["model"] == model
    except XferError:
        return False
    return True


def is_large(value: Any) -> bool:
    """Whether a value has an integer above :data:`LARGE`."""
    if isinstance(value, (list, tuple, Mapping)):
        return any(map(is_large, value.values() if isinstance(value, Mapping) else value))
    return isinstance(value, int) and value > LARGE


@contextlib.contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Works in a folder, for RecBole's files of TensorBoard."""
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
