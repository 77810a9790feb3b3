"""Pictures of curves over the fraction of users trained: what is drawn are the numbers of the table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from recbole_xfer.comparison.curve import Curve
from recbole_xfer.report.curve import draw, interactive, labels_of, write
from recbole_xfer.report.pictures import styles_of
from tests.comparison.test_curve import SCORES, made_curve


@pytest.fixture(scope="module")
def curves() -> list[Curve]:
    reversed_rows = {share: dict(reversed(rows.items())) for share, rows in SCORES.items()}
    return [made_curve(SCORES), made_curve(reversed_rows, "Shop")]


def of_row(curve: Curve, row: str) -> pd.DataFrame:
    return curve.frame().query("row == @row").sort_values("train_share")


def test_lines_and_bands_have_the_numbers_of_the_table(curves: list[Curve]) -> None:
    figure = draw(curves)
    assert [axis.get_title() for axis in figure.axes] == ["Office", "Shop"]
    colours: dict[str, set[str]] = {}
    for axis, curve in zip(figure.axes, curves, strict=True):
        rows = list(dict.fromkeys(curve.frame()["row"]))
        for line, band, row in zip(axis.lines, axis.collections, rows, strict=True):
            points = of_row(curve, row)
            assert line.get_xdata().tolist() == points["train_share"].tolist()
            assert line.get_ydata().tolist() == points["mean"].tolist()
            corners = {tuple(corner) for corner in band.get_paths()[0].vertices.round(9)}
            for point in points.itertuples():
                assert {(point.train_share, round(point.mean + sign * point.spread, 9)) for sign in (-1, 1)} <= corners
            colours.setdefault(row, set()).add(line.get_color())
        assert [text.get_text() for text in axis.texts] == rows  # at the ends of the lines
        assert [label.get_text() for label in axis.get_xticklabels()] == ["0.5%", "10%", "100%"]
        assert axis.get_xscale() == "log" and axis.get_ylim()[0] == 0
    assert all(len(of) == 1 for of in colours.values()) and len(colours) == 3  # a row has one colour everywhere
    caption = figure.get_supxlabel().replace("\n", " ")
    assert caption.count("mean and standard deviation over seeds 1, 2") == 1


def test_a_page_shows_the_same_numbers(curves: list[Curve]) -> None:
    figure = interactive(curves[0], styles_of(labels_of(curves)))
    lines = {line.name: line for line in figure.data if line.mode == "lines+markers"}
    bands = {line.name: line for line in figure.data if line.mode == "lines"}
    assert list(lines) == ["Pop", "ANT", "KNN"]
    for row, line in lines.items():
        points = of_row(curves[0], row)
        assert list(line.x) == points["train_share"].tolist() and list(line.y) == points["mean"].tolist()
        assert list(line.customdata) == points["spread"].tolist()
        high, low = np.split(np.array(bands[f"{row}, band"].y), 2)
        assert np.allclose(high - low[::-1], 2 * points["spread"])
    assert figure.layout.xaxis.type == "log" and list(figure.layout.xaxis.ticktext) == ["0.5%", "10%", "100%"]
    assert [note.text for note in figure.layout.annotations] == ["Pop", "ANT", "KNN"]


def test_the_files_need_no_others(curves: list[Curve], tmp_path: Path) -> None:
    page, png, pdf, csv = write(curves, tmp_path / "made")
    text = page.read_text(encoding="utf-8")
    assert text.count("Plotly.newPlot") == 2 and "src=" not in text.partition("<h1>")[2]
    assert "<td>0.3500 ±.0707</td>" in text and "<td>failed</td>" in text
    assert Image.open(png).width > 1000 and pdf.read_bytes().startswith(b"%PDF")
    points = pd.read_csv(csv)
    assert len(points) == 2 * 8 and set(points["curve"]) == {"Office", "Shop"}
    assert points["mean"].tolist() == [value for curve in curves for value in curve.frame()["mean"]]
