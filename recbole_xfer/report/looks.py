"""The looks of pictures: colours and markers of lines, and where their names stand.

The colours are those of Okabe and Ito, which colour-blind readers can distinguish; lines also differ by their markers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle

import numpy as np

WARNING, CALM, GREY = "#D55E00", "#0072B2", "#8c8c8c"
COLOURS = [CALM, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000"]
MARKERS, DASHES = "osD^vP", ["-", "--", ":"]
LABEL_SIZE, LINE_HEIGHT = 8, 11  # points

BAND = 0.15
"""Opacity of a band."""


@dataclass(frozen=True)
class Look:
    """The colour, marker and dashes of a line, as matplotlib names them."""

    colour: str
    marker: str = "o"
    dashes: str = "-"


class Looks(dict[str, Look]):
    """The look of each name; a new name gets the next one. Lines are dashed once all colours are used.

    Args:
        names: the first ones, in their order.
    """

    def __init__(self, names: Iterable[str] = ()) -> None:
        self._next = _all_looks()
        super().__init__(zip(dict.fromkeys(names), self._next, strict=False))

    def __missing__(self, name: str) -> Look:
        self[name] = next(self._next)
        return self[name]


def _all_looks() -> Iterator[Look]:
    for dashes in cycle(DASHES):
        for colour, marker in zip(COLOURS, MARKERS, strict=True):
            yield Look(colour, marker, dashes)


def label_places(values: Sequence[float], low: float, high: float, height: float) -> np.ndarray:
    """Where names of lines are written, as fractions of an axis from ``low`` to ``high`` that is ``height`` inches."""
    return spread_out((np.array(values) - low) / (high - low), LINE_HEIGHT / (72 * height))


def spread_out(places: np.ndarray, distance: float) -> np.ndarray:
    """Moves places in [0, 1] as little as needed to be ``distance`` apart, in the same order."""
    order = np.argsort(places, kind="stable")
    steps = distance * np.arange(len(places))
    upwards = np.maximum.accumulate(places[order] - steps) + steps
    downwards = np.minimum.accumulate((places[order] - steps)[::-1])[::-1] + steps
    middle = (upwards + downwards) / 2
    moved = np.empty_like(middle)
    moved[order] = np.maximum(np.minimum(middle, 1 - steps[::-1]), steps)
    return moved
