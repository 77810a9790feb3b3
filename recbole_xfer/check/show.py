"""Shows a check: as lines and tables for the terminal, and as an HTML page with pictures of items."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from textwrap import shorten

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from rich import box
from rich.markup import escape
from rich.table import Table

from recbole_xfer.check.check import Check
from recbole_xfer.check.domain import Domain, Example, Facts, likeness
from recbole_xfer.config.config import FIELDS, XferConfig, settings
from recbole_xfer.config.values import split_domains
from recbole_xfer.prepare.decoding import PictureError, read_picture
from recbole_xfer.report.looks import CALM
from recbole_xfer.report.page import Section, write_page

THUMBNAIL = 120
"""Longest side of a shown picture, in pixels."""

TEXT_LENGTH = 80
"""Maximal number of characters of a shown text."""

KEYS_OF_FILES = ("data_path", "field_separator", "seq_separator", *FIELDS)
"""Keys that say where the files of a domain are and how they are read."""

SIDE_BY_SIDE = 3
"""Number of domains in a table."""


def _rounded(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


FACTS: Sequence[tuple[str, Callable[[Facts], str]]] = (
    ("users", lambda f: f"{f.users:,}"),
    ("items", lambda f: f"{f.items:,}"),
    ("interactions", lambda f: f"{f.interactions:,}"),
    ("density", lambda f: f"{f.density:.3%}"),
    ("first day", lambda f: f.first or "no dates"),
    ("last day", lambda f: f.last or "no dates"),
    ("items per user: median, most", lambda f: f"{f.history_median:g}, {f.history_longest:,}"),
    ("repeated interactions", lambda f: f"{f.repeats:.1%}"),
    ("interactions with popular fifth", lambda f: f"{f.popular_share:.0%}"),
    ("test targets, leave one out", lambda f: f"{f.test_targets:,}"),
    ("with an item not trained on", lambda f: f"{f.cold_targets:,}"),
    ("items with text", lambda f: f"{f.texts:,}"),
    ("with a text vector", lambda f: f"{f.text_vectors:,}"),
    ("with a text that was cut", lambda f: "unknown" if f.cut_texts is None else f"{f.cut_texts:,}"),
    ("with a picture", lambda f: f"{f.pictures:,}"),
    ("with an image vector", lambda f: f"{f.image_vectors:,}"),
    ("likeness of successive texts", lambda f: _rounded(f.text_likeness)),
    ("likeness of successive pictures", lambda f: _rounded(f.image_likeness)),
    ("with a price", lambda f: f"{f.prices:,}"),
    (
        "price: lowest, median, highest",
        lambda f: ", ".join(f"{value:,.2f}" for value in f.price) if f.price else "none",
    ),
)
"""Each line of the table of facts: its name, and its value for a domain."""


def likeness_sentence(config: XferConfig, sources: Iterable[str]) -> str | None:
    """The likeness of successive texts in a target and in its sources, as a sentence; None without text vectors.

    Args:
        config: of a run on the target.
        sources: names of domains in the same folder.
    """
    keys = {key: value for key, value in settings(config).items() if key in KEYS_OF_FILES}
    found = {}
    for name in [*split_domains(config["dataset"]), *sources]:
        value = likeness(Domain.read(name, keys), "text")
        if value is not None:
            found[name] = f"{name} {value:.3f}"
    if not found:
        return None
    return f"Likeness of successive texts (a source near the target is safer): {', '.join(found.values())}."


def facts_tables(check: Check) -> list[Table]:
    """The facts, one column for each domain, and as many domains in a table as a terminal has room for."""
    tables = []
    for first in range(0, len(check.facts), SIDE_BY_SIDE):
        shown = check.facts[first : first + SIDE_BY_SIDE]
        table = _table("", *(escape(facts.name) for facts in shown))
        for column in table.columns[1:]:
            column.justify = "right"
        for name, value in FACTS:
            table.add_row(name, *(escape(value(facts)) for facts in shown))
        tables.append(table)
    return tables


def examples_table(domain: Domain) -> Table:
    """Some items with text, price and number of pictures."""
    table = _table(f"items of {escape(domain.name)}", "interactions", "text", "price", "pictures")
    for example in domain.examples():
        table.add_row(*map(escape, _cells(example)), str(len(example.pictures)))
    return table


def models_table(check: Check) -> Table:
    """What each model can do with the domains."""
    table = _table("models", "can be trained on", "because each")
    for row in uses(check):
        table.add_row(*map(escape, row))
    return table


def uses(check: Check) -> list[tuple[str, str, str]]:
    """Models that can do the same, on which domains they can, and why, most capable models first."""
    groups: dict[tuple[str, str], list[str]] = {}
    for use in sorted(check.uses, key=lambda use: -len(use.domains)):
        groups.setdefault((_domains(check, use.domains), use.words), []).append(use.model)
    return [(", ".join(models), *same) for same, models in groups.items()]


def _domains(check: Check, names: Sequence[str]) -> str:
    everything = len(names) == len(check.facts) > 1
    return "all" if everything else ", ".join(names) or "none"


def lines(check: Check) -> list[str]:
    """What is suspicious, and what domains share."""
    found = [f"{name}: {sentence}" for name, sentences in check.suspicions.items() for sentence in sentences] or [
        "Nothing is suspicious."
    ]
    shared = [
        f"{' and '.join(pair.domains)} share {pair.users:,} users and {pair.items:,} items." for pair in check.shared
    ]
    return found + shared


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _cells(example: Example) -> tuple[str, str, str, str]:
    """Item, number of interactions, text and price of an example."""
    price = "" if example.price is None else f"{example.price:,.2f}"
    return example.item, f"{example.interactions:,}", shorten(example.text or "", TEXT_LENGTH), price


# --- page ------------------------------------------------------------------------------------------------------------


def write(check: Check, path: Path) -> list[Path]:
    """Writes the page; returns its path."""
    names = [facts.name for facts in check.facts]
    sections = [
        Section(
            "Facts",
            columns=["", *names],
            rows=[(name, *(value(facts) for facts in check.facts)) for name, value in FACTS],
        ),
        Section("Findings", sentences=lines(check)),
        Section(
            "Models",
            columns=["models", "can be trained on", "because each"],
            rows=uses(check),
        ),
        *(
            Section(
                f"Items of {domain.name}",
                columns=["item", "interactions", "text", "price", "pictures"],
                rows=[(*_cells(item), Markup().join(map(thumbnail, item.pictures))) for item in domain.examples()],
                figure=draw(domain),
            )
            for domain in check.domains
        ),
    ]
    return write_page(path, f"Check of {', '.join(names)}", sections)


def thumbnail(path: Path) -> Markup:
    """A small picture as an element of a page; its name where it cannot be read."""
    try:
        picture = read_picture(str(path))
    except PictureError as error:
        return Markup("<i>{}: {}</i>").format(path.name, error)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=80)
    encoded = base64.b64encode(content.getvalue()).decode()
    return Markup('<img alt="{}" src="data:image/jpeg;base64,{}"> ').format(path.name, encoded)


def draw(domain: Domain) -> Figure:
    """Draws the lengths of histories, the popularity of items and, if times are dates, the interactions over time."""
    figure = Figure(figsize=(10.5, 2.6), layout="constrained")
    axes = figure.subplots(1, 3 if domain.dated else 2, squeeze=False)[0]
    lengths = domain.user.value_counts().to_numpy()
    longest = max(2, int(np.quantile(lengths, 0.99)))
    axes[0].hist(lengths.clip(max=longest), bins=min(longest, 50), color=CALM)
    axes[0].set(title="items per user (longest 1% together)", xlabel="items", ylabel="users")
    axes[1].plot(np.arange(1, len(domain.counts) + 1), domain.counts.to_numpy(), color=CALM)
    axes[1].set(title="interactions by rank of the item", xlabel="rank", xscale="log", yscale="log")
    if domain.dated and domain.time is not None:
        years = 1970 + domain.time.to_numpy() / (365.25 * 86400)
        axes[2].hist(years, bins=50, color=CALM)
        axes[2].set(title="interactions over time", xlabel="year")
    return figure
