"""The documentation: links and anchors resolve, commands exist."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from run_recbole_xfer import main
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", ROOT / "dataset" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DECISIONS = sorted((ROOT / "docs" / "decisions").glob("[0-9]*.md"))
SECTIONS = ["Context", "Decision", "Alternatives", "Consequences"]
MODELS = sorted((ROOT / "docs" / "models").glob("*.md"))
MODEL_SECTIONS = {
    "When to use it",
    "Commands",
    "Equations in short",
    "Where the code deviates or reads a doubtful place",
    "What was measured",
    "Keys",
}

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = HEADING.findall(BLOCK.sub("", page.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def offered(capsys: pytest.CaptureFixture, *arguments: str) -> set[str]:
    """The first word of each line of a command's help: its verbs are among them."""
    with pytest.raises(SystemExit):
        main([*arguments, "--help"])
    return set(re.findall(r"^\s+([\w-]+)", capsys.readouterr().out, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_resolve(page: Path) -> None:
    broken = []
    for target, anchor in LINK.findall(BLOCK.sub("", page.read_text(encoding="utf-8"))):
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            broken.append(f"{target}#{anchor}" if anchor else target)
    assert not broken


def test_commands_exist(capsys: pytest.CaptureFixture) -> None:
    words = [
        (verb, argument)
        for page in PAGES
        for verb, argument in re.findall(r"\brecbole-xfer ([a-z]+)(?: ([a-z]+)\b)?", page.read_text(encoding="utf-8"))
    ]
    assert {verb for verb, _ in words} <= offered(capsys)
    assert {argument for verb, argument in words if verb == "prepare" and argument} <= offered(capsys, "prepare")


@pytest.mark.parametrize("page", MODELS, ids=named)
def test_a_model_has_its_six_parts_and_is_listed(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert set(re.findall(r"^## (.+)$", text, re.MULTILINE)) >= MODEL_SECTIONS
    assert "<!-- keys: " in text  # a table that docs/render_keys.py writes
    assert f"(models/{page.name})" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", DECISIONS, ids=named)
def test_a_decision_has_its_four_parts_and_is_listed(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^\*\*(\w+)\.\*\*", text, re.MULTILINE) == SECTIONS
    assert text.startswith(f"# {int(page.name[:4])}. ")
    assert f"({page.name})" in page.with_name("index.md").read_text(encoding="utf-8")


def test_the_readme_fits_two_screens() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 110
