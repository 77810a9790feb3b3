"""The walk of docs/from_recbole.md: its commands run in order, with its files, on small domains."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from recbole_xfer.cli.main import main
from recbole_xfer.testing.data import write_small
from tests.conftest import ROOT

BLOCK = re.compile(r"^```(yaml|bash)\n(.*?)^```", re.MULTILINE | re.DOTALL)
DOMAINS = ("CJ-Nutrition", "CJ-Meat", "CJ-Produce")
ELSEWHERE = {"prepare", "encode", "--dry-run"}  # run by tests/prepare, and by the test of docs/studies.md


def test_every_command_runs(in_tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs/from_recbole.md").read_text(encoding="utf-8")
    for seed, domain in enumerate(DOMAINS):
        write_small(in_tmp_path / "dataset", domain, seed=seed)
    for kind, text in BLOCK.findall(page):
        if kind == "yaml":
            fewer = re.sub(r"epochs: \d+", "epochs: 1", text).replace("[1, 2]", "[1]")
            Path(text.splitlines()[0].removeprefix("# ")).write_text(fewer, encoding="utf-8")
        else:
            for _, *words in map(shlex.split, text.splitlines()):
                assert ELSEWHERE & set(words) or main(words) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "ANT (relearn)" in printed
    assert "history masked" in printed
    assert pd.read_csv("recommendations.csv")["rank"].max() == 10
