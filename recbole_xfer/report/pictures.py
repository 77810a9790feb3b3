"""Draws the pictures of a report from tables of numbers.

Hurt domains have their own colour. The colours are those of Okabe and Ito, which colour-blind readers can distinguish;
lines also differ by their markers. matplotlib draws, because plotly needs a browser to write a PNG.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from math import ceil
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

WARNING, CALM, GREY = "#D55E00", "#0072B2", "#8c8c8c"
COLOURS = [CALM, "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#000000"]
MARKERS, DASHES, HATCHES = "osD^vP", ["-", "--", ":"], ["", "///", "...", "xxx"]
LABEL_SIZE, LINE_HEIGHT = 8, 11  # points


def draw_transfer(gaps: pd.DataFrame, weights: pd.DataFrame, rest: pd.DataFrame, final: pd.Series) -> Figure:
    """Draws SyNCRec's gap (Eq. 10) and weight (Eq. 11) of each domain over training; hurt domains stand out.

    Args:
        gaps, weights: one row per epoch, one column per domain.
        rest: one row per epoch, with the columns ``alpha`` and ``beta``.
        final: gap of each domain at the end of training, negative where transfer hurts; its name is the title.
    """
    colours = {domain: WARNING if gap < 0 else CALM for domain, gap in final.items()}
    height = max(2.6, 0.6 + len(final) * LINE_HEIGHT * 1.3 / 72)
    figure = Figure(figsize=(10.5, 2 * height), layout="constrained")
    axes = figure.subplot_mosaic([["final", "gap"], ["rest", "weight"]], width_ratios=[2, 3])
    _bars_about_zero(axes["final"], final.sort_values(ascending=False), colours)
    _domain_lines(axes["gap"], gaps, colours, height, *_limits(gaps))
    axes["gap"].axhline(0, color="black", linewidth=1)
    axes["gap"].axhspan(axes["gap"].get_ylim()[0], 0, color=WARNING, alpha=0.08, linewidth=0)
    axes["gap"].set(title="gap over training (negative: transfer hurts)")
    _domain_lines(axes["weight"], weights, colours, height, 0, 1.08 * weights.to_numpy().max())
    axes["weight"].axhline(weights.to_numpy().mean(), color=GREY, linestyle=":", linewidth=1)
    axes["weight"].set(title="weight over training (dotted: mean)")
    for (name, values), style in zip(rest.items(), ("-", "--"), strict=True):
        axes["rest"].plot(values, style, color="black", label=name)
    axes["rest"].legend(frameon=False, fontsize=LABEL_SIZE)
    axes["rest"].set(title="alpha (memory) and beta (influence of the gap)", xlabel="epoch")
    return tidied(figure)


def draw_game(critic: pd.DataFrame, losses: pd.DataFrame, start: int) -> Figure:
    """Draws RecGURU's critic and the reconstruction loss of its autoencoders (Figure 2 of the paper).

    Args:
        critic: one row per adversarial epoch, one column per scalar of the critic; may be empty.
        losses: reconstruction loss, one row per epoch of both phases, one column per domain.
        start: row of ``losses`` at which the adversarial phase starts.
    """
    columns = max(1, critic.shape[1])
    rows: list[Any] = [["losses"] * columns] if critic.empty else [list(critic.columns), ["losses"] * columns]
    figure = Figure(figsize=(9, 2.8 * len(rows)), layout="constrained")
    axes = figure.subplot_mosaic(rows)
    for name, values in critic.items():
        axes[name].plot(values, color=CALM, marker="o", markersize=3)
        axes[name].axhline(0, color="black", linewidth=1)
        axes[name].set(
            title=f"{name}, estimated" if "distance" in name else name, xlabel="epoch of the adversarial phase"
        )
    for (domain, values), colour, marker in zip(losses.items(), COLOURS, MARKERS, strict=False):
        axes["losses"].plot(values, color=colour, marker=marker, markersize=3, label=domain)
    axes["losses"].legend(frameon=False, fontsize=LABEL_SIZE)
    axes["losses"].set(ylabel="reconstruction loss", xlabel="epoch", xlim=(-0.5, len(losses) - 0.5))
    if 0 < start < len(losses):
        axes["losses"].axvline(start - 0.5, color=GREY, linestyle="--")
    for place, name in ((0, "autoencoder phase"), (start, "adversarial phase")):
        if place < len(losses):
            axes["losses"].text(place - 0.5, 1.02, name, transform=axes["losses"].get_xaxis_transform(), color=GREY)
    return tidied(figure)


def draw_training(epochs: pd.DataFrame, best: pd.DataFrame, metric: str) -> Figure:
    """Draws training loss and validation metric by epoch, one line per run, and marks the best epochs.

    Args:
        epochs: columns ``label``, ``run``, ``epoch``, and ``training loss`` or ``metric``, or both.
        best: the rows of ``epochs`` with the best epoch of each run.
        metric: name of the validation column.
    """
    panels = [name for name in ("training loss", metric) if name in epochs]
    styles = styles_of(epochs["label"].unique())
    figure = Figure(figsize=(9 if len(panels) > 1 else 7, 3.4), layout="constrained")
    for axis, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for (label, _), run in epochs.dropna(subset=name).groupby(["label", "run"], sort=False):
            axis.plot(run["epoch"], run[name], markersize=3, label=label, **styles[label])
        axis.set(title=f"validation {name} (circle: best epoch)" if name == metric else name, xlabel="epoch")
        if name == metric:
            axis.plot(best["epoch"], best[name], "o", markersize=11, fillstyle="none", color=WARNING)
    _legend(figure, list(styles))
    return tidied(figure)


def draw_curves(table: pd.DataFrame, x: str, caption: str) -> Figure:
    """Draws metrics over the cutoff or a key, one line per model; rows of panels are groups, columns are metrics.

    Args:
        table: columns ``part``, ``metric``, ``label``, ``mean``, ``spread`` and ``x``.
        x: name of the column on the x-axis; its values are drawn at equal distances.
        caption: how the metrics were measured.
    """
    parts, metrics, places = table["part"].unique(), table["metric"].unique(), sorted(table[x].unique())
    styles = styles_of(table["label"].unique())
    dodge = {label: 0.03 * (number - (len(styles) - 1) / 2) for number, label in enumerate(styles)}  # of error bars
    figure = Figure(figsize=(4.6 * len(metrics), 0.6 + 2.2 * len(parts)), layout="constrained")
    panels = figure.subplots(len(parts), len(metrics), squeeze=False, sharex=True)
    for axes, part in zip(panels, parts, strict=True):
        for axis, metric in zip(axes, metrics, strict=True):
            panel = table[(table["part"] == part) & (table["metric"] == metric)]
            for label, line in panel.sort_values(x).groupby("label", sort=False):
                at = [places.index(value) + dodge[label] for value in line[x]]
                axis.errorbar(at, line["mean"], line["spread"], markersize=4, capsize=2, label=label, **styles[label])
            axis.set(title=f"{metric}, {part}", xlim=(-0.3, len(places) - 0.7))
            axis.set_xticks(range(len(places)), [f"{value:g}" for value in places])
    for axis in panels[-1]:
        axis.set_xlabel(x)
    _legend(figure, list(styles))
    add_caption(figure, caption)
    return tidied(figure)


def draw_bars(table: pd.DataFrame, caption: str) -> Figure:
    """Draws metrics of all test targets and of their groups, one bar per model, with the spread over seeds.

    Args:
        table: columns ``part``, ``metric``, ``label``, ``mean`` and ``spread``.
        caption: how the metrics were measured.
    """
    parts, metrics, labels = (table[name].unique() for name in ("part", "metric", "label"))
    styles = dict(zip(labels, ((c, h) for h in cycle(HATCHES) for c in COLOURS), strict=False))
    thickness = 0.8 / len(labels)
    figure = Figure(
        figsize=(1.5 + 3.6 * len(metrics), 1 + len(parts) * (0.1 + 0.15 * len(labels))), layout="constrained"
    )
    axes = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
    for axis, metric in zip(axes, metrics, strict=True):
        for number, label in enumerate(labels):
            bars = table[(table["metric"] == metric) & (table["label"] == label)].set_index("part").reindex(parts)
            colour, hatch = styles[label]
            drawn = axis.barh(
                np.arange(len(parts)) + (number - (len(labels) - 1) / 2) * thickness, bars["mean"], thickness,
                xerr=bars["spread"] if bars["spread"].any() else None, error_kw={"capsize": 1.5, "linewidth": 0.8},
                color=colour, hatch=hatch, edgecolor="white", linewidth=0.4, label=label,
            )  # fmt: skip
            axis.bar_label(drawn, fmt=" %.4f", fontsize=7, padding=1)
        axis.margins(x=0.2, y=0.01)
        axis.xaxis.set_major_locator(MaxNLocator(5))
        axis.set(title=metric, yticks=range(len(parts)), yticklabels=parts)
    axes[0].invert_yaxis()
    _legend(figure, list(labels))
    add_caption(figure, caption)
    return tidied(figure)


def _bars_about_zero(axis: Axes, values: pd.Series, colours: Mapping[Any, str]) -> None:
    bars = axis.barh(range(len(values)), values, color=[colours[name] for name in values.index])
    axis.bar_label(bars, fmt="%+.3f", fontsize=LABEL_SIZE, padding=2)
    axis.set_yticks(range(len(values)), values.index, fontsize=LABEL_SIZE)
    for label, name in zip(axis.get_yticklabels(), values.index, strict=True):
        label.set_color(colours[name])
    axis.axvline(0, color="black", linewidth=1)
    axis.margins(x=0.25)
    axis.invert_yaxis()
    axis.xaxis.set_major_locator(MaxNLocator(5))
    axis.set(title=values.name)


def _limits(values: pd.DataFrame) -> tuple[float, float]:
    """Limits of an axis that contain zero and all values, with a margin."""
    low, high = min(values.to_numpy().min(), 0), max(values.to_numpy().max(), 0)
    margin = 0.08 * max(high - low, 1e-9)
    return low - margin, high + margin


def _domain_lines(
    axis: Axes, values: pd.DataFrame, colours: Mapping[Any, str], height: float, low: float, high: float
) -> None:
    """Draws one line per domain, with its name to the right of its end; names do not overlap."""
    for domain, line in values.items():
        hurt = colours[domain] == WARNING
        width, layer = (1.8, 3) if hurt else (1.2, 2)
        axis.plot(line, color=colours[domain], marker="o", markersize=2, linewidth=width, zorder=layer)
    axis.set(xlabel="epoch", xlim=(0, max(1, len(values) - 1)), ylim=(low, high))
    label_ends(axis, {domain: (values.index[-1], value) for domain, value in values.iloc[-1].items()}, colours, height)


def label_ends(axis: Axes, ends: Mapping[Any, tuple[Any, float]], colours: Mapping[Any, str], height: float) -> None:
    """Writes the names of lines to the right of their ends; names do not overlap.

    Args:
        axis: with its limits.
        ends: the last point of each line, by name.
        colours: of the lines, by name.
        height: of the axis with its title and its label below, in inches.
    """
    low, high = axis.get_ylim()
    places = label_places([value for _, value in ends.values()], low, high, height - 0.6)
    for (name, end), place in zip(ends.items(), places, strict=True):
        axis.annotate(
            str(name), end, xytext=(1.06, place), textcoords="axes fraction", va="center", fontsize=LABEL_SIZE,
            color=colours[name],
            arrowprops={"arrowstyle": "-", "color": colours[name], "lw": 0.5, "shrinkB": 0, "relpos": (0, 0.5)},
        )  # fmt: skip


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


def styles_of(labels: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The colour, marker and dashes of each label's line; lines are dashed once all colours are used."""
    looks = (
        (colour, marker, dashes) for dashes in cycle(DASHES) for colour, marker in zip(COLOURS, MARKERS, strict=True)
    )
    names = ("color", "marker", "linestyle")
    return {label: dict(zip(names, look, strict=True)) for label, look in zip(labels, looks, strict=False)}


def _legend(figure: Figure, labels: Sequence[str]) -> None:
    """Adds one legend above all panels if there are several labels; the figure becomes higher."""
    if len(labels) == 1:
        return
    found = dict(zip(*reversed(figure.axes[0].get_legend_handles_labels()), strict=True))
    columns = max(1, int(figure.get_figwidth() / (0.7 + 0.075 * max(map(len, labels)))))
    figure.set_figheight(figure.get_figheight() + 0.2 * ceil(len(labels) / columns))
    figure.legend(
        [found[label] for label in labels], labels, loc="outside upper left", ncols=columns, frameon=False,
        fontsize=LABEL_SIZE,
    )  # fmt: skip


def add_caption(figure: Figure, caption: str) -> None:
    """Adds a caption below all panels, so that a picture alone says how it was measured; the figure becomes higher."""
    lines = wrap(caption, int(17 * figure.get_figwidth()))  # characters per inch
    figure.set_figheight(figure.get_figheight() + 0.12 * len(lines))
    figure.supxlabel("\n".join(lines), fontsize=7, color="#595959", x=0.01, ha="left")


def tidied(figure: Figure) -> Figure:
    """The figure with light axes and small fonts; its texts are names, in which ``$`` begins no formula."""
    for text in figure.findobj(Text):
        text.set_parse_math(False)
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.title.set_fontsize(10)
        axis.tick_params(labelsize=LABEL_SIZE)
        if axis.get_xlabel().startswith("epoch"):
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
