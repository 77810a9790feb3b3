"""The space of a search: which values each key can take, read from yaml or from RecBole's hyper files."""

from __future__ import annotations

import ast
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Protocol

from recbole_xfer.config.plain import plain
from recbole_xfer.config.values import is_number, parse_value, read_yaml_file
from recbole_xfer.errors import XferError


class Domain(Protocol):
    """The values that a key can take."""

    def draw(self, random: Random) -> Any:
        """One of them."""

    def examples(self) -> Sequence[Any]:
        """Values to validate before a search: all of them, or the ends of a range."""


@dataclass(frozen=True)
class Choice:
    """Any of several values, all equally likely."""

    values: Sequence[Any]

    def draw(self, random: Random) -> Any:
        return random.choice(self.values)

    def examples(self) -> Sequence[Any]:
        return self.values if isinstance(self.values, list) else (self.values[0], self.values[-1])


@dataclass(frozen=True)
class Interval:
    """Any number between two, equally likely, or with equally likely logarithm."""

    low: float
    high: float
    logarithmic: bool = False

    def draw(self, random: Random) -> float:
        if self.logarithmic:
            return math.exp(random.uniform(math.log(self.low), math.log(self.high)))
        return random.uniform(self.low, self.high)

    def examples(self) -> Sequence[Any]:
        return float(self.low), float(self.high)


Space = dict[str, Domain]


def _choice(*values: Any) -> Choice:
    if not values:
        raise ValueError("it has no values")
    return Choice(list({name_of({"": value}): value for value in values}.values()))


def _uniform(low: float, high: float) -> Interval:
    _check_order(low, high)
    return Interval(low, high)


def _loguniform(low: float, high: float) -> Interval:
    _check_order(low, high)
    if low <= 0:
        raise ValueError("its bounds must be above 0")
    return Interval(low, high, logarithmic=True)


def _quniform(low: float, high: float, step: float) -> Choice:
    _check_order(low, high)
    _check_order(0, step)
    count = math.floor((high - low) / step + 1e-9) + 1
    return Choice([round(low + index * step, 12) for index in range(count)])


def _randint(low: int, high: int) -> Choice:
    _check_order(low, high)
    if not isinstance(low, int) or not isinstance(high, int):
        raise TypeError("its bounds must be whole numbers")
    return Choice(range(low, high + 1))


def _check_order(low: Any, high: Any) -> None:
    if not (is_number(low) and is_number(high)):
        raise TypeError("its bounds must be numbers")
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"{low} must be below {high}, and both finite")


DOMAINS: dict[str, Callable[..., Domain]] = {
    "choice": _choice,
    "uniform": _uniform,
    "loguniform": _loguniform,
    "quniform": _quniform,
    "randint": _randint,
}


def read_space(path: Path) -> Space:
    """A search space: yaml, or RecBole's hyper file with lines such as ``dropout choice [0.1,0.2]``.

    In yaml a key has a list of values, or one of ``choice: [...]``, ``uniform: [low, high]``,
    ``loguniform: [low, high]``, ``quniform: [low, high, step]`` and ``randint: [low, high]``, bounds included. In a
    hyper file the bounds of ``loguniform`` are natural logarithms, as hyperopt takes them.

    Raises:
        XferError: if the file is missing or empty, or a line is neither form.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    lines = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    first, *others = lines[0].split() if lines else [""]
    if len(others) > 1 and ":" not in first:
        specs = dict(_hyper_line(path, line) for line in lines)
    else:
        specs = read_yaml_file(path)
    if not specs:
        raise XferError(f"{path} names no key to search.")
    return {str(key): _domain(f"{path}, key '{key}'", spec) for key, spec in specs.items()}


def _hyper_line(path: Path, line: str) -> tuple[str, dict[str, Any]]:
    try:
        key, kind, text = line.split(maxsplit=2)
        values = list(ast.literal_eval(text) if kind == "choice" else map(parse_value, text.split(",")))
        return key, {kind: [math.exp(bound) for bound in values] if kind == "loguniform" else values}
    except (ValueError, SyntaxError, TypeError, OverflowError) as error:
        example = "'learning_rate loguniform -8,0' or 'dropout choice [0.1,0.2]'"
        raise XferError(f"{path}: the line '{line.strip()}' is not of the form {example}.") from error


def _domain(where: str, spec: Any) -> Domain:
    if isinstance(spec, list):
        spec = {"choice": spec}
    kind, values = next(iter(spec.items())) if isinstance(spec, dict) and len(spec) == 1 else (None, None)
    if kind not in DOMAINS or not isinstance(values, list):
        raise XferError(f"{where} must be a list of values, or one of {', '.join(DOMAINS)} with its list.")
    try:
        return DOMAINS[kind](*values)
    except (TypeError, ValueError) as error:
        raise XferError(f"{where}: {kind}: {values} is wrong: {error}.") from error


def draw(space: Space, trials: int | None, seed: int) -> list[dict[str, Any]]:
    """Distinct configurations: all of them where no number is given or the space has no more.

    More trials with the same seed begin with the same configurations.

    Raises:
        XferError: if no number is given and the space has no end, or the number is below 1.
    """
    values = [domain.values for domain in space.values() if isinstance(domain, Choice)]
    finite = len(values) == len(space)
    if trials is None and not finite:
        endless = next(key for key, domain in space.items() if not isinstance(domain, Choice))
        raise XferError(f"'{endless}' can take any value of an interval. Say how many to try with --trials=N.")
    if trials is not None and trials < 1:
        raise XferError(f"--trials={trials} must be 1 or more.")
    if finite and (trials is None or trials >= math.prod(map(len, values))):
        return [dict(zip(space, combination, strict=True)) for combination in itertools.product(*values)]
    random, drawn = Random(seed), dict[str, dict[str, Any]]()
    while trials is not None and len(drawn) < trials:
        keys = {key: domain.draw(random) for key, domain in space.items()}
        drawn.setdefault(name_of(keys), keys)
    return list(drawn.values())


def name_of(keys: Mapping[str, Any]) -> str:
    """Equal for equal configurations."""
    return json.dumps(plain(keys), sort_keys=True)
