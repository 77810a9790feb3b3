"""Pages: all text is escaped, and figures are elements of the page."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from recbole_xfer.report.page import Section, write_page


def test_text_is_escaped_and_figures_are_not(tmp_path: Path) -> None:
    figure = Figure(figsize=(1, 1))
    section = Section("<h>", ["<s>"], ["<c>"], [("<r>", Path("<p>"), 3)], figure)
    page, picture = write_page(tmp_path / "page.html", "<t>", [section], {tmp_path / "page.png": figure})
    text = page.read_text()
    assert not any(f"<{name}>" in text for name in "hscrpt")
    assert all(f"&lt;{name}&gt;" in text for name in "hscrpt") and "<td>3</td>" in text
    assert text.count("<svg") == 1 and picture.is_file()


def test_missing_pieces_leave_no_elements(tmp_path: Path) -> None:
    (page,) = write_page(tmp_path / "page.html", "Title", [Section(sentences=["Words"])], {})
    assert not any(element in page.read_text() for element in ("<h2", "<table", "<svg"))
