"""Writes an HTML page that needs no other file, and its figures as PNG files next to it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from matplotlib.figure import Figure
from plotly.graph_objects import Figure as PlotlyFigure
from plotly.offline import get_plotlyjs

from recbole_xfer.files import replacing


@dataclass(frozen=True)
class Section:
    """A part of a page, each piece optional: a title, sentences, a table, a figure. All text is escaped.

    A figure of plotly is interactive, and one of matplotlib is a picture.
    """

    title: str | None = None
    sentences: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    figure: Figure | PlotlyFigure | None = None


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


def write_page(path: Path, title: str, sections: Sequence[Section], figures: Mapping[Path, Figure]) -> list[Path]:
    """Writes a page, and figures as PNG or PDF files; returns all paths.

    Args:
        path: of the page.
        title: of the page.
        sections: from top to bottom.
        figures: by the path of their file.
    """
    templates = Environment(
        loader=PackageLoader(__package__, "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["element"] = element
    page = templates.get_template("page.html.jinja").render(title=title, sections=sections, script=script(sections))
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    for place, figure in figures.items():
        with replacing(place) as temporary:
            figure.savefig(temporary, format=place.suffix.removeprefix("."), dpi=150)
    return [path, *figures]
