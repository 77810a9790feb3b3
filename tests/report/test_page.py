"""Pages: all text is escaped, and figures are elements of the page."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from recbole_xfer.report.page import Section, write_page


def test_text_is_escaped_and_figures_are_not(tmp_path: Path) -> None:
    words = ["<heading>", "<sentence>", "<column>", "<label>", "<seed>", "<page>"]
    heading, sentence, column, label, seed, title = words
    figure = Figure(figsize=(1, 1))
    section = Section(heading, [sentence], [column, "best epoch"], [(label, 3), (Path(seed), None)], figure)
    page, picture = write_page(tmp_path / "page.html", title, [section], {tmp_path / "page.png": figure})
    text = page.read_text()
    assert not any(word in text for word in words)
    assert all(f"&lt;{word[1:-1]}&gt;" in text for word in words) and "<td>3</td>" in text
    assert text.count("<svg") == 1 and picture.is_file()


def test_missing_pieces_leave_no_elements(tmp_path: Path) -> None:
    (page,) = write_page(tmp_path / "page.html", "Title", [Section(sentences=["Words"])], {})
    assert not any(element in page.read_text() for element in ("<h2", "<table", "<svg"))
