"""Pictures of test results: over the fraction of users, the cutoff and a key, by group, and of a matrix of transfer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from recbole_xfer.comparison.table import with_distinct_labels
from recbole_xfer.config.values import is_number, split_domains
from recbole_xfer.data.splits import percentage
from recbole_xfer.evaluation.domain_ranking import MEAN, split_metric_name
from recbole_xfer.evaluation.result import Result
from recbole_xfer.report.content import CurveContent, Table
from recbole_xfer.report.history import Run
from recbole_xfer.report.looks import Looks
from recbole_xfer.report.picture import HeatMap, Line, Lines, Picture

PARTS = {None: "all targets", MEAN: "mean of domains"}
"""Names of the parts of results that are not domains or groups."""

FEWEST = 3
"""Minimum number of cutoffs, or of values of a key, for a line."""

WIDTH = 0.6
"""Of the points of all rows at a name on the x-axis, whose neighbour is 1 away."""


def curve_picture(curve: CurveContent, name: str, looks: Looks) -> Picture:
    """The metric of each row over the fraction of users trained."""
    points = pd.DataFrame([point.model_dump() for point in curve.points]).rename(columns={"train_share": "x"})
    lines = [Line(str(row), own.sort_values("x"), looks[str(row)]) for row, own in points.groupby("row", sort=False)]
    ticks = {float(share): percentage(share) for share in sorted(points["x"].unique())}
    panel = Lines(curve.curve, lines, "users trained (log)", curve.metric, ticks, log=True, named=True, from_zero=True)
    return Picture(name, curve.layout.title, [panel], caption=f"{curve.measured}.")


def matrix_picture(table: Table, name: str, farthest: float) -> Picture:
    """The changes of a model's adaptations from the model from scratch, with signs, stars and the metric.

    Args:
        table: with a matrix.
        name: of the file.
        farthest: the change with the darkest colour.
    """
    sources = list(dict.fromkeys(cell.source for cell in table.matrix))
    ways = list(dict.fromkeys(cell.adaptation for cell in table.matrix))
    values = np.full((len(sources), len(ways)), np.nan)
    texts = [["failed"] * len(ways) for _ in sources]
    changes = table.against.changes if table.against else {}
    for cell in table.matrix:
        if cell.row in changes:
            row, column, change = sources.index(cell.source), ways.index(cell.adaptation), changes[cell.row]
            values[row, column] = change.change
            texts[row][column] = f"{change.text()}\n{table.summary[cell.row][table.metric].mean:.4f}"
    panel = HeatMap("", sources, ways, values, texts, (-farthest, farthest), "vs scratch", diverging=True, percent=True)
    return Picture(name, table.layouts[0].title, [panel], caption=f"{table.measured}.")


def farthest_change(tables: Sequence[Table]) -> float:
    """The largest change in matrices, so that one colour means one change in all of them."""
    found = [
        abs(table.against.changes[cell.row].change)
        for table in tables
        if table.against
        for cell in table.matrix
        if cell.row in table.against.changes
    ]
    return max([*found, 1e-9])


# --- groups and cutoffs ----------------------------------------------------------------------------------------------


def summary_frame(table: Table) -> pd.DataFrame:
    """Each row's metrics by part (all targets, domain or group), metric and cutoff k, which is 0 without one."""
    rows = []
    for label, metrics in table.summary.items():
        for full, score in metrics.items():
            name, part = split_metric_name(full)
            metric, _, k = name.partition("@")
            rows.append((label, PARTS.get(part, part), metric, int(k or 0), score.mean, score.spread))
    return pd.DataFrame(rows, columns=["row", "part", "metric", "k", "mean", "spread"])


def groups_picture(table: Table, name: str, looks: Looks) -> Picture | None:
    """The metrics at the shown cutoff of each domain or group; None without them."""
    frame = summary_frame(table)
    shown = int(table.metric.partition("@")[2] or 0)
    frame = frame[frame["k"].isin([shown, 0])].copy()
    parts = list(frame["part"].unique())
    if len(parts) < 2:
        return None
    rows = list(frame["row"].unique())
    places = {row: WIDTH * ((number + 0.5) / len(rows) - 0.5) for number, row in enumerate(rows)}
    frame["x"] = [parts.index(part) + places[row] for part, row in zip(frame["part"], frame["row"], strict=True)]
    panels = [
        Lines(
            _full(str(metric), shown if of_metric["k"].any() else 0), _lines(of_metric, looks), "",
            ticks=dict(enumerate(parts)), joined=False,
        )
        for metric, of_metric in frame.groupby("metric", sort=False)
    ]  # fmt: skip
    sentences = _winners(frame[frame["metric"] == table.metric.partition("@")[0]], table.metric)
    return Picture(name, table.name, panels, 1 if len(parts) * len(rows) > 40 else 2, sentences, f"{table.measured}.")


def _full(metric: str, k: int) -> str:
    return f"{metric}@{k}" if k else metric


def _lines(frame: pd.DataFrame, looks: Looks) -> list[Line]:
    """A line for each row."""
    return [Line(str(row), own.sort_values("x"), looks[str(row)]) for row, own in frame.groupby("row", sort=False)]


def _winners(frame: pd.DataFrame, metric: str) -> list[str]:
    """Names the row with the highest value in each part."""
    if frame["row"].nunique() < 2:
        return []
    best = frame.sort_values("mean", ascending=False).drop_duplicates("part")
    where = best.groupby("row", sort=False)["part"].agg(", ".join)
    return [f"Highest {metric}: {'; '.join(f'{row} on {parts}' for row, parts in where.items())}."]


def lengths_picture(table: Table, name: str, looks: Looks) -> Picture | None:
    """The metrics over the cutoff, for all targets and each group; None for fewer than three cutoffs."""
    frame = summary_frame(table)
    frame = frame[(frame["k"] > 0) & ~frame["part"].isin(split_domains(table.dataset))]
    if frame["k"].nunique() < FEWEST:
        return None
    panels = _panels(frame.rename(columns={"k": "value"}), "length k", looks)
    return Picture(name, table.name, panels, frame["metric"].nunique(), caption=f"{table.measured}.")


def _panels(frame: pd.DataFrame, x: str, looks: Looks) -> list[Lines]:
    """A panel for each part and metric; the values on the x-axis are drawn at equal distances."""
    values = sorted(frame["value"].unique())
    ticks = {float(place): f"{value:g}" for place, value in enumerate(values)}
    frame = frame.assign(x=[float(values.index(value)) for value in frame["value"]])
    return [
        Lines(f"{metric}, {part}", _lines(own, looks), x, ticks=ticks)
        for (part, metric), own in frame.groupby(["part", "metric"], sort=False)
    ]


# --- keys ------------------------------------------------------------------------------------------------------------


def influence_picture(runs: Sequence[Run], key: str, table: Table, name: str, looks: Looks) -> Picture | None:
    """Results over a key, with one line per set of runs that differ only in it; None if they have too few values."""
    having = [run for run in runs if run.result and is_number(run.keys.get(key))]
    others = [{other: value for other, value in run.keys.items() if other != key} for run in having]
    results = with_distinct_labels([run.result for run in having if run.result], others)
    shown = table.metric.partition("@")[2]
    frame = pd.DataFrame(
        [
            (result.label, run.keys[key], PARTS.get(part, part), metric, value)
            for run, result in zip(having, results, strict=True)
            for metric, part, value in _metrics_at(result, shown)
            if part not in run.domains
        ],
        columns=["row", "value", "part", "metric", "score"],
    )
    frame = frame[frame.groupby("row")["value"].transform("nunique") >= FEWEST]
    if frame.empty:
        return None
    scores = frame.groupby(["row", "part", "metric", "value"], sort=False)["score"]
    summary = scores.agg(mean="mean", spread="std").fillna({"spread": 0.0}).reset_index()
    overall = summary[(summary["part"] == PARTS[None]) & (summary["metric"] == table.metric)]
    best = overall.loc[overall.groupby("row", sort=False)["mean"].idxmax()]
    sentences = [
        f"{line['row']}: {table.metric} of all targets is highest at {key} = {line['value']:g}, {line['mean']:.4f}"
        + (f" ± {line['spread']:.4f}." if line["spread"] else ".")
        for _, line in best.iterrows()
    ]
    panels = _panels(summary, key, looks)
    return Picture(name, f"{key}, {table.name}", panels, summary["metric"].nunique(), sentences, f"{table.measured}.")


def _metrics_at(result: Result, k: str) -> list[tuple[str, str | None, float]]:
    """Metric, part and value of each test metric at a cutoff, and of those without one."""
    found = [(*split_metric_name(name), value) for name, value in result.test_by_part().items()]
    return [(metric, part, value) for metric, part, value in found if metric.partition("@")[2] in (k, "")]


def varied_keys(runs: Sequence[Run]) -> list[str]:
    """The keys with enough different numbers in the runs for a line."""
    names = sorted({key for run in runs for key in run.keys} - {"seed"})
    numbers = {name: {run.keys[name] for run in runs if is_number(run.keys.get(name))} for name in names}
    return [name for name in names if len(numbers[name]) >= FEWEST]
