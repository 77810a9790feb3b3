"""Draws matrices of numbers as heat maps: matplotlib for PNG and PDF, plotly for a page that shows numbers on hover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from plotly import graph_objects

from recbole_xfer.report.page import Section, write_page
from recbole_xfer.report.pictures import LABEL_SIZE, add_caption, tidied

LIGHT = 0.6
"""Fraction of a scale, from its light end, beyond which the text of a cell is white."""


@dataclass(frozen=True)
class HeatMap:
    """A matrix of numbers with a text in each cell, which says all that the colour says.

    Attributes:
        title: of the picture.
        rows, columns: names.
        values: [rows, columns]; NaN where there is none.
        texts: [rows][columns].
        bounds: the values with the first and the last colour.
        scale: what the numbers are.
        diverging: red below the middle of the bounds and blue above it, both light near it; otherwise light to blue.
        percent: whether the numbers are written in percent.
        sentences: what the numbers say, above the heat map on a page.
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
    sentences: Sequence[str] = ()

    @property
    def colours(self) -> str:
        """The name of the scale of colours, the same in matplotlib and plotly."""
        return "RdBu" if self.diverging else "Blues"

    def is_dark(self, value: float) -> bool:
        """Whether a cell is dark."""
        place = (value - self.bounds[0]) / (self.bounds[1] - self.bounds[0])
        return (abs(2 * place - 1) if self.diverging else place) > LIGHT


def draw(maps: Sequence[HeatMap], caption: str, columns: int) -> Figure:
    """Draws heat maps, with their texts in the cells.

    Args:
        maps: at least one, row by row.
        caption: how the numbers were measured.
        columns: number of heat maps in a row.
    """
    names = 0.075 * max(len(name) for one in maps for name in one.rows)
    width = 1.5 + names + max(max(1.2 * len(one.columns), 0.1 * len(one.title)) for one in maps)
    height = 0.8 + 0.5 * max(len(one.rows) for one in maps)
    rows = ceil(len(maps) / columns)
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, one in zip(axes, maps, strict=False):
        _draw_one(figure, axis, one)
    for axis in axes[len(maps) :]:
        axis.remove()
    add_caption(figure, caption)
    return tidied(figure)


def _draw_one(figure: Figure, axis: Axes, one: HeatMap) -> None:
    low, high = one.bounds
    colours = matplotlib.colormaps[one.colours].with_extremes(bad="#eeeeee")
    image = axis.imshow(np.ma.masked_invalid(one.values), colours, vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(one.values):
        axis.text(
            column, row, one.texts[row][column], ha="center", va="center", fontsize=LABEL_SIZE,
            color="white" if one.is_dark(value) else "black",
        )  # fmt: skip
    axis.set_xticks(range(len(one.columns)), one.columns)
    axis.set_yticks(range(len(one.rows)), one.rows)
    axis.tick_params(length=0)
    axis.set_title(one.title)
    bar = figure.colorbar(image, ax=axis, format="{x:+.0%}" if one.percent else "{x:.2g}")
    bar.set_label(one.scale, fontsize=LABEL_SIZE)
    bar.outline.set_visible(False)


def interactive(one: HeatMap) -> graph_objects.Figure:
    """A heat map for a page; the numbers of a cell are shown on hover."""
    low, high = one.bounds
    cells = graph_objects.Heatmap(
        x=list(one.columns), y=list(one.rows), z=one.values,
        text=[[text.replace("\n", "<br>") for text in row] for row in one.texts], texttemplate="%{text}",
        hovertemplate="%{y}, %{x}<br>%{text}<extra></extra>", colorscale=one.colours, zmin=low, zmax=high,
        colorbar={"title": {"text": one.scale}, "tickformat": "+.0%" if one.percent else ".2f"}, xgap=1, ygap=1,
    )  # fmt: skip
    figure = graph_objects.Figure(cells)
    size = {"width": 420 + 130 * len(one.columns), "height": 170 + 52 * len(one.rows)}
    figure.update_layout(template="plotly_white", margin={"l": 20, "t": 40, "b": 20}, **size)
    figure.update_yaxes(autorange="reversed", automargin=True, type="category")
    figure.update_xaxes(type="category")
    return figure


def write_heat_maps(
    folder: Path, name: str, title: str, maps: Sequence[HeatMap], caption: str, columns: int
) -> list[Path]:
    """Writes heat maps as a page that needs no other file, a PNG and a PDF; returns their paths.

    Args:
        folder: of the files.
        name: of the files, without their suffix.
        title: of the page.
        maps, caption, columns: see :func:`draw`.
    """
    sections = [Section(one.title, one.sentences, figure=interactive(one)) for one in maps]
    pictures = dict.fromkeys((folder / f"{name}.png", folder / f"{name}.pdf"), draw(maps, caption, columns))
    return write_page(folder / f"{name}.html", title, [*sections, Section(sentences=[caption])], pictures)
