"""Writes the matrices of a model's transfer: as compare writes tables, and as heat maps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from recbole_xfer.comparison.layout import joint_caption
from recbole_xfer.comparison.matrix import TransferMatrix, name_of
from recbole_xfer.report import curve
from recbole_xfer.report.heat_maps import HeatMap, write_heat_maps
from recbole_xfer.study.study import Study
from recbole_xfer.study.write import write as write_tables

NAME = "transfer"
"""Of the files."""


def write(study: Study, folder: Path) -> list[Path]:
    """Writes ``transfer.md``, ``.tex``, ``.csv``, ``.json``, heat maps as ``.html``, ``.png``, ``.pdf``, and curves.

    Args:
        study: of :meth:`recbole_xfer.study.transfer.TransferPlan.run`.
        folder: of the files.

    Returns:
        The paths; without results there are no heat maps.
    """
    paths = write_tables(study, folder, NAME) + (curve.write(study.curves, folder) if study.curves else [])
    matrices = [cast(TransferMatrix, table) for table in study.tables]
    if not any(matrix.changes() for matrix in matrices):
        return paths
    maps = [heat_map(matrix) for matrix in matrices]
    farthest = max(one.bounds[1] for one in maps)  # one colour means one change in all of them
    maps = [replace(one, bounds=(-farthest, farthest)) for one in maps]
    caption = joint_caption([matrix.layout() for matrix in matrices])
    title = f"Transfer of {matrices[0].model} to {matrices[0].results[0].dataset}"
    return paths + write_heat_maps(folder, NAME, title, maps, caption, columns=min(len(maps), 3))


def heat_map(matrix: TransferMatrix) -> HeatMap:
    """The changes against the model from scratch, with signs, stars and the metric in the cells."""
    changes, summary = {change.label: change for change in matrix.changes()}, matrix.summary()
    values = np.full((len(matrix.sources), len(matrix.adaptations)), np.nan)
    texts = [["failed"] * len(matrix.adaptations) for _ in matrix.sources]
    for row, source in enumerate(matrix.sources):
        for column, way in enumerate(matrix.adaptations):
            label = name_of(matrix.model, way, source)
            if label in changes:
                values[row, column] = changes[label].change
                texts[row][column] = f"{changes[label].text()}\n{summary[label][matrix.metric]['mean']:.4f}"
    farthest = max(float(np.nanmax(np.abs(values), initial=0)), 1e-9)
    return HeatMap(
        title=matrix.title(),
        rows=matrix.sources,
        columns=matrix.adaptations,
        values=values,
        texts=texts,
        bounds=(-farthest, farthest),
        scale="vs scratch",
        diverging=True,
        percent=True,
        sentences=[matrix.verdict()],
    )
