"""Every command in the documentation has a known verb, known options and known keys."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from recbole_xfer.cli.main import parse
from recbole_xfer.config.schema import kind_of
from recbole_xfer.errors import XferError
from tests.conftest import ROOT

PROGRAM = r"(?:recbole-xfer|python run_recbole_xfer\.py|torchrun .*-m recbole_xfer)"
COMMAND = re.compile(rf"^ *{PROGRAM} ((?:.*\\\n)*.*)$", re.MULTILINE)


def commands(page: Path) -> list[list[str]]:
    """The arguments of the commands that begin a line of a page, without comments and `...`."""
    found = (arguments.replace("\\\n", " ") for arguments in COMMAND.findall(page.read_text(encoding="utf-8")))
    words = (shlex.split(arguments, comments=True) for arguments in found)
    return [[word for word in line if word != "..."] for line in words]


PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))) if commands(page)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_are_valid(page: Path) -> None:
    for arguments in commands(page):
        try:
            _, _, keys = parse(arguments)
        except XferError as error:
            pytest.fail(f"{' '.join(arguments)}: {error}")
        assert [key for key in keys if kind_of(key) is None] == [], arguments
