"""Draws how well probes distinguish domains: a heat map for each kind of vectors and each probe."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

from recbole_xfer.probing.probes import PROBES
from recbole_xfer.probing.separability import Separability
from recbole_xfer.report.page import Section, write_page
from recbole_xfer.report.paper import write_pictures
from recbole_xfer.report.picture import HeatMap, Picture
from recbole_xfer.report.screen import interactive

NAME = "separability"
"""Of the files."""


def write(measured: Separability, folder: Path) -> list[Path]:
    """Writes heat maps as ``separability.html``, ``.png`` and ``.pdf``; returns their paths."""
    drawn = separability_picture(measured)
    section = Section(sentences=[*drawn.sentences, drawn.caption], figure=interactive(drawn))
    return write_page(folder / f"{NAME}.html", drawn.title, [section]) + write_pictures([drawn], folder)


def separability_picture(measured: Separability) -> Picture:
    """The accuracies of all probes on all kinds of vectors."""
    panels = [heat_map(measured, kind, probe) for kind, probe in product(measured.accuracies, PROBES)]
    caption = f"{measured.caption()}."
    return Picture(NAME, measured.title(), panels, len(PROBES), measured.sentences(), caption)


def heat_map(measured: Separability, kind: str, probe: str) -> HeatMap:
    """The accuracies of a probe on all pairs, from guessing (light) to a probe that is always right (blue)."""
    values = measured.matrix(kind, probe)
    texts = [["" if np.isnan(value) else f"{value:.3f}" for value in row] for row in values]
    return HeatMap(f"{kind}, {probe}", measured.groups, measured.groups, values, texts, (0.5, 1.0), "accuracy")
