"""Reads configuration values from text and yaml, without evaluating them, and writes them as text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import yaml

from recbole_xfer.errors import XferError, did_you_mean

LONGEST, DEEPEST = 100_000, 50
"""Maximal number of values in yaml, counting those of repeated anchors, and maximal depth of its lists."""
LARGEST = 2**64
"""Maximal size of an integer in yaml; Python does not print much longer ones."""
TOO_DEEP = "its lists or mappings are nested too deeply"


class YamlLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which also reads ``1e-3`` as a number and ``None`` as null, as RecBole does."""

    def fetch_flow_collection_start(self, kind: Any) -> None:
        """Rejects the nesting early: PyYAML needs seconds for thousands of brackets."""
        if self.flow_level > DEEPEST:
            raise yaml.YAMLError(TOO_DEEP)
        super().fetch_flow_collection_start(kind)


class YamlDumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes strings that :class:`YamlLoader` would read as another type."""


for _class in (YamlLoader, YamlDumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float",
        re.compile(r"^[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
        list("-+.0123456789"),
    )
    _class.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"^None$"), ["N"])


def write_yaml(value: Any, sort_keys: bool = False) -> str:
    """The yaml document that :func:`read_yaml` reads as this value."""
    return yaml.dump(value, Dumper=YamlDumper, sort_keys=sort_keys, allow_unicode=True)


def read_yaml(text: str) -> Any:
    """The value of a yaml document.

    Raises:
        ValueError: if it is invalid, or larger than a configuration can be.
    """
    try:
        value = yaml.load(text, Loader=YamlLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    except RecursionError as error:
        raise ValueError(TOO_DEEP) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # as for 2020-13-45
        raise ValueError(f"a value does not have the form of its type ({error})") from error
    _check_size(value)
    return value


def _check_size(value: Any) -> None:
    """Raises ValueError for a value that is too large to be printed or checked, such as one that contains itself."""
    parts, count = [(value, 0)], 0
    while parts:
        part, depth = parts.pop()
        count += 1
        if depth > DEEPEST:
            raise ValueError(TOO_DEEP)
        if count > LONGEST:
            raise ValueError(f"it has more than {LONGEST:,} values")
        if isinstance(part, int) and abs(part) > LARGEST:
            raise ValueError("an integer has too many digits")
        if isinstance(part, Mapping):
            parts += [(inner, depth + 1) for pair in part.items() for inner in pair]
        elif isinstance(part, (list, tuple, set)):
            parts += [(inner, depth + 1) for inner in part]


def parse_value(text: str) -> Any:
    """Parses a value of the command line as yaml; spaces, ``|`` and invalid yaml such as ``[5,inf)`` stay strings."""
    if not text.strip() or text == "|":
        return text
    try:
        return read_yaml(text)
    except ValueError:
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
    """A value as text; numbers have four significant digits, and words in lists no quotation marks."""
    if isinstance(value, list):
        return f"[{', '.join(map(short, value))}]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def read_yaml_file(path: Path) -> dict[str, Any]:
    """The keys and values of a yaml file.

    Raises:
        XferError: if the file is missing, is not yaml, or is not a mapping.
    """
    if path.is_dir():
        raise XferError(f"{path} is a folder. Name a yaml file.")
    if not path.is_file():
        others = (file.name for file in path.parent.glob("*.y*ml"))
        raise XferError(f"The file {path} is missing{did_you_mean(path.name, others)}")
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise XferError(f"{path} is not valid yaml: {error}.") from error
    if not isinstance(content, dict):
        raise XferError(f"{path} must have lines such as 'learning_rate: 0.001'.")
    return content


def read_yaml_files(paths: Iterable[str | Path]) -> dict[str, Any]:
    """The keys of several files; later files win."""
    return {key: value for path in paths for key, value in read_yaml_file(Path(path)).items()}


def split_domains(dataset: str) -> list[str]:
    """The domains that a dataset joins: ``["Books", "Toys"]`` for ``Books+Toys``."""
    return dataset.split("+")


LONGEST_DOMAIN = 200
"""Bytes of a domain's name; file systems allow 255, and names of its files are longer."""


def domain_problem(name: str) -> str | None:
    """Says why a name cannot be that of a domain, whose folder and files it names; None if it can."""
    if not name:
        return "a name is empty; write a name before and after each '+'"
    if name != name.strip() or not name.isprintable():
        return f"{name!r} begins or ends with a blank, or has a character such as a line break; remove it"
    if len(name.encode()) > LONGEST_DOMAIN:
        return f"'{name[:20]}...' has {len(name.encode())} bytes; shorten it to at most {LONGEST_DOMAIN}"
    if "+" in name:
        return f"'{name}' has a '+', which joins domains; rename it"
    if "/" in name or "\\" in name or name.startswith("."):
        return f"'{name}' is not the name of a folder; set the path to this folder with data_path"
    return None


def in_order(source: str) -> str:
    """The source domains in alphabetical order: their order is no choice, but ids and results follow it."""
    return join_domains(sorted(split_domains(source)))


def join_domains(names: Iterable[str]) -> str:
    """The dataset that joins these domains, such as ``Books+Toys``."""
    return "+".join(names)
