"""Reads the space of a search, from yaml or RecBole's hyper files, and draws configurations.

Ray Tune's own types (``ray.tune.uniform``) draw other values for the same seed, and importing Ray takes seconds.
"""

from __future__ import annotations

import ast
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from recbole_xfer.config.plain import plain
from recbole_xfer.config.values import is_number, parse_value, read_yaml_file
from recbole_xfer.errors import XferError

MOST_VALUES = 100_000
"""Maximal number of values of a step."""
LARGEST = 2.0**53
"""Maximal distance of bounds: integers below it are exact as floats."""
PATIENCE = 1000
"""Number of draws without a new configuration after which a space has no more."""


@dataclass(frozen=True)
class Choice:
    """A discrete uniform distribution over some values."""

    values: Sequence[Any]

    def draw(self, random: Random) -> Any:
        return random.choice(self.values)

    def examples(self) -> Sequence[Any]:
        """Values to validate before a search: all of them, or the ends of a range."""
        return self.values if isinstance(self.values, list) else (self.values[0], self.values[-1])


@dataclass(frozen=True)
class Interval:
    """A uniform, or log-uniform, distribution over an interval."""

    low: float
    high: float
    logarithmic: bool = False

    def draw(self, random: Random) -> float:
        if self.logarithmic:
            return math.exp(random.uniform(math.log(self.low), math.log(self.high)))
        return random.uniform(self.low, self.high)

    def examples(self) -> Sequence[Any]:
        """Values to validate before a search."""
        return float(self.low), float(self.high)


Space = dict[str, Choice | Interval]


def _choice(*values: Any) -> Choice:
    if not values:
        raise ValueError("it has no values")
    return Choice(list({identity({"": value}): value for value in values}.values()))


def _uniform(low: float, high: float) -> Interval:
    _check_order(low, high)
    return Interval(low, high)


def _loguniform(low: float, high: float) -> Interval:
    _check_order(low, high)
    if low <= 0:
        raise ValueError("its bounds must be positive")
    return Interval(low, high, logarithmic=True)


def _quniform(low: float, high: float, step: float) -> Choice:
    _check_order(low, high)
    _check_order(0, step)
    if (high - low) / step > MOST_VALUES:
        raise ValueError(f"it has more than {MOST_VALUES:,} values; take a larger step, or uniform")
    count = math.floor((high - low) / step + 1e-9) + 1
    return _choice(*(round(low + index * step, 12) for index in range(count)))


def _randint(low: int, high: int) -> Choice:
    _check_order(low, high)
    if not isinstance(low, int) or not isinstance(high, int):
        raise TypeError("its bounds must be integers")
    return Choice(range(low, high + 1))


def _check_order(low: Any, high: Any) -> None:
    if not (is_number(low) and is_number(high)):
        raise TypeError("its bounds must be numbers")
    if not -math.inf < low < high < math.inf:
        raise ValueError(f"{low} must be below {high}, and both must be finite")
    if high - low > LARGEST:
        raise ValueError(f"its bounds must be at most {LARGEST:g} apart")


DISTRIBUTIONS: dict[str, Callable[..., Choice | Interval]] = {
    "choice": _choice,
    "uniform": _uniform,
    "loguniform": _loguniform,
    "quniform": _quniform,
    "randint": _randint,
}


def read_space(path: Path) -> Space:
    """Reads a search space from yaml, or from RecBole's hyper file with lines such as ``dropout choice [0.1,0.2]``.

    In yaml, a key has a list of values, or one of ``choice: [...]``, ``uniform: [low, high]``,
    ``loguniform: [low, high]``, ``quniform: [low, high, step]`` and ``randint: [low, high]``, bounds included. In a
    hyper file the bounds of ``loguniform`` are natural logarithms, as in hyperopt.

    Raises:
        XferError: if the file does not exist or is empty, or a line has neither form.
    """
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    lines = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    first, *others = lines[0].split() if lines else [""]
    if len(others) > 1 and ":" not in first:
        specs = dict(_hyper_line(path, line) for line in lines)
    else:
        specs = read_yaml_file(path)
    if not specs:
        raise XferError(f"{path} has no key to search. Add lines such as 'learning_rate: [0.001, 0.01]'.")
    return {str(key): _distribution(f"{path}, key '{key}'", spec) for key, spec in specs.items()}


def _hyper_line(path: Path, line: str) -> tuple[str, dict[str, Any]]:
    try:
        key, kind, text = line.split(maxsplit=2)
        values = list(ast.literal_eval(text) if kind == "choice" else map(parse_value, text.split(",")))
        return key, {kind: [math.exp(bound) for bound in values] if kind == "loguniform" else values}
    except (ValueError, SyntaxError, TypeError, OverflowError, RecursionError, MemoryError) as error:
        example = "'learning_rate loguniform -8,0' or 'dropout choice [0.1,0.2]'"
        raise XferError(f"{path}: the line '{line.strip()}' is invalid. Write it as in {example}.") from error


def _distribution(where: str, spec: Any) -> Choice | Interval:
    if isinstance(spec, list):
        spec = {"choice": spec}
    kind, values = next(iter(spec.items())) if isinstance(spec, dict) and len(spec) == 1 else (None, None)
    if kind not in DISTRIBUTIONS or not isinstance(values, list):
        raise XferError(f"{where} must be a list of values, or one of {', '.join(DISTRIBUTIONS)} with a list.")
    try:
        return DISTRIBUTIONS[kind](*values)
    except (TypeError, ValueError, OverflowError) as error:
        raise XferError(f"{where}: {kind}: {values} is invalid: {error}.") from error


def draw(space: Space, trials: int | None, seed: int) -> list[dict[str, Any]]:
    """Draws distinct configurations: ``trials`` of them, or all if ``trials`` is None or the space has no more.

    More trials with the same seed start with the same configurations.

    Raises:
        XferError: if ``trials`` is None and the space is infinite, or ``trials`` is below 1.
    """
    values = [distribution.values for distribution in space.values() if isinstance(distribution, Choice)]
    finite = len(values) == len(space)
    if trials is None and not finite:
        infinite = next(key for key, distribution in space.items() if isinstance(distribution, Interval))
        raise XferError(f"'{infinite}' can have any value of an interval. Set the number of trials: --trials=N.")
    if trials is not None and trials < 1:
        raise XferError(f"--trials={trials} is invalid: it must be an integer of at least 1.")
    if finite and (trials is None or trials >= math.prod(map(len, values))):
        return [dict(zip(space, combination, strict=True)) for combination in itertools.product(*values)]
    random, drawn, repeated = Random(seed), dict[str, dict[str, Any]](), 0
    while trials is not None and len(drawn) < trials:
        keys = {key: distribution.draw(random) for key, distribution in space.items()}
        repeated = repeated + 1 if identity(keys) in drawn else 0
        if repeated > PATIENCE and not finite:
            raise XferError(f"The space has too few different configurations: set --trials={len(drawn)} or widen it.")
        drawn.setdefault(identity(keys), keys)
    return list(drawn.values())


def identity(keys: Mapping[str, Any]) -> str:
    """A text that is equal for equal configurations."""
    return json.dumps(plain(keys), sort_keys=True)
