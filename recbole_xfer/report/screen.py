"""Draws pictures with plotly, for a page: numbers are shown on hover, and a click on a legend hides a row."""

from __future__ import annotations

from html import escape
from math import ceil
from typing import Any

from matplotlib.colors import to_rgba
from plotly import graph_objects
from plotly.subplots import make_subplots

from recbole_xfer.report.looks import BAND, GREY, LINE_HEIGHT, WARNING, label_places
from recbole_xfer.report.picture import HeatMap, Line, Lines, Picture

WIDTH = 1120
"""Of a picture with several panels in a row, in pixels."""

PANEL = 300
"""Height of a panel of lines, in pixels."""

TOP, BELOW, LETTER = 40, 70, 7
"""Pixels of a title above a panel, of the axis below it, and of a letter."""

SYMBOLS = {"o": "circle", "s": "square", "D": "diamond", "^": "triangle-up", "v": "triangle-down", "P": "cross"}
DASHES = {"-": "solid", "--": "dash", ":": "dot"}
"""Names that plotly has for matplotlib's markers and dashes."""


def interactive(picture: Picture) -> graph_objects.Figure:
    """A picture as a figure of plotly. Its texts are escaped, because plotly reads them as HTML."""
    panels = [panel for panel in picture.panels if isinstance(panel, Lines)]
    if not panels:
        return _cells(picture)
    rows, columns = picture.grid
    width = WIDTH if columns > 1 else 860
    named = max((len(line.name) for panel in panels if panel.named for line in panel.lines), default=0)
    names = 20 + LETTER * named if named else 0  # to the right of each panel
    height = max(PANEL, *(20 * len(panel.lines) if panel.named else 0 for panel in panels))
    below = BELOW + _longest_tick(picture)
    legend = _legend_height(picture, width)
    plot = rows * height + (rows - 1) * (TOP + below)
    figure = make_subplots(
        rows, columns, subplot_titles=[f"<span>{escape(panel.title)}</span>" for panel in panels],
        horizontal_spacing=min((names + 65) / width, 0.9 / columns) if columns > 1 else 0,
        vertical_spacing=(TOP + below) / plot if rows > 1 else 0,
    )  # fmt: skip
    known: set[str] = set()
    for number, panel in enumerate(panels):
        place = {"row": number // columns + 1, "col": number % columns + 1}
        _add_lines(figure, panel, place, known if picture.legend() else None)
        _add_axes(figure, panel, place)
        if panel.named:
            _add_names(figure, panel, place, height)
    figure.update_annotations(selector={"yanchor": "bottom"}, font_size=14)
    top = TOP + legend
    figure.update_layout(
        template="plotly_white", width=width, height=plot + top + below, hovermode="closest",
        margin={"t": top, "b": below, "l": 70, "r": 20 + names},
        legend={"orientation": "h", "x": 0, "y": 1 + 30 / plot, "yanchor": "bottom"},
    )  # fmt: skip
    return figure


def _longest_tick(picture: Picture) -> int:
    """Pixels that inclined texts of ticks need."""
    ticks = [text for panel in picture.panels if isinstance(panel, Lines) for text in panel.ticks.values()]
    return 4 * max((len(text) for text in ticks if not picture.panels[0].joined), default=0)  # type: ignore[union-attr]


def _legend_height(picture: Picture, width: int) -> int:
    """Pixels of the legend; each of its columns is as wide as the longest name."""
    names = picture.legend()
    if not names:
        return 0
    in_a_row = max(1, (width - 90) // (50 + LETTER * max(map(len, names))))
    return 10 + 20 * ceil(len(names) / in_a_row)


def _add_lines(figure: graph_objects.Figure, panel: Lines, place: dict[str, int], known: set[str] | None) -> None:
    """Adds the lines of a panel; the first of each name that is not yet known is in the legend."""
    for line in panel.lines:
        shown = known is not None and not panel.named and line.name not in known
        if shown and known is not None:
            known.add(line.name)
        for trace in _traces(panel, line, shown):
            figure.add_trace(trace, **place)
    if panel.circles is not None:
        colours = {line.name: line.look.colour for line in panel.lines}
        for circle in panel.circles.itertuples():
            figure.add_scatter(
                x=[circle.x], y=[circle.y], mode="markers", showlegend=False, legendgroup=escape(str(circle.line)),
                marker={"symbol": "circle-open", "size": 13, "color": colours[str(circle.line)], "line": {"width": 2}},
                hovertemplate=f"best epoch %{{x}}: %{{y:.4f}}<extra>{escape(str(circle.line))}</extra>", **place,
            )  # fmt: skip


def _traces(panel: Lines, line: Line, shown: bool) -> list[graph_objects.Scatter]:
    """The band of a line, if it has one, and the line; or points with error bars."""
    x, mean, spread = (line.points[name].tolist() for name in ("x", "mean", "spread"))
    name, look = escape(line.name), line.look
    red, green, blue, _ = (round(255 * part) for part in to_rgba(look.colour))
    group = {"legendgroup": name, "name": name}
    texts = [escape(panel.ticks.get(round(value), f"{value:g}")) if not panel.joined else "" for value in x]
    at = "%{text}" if not panel.joined else "%{x:.3~%} of the users" if panel.log else f"{escape(panel.x)} %{{x}}"
    main = graph_objects.Scatter(
        x=x, y=mean, mode="lines+markers" if panel.joined else "markers", customdata=spread, text=texts,
        showlegend=shown, line={"color": look.colour, "dash": DASHES[look.dashes]},
        marker={"symbol": SYMBOLS[look.marker], "size": 7, "color": look.colour},
        error_y=None if panel.joined else {"array": spread, "visible": any(spread), "width": 3},
        hovertemplate=f"{at}<br>%{{y:.4f}} ±%{{customdata:.4f}}", **group,
    )  # fmt: skip
    if not panel.joined or not any(spread):
        return [main]
    high = [m + s for m, s in zip(mean, spread, strict=True)]
    low = [m - s for m, s in zip(mean, spread, strict=True)]
    band = graph_objects.Scatter(
        x=x + x[::-1], y=high + low[::-1], fill="toself", fillcolor=f"rgba({red},{green},{blue},{BAND})",
        line={"width": 0}, mode="lines", hoverinfo="skip", showlegend=False, **group,
    )  # fmt: skip
    return [band, main]


def _add_axes(figure: graph_objects.Figure, panel: Lines, place: dict[str, int]) -> None:
    low, high = panel.range()
    figure.update_yaxes(title=escape(panel.y), range=[low, high], **place)
    x: dict[str, Any] = {"title": escape(panel.x)}
    if panel.ticks:
        x |= {"tickvals": list(panel.ticks), "ticktext": [escape(text) for text in panel.ticks.values()]}
    if panel.log:
        x["type"] = "log"
    if not panel.joined:
        x["range"] = [min(panel.ticks) - 0.5, max(panel.ticks) + 0.5]
        x["tickangle"] = 35 if max(map(len, panel.ticks.values())) > 4 else 0
    figure.update_xaxes(**x, **place)
    if panel.zero:
        figure.add_hline(0, line={"color": "black", "width": 1}, **place)
        figure.add_hrect(low, 0, fillcolor=WARNING, opacity=0.08, line_width=0, **place)
    if panel.boundary:
        where, before, after = panel.boundary
        figure.add_vline(where, line={"color": GREY, "dash": "dash"}, **place)
        for text, side in ((before, "right"), (after, "left")):
            figure.add_annotation(
                text=escape(text), x=where, y=1, yref="y domain", xanchor=side, yanchor="top", showarrow=False,
                font={"color": GREY, "size": 11}, **place,
            )  # fmt: skip


def _add_names(figure: graph_objects.Figure, panel: Lines, place: dict[str, int], height: int) -> None:
    """Writes the names of lines to the right of the panel; names do not overlap."""
    ends, (low, high) = panel.ends(), panel.range()
    places = label_places([value for _, value in ends.values()], low, high, height / 96 * LINE_HEIGHT / 13)
    for line, where in zip(panel.lines, places.tolist(), strict=True):
        figure.add_annotation(
            text=escape(line.name), x=1.02, y=where, xref="x domain", yref="y domain", xanchor="left",
            yanchor="middle", showarrow=False, font={"color": line.look.colour, "size": 12}, **place,
        )  # fmt: skip


def _cells(picture: Picture) -> graph_objects.Figure:
    """Heat maps with one scale of colours."""
    rows, columns = picture.grid
    panels = [panel for panel in picture.panels if isinstance(panel, HeatMap)]
    first = panels[0]
    names = LETTER * max(len(name) for panel in panels for name in panel.rows) + 20
    cells = max(max(130 * len(panel.columns), LETTER * len(panel.title)) for panel in panels)
    height = 52 * max(len(panel.rows) for panel in panels)
    width, plot = columns * (names + cells), rows * height + (rows - 1) * 90
    figure = make_subplots(
        rows, columns, subplot_titles=[f"<span>{escape(panel.title)}</span>" for panel in panels],
        horizontal_spacing=names / width if columns > 1 else 0, vertical_spacing=90 / plot if rows > 1 else 0,
    )  # fmt: skip
    for number, panel in enumerate(panels):
        texts = [[escape(text).replace("\n", "<br>") for text in row] for row in panel.texts]
        figure.add_heatmap(
            x=[escape(name) for name in panel.columns], y=[escape(name) for name in panel.rows], z=panel.values,
            text=texts, texttemplate="%{text}", hovertemplate="%{y}, %{x}<br>%{text}<extra></extra>",
            coloraxis="coloraxis", xgap=1, ygap=1, row=number // columns + 1, col=number % columns + 1,
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed", type="category", automargin=True, showgrid=False)
    figure.update_xaxes(type="category", showgrid=False)
    figure.update_annotations(font_size=14)
    low, high = first.bounds
    form = "+.0%" if first.percent else ".2f"
    bar = {"title": {"text": escape(first.scale)}, "tickformat": form}
    figure.update_layout(
        template="plotly_white", width=width + 130, height=plot + 100, margin={"t": 50, "b": 50, "l": names, "r": 100},
        coloraxis={"colorscale": first.colours, "cmin": low, "cmax": high, "colorbar": bar},
    )  # fmt: skip
    return figure
