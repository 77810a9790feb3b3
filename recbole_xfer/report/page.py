"""Writes an HTML page that needs no other file."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure
from plotly.graph_objects import Figure as PlotlyFigure
from plotly.offline import get_plotlyjs

from recbole_xfer.comparison.layout import BEST, SECOND, Entry, Layout
from recbole_xfer.files import replacing

MARKS = {BEST: Markup("<b>{}</b>"), SECOND: Markup("<u>{}</u>")}
"""How the best and the second value of a column are shown."""


@dataclass(frozen=True)
class Section:
    """A part of a page, each piece optional: a title, sentences, a table with a caption, a figure.

    All text is escaped. A figure of plotly is interactive, and one of matplotlib is a picture.

    Attributes:
        names: number of columns of a table that are names; all others are numbers.
        level: of the title; a page has a list of its titles of level 2 if there are several titles of level 3.
        folded: whether a table is shown on a click.
    """

    title: str | None = None
    sentences: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    names: int | None = None
    caption: str = ""
    figure: Figure | PlotlyFigure | None = None
    level: int = 2
    folded: bool = False

    @classmethod
    def of(cls, layout: Layout, sentences: Sequence[str] = (), figure: PlotlyFigure | None = None) -> Section:
        """A table, in which the best and the second value of each column are marked, above a figure."""
        rows = [(*line.names, *map(_marked, line.entries)) for line in layout.lines]
        heads = (*layout.names, *layout.columns)
        caption = f"{layout.caption.rstrip('.')}."
        return cls(layout.title, sentences, heads, rows, len(layout.names), caption, figure, level=3)


def _marked(entry: Entry) -> str:
    """A number of a table as an element."""
    return MARKS[entry.place].format(entry.text) if entry.place in MARKS else entry.text


def element(figure: Figure | PlotlyFigure) -> Markup:
    """A figure as an element of a page; one of plotly needs :func:`script` in the page's head."""
    if isinstance(figure, PlotlyFigure):
        return Markup(figure.to_html(full_html=False, include_plotlyjs=False, config={"displaylogo": False}))
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return Markup(text.getvalue()[text.getvalue().index("<svg") :])


def script(sections: Sequence[Section]) -> Markup:
    """The program that draws figures of plotly, if there are any; 5 MB, so that the page needs no network."""
    needed = any(isinstance(section.figure, PlotlyFigure) for section in sections)
    return Markup(f"<script>{get_plotlyjs()}</script>") if needed else Markup("")


def write_page(path: Path, title: str, sections: Sequence[Section]) -> list[Path]:
    """Writes a page.

    Args:
        path: of the page.
        title: of the page.
        sections: from top to bottom.

    Returns:
        The path, as a list.
    """
    templates = Environment(
        loader=PackageLoader(__package__, "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["element"] = element
    page = templates.get_template("page.html.jinja").render(title=title, sections=sections, script=script(sections))
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return [path]
