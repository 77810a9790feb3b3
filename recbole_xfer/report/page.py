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

from recbole_xfer.files import replacing


@dataclass(frozen=True)
class Section:
    """A part of a page, each piece optional: a title, sentences, a table, a figure. All text is escaped."""

    title: str | None = None
    sentences: Sequence[str] = ()
    columns: Sequence[str] = ()
    rows: Sequence[Sequence[Any]] = ()
    figure: Figure | None = None


def svg(figure: Figure) -> Markup:
    """A figure as an element of a page."""
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return Markup(text.getvalue()[text.getvalue().index("<svg") :])


def write_page(path: Path, title: str, sections: Sequence[Section], figures: Mapping[Path, Figure]) -> list[Path]:
    """Writes a page, and figures as PNG files; returns all paths.

    Args:
        path: of the page.
        title: of the page.
        sections: from top to bottom.
        figures: by the path of their PNG.
    """
    templates = Environment(
        loader=PackageLoader(__package__, "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    templates.filters["svg"] = svg
    page = templates.get_template("page.html.jinja").render(title=title, sections=sections)
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    for place, figure in figures.items():
        with replacing(place) as temporary:
            figure.savefig(temporary, dpi=150)
    return [path, *figures]
