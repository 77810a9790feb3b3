"""What the values of keys must be: each mistake is a sentence, before anything is loaded."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from numbers import Integral, Real
from typing import Any

from recbole_xfer.config.properties import STAGE_PREFIX
from recbole_xfer.errors import XferError

Rule = tuple[str, Callable[[Any], bool]]
"""What a value must be, in words and as a test."""


def is_number(value: Any) -> bool:
    """Whether a value is a number, of Python's or NumPy's."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number, of Python's or NumPy's."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 1 on."""
    return is_whole(value) and value >= 1


def is_share(value: Any) -> bool:
    """Whether a value is a number from 0 to 1."""
    return is_number(value) and 0 <= value <= 1


def is_seed(value: Any) -> bool:
    """Whether NumPy takes a value as a seed."""
    return is_whole(value) and 0 <= value < 2**32


def is_text(value: Any) -> bool:
    """Whether a value is text."""
    return isinstance(value, str)


def is_mapping(value: Any) -> bool:
    """Whether a value has keys and values."""
    return isinstance(value, Mapping)


def is_list(value: Any, of: Callable[[Any], bool]) -> bool:
    """Whether a value is a list, and all that is in it passes a test."""
    return isinstance(value, list) and all(map(of, value))


def is_names(value: Any) -> bool:
    """Whether a value is a name or a list of them, at least one."""
    return bool(value) and (is_text(value) or is_list(value, is_text))


def is_interval(value: Any) -> bool:
    """Whether a value is such as ``[5,inf)``, ``(0,1];[3,4)``, or ``[5,9]``, which yaml reads as a list."""
    parts = [INTERVAL.fullmatch(part.strip().lower()) for part in str(value).split(";")]
    return all(part and float(part[1]) <= float(part[2]) for part in parts)


def is_ranks(value: Any) -> bool:
    """Whether a value is a length of ranking, or several."""
    return is_count(value) or (bool(value) and is_list(value, is_count))


def is_columns(value: Any) -> bool:
    """Whether a value names columns by kind of file."""
    return is_mapping(value) and all(columns is None or isinstance(columns, list) for columns in value.values())


def is_filter(value: Any) -> bool:
    """Whether a value has an interval for each column, or the values that are left of a column of tokens."""
    return is_mapping(value) and all(isinstance(kept, list) or is_interval(kept) for kept in value.values())


def is_clipping(value: Any) -> bool:
    """Whether a value is what PyTorch's ``clip_grad_norm_`` takes."""
    return is_mapping(value) and value.keys() <= {"max_norm", "norm_type"} and is_number(value.get("max_norm"))


def is_ratios(value: Any) -> bool:
    """Whether a value has a share for each of training, validation and test, which need not add up to 1."""
    return is_list(value, lambda share: is_number(share) and share >= 0) and len(value) == 3 and sum(value) > 0


def is_mode(value: Any) -> bool:
    """Whether a value says what targets are ranked among: of both evaluations, or of each."""
    if is_mapping(value):
        return value.keys() <= {"valid", "test"} and all(map(is_mode, value.values()))
    return is_text(value) and re.fullmatch(r"full|labeled|(uni|pop)[1-9]\d*", value) is not None


def one_of(*allowed: str) -> Rule:
    """That a value is one of these."""
    return " or ".join(allowed), lambda value: value in allowed


LEARNERS = ("adam", "sgd", "adagrad", "rmsprop", "sparse_adam")
NUMBER = r"\s*([-+]?(?:inf|\d*\.?\d+(?:e[-+]?\d+)?))\s*"
INTERVAL = re.compile(rf"[\[(]{NUMBER},{NUMBER}[\])]")
AN_INTERVAL: Rule = "an interval such as '[5,inf)'", is_interval
SIZES = (
    r"(hidden|inner|embedding|(train|eval|user)_batch|critic)_size|n_(layers|heads|experts)|projection_heads"
    r"|cross_experts|MAX_ITEM_LIST_LENGTH|catalogue_chunk|window_stride|held_out_targets"
)
RULES: Mapping[str, Rule] = {
    r"(\w+_)?dropout(_prob)?|harmonic_factor": ("a share from 0 to 1", is_share),
    r"(\w+_)?temperature": ("a number above 0", lambda value: is_number(value) and value > 0),
    r"(\w+_)?learning_rate|weight_decay|initializer_range": (
        "a number from 0 on",
        lambda value: is_number(value) and value >= 0,
    ),
    r"(\w+_)?epochs|eval_step": ("a whole number from 0 on", lambda value: is_whole(value) and value >= 0),
    SIZES: ("a whole number from 1 on", is_count),
    "price_size": ("an even number from 2 on", lambda value: is_count(value) and value % 2 == 0),
    "seed": ("a whole number from 0 to 4294967295", is_seed),
    "seeds": ("a list of whole numbers, such as [1, 2]", lambda value: bool(value) and is_list(value, is_seed)),
    "dataset|source": ("a name, or several joined by +", lambda value: is_text(value) or is_whole(value)),
    "histories": one_of("across", "per_domain"),
    "train_rows": one_of("prefixes", "windows"),
    "modalities": ("a list, such as [text, image]", lambda value: is_list(value, is_text)),
    "eval_groups": ("a group or a list of them, such as [head, new]", is_names),
    "overlap_file": ("the name of a file", is_text),
    r"(user|item)_inter_num_interval": AN_INTERVAL,
    "val_interval": ("columns with intervals, as {timestamp: '[0,inf)'}", is_filter),
    "(un)?load_col": ("keys with lists, such as {inter: [user_id, item_id, timestamp]}", is_columns),
    "topk": ("lengths of rankings from 1 on, such as [5, 10]", is_ranks),
    "metrics": ("a metric or a list of them, such as [Recall, NDCG]", is_names),
    "valid_metric": ("a metric with a length, such as NDCG@10", is_text),
    "clip_grad_norm": ("a largest norm, as {max_norm: 5}", is_clipping),
    "learner": (f"one of {', '.join(LEARNERS)}", lambda value: str(value).lower() in LEARNERS),
    "(field|seq)_separator": ("one character", lambda value: is_text(value) and len(value) == 1),
    "encoding": ("the name of an encoding, such as utf-8", is_text),
}
"""By a pattern of the keys; where RecBole would guess, or fail late with a traceback."""

NEEDED = {"epochs", "seed", "topk", "metrics", "valid_metric"}
"""Keys of :data:`RULES` that cannot be left empty."""

RATIOS: Rule = "three shares, such as [8, 1, 1]", is_ratios
SPLITS: Mapping[str, Rule] = {
    "LS": one_of("valid_and_test", "valid_only", "test_only"),
    "RS": RATIOS,
    "HU": RATIOS,
    "NU": ("a share of users such as 0.2", lambda value: is_number(value) and 0 < value < 1),
}
"""The ways to split, and what the value of each must be."""
SPLIT: Rule = (
    f"one of {', '.join(SPLITS)} with its value, such as {{LS: valid_and_test}}",
    lambda value: is_mapping(value) and len(value) == 1 and value.keys() <= SPLITS.keys(),
)
MODE: Rule = "full, labeled, or such as uni100 or pop100", is_mode
EVAL_ARGS = {"split", "group_by", "order", "mode"}

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
        if rule is not None and (value is not None or name in NEEDED):
            check(key, value, rule)
    if is_mapping(given.get("eval_args")):
        check_eval_args(given["eval_args"])


def check_eval_args(given: Mapping[str, Any]) -> None:
    """Raises XferError for a mistake in what is given of ``eval_args``."""
    check_keys(given, EVAL_ARGS, "eval_args.")
    if "split" in given:
        check_split(given["split"])
    if "mode" in given:
        check("eval_args.mode", given["mode"], MODE)


def check_split(split: Any) -> None:
    """Raises XferError for a split that does not exist, or a value of it that cannot be meant."""
    check("eval_args.split", split, SPLIT)
    ((kind, value),) = split.items()
    check(f"eval_args.split {kind}", value, SPLITS[kind])


def check(key: str, value: Any, rule: Rule) -> None:
    """Raises XferError for a value that breaks a rule."""
    wanted, passes = rule
    if not passes(value):
        raise XferError(f"{key}={value} must be {wanted}.")


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


def check_keys(given: Iterable[Any], known: set[str], where: str = "") -> None:
    """Raises XferError for the first key that is not known, and names the one that is meant, or the nearest."""
    for key in map(str, given):  # yaml has keys that are no text
        if key not in known:
            usual = USUAL_NAMES.get(key.lower())
            raise XferError(f"The key '{where}{key}' is not known{nearest(usual if usual in known else key, known)}")


def choice(config: Any, key: str, *allowed: str) -> str:
    """A key's value, which must be one of those allowed."""
    check(key, config[key], one_of(*allowed))
    return config[key]


def nearest(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: the known one that is most like it, whatever its capitals."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(names), n=1, cutoff=0.5)
    return f". Did you mean '{names[near[0]]}'?" if near else "."
