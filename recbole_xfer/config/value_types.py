"""Types of configuration values, and the words in which an error names each of them.

A type is what pydantic validates, such as ``Annotated[int, Field(ge=1)]`` or ``Literal["full", "in_batch"]``. Its
description completes the sentence "it must be ...".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

STRICT = ConfigDict(strict=True, allow_inf_nan=False)
"""No text is read as a number, and no truth value; an integer may stand for a float."""

METRICS = (
    "AUC", "AveragePopularity", "GAUC", "GiniIndex", "Hit", "ItemCoverage", "LogLoss", "MAE", "MAP", "MRR", "NDCG",
    "Precision", "RMSE", "Recall", "ShannonEntropy", "TailPercentage",
)  # fmt: skip
"""RecBole's metrics; capitals do not matter."""


def fits(value: Any, kind: Any) -> bool:
    """Whether a value is of a type; numbers may be NumPy's."""
    try:
        _adapter(kind).validate_python(without_numpy(value))
    except ValidationError:
        return False
    return True


def in_kind(value: Any, kind: Any) -> Any:
    """A value as its type has it, such as 1.0 for a float that is given as 1; unchanged if it is of another type."""
    try:
        return _adapter(kind).validate_python(without_numpy(value))
    except ValidationError:
        return value


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind, config=STRICT)


def without_numpy(value: Any) -> Any:
    """A value with Python's numbers in place of NumPy's."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list):
        return [without_numpy(part) for part in value]
    if isinstance(value, Mapping):
        return {key: without_numpy(part) for key, part in value.items()}
    return value


def words(kind: Any) -> str:
    """A type in words, such as ``an integer of at least 1, or None``."""
    described = [part.description for part in getattr(kind, "__metadata__", ()) if isinstance(part, FieldInfo)]
    if described and described[0]:
        return described[0]
    if get_origin(kind) is Literal:
        return _or([str(value) for value in get_args(kind)])
    if get_origin(kind) in (Union, UnionType):
        return ", or ".join(words(part) for part in get_args(kind))
    return {bool: "True or False", NoneType: "None"}.get(kind, str(kind))


def _or(names: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _that(passes: Callable[[Any], Any], description: str, kind: Any = Any) -> Any:
    """The type of the values of a kind that pass a test."""

    def check(value: Any) -> Any:
        if not passes(value):
            raise ValueError(description)
        return value

    return Annotated[kind, AfterValidator(check), Field(description=description)]


def choice(names: Iterable[str]) -> Any:
    """The type of some names, where those are known only at run time."""
    return Literal[tuple(names)]


def any_case(*names: str) -> Any:
    """The type of some names, in capitals or not."""
    lower = {name.lower() for name in names}
    return _that(lambda value: isinstance(value, str) and value.lower() in lower, _or(list(names)))


def one_key_of(*names: str) -> Any:
    """The type of mappings with one key, which is one of some names."""
    example = "{LS: valid_and_test}"
    return _that(
        lambda value: isinstance(value, Mapping) and len(value) == 1 and value.keys() <= set(names),
        f"one of {_or(list(names))} with its argument, such as {example}",
    )


def subset_of(*names: str) -> Any:
    """The type of lists of some names."""
    return _that(
        lambda value: isinstance(value, list) and all(name in names for name in value),
        f"a list of some of {', '.join(names)}",
    )


# --- numbers ---------------------------------------------------------------------------------------------------------

Count = Annotated[int, Field(ge=1, description="an integer of at least 1")]
CountOrZero = Annotated[int, Field(ge=0, description="an integer of at least 0")]
EvenCount = Annotated[int, Field(ge=2, multiple_of=2, description="an even integer of at least 2")]
Seed = Annotated[int, Field(ge=0, lt=2**32, description="an integer from 0 to 4294967295")]
Seeds = Annotated[list[Seed], Field(min_length=1, description="a list of integers of at least 0, such as [1, 2]")]
Number = Annotated[float, Field(description="a number")]
NotNegative = Annotated[float, Field(ge=0, description="a number of at least 0")]
Positive = Annotated[float, Field(gt=0, description="a number above 0")]
Fraction = Annotated[float, Field(ge=0, le=1, description="a number from 0 to 1")]
PositiveFraction = Annotated[float, Field(gt=0, le=1, description="a number above 0, at most 1")]
InnerFraction = Annotated[float, Field(gt=0, lt=1, description="a number between 0 and 1, both excluded")]
Counts = Annotated[list[Count], Field(description="a list of integers of at least 1, such as [64, 64]")]
Weights = Annotated[list[NotNegative], Field(min_length=1, description="a list of numbers of at least 0")]
Fractions = Annotated[list[Fraction], Field(description="a list of numbers from 0 to 1")]
TwoWeights = Annotated[
    list[NotNegative], Field(min_length=2, max_length=2, description="two numbers of at least 0, such as [0.01, 0.01]")
]
Betas = Annotated[
    list[Annotated[float, Field(ge=0, lt=1)]],
    Field(min_length=2, max_length=2, description="two numbers of at least 0 and below 1, such as [0.9, 0.98]"),
]
Ranks = Annotated[
    Count | Annotated[list[Count], Field(min_length=1)],
    Field(description="an integer of at least 1 or a list of them, such as [5, 10]"),
]

# --- text ------------------------------------------------------------------------------------------------------------

Text = Annotated[str, Field(description="a string (in quotes if it looks like a number)")]
Name = Annotated[str, Field(min_length=1, description="a name (in quotes if it looks like a number)")]
FilePath = Annotated[str | Path, Field(description="a path (in quotes if it looks like a number)")]
PICKLES = "because RecBole writes and reads it as a pickle, which can run code"
NoPickle = Annotated[Literal[False], Field(description=f"False, {PICKLES}")]
NoPicklePath = Annotated[None, Field(description=f"None, {PICKLES}")]
Character = Annotated[str, Field(min_length=1, max_length=1, description="one character")]


def _distinct(names: list[str]) -> list[str]:
    if len(set(names)) < len(names):
        raise ValueError("a name is repeated")
    return names


_Distinct = Annotated[list[Name], AfterValidator(_distinct)]
Names = Annotated[_Distinct, Field(description="a list of different names, such as [a, b]")]
Rows = Annotated[_Distinct, Field(min_length=1, description="a list of different names, such as [SASRec, ANT]")]
NameOrNames = Annotated[
    Name | Annotated[_Distinct, Field(min_length=1)],
    Field(description="a name or a list of different names, such as [a, b]"),
]
Domains = Annotated[str | int, Field(description="a name, or several joined by +")]
Datasets = Annotated[
    list[Domains],
    AfterValidator(_distinct),
    Field(min_length=1, description="a list of different datasets, such as [Books, Games+Toys]"),
]
Settings = Annotated[
    dict[Name, dict[str, Any]],
    Field(min_length=1, description="a mapping from names to keys, such as {texts: {modalities: [text]}}"),
]
Ensembles = Annotated[
    dict[Name, Annotated[list[Name], AfterValidator(_distinct), Field(min_length=2)]],
    Field(min_length=1, description="a mapping from names to lists of two or more rows, such as {both: [ANT, SASRec]}"),
]
Space = Annotated[Literal[True] | FilePath, Field(description="the path of a space, or True for the model's own space")]
Encoding = Annotated[str, Field(description="the name of an encoding, such as utf-8")]
GPU = r"(\d+|(GPU|MIG)-[\w/-]+)"
GpuIds = Annotated[
    Annotated[int, Field(ge=-1)]
    | Annotated[str, Field(pattern=rf"^$|^(-1|{GPU}(,\s*{GPU})*)$")]
    | tuple[CountOrZero | Annotated[str, Field(pattern=f"^{GPU}$")], ...],
    Field(description="the number of a GPU, several as '0,1', or '' for the CPU"),
]

# --- what RecBole reads ----------------------------------------------------------------------------------------------

A_METRIC = any_case(*METRICS)
Metrics = _that(
    lambda value: fits(value, A_METRIC) or (fits(value, NameOrNames) and all(fits(name, A_METRIC) for name in value)),
    f"a list of metrics, such as [Recall, NDCG]; there are {', '.join(METRICS)}",
)
MetricOfRank = _that(
    lambda value: (
        isinstance(value, str)
        and (parts := re.fullmatch(r"(\w+)(@[1-9]\d*)?( \[.+\])?", value)) is not None
        and fits(parts[1], A_METRIC)
    ),
    "a metric, such as NDCG@10 or AUC",
)

NUMBER = r"\s*([-+]?(?:inf|\d*\.?\d+(?:e[-+]?\d+)?))\s*"
BOUNDS = re.compile(rf"[\[(]{NUMBER},{NUMBER}[\])]")


def _is_interval(value: Any) -> bool:
    """Whether a value is such as ``[5,inf)``, ``(0,1];[3,4)``, or ``[5,9]``, which yaml reads as a list."""
    parts = [BOUNDS.fullmatch(part.strip().lower()) for part in str(value).split(";")]
    return all(part and float(part[1]) <= float(part[2]) for part in parts)


Interval = _that(_is_interval, "an interval such as '[5,inf)'")
Tokens = Annotated[list[Any], Field(description="a list of the values to keep, such as [a, b]")]
Filter = _that(
    lambda value: isinstance(value, Mapping) and all(isinstance(v, list) or _is_interval(v) for v in value.values()),
    "a mapping from columns to intervals, such as {timestamp: '[0,inf)'}",
)

Clipping = _that(
    lambda value: isinstance(value, Mapping) and "max_norm" in value,
    "a mapping with max_norm, such as {max_norm: 5}",
)
NormType = Annotated[float, Field(gt=0, allow_inf_nan=True, description="a number above 0")]
Keys = Annotated[dict[str, Any], Field(description="a mapping, such as {key: value}")]
Columns = Annotated[
    dict[str, list[str] | Literal["*"]],
    Field(description="a mapping from kinds of files to columns, such as {inter: [user_id, item_id, timestamp]}"),
]
Lengths = Annotated[dict[str, Count], Field(description="a mapping from columns to lengths, such as {genres: 5}")]
Threshold = Annotated[
    dict[str, Number],
    Field(min_length=1, max_length=1, description="a mapping from one column to a number, such as {rating: 4}"),
]
Vectors = Annotated[
    dict[str, Name],
    Field(description="a mapping from columns of ids to columns of vectors, such as {item_id: item_vector}"),
]
Buckets = _that(
    lambda value: isinstance(value, Mapping) and all(map(_is_bucketing, value.values())),
    "a mapping from columns to methods, such as {price: {method: ED, bucket: 10}} or {price: {method: LD}}",
)


def _is_bucketing(value: Any) -> bool:
    if not isinstance(value, Mapping) or not value.keys() <= {"method", "bucket"}:
        return False
    return value.get("method") == "LD" or (value.get("method") == "ED" and fits(value.get("bucket"), Count))


Ratios = _that(
    lambda value: len(value) == 3 and sum(value) > 0,
    "three numbers of at least 0, such as [8, 1, 1]",
    list[NotNegative],
)


def _is_mode(value: Any) -> bool:
    """Whether a value names the candidates of a ranking, for both evaluations or for each."""
    if isinstance(value, Mapping):
        return bool(value) and value.keys() <= {"valid", "test"} and all(map(_is_mode, value.values()))
    return isinstance(value, str) and re.fullmatch(r"full|labeled|(uni|pop)[1-9]\d*", value) is not None


Mode = _that(_is_mode, "full, labeled, or such as uni100 or pop100")
