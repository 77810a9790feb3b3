"""Curves and matrices of a study: what is drawn are the numbers of its tables, for a page and for a paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text

from recbole_xfer.comparison.curve import Curve
from recbole_xfer.report.content import CurveContent, read_content
from recbole_xfer.report.looks import Looks
from recbole_xfer.report.paper import draw
from recbole_xfer.report.picture import HeatMap, Lines, Picture
from recbole_xfer.report.results import curve_picture, farthest_change, groups_picture, lengths_picture, matrix_picture
from recbole_xfer.report.screen import interactive
from tests.comparison.test_curve import SCORES, made_curve
from tests.helpers.studies import GROUPS, MODELS, STRANGE, made_matrix, made_study


@pytest.fixture(scope="module")
def curve() -> Curve:
    return made_curve(SCORES)


@pytest.fixture(scope="module")
def picture(curve: Curve) -> Picture:
    return curve_picture(CurveContent.model_validate(curve.as_dict()), "curve", Looks(["KNN"]))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_study(tmp_path_factory.mktemp("study"))


def of_row(curve: Curve, row: str) -> pd.DataFrame:
    return curve.frame().query("row == @row").sort_values("train_share")


def test_lines_and_bands_have_the_numbers_of_the_table(curve: Curve, picture: Picture) -> None:
    figure = draw(picture)
    (axis,) = figure.axes
    rows = list(dict.fromkeys(curve.frame()["row"]))
    bands = iter(axis.collections)
    for line, row in zip(axis.lines, rows, strict=True):
        points = of_row(curve, row)
        assert line.get_xdata().tolist() == points["train_share"].tolist()
        assert line.get_ydata().tolist() == points["mean"].tolist()
        if not points["spread"].any():
            continue
        corners = {tuple(corner) for corner in next(bands).get_paths()[0].vertices.round(9)}
        for point in points.itertuples():
            assert {(point.train_share, round(point.mean + sign * point.spread, 9)) for sign in (-1, 1)} <= corners
    assert [text.get_text() for text in axis.texts] == rows  # at the ends of the lines
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0.5%", "10%", "100%"]
    assert axis.get_xscale() == "log" and axis.get_ylim()[0] == 0
    caption = figure.get_supxlabel().replace("\n", " ")
    assert caption.count("mean and standard deviation over seeds 1, 2") == 1


def test_a_page_shows_the_same_numbers(curve: Curve, picture: Picture) -> None:
    figure = interactive(picture)
    lines = {line.name: line for line in figure.data if line.mode == "lines+markers"}
    bands = {line.name: line for line in figure.data if line.mode == "lines"}
    assert list(lines) == ["Pop", "ANT", "KNN"]
    for row, line in lines.items():
        points = of_row(curve, row)
        assert list(line.x) == points["train_share"].tolist() and list(line.y) == points["mean"].tolist()
        assert list(line.customdata) == points["spread"].tolist()
        if points["spread"].any():
            high, low = np.split(np.array(bands[row].y), 2)
            assert np.allclose(high - low[::-1], 2 * points["spread"])
    assert figure.layout.xaxis.type == "log" and list(figure.layout.xaxis.ticktext) == ["0.5%", "10%", "100%"]
    assert [note.text for note in figure.layout.annotations][1:] == ["Pop", "ANT", "KNN"]
    colours = {name: line.line.color for name, line in lines.items()}
    assert len(set(colours.values())) == 3 and colours["KNN"] == Looks(["KNN"])["KNN"].colour


def test_a_matrix_has_the_changes_with_signs_and_stars(tmp_path: Path) -> None:
    (table,) = read_content(made_matrix(tmp_path) / "transfer.json").tables
    assert table.against
    drawn = matrix_picture(table, "matrix", farthest_change([table]))
    (panel,) = drawn.panels
    assert isinstance(panel, HeatMap)
    labels = [cell.row for cell in table.matrix]
    assert panel.rows == ["Food", "Home", "Food+Home"] and panel.columns == ["relearn", "finetune"]
    assert panel.values.ravel().tolist() == [table.against.changes[label].change for label in labels]
    first = panel.texts[0][0].split("\n")
    assert first == [table.against.changes[labels[0]].text(), f"{table.summary[labels[0]]['ndcg@10'].mean:.4f}"]
    assert panel.bounds == (-panel.bounds[1], pytest.approx(abs(panel.values).max()))
    (cells,) = interactive(drawn).data
    assert np.array(cells.z).ravel().tolist() == panel.values.ravel().tolist()
    texts = [text for row in panel.texts for text in row]
    assert [text.get_text() for text in draw(drawn).axes[0].texts] == texts


def test_groups_have_means_and_standard_deviations_over_seeds(study: Path) -> None:
    table = read_content(study / "study.json").tables[1]
    drawn = groups_picture(table, "groups", Looks())
    assert drawn
    recall, ndcg = drawn.panels
    assert isinstance(recall, Lines) and isinstance(ndcg, Lines)
    assert (recall.title, ndcg.title) == ("recall@10", "ndcg@10")
    assert list(recall.ticks.values()) == ["all targets", *GROUPS]
    sasrec = recall.lines[list(MODELS).index("SASRec")]
    values = [(0.3 * 10**0.2 + 0.01 * seed) * (0.6 + 0.3) for seed in (1, 2, 3)]  # of tail, as made_result makes them
    assert sasrec.points["mean"].iloc[2] == pytest.approx(np.mean(values))
    assert sasrec.points["spread"].iloc[2] == pytest.approx(np.std(values, ddof=1))
    assert f"{STRANGE} on " in drawn.sentences[0]
    bars = [one for one in interactive(drawn).data if one.name == "SASRec"]
    assert list(bars[0].error_y.array) == pytest.approx(sasrec.points["spread"].tolist())


def test_lengths_have_every_metric_and_group(study: Path) -> None:
    table = read_content(study / "study.json").tables[1]
    drawn = lengths_picture(table, "lengths", Looks())
    assert drawn and drawn.grid == (4, 2) and list(drawn.panels[0].ticks.values()) == ["1", "5", "10"]
    assert [panel.title for panel in drawn.panels[:3]] == ["recall, all targets", "ndcg, all targets", "recall, head"]
    means = [table.summary["Pop"][f"recall@{k}"].mean for k in (1, 5, 10)]
    assert drawn.panels[0].lines[0].points["mean"].tolist() == means
    few = table.model_copy(update={"summary": {"Pop": {"ndcg@10": table.summary["Pop"]["ndcg@10"]}}})
    assert lengths_picture(few, "lengths", Looks()) is None and groups_picture(few, "groups", Looks()) is None


def test_names_are_drawn_as_they_are(study: Path) -> None:
    drawn = groups_picture(read_content(study / "study.json").tables[0], "groups", Looks())
    assert drawn
    figure = draw(drawn)
    names = [text for text in figure.findobj(Text) if text.get_text() == STRANGE]
    assert names and not any(text.get_parse_math() for text in names)
    figure.draw_without_rendering()
    assert any(line.name == "ANT &lt;tuned&gt; &amp; $x_1$" for line in interactive(drawn).data)


def test_curves_read_from_a_file_are_those_of_the_study(study: Path) -> None:
    content = read_content(study / "study.json")
    assert {point.train_share for point in content.curves[0].points} == {0.1, 1.0}
    assert content.curves[0].layout.columns == ["10%", "100%"]
    points = pd.read_csv(study / "curve.csv")
    assert points["mean"].tolist() == pytest.approx([point.mean for point in content.curves[0].points])
