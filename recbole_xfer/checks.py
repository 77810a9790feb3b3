"""What the values of keys must be: each mistake is a sentence, before anything is loaded."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from recbole_xfer.errors import XferError
from recbole_xfer.registry import STAGE_PREFIX

Rule = tuple[str, Callable[[Any], bool]]
"""What a value must be, in words and as a test."""


def is_number(value: Any) -> bool:
    """Whether a value is a number, of Python's or NumPy's."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, of Python's or NumPy's."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_interval(value: Any) -> bool:
    """Whether a value is text such as ``[5,inf)``."""
    return isinstance(value, str) and re.fullmatch(r"[\[(].+,.+[\])]", value) is not None


def is_ranks(value: Any) -> bool:
    """Whether a value is a length of ranking, or several."""
    ranks = value if isinstance(value, list) else [value]
    return bool(ranks) and all(is_whole(rank) and rank >= 1 for rank in ranks)


def is_columns(value: Any) -> bool:
    """Whether a value names columns by kind of file."""
    return is_mapping(value) and all(columns is None or isinstance(columns, list) for columns in value.values())


def is_mapping(value: Any) -> bool:
    """Whether a value has keys and values."""
    return isinstance(value, Mapping)


EVAL_ARGS = {"split", "group_by", "order", "mode"}
LEARNERS = ("adam", "sgd", "adagrad", "rmsprop", "sparse_adam")
SIZES = (
    r"(hidden|inner|embedding|(train|eval|user)_batch|critic|price)_size|n_(layers|heads|experts)|projection_heads"
    r"|MAX_ITEM_LIST_LENGTH|catalogue_chunk"
)
RULES: Mapping[str, Rule] = {
    r"(\w+_)?dropout(_prob)?": ("a share from 0 to 1", lambda value: is_number(value) and 0 <= value <= 1),
    r"(\w+_)?learning_rate|weight_decay|initializer_range": (
        "a number from 0 on",
        lambda value: is_number(value) and value >= 0,
    ),
    r"(\w+_)?epochs|eval_step": ("a whole number from 0 on", lambda value: is_whole(value) and value >= 0),
    SIZES: ("a whole number from 1 on", lambda value: is_whole(value) and value >= 1),
    r"(user|item)_inter_num_interval": ("an interval such as '[5,inf)'", is_interval),
    "topk": ("lengths of rankings from 1 on, such as [5, 10]", is_ranks),
    "(field|seq)_separator": ("one character", lambda value: isinstance(value, str) and len(value) == 1),
    "encoding": ("the name of an encoding, such as utf-8", lambda value: isinstance(value, str)),
    "(un)?load_col": ("keys with lists, such as {inter: [user_id, item_id, timestamp]}", is_columns),
    "val_interval": ("columns with intervals, as {timestamp: '[0,inf)'}", is_mapping),
    "learner": (f"one of {', '.join(LEARNERS)}", lambda value: str(value).lower() in LEARNERS),
}
"""By a pattern of the keys; where RecBole would guess, or fail late with a traceback."""

USUAL_NAMES = {
    "batch_size": "train_batch_size",
    "device": "gpu_id",
    "dropout": "hidden_dropout_prob",
    "early_stopping": "stopping_step",
    "embedding_size": "hidden_size",
    "hidden_units": "hidden_size",
    "k": "topk",
    "lr": "learning_rate",
    "max_len": "MAX_ITEM_LIST_LENGTH",
    "max_seq_len": "MAX_ITEM_LIST_LENGTH",
    "maxlen": "MAX_ITEM_LIST_LENGTH",
    "patience": "stopping_step",
}
"""What keys are called elsewhere, where their spelling does not lead to RecBole's name."""


def check_values(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raises XferError for a value that breaks one of :data:`RULES`, or is of another kind than a key's default."""
    for key, value in given.items():
        name = key.removeprefix(STAGE_PREFIX)
        rule = next((RULES[pattern] for pattern in RULES if re.fullmatch(pattern, name)), rule_of(defaults.get(name)))
        if value is not None and rule is not None and not rule[1](value):
            raise XferError(f"{key}={value} must be {rule[0]}.")
    if is_mapping(given.get("eval_args")):
        check_keys(given["eval_args"], EVAL_ARGS, "eval_args.")


def rule_of(default: Any) -> Rule | None:
    """What a default tells of a key's values; None where it may be anything."""
    if isinstance(default, bool):
        return "True or False", lambda value: isinstance(value, bool)
    if is_number(default):
        return "a number", is_number
    if is_mapping(default):
        return "keys with values, as {key: value}", is_mapping
    return None


def check_heads(config: Mapping[str, Any]) -> None:
    """Raises XferError where attention heads do not share the width evenly."""
    width, heads = config.get("hidden_size"), config.get("n_heads")
    if width and heads and width % heads:
        raise XferError(f"hidden_size={width} must be a multiple of n_heads={heads}.")


def check_keys(given: Iterable[str], known: set[str], where: str = "") -> None:
    """Raises XferError for the first key that is not known, and names the one that is meant, or the nearest."""
    for key in given:
        if key not in known:
            usual = USUAL_NAMES.get(key.lower())
            raise XferError(f"The key '{where}{key}' is not known{nearest(usual if usual in known else key, known)}")


def choice(config: Any, key: str, *allowed: str) -> str:
    """A key's value, which must be one of those allowed."""
    if config[key] not in allowed:
        raise XferError(f"{key}={config[key]} must be {' or '.join(allowed)}.")
    return config[key]


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: the known one that is most like it, whatever its capitals."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(names), n=1, cutoff=0.5)
    return f". Did you mean '{names[near[0]]}'?" if near else "."
