"""Reads configuration values from text and yaml, without evaluating them, and writes them as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import yaml

from recbole_xfer.errors import XferError


class YamlLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which also reads ``1e-3`` as a number and ``None`` as null, as RecBole does."""


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
YamlLoader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^None$"), ["N"])


def parse_value(text: str) -> Any:
    """Parses a value of the command line as yaml; spaces, ``|`` and invalid yaml such as ``[5,inf)`` stay strings."""
    if not text.strip() or text == "|":
        return text
    try:
        return yaml.load(text, Loader=YamlLoader)
    except yaml.YAMLError:
        return text


def parse_values(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Parses the values that are strings."""
    return {key: parse_value(value) if isinstance(value, str) else value for key, value in (given or {}).items()}


def is_number(value: Any) -> bool:
    """Whether a value is a number, Python's or NumPy's."""
    return isinstance(value, Real) and not isinstance(value, bool)


def text_of(keys: Mapping[str, Any]) -> str:
    """Keys and values as text, such as ``fusion_weight=0.3 learning_rate=0.000512``."""
    return " ".join(f"{key}={short(value)}" for key, value in keys.items())


def short(value: Any) -> str:
    """A value as text; numbers have four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def read_yaml_file(path: Path) -> dict[str, Any]:
    """The keys and values of a yaml file.

    Raises:
        XferError: if the file is missing, is not yaml, or is not a mapping.
    """
    if not path.is_file():
        raise XferError(f"The file {path} is missing.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=YamlLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise XferError(f"{path} is not valid yaml: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise XferError(f"{path} must have lines such as 'learning_rate: 0.001'.")
    return content


def read_yaml_files(paths: Iterable[str | Path]) -> dict[str, Any]:
    """The keys of several files; later files win."""
    return {key: value for path in paths for key, value in read_yaml_file(Path(path)).items()}


def split_domains(dataset: str) -> list[str]:
    """The domains that a dataset joins: ``["Books", "Toys"]`` for ``Books+Toys``."""
    return dataset.split("+")


def in_order(source: str) -> str:
    """The source domains in alphabetical order: their order is no choice, but ids and results follow it."""
    return join_domains(sorted(split_domains(source)))


def join_domains(names: Iterable[str]) -> str:
    """The dataset that joins these domains, such as ``Books+Toys``."""
    return "+".join(names)
