"""Configuration of Sphinx, with which `make docs` makes a site of these pages.

GitHub shows the same pages, so they are plain Markdown. Sphinx reads the order of pages from directives; it is here.
"""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

project = "RecBole-Xfer"
author = "the authors of RecBole-Xfer"
copyright = author
release = runpy.run_path(str(ROOT / "recbole_xfer" / "version.py"))["__version__"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
myst_heading_anchors = 4  # GitHub's anchors, which links between pages use
smartquotes = False
highlight_language = "text"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = f"{project} {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False

nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!recbole_xfer\.(quick_start|model|hooks|testing|errors)\b)\w+\..*")]

NAVIGATION = {
    "index": {
        "Use": [
            "from_recbole", "data", "serving", "studies", "tuning", "scale", "large_catalogues", "report", "protocol",
            "keys",
        ],
        "Models": ["models/*"],
        "Results": ["benchmarks/when_transfer_pays", "benchmarks/index"],
        "Develop": ["adding_a_model", "api/index", "decisions/index"],
    },
    "benchmarks/index": {"All studies": ["*"]},
    "decisions/index": {"All decisions": ["0*"]},
}  # fmt: skip
"""The pages below a page, by the heading under which the sidebar lists them; an asterisk matches any name."""


def add_navigation(app: Sphinx, page: str, source: list[str]) -> None:
    """Appends to a page the directives that list the pages below it."""
    for heading, pages in NAVIGATION.get(page, {}).items():
        lines = ["```{toctree}", ":hidden:", ":glob:", f":caption: {heading}", "", *pages, "```"]
        source[0] += "\n" + "\n".join(lines) + "\n"


def remove_addresses(app: Sphinx, page: nodes.document) -> None:
    """Makes text of what a docstring's NDCG@10 became, an address of mail."""
    for link in list(page.findall(nodes.reference)):
        if link.get("refuri", "").startswith("mailto:"):
            link.replace_self(link.children)


def setup(app: Sphinx) -> None:
    """Is called by Sphinx."""
    app.connect("source-read", add_navigation)
    app.connect("doctree-read", remove_addresses)
