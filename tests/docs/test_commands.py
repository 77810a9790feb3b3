"""Every command in the documentation has a known verb, known options and known keys."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.helpers.commands import commands, invalid

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}


@pytest.mark.parametrize("page", [page for page in PAGES if commands(TEXTS[page])], ids=lambda page: page.stem)
def test_commands_are_valid(page: Path) -> None:
    assert invalid(TEXTS[page]) == []
