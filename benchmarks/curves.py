"""Draws the curves of benchmarks/results/user-curve.json, a panel for each target, as docs/images/curves.svg.

    python -m benchmarks.curves            # writes the picture
    python -m benchmarks.curves --check    # exits with 1 if the picture differs from its data

A model has a colour; what is adapted to the target is dashed.
"""

from __future__ import annotations

import argparse
import io
import sys

import matplotlib as mpl
import pandas as pd

from benchmarks.render import RESULTS, ROOT, Table, read
from recbole_xfer.report.looks import COLOURS, MARKERS, Look
from recbole_xfer.report.paper import draw
from recbole_xfer.report.picture import Line, Lines, Picture

DATA, IMAGE = RESULTS / "user-curve.json", ROOT / "docs" / "images" / "curves.svg"
LOOKS = {
    "SASRec": (COLOURS[5], MARKERS[0]), "ContentKNN": (COLOURS[1], MARKERS[1]), "UniSRec": (COLOURS[2], MARKERS[2]),
    "XRETR": (COLOURS[3], MARKERS[4]), "ANT": (COLOURS[0], MARKERS[3]),
}  # fmt: skip
"""Colour and marker of each model."""
DASHES = {"finetune": "--", "relearn": ":"}
"""Of each adaptation; other lines are solid."""


def panel(table: Table) -> Lines:
    """Returns the curves of a target, from the rows of its table that are means and spreads."""
    shares = {float(name.rstrip("%")) / 100: name for name in table.columns[1:]}
    rows = {str(cells[0]): cells[1:] for cells in table.rows if isinstance(cells[1], tuple)}
    lines = []
    for name, cells in rows.items():
        model, _, way = name.rstrip(")").partition(" (")
        look = Look(*LOOKS[model], DASHES.get(way, "-"))
        points = pd.DataFrame([map(float, cell) for cell in cells], columns=["mean", "spread"])  # type: ignore[arg-type]
        lines.append(Line(name, points.assign(x=list(shares)), look))
    return Lines(table.title.split(":")[0], lines, "users trained (log)", "NDCG@10", shares, log=True, from_zero=True)


def picture() -> str:
    """Returns the picture as SVG, equal for equal data."""
    panels = [panel(table) for table in read(DATA).tables]
    figure = draw(Picture("curves", "Curves", panels, columns=2))
    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "curves", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def main() -> int:
    """Writes or checks the picture; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if the picture differs from its data")
    options = parser.parse_args()
    drawn = picture()
    if not options.check:
        IMAGE.write_text(drawn, encoding="utf-8")
        return 0
    if IMAGE.read_text(encoding="utf-8") == drawn:
        return 0
    print(f"{IMAGE.relative_to(ROOT)} differs from its data; run: python -m benchmarks.curves", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
