"""An HTML page that needs no other file, and its pictures beside it as PNG."""

from __future__ import annotations

import html
import io
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from recbole_xfer.files import replacing

STYLE = (
    "body{font:14px sans-serif;margin:2em} td,th{padding:.3em .8em;text-align:left;vertical-align:top} "
    "svg{max-width:100%;height:auto}"
)


def svg(figure: Figure) -> str:
    """The picture as an element of a page."""
    text = io.StringIO()
    figure.savefig(text, format="svg")
    return text.getvalue()[text.getvalue().index("<svg") :]


def write_page(path: Path, title: str, body: str, pictures: Mapping[Path, Figure]) -> list[Path]:
    """Writes a page, and pictures of it as PNG; returns all paths.

    Args:
        path: of the page.
        title: plain text.
        body: html below the title, the pictures among it.
        pictures: by the path that each goes to.
    """
    title = html.escape(title)
    page = f"<!doctype html><meta charset=utf-8><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>{body}"
    with replacing(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    for place, figure in pictures.items():
        with replacing(place) as temporary:
            figure.savefig(temporary, dpi=150)
    return [path, *pictures]
