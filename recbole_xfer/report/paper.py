"""Draws pictures with matplotlib, for PNG and PDF files."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from pathlib import Path
from textwrap import wrap
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from recbole_xfer.files import replacing
from recbole_xfer.report.looks import BAND, GREY, LABEL_SIZE, WARNING, label_places
from recbole_xfer.report.picture import HeatMap, Line, Lines, Picture

FORMATS = "png", "pdf"


def write_pictures(pictures: Sequence[Picture], folder: Path) -> list[Path]:
    """Writes each picture as a PNG and a PDF file of its name; returns their paths."""
    paths = []
    for picture in pictures:
        figure = draw(picture)
        for kind in FORMATS:
            paths.append(folder / f"{picture.name}.{kind}")
            with replacing(paths[-1]) as temporary:
                figure.savefig(temporary, format=kind, dpi=150)
    return paths


def draw(picture: Picture) -> Figure:
    """Draws a picture, with its legend above and its caption below all panels."""
    rows, columns = picture.grid
    width, height = _size(picture.panels)
    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, picture.panels, strict=False):
        if isinstance(panel, HeatMap):
            _draw_cells(figure, axis, panel)
        elif isinstance(panel, Lines):
            _draw_lines(axis, panel, height)
    for axis in axes[len(picture.panels) :]:
        axis.remove()
    _add_legend(figure, picture)
    _add_caption(figure, picture.caption)
    return _tidied(figure)


def _size(panels: Sequence[Lines] | Sequence[HeatMap]) -> tuple[float, float]:
    """Width and height of each panel, in inches."""
    sizes = [_size_of_cells(panel) if isinstance(panel, HeatMap) else _size_of_lines(panel) for panel in panels]
    return max(width for width, _ in sizes), max(height for _, height in sizes)


def _size_of_lines(panel: Lines) -> tuple[float, float]:
    ticks = max(map(len, panel.ticks.values()), default=0)
    if not panel.named:
        return max(3.6, 0.35 * len(panel.ticks), 0.11 * len(panel.title)), 2.9 + 0.06 * ticks * (not panel.joined)
    return 4.2 + 0.075 * max(len(line.name) for line in panel.lines), max(3.2, 0.6 + len(panel.lines) * 0.2)


def _size_of_cells(panel: HeatMap) -> tuple[float, float]:
    names = 0.075 * max(map(len, panel.rows))
    return 1.5 + names + max(1.2 * len(panel.columns), 0.1 * len(panel.title)), 0.8 + 0.5 * len(panel.rows)


def _draw_lines(axis: Axes, panel: Lines, height: float) -> None:
    for line in panel.lines:
        _draw_line(axis, line, panel.joined)
    if panel.circles is not None:
        colours = {line.name: line.look.colour for line in panel.lines}
        for circle in panel.circles.itertuples():
            axis.plot(circle.x, circle.y, "o", markersize=9, fillstyle="none", color=colours[str(circle.line)])
    low, high = panel.range()
    axis.set(title=panel.title, xlabel=panel.x, ylabel=panel.y, ylim=(low, high))
    if panel.log:
        axis.set_xscale("log")
    if panel.ticks:
        axis.set_xticks(list(panel.ticks), list(panel.ticks.values()))
        axis.minorticks_off()
    elif not panel.log:
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not panel.joined:
        axis.set_xlim(min(panel.ticks) - 0.5, max(panel.ticks) + 0.5)
        if max(map(len, panel.ticks.values())) > 4:
            axis.tick_params(axis="x", rotation=35)
            for label in axis.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
    if panel.zero:
        axis.axhline(0, color="black", linewidth=1)
        axis.axhspan(low, 0, color=WARNING, alpha=0.08, linewidth=0)
    if panel.boundary:
        _draw_boundary(axis, *panel.boundary)
    if panel.named:
        _name_ends(axis, panel, height)


def _draw_line(axis: Axes, line: Line, joined: bool) -> None:
    x, mean, spread = (line.points[name].to_numpy() for name in ("x", "mean", "spread"))
    look: dict[str, Any] = {"color": line.look.colour, "marker": line.look.marker, "markersize": 4}
    if not joined:
        axis.errorbar(x, mean, spread, linestyle="", capsize=2, **look)
        return
    if spread.any():
        axis.fill_between(x, mean - spread, mean + spread, color=line.look.colour, alpha=BAND, linewidth=0)
    axis.plot(x, mean, linestyle=line.look.dashes, **look)


def _draw_boundary(axis: Axes, place: float, before: str, after: str) -> None:
    axis.axvline(place, color=GREY, linestyle="--")
    for text, side, gap in ((before, "right", -3), (after, "left", 3)):
        axis.annotate(
            text, (place, 1), xytext=(gap, -3), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha=side, va="top", color=GREY, fontsize=LABEL_SIZE,
        )  # fmt: skip


def _name_ends(axis: Axes, panel: Lines, height: float) -> None:
    """Writes the names of lines to the right of their ends; names do not overlap."""
    ends, (low, high) = panel.ends(), panel.range()
    places = label_places([value for _, value in ends.values()], low, high, height - 0.6)
    for line, end, place in zip(panel.lines, ends.values(), places, strict=True):
        colour = line.look.colour
        axis.annotate(
            line.name, end, xytext=(1.06, place), textcoords="axes fraction", va="center", fontsize=LABEL_SIZE,
            color=colour, arrowprops={"arrowstyle": "-", "color": colour, "lw": 0.5, "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip


def _draw_cells(figure: Figure, axis: Axes, panel: HeatMap) -> None:
    low, high = panel.bounds
    colours = matplotlib.colormaps[panel.colours].with_extremes(bad="#eeeeee")
    image = axis.imshow(np.ma.masked_invalid(panel.values), colours, vmin=low, vmax=high, aspect="auto")
    for (row, column), value in np.ndenumerate(panel.values):
        axis.text(
            column, row, panel.texts[row][column], ha="center", va="center", fontsize=LABEL_SIZE,
            color="white" if panel.is_dark(value) else "black",
        )  # fmt: skip
    axis.set_xticks(range(len(panel.columns)), panel.columns)
    axis.set_yticks(range(len(panel.rows)), panel.rows)
    axis.tick_params(length=0)
    axis.set_title(panel.title)
    bar = figure.colorbar(image, ax=axis, format="{x:+.0%}" if panel.percent else "{x:.2g}")
    bar.set_label(panel.scale, fontsize=LABEL_SIZE)
    bar.outline.set_visible(False)


def _add_legend(figure: Figure, picture: Picture) -> None:
    """Adds one legend above all panels, where the picture has one; the figure becomes higher."""
    looks = picture.legend()
    if not looks:
        return
    joined = any(isinstance(panel, Lines) and panel.joined for panel in picture.panels)
    keys = [
        Line2D([], [], color=look.colour, marker=look.marker, markersize=4, linestyle=look.dashes if joined else "")  # type: ignore[arg-type]
        for look in looks.values()
    ]
    columns = max(1, int(figure.get_figwidth() / (0.7 + 0.075 * max(map(len, looks)))))
    figure.set_figheight(figure.get_figheight() + 0.2 * ceil(len(looks) / columns))
    figure.legend(keys, list(looks), loc="outside upper left", ncols=columns, frameon=False, fontsize=LABEL_SIZE)


def _add_caption(figure: Figure, caption: str) -> None:
    """Adds a caption below all panels, so that a picture alone says how it was measured; the figure becomes higher."""
    lines = wrap(caption, int(17 * figure.get_figwidth()))  # characters per inch
    if lines:
        figure.set_figheight(figure.get_figheight() + 0.12 * len(lines))
        figure.supxlabel("\n".join(lines), fontsize=7, color="#595959", x=0.01, ha="left")


def _tidied(figure: Figure) -> Figure:
    """The figure with light axes and small fonts; its texts are names, in which ``$`` begins no formula."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set_fontsize(10)
        axis.tick_params(labelsize=LABEL_SIZE)
        for name in (axis.xaxis.label, axis.yaxis.label):
            name.set_fontsize(LABEL_SIZE)
    return figure
