"""Draws matrices of numbers as heat maps: matplotlib for PNG and PDF, plotly for a page that shows numbers on hover."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from plotly import graph_objects

from recbole_xfer.files import replacing
from recbole_xfer.report.page import Section, write_page
from recbole_xfer.report.pictures import LABEL_SIZE, add_caption, tidied

LIGHT = 0.6
"""Fraction of the scale beyond which a cell is so dark that its text is white."""


@dataclass(frozen=True)
class HeatMap:
    """A matrix whose colours diverge from a middle: red below and blue above, or light to blue if nothing is below.

    Attributes:
        title: of the picture.
        rows, columns: names.
        values: [rows, columns]; NaN where there is none.
        texts: of the cells, [rows][columns]; they say by sign or number what the colour says.
        middle: the value without colour.
        limit: the distance from the middle with full colour.
        scale: name of the numbers.
        percent: whether the scale is in percent.
    """

    title: str
    rows: Sequence[str]
    columns: Sequence[str]
    values: np.ndarray
    texts: Sequence[Sequence[str]]
    middle: float
    limit: float
    scale: str
    percent: bool = False

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest value of the scale, as far from the middle as each other."""
        return self.middle - self.limit, self.middle + self.limit


def farthest(values: np.ndarray, middle: float = 0.0) -> float:
    """The largest distance of a value from the middle, for :attr:`HeatMap.limit`; small where all are equal to it."""
    return max(float(np.nanmax(np.abs(values - middle), initial=0.0)), 1e-9)


def draw(maps: Sequence[HeatMap], caption: str) -> Figure:
    """Draws heat maps side by side, with their numbers in the cells.

    Args:
        maps: at least one.
        caption: how the numbers were measured.
    """
    names = max(len(name) for one in maps for name in one.rows)
    width = sum(1.5 + 0.075 * names + max(1.2 * len(one.columns), 0.075 * len(one.title)) for one in maps)
    height = 1.2 + 0.5 * max(len(one.rows) for one in maps)
    figure = Figure(figsize=(width, height), layout="constrained")
    for axis, one in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps, strict=True):
        _draw_one(figure, axis, one)
    add_caption(figure, caption)
    return tidied(figure)


def _draw_one(figure: Figure, axis: Axes, one: HeatMap) -> None:
    low, high = one.bounds
    colours = matplotlib.colormaps["RdBu"].with_extremes(bad="#eeeeee")
    image = axis.imshow(np.ma.masked_invalid(one.values), colours, vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(one.values):
        dark = abs(value - one.middle) > LIGHT * one.limit
        axis.text(
            column, row, one.texts[row][column], ha="center", va="center", fontsize=LABEL_SIZE,
            color="white" if dark else "black",
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
        hovertemplate="%{y}, %{x}<br>%{text}<extra></extra>", colorscale="RdBu", zmin=low, zmax=high, zmid=one.middle,
        colorbar={"title": {"text": one.scale}, "tickformat": "+.0%" if one.percent else ".2f"}, xgap=1, ygap=1,
    )  # fmt: skip
    figure = graph_objects.Figure(cells)
    size = {"width": 420 + 130 * len(one.columns), "height": 170 + 52 * len(one.rows)}
    figure.update_layout(template="plotly_white", margin={"l": 20, "t": 40, "b": 20}, **size)
    figure.update_yaxes(autorange="reversed", automargin=True, type="category")
    figure.update_xaxes(type="category")
    return figure


def write_heat_maps(
    folder: Path, name: str, title: str, maps: Sequence[HeatMap], caption: str, sentences: Sequence[Sequence[str]]
) -> list[Path]:
    """Writes a page that needs no other file, a PNG and a PDF of heat maps; returns their paths.

    Args:
        folder: of the files.
        name: of the files, without their suffix.
        title: of the page.
        maps: at least one.
        caption: how the numbers were measured.
        sentences: what each heat map says.
    """
    figure = draw(maps, caption)
    sections = [Section(one.title, said, figure=interactive(one)) for one, said in zip(maps, sentences, strict=True)]
    pages = write_page(folder / f"{name}.html", title, [*sections, Section(sentences=[caption])], {})
    pictures = [folder / f"{name}.png", folder / f"{name}.pdf"]
    for path in pictures:
        with replacing(path) as temporary:
            figure.savefig(temporary, format=path.suffix.removeprefix("."), dpi=150)
    return [*pages, *pictures]
