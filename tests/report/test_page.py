"""Pages: all text is escaped, and figures are elements of the page."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from recbole_xfer.comparison.layout import BEST, SECOND, Entry, Layout, Line
from recbole_xfer.report.page import Section, write_page


def test_text_is_escaped_and_figures_are_not(tmp_path: Path) -> None:
    words = ["<heading>", "<sentence>", "<column>", "<label>", "<seed>", "<page>", "<caption>"]
    heading, sentence, column, label, seed, title, caption = words
    rows = [(label, 3), (Path(seed), None)]
    section = Section(heading, [sentence], [column, "best epoch"], rows, caption=caption, figure=Figure(figsize=(1, 1)))
    (page,) = write_page(tmp_path / "page.html", title, [section])
    text = page.read_text()
    assert not any(word in text for word in words)
    assert all(f"&lt;{word[1:-1]}&gt;" in text for word in words) and "<td>3</td>" in text
    assert text.count("<svg") == 1


def test_the_best_and_the_second_value_of_a_table_are_marked(tmp_path: Path) -> None:
    entries = [Entry("<0.3>", BEST), Entry("0.2", SECOND), Entry("0.1")]
    layout = Layout("Title", "Title", "caption", ["model"], list("abc"), [Line(["A&B"], entries)])
    (page,) = write_page(tmp_path / "page.html", "Page", [Section.of(layout)])
    cells = '<td class="number"><b>&lt;0.3&gt;</b></td><td class="number"><u>0.2</u></td><td class="number">0.1</td>'
    assert f"<td>A&amp;B</td>{cells}" in page.read_text()


def test_missing_pieces_leave_no_elements(tmp_path: Path) -> None:
    (page,) = write_page(tmp_path / "page.html", "Title", [Section(sentences=["Words"])])
    assert not any(element in page.read_text() for element in ("<h2", "<table", "<svg", "<nav", "<script"))
