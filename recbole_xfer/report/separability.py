"""Draws how well probes distinguish domains: a heat map for each kind of vectors and each probe."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np

from recbole_xfer.probing.probes import PROBES
from recbole_xfer.probing.separability import Separability
from recbole_xfer.report.heat_maps import HeatMap, write_heat_maps

NAME = "separability"
"""Of the files."""


def write(measured: Separability, folder: Path) -> list[Path]:
    """Writes heat maps as ``separability.html``, ``.png`` and ``.pdf``; returns their paths."""
    maps = [heat_map(measured, kind, probe) for kind, probe in product(measured.accuracies, PROBES)]
    return write_heat_maps(folder, NAME, measured.title(), maps, f"{measured.caption()}.", columns=len(PROBES))


def heat_map(measured: Separability, kind: str, probe: str) -> HeatMap:
    """The accuracies of a probe on all pairs, from guessing (light) to a probe that is always right (blue)."""
    values = measured.matrix(kind, probe)
    return HeatMap(
        title=f"{kind}, {probe}",
        rows=measured.groups,
        columns=measured.groups,
        values=values,
        texts=[["" if np.isnan(value) else f"{value:.3f}" for value in row] for row in values],
        bounds=(0.5, 1.0),
        scale="accuracy",
        sentences=[measured.sentence(kind)] if probe == next(iter(PROBES)) and measured.accuracies[kind] else [],
    )
