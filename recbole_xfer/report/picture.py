"""Describes pictures by their numbers, so that one description is drawn for a page and for a paper.

:func:`recbole_xfer.report.screen.interactive` draws a picture with plotly, and :func:`recbole_xfer.report.paper.draw`
with matplotlib, because plotly needs a browser to write a PNG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np
import pandas as pd

from recbole_xfer.report.looks import Look

LIGHT = 0.6
"""Fraction of a scale, from its light end, beyond which the text of a cell is white."""

MARGIN = 0.08
"""Of an axis, beyond its highest and lowest values, as a fraction of their difference."""


@dataclass(frozen=True)
class Line:
    """A line of a panel.

    Attributes:
        points: columns ``x``, in ascending order, ``mean`` and ``spread``; at least one.
    """

    name: str
    points: pd.DataFrame
    look: Look


@dataclass(frozen=True)
class Lines:
    """A panel of lines with bands of one standard deviation.

    Attributes:
        title: above the panel.
        lines: at least one.
        x, y: names of the axes.
        ticks: texts of places on the x-axis; empty for numbers.
        log: whether the x-axis is logarithmic.
        joined: False draws points with error bars, for an x-axis of names.
        named: whether the names of the lines are at their ends, in place of the picture's legend.
        from_zero: whether the y-axis begins at 0.
        zero: whether there is a line at 0, below which is bad.
        circles: columns ``x``, ``y`` and ``line``, the name of its line: points that stand out.
        boundary: a place on the x-axis, and what is before and after it.
    """

    title: str
    lines: Sequence[Line]
    x: str
    y: str = ""
    ticks: Mapping[float, str] = field(default_factory=dict)
    log: bool = False
    joined: bool = True
    named: bool = False
    from_zero: bool = False
    zero: bool = False
    circles: pd.DataFrame | None = None
    boundary: tuple[float, str, str] | None = None

    def range(self) -> tuple[float, float]:
        """The ends of the y-axis, beyond all bands."""
        low = min(float((line.points["mean"] - line.points["spread"]).min()) for line in self.lines)
        high = max(float((line.points["mean"] + line.points["spread"]).max()) for line in self.lines)
        if self.circles is not None and len(self.circles):
            low, high = min(low, float(self.circles["y"].min())), max(high, float(self.circles["y"].max()))
        if self.zero:
            low, high = min(low, 0.0), max(high, 0.0)
        bottom = 0.0 if self.from_zero else low
        margin = MARGIN * max(high - bottom, abs(high) * MARGIN, 1e-9)
        return (bottom if self.from_zero else bottom - margin), high + margin

    def ends(self) -> dict[str, tuple[float, float]]:
        """The last point of each line, by name."""
        last = {line.name: line.points.iloc[-1] for line in self.lines}
        return {name: (float(point["x"]), float(point["mean"])) for name, point in last.items()}


@dataclass(frozen=True)
class HeatMap:
    """A panel of a matrix of numbers, with a text in each cell that says all that the colour says.

    Attributes:
        title: above the panel.
        rows, columns: names.
        values: [rows, columns]; NaN where there is none.
        texts: [rows][columns].
        bounds: the values with the first and the last colour; equal in all panels of a picture.
        scale: what the numbers are.
        diverging: red below the middle of the bounds and blue above it, both light near it; otherwise light to blue.
        percent: whether the numbers are written in percent.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray
    texts: Sequence[Sequence[str]]
    bounds: tuple[float, float]
    scale: str
    diverging: bool = False
    percent: bool = False

    @property
    def colours(self) -> str:
        """The name of the scale of colours, the same in matplotlib and plotly."""
        return "RdBu" if self.diverging else "Blues"

    def is_dark(self, value: float) -> bool:
        """Whether a cell is dark."""
        place = (value - self.bounds[0]) / (self.bounds[1] - self.bounds[0])
        return (abs(2 * place - 1) if self.diverging else place) > LIGHT


@dataclass(frozen=True)
class Picture:
    """Panels of one kind, the name of their file, and their findings.

    Attributes:
        name: of its files, without their suffix.
        title: as a heading.
        panels: row by row, at least one; all are :class:`Lines`, or all :class:`HeatMap`.
        columns: number of panels in a row, at most.
        sentences: what the numbers say.
        caption: how they were measured, which is also written below the picture for a paper.
    """

    name: str
    title: str
    panels: Sequence[Lines] | Sequence[HeatMap]
    columns: int = 3
    sentences: Sequence[str] = ()
    caption: str = ""

    @property
    def grid(self) -> tuple[int, int]:
        """Numbers of rows and columns of panels."""
        columns = min(self.columns, len(self.panels))
        return ceil(len(self.panels) / columns), columns

    def legend(self) -> dict[str, Look]:
        """The lines that a legend explains; empty for one."""
        lines = [line for panel in self.panels if isinstance(panel, Lines) and not panel.named for line in panel.lines]
        looks = {line.name: line.look for line in lines}
        return looks if len(looks) > 1 else {}
