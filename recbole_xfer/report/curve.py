"""Draws the curves of a study over the fraction of users trained: an interactive page, and pictures for a paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from plotly import graph_objects

from recbole_xfer.comparison.curve import Curve
from recbole_xfer.comparison.layout import joint_caption
from recbole_xfer.data.splits import percentage
from recbole_xfer.files import replacing
from recbole_xfer.report.page import Section, write_page
from recbole_xfer.report.pictures import LABEL_SIZE, add_caption, label_ends, label_places, styles_of, tidied

SIZE = 5.2, 3.6
"""Width and height of a curve, in inches."""

PIXELS = 420
"""Height of a curve on a page."""

OPACITY = 0.15
"""Of a band."""

SYMBOLS = {"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "P": "cross"}
LINES = {"-": "solid", "--": "dash", ":": "dot"}
"""Names that plotly has for matplotlib's markers and lines."""


def write(curves: Sequence[Curve], folder: Path) -> list[Path]:
    """Writes ``curve.html``, which needs no other file, ``curve.png``, ``curve.pdf``, and the points as ``curve.csv``.

    Args:
        curves: at least one.
        folder: of the files.

    Returns:
        their paths.
    """
    looks = styles_of(labels_of(curves))
    sections = [section(curve, looks) for curve in curves]
    pictures = dict.fromkeys((folder / "curve.png", folder / "curve.pdf"), draw(curves))
    paths = write_page(folder / "curve.html", "How much target data", sections, pictures)
    points = pd.concat([curve.frame().assign(curve=curve.name, metric=curve.metric) for curve in curves])
    with replacing(folder / "curve.csv") as temporary:
        points.to_csv(temporary, index=False, lineterminator="\n")
    return [*paths, folder / "curve.csv"]


def section(curve: Curve, looks: Mapping[str, Mapping[str, Any]]) -> Section:
    """A curve as a part of a page: the interactive picture, its numbers, and how they were measured."""
    layout = curve.layout()
    rows = [(*line.names, *(entry.text for entry in line.entries)) for line in layout.lines]
    return Section(
        layout.title, [f"{layout.caption}."], (*layout.names, *layout.columns), rows, interactive(curve, looks)
    )


def labels_of(curves: Sequence[Curve]) -> list[str]:
    """The rows of all curves, so that a row has one colour in all of them."""
    return list(dict.fromkeys(label for curve in curves for label in curve.frame()["row"]))


def draw(curves: Sequence[Curve]) -> Figure:
    """Draws curves side by side, at most three in a row: mean and, as a band, standard deviation over seeds."""
    columns = min(len(curves), 3)
    rows = ceil(len(curves) / columns)
    figure = Figure(figsize=(SIZE[0] * columns, SIZE[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    looks = styles_of(labels_of(curves))
    for axis, curve in zip(axes, curves, strict=False):
        _draw_one(axis, curve, looks)
    for axis in axes[len(curves) :]:
        axis.remove()
    add_caption(figure, joint_caption([curve.layout() for curve in curves]))
    return tidied(figure)


def _draw_one(axis: Axes, curve: Curve, looks: Mapping[str, Mapping[str, Any]]) -> None:
    ends = {}
    for label, points in _lines(curve):
        x, mean, spread = (points[name].to_numpy() for name in ("train_share", "mean", "spread"))
        axis.fill_between(x, mean - spread, mean + spread, color=looks[label]["color"], alpha=OPACITY, linewidth=0)
        axis.plot(x, mean, markersize=4, **looks[label])
        ends[label] = x[-1], mean[-1]
    axis.set_xscale("log")
    axis.set_xticks(list(curve.tables), [percentage(share) for share in curve.tables])
    axis.minorticks_off()
    axis.set(title=curve.name, xlabel="users trained (log)", ylabel=curve.metric, ylim=(0, _highest(curve)))
    for name in (axis.xaxis.label, axis.yaxis.label):
        name.set_fontsize(LABEL_SIZE)
    label_ends(axis, ends, {label: looks[label]["color"] for label in ends}, SIZE[1])


def interactive(curve: Curve, looks: Mapping[str, Mapping[str, Any]]) -> graph_objects.Figure:
    """A curve for a page; the numbers of a point are shown on hover."""
    figure, ends = graph_objects.Figure(), {}
    for label, points in _lines(curve):
        x, mean, spread = (points[name].tolist() for name in ("train_share", "mean", "spread"))
        look = looks[label]
        red, green, blue, _ = (round(255 * part) for part in to_rgba(look["color"]))
        band = [m + s for m, s in zip(mean, spread, strict=True)], [m - s for m, s in zip(mean, spread, strict=True)]
        figure.add_scatter(
            x=x + x[::-1], y=band[0] + band[1][::-1], fill="toself", fillcolor=f"rgba({red},{green},{blue},{OPACITY})",
            line={"width": 0}, mode="lines", hoverinfo="skip", name=f"{label}, band",
        )  # fmt: skip
        figure.add_scatter(
            x=x, y=mean, mode="lines+markers", name=label, customdata=spread,
            line={"color": look["color"], "dash": LINES[look["linestyle"]]},
            marker={"symbol": SYMBOLS[look["marker"]], "size": 7},
            hovertemplate=f"%{{x:.3~%}} of the users<br>{curve.metric} %{{y:.4f}} ±%{{customdata:.4f}}",
        )  # fmt: skip
        ends[label] = mean[-1]
    high = _highest(curve)
    places = label_places(list(ends.values()), 0, high, PIXELS / 96 - 1)
    for label, place in zip(ends, places.tolist(), strict=True):
        figure.add_annotation(
            text=label, x=1.02, y=place, xref="paper", yref="paper", xanchor="left", yanchor="middle", showarrow=False,
            font={"color": looks[label]["color"]},
        )  # fmt: skip
    shares = list(curve.tables)
    figure.update_xaxes(type="log", tickvals=shares, ticktext=[percentage(share) for share in shares])
    figure.update_xaxes(title="users trained (log)")
    figure.update_yaxes(title=curve.metric, range=[0, high])
    margin = {"t": 20, "b": 50, "r": 30 + 8 * max(map(len, ends))}
    figure.update_layout(template="plotly_white", showlegend=False, width=900, height=PIXELS, margin=margin)
    return figure


def _lines(curve: Curve) -> Iterator[tuple[str, pd.DataFrame]]:
    """The points of each row, from small to large fractions."""
    for label, points in curve.frame().groupby("row", sort=False):
        yield str(label), points.sort_values("train_share")


def _highest(curve: Curve) -> float:
    """The end of the axis of the metric, above all bands."""
    frame = curve.frame()
    return max(1.08 * float((frame["mean"] + frame["spread"]).max()), 1e-9)
