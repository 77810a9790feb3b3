"""The layout of a table, and its text in Markdown and LaTeX and as a table for the console."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich import box
from rich.markup import escape
from rich.table import Table
from rich.text import Text

BEST, SECOND = 1, 2


@dataclass(frozen=True)
class Entry:
    """A number of a table as text, and its place in the column where it is the best or the second."""

    text: str = ""
    place: int | None = None


@dataclass(frozen=True)
class Line:
    """A line of a table: its names, such as a model and a domain, and its entries."""

    names: Sequence[str]
    entries: Sequence[Entry]


@dataclass(frozen=True)
class Layout:
    """A table without a format.

    Attributes:
        name: what distinguishes it from other tables of its kind.
        caption: parts, separated by semicolons.
        names: heads of the columns of names.
        columns: heads of the others.
    """

    title: str
    name: str
    caption: str
    names: Sequence[str]
    columns: Sequence[str]
    lines: Sequence[Line]

    @classmethod
    def of(cls, table: Table, names: int) -> Layout:
        """The layout of a table for the console whose first columns are names; nothing in it is marked."""
        heads, *rows = zip(*((column.header, *column.cells) for column in table.columns), strict=True)
        plain = [[Text.from_markup(str(cell)).plain for cell in row] for row in (heads, *rows)]
        lines = [Line(row[:names], [Entry(text) for text in row[names:]]) for row in plain[1:]]
        title, caption = (Text.from_markup(str(text)).plain for text in (table.title, table.caption))
        return cls(title, title, caption, plain[0][:names], plain[0][names:], lines)

    def for_console(self) -> Table:
        """The table for the console; the best value of each column is bold, and the second is underlined."""
        table = Table(
            title=escape(self.title),
            caption=escape(self.caption),
            caption_justify="left",
            box=box.SIMPLE_HEAD,  # mean and spread of four metrics fit into 80 columns
            pad_edge=False,
            collapse_padding=True,
        )
        for name in self.names:
            table.add_column(name, no_wrap=True)
        for column in self.columns:
            table.add_column(column, justify="right", no_wrap=column != "epoch")
        style = {BEST: "[bold]{}[/bold]", SECOND: "[underline]{}[/underline]"}
        for line in self.lines:
            entries = (style.get(entry.place or 0, "{}").format(escape(entry.text)) for entry in line.entries)
            table.add_row(*map(escape, line.names), *entries)
        return table


def markdown(layouts: Iterable[Layout]) -> str:
    """Tables in Markdown, each below its title and above its caption."""
    return "\n".join(map(_markdown, layouts))


def _markdown(layout: Layout) -> str:
    style = {BEST: "**{}**", SECOND: "<u>{}</u>"}
    rows = [
        [*map(_plain, line.names), *(style.get(e.place or 0, "{}").format(_plain(e.text)) for e in line.entries)]
        for line in layout.lines
    ]
    head = [*map(_plain, layout.names), *map(_plain, layout.columns)]
    rule = [*("---" for _ in layout.names), *("---:" for _ in layout.columns)]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))
    return f"## {_plain(layout.title)}\n\n{table}\n\n{_plain(layout.caption)}\n"


def _plain(text: str) -> str:
    """A text without a meaning in Markdown."""
    return re.sub(r"([\\|*_<>\[\]`])", r"\\\1", text)


LATEX = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    **{sign: f"${sign}$" for sign in "<>|"},
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}  # fmt: skip
"""Signs with a meaning in LaTeX, and how they are written."""


def latex(layouts: Iterable[Layout]) -> str:
    """Tables in LaTeX, for ``\\usepackage{booktabs}``; those with equal columns are parts of one table."""
    groups: dict[tuple[str, ...], list[Layout]] = {}
    for layout in layouts:
        groups.setdefault((*layout.names, *layout.columns), []).append(layout)
    return "\n".join(map(_latex, groups.values()))


def _latex(layouts: Sequence[Layout]) -> str:
    first, several = layouts[0], len(layouts) > 1
    width = len(first.names) + len(first.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\begin{{tabular}}{{{'l' * len(first.names)}{'r' * len(first.columns)}}}",
        r"\toprule",
        _row([*first.names, *first.columns]),
    ]
    style = {BEST: r"\textbf{{{}}}", SECOND: r"\underline{{{}}}"}
    for layout in layouts:
        lines.append(r"\midrule")
        if several:
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\emph{{{_tex(layout.name)}}}}} \\")
        for line in layout.lines:
            entries = (style.get(entry.place or 0, "{}").format(_tex(entry.text)) for entry in line.entries)
            lines.append(f"{' & '.join([*map(_tex, line.names), *entries])} \\\\")
    lines += [r"\bottomrule", r"\end{tabular}", rf"\caption{{{_tex(joint_caption(layouts))}}}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def joint_caption(layouts: Sequence[Layout]) -> str:
    """The caption of several tables: what they share, then what each of them adds."""
    if len(layouts) == 1:
        return f"{layouts[0].title}: {layouts[0].caption}."
    parts = [layout.caption.split("; ") for layout in layouts]
    shared = [part for part in parts[0] if all(part in other for other in parts)]
    own = (
        f"{layout.name}: {'; '.join(part for part in of if part not in shared)}."
        for layout, of in zip(layouts, parts, strict=True)
    )
    return " ".join([f"{'; '.join(shared)}.", *own])


def _row(cells: Iterable[str]) -> str:
    return f"{' & '.join(map(_tex, cells))} \\\\"


def _tex(text: str) -> str:
    """A text without a meaning in LaTeX."""
    return "".join(LATEX.get(sign, sign) for sign in text)
