"""docs/studies.md: its plan runs with its commands, in order, on small domains; its other plans have known keys."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from recbole_xfer import stages
from recbole_xfer.cli.main import main
from recbole_xfer.comparison.plan import load_plan
from recbole_xfer.comparison.published import Published
from recbole_xfer.study.plan import read_plan
from recbole_xfer.testing.data import write_small
from tests.conftest import ROOT

BLOCK = re.compile(r"^```(bash|yaml)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALL = [
    "--settings={texts: {modalities: [text]}}",
    "--epochs=1",
    "--hidden_size=8",
    "--inner_size=8",
    "--topk=[10]",
    "--seeds=[1]",
    "--data_path=.",
]


def test_every_command_runs(in_tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = BLOCK.findall((ROOT / "docs/studies.md").read_text(encoding="utf-8"))
    (_, plan), (_, commands), (_, curve), (_, searched), (_, joined), (_, published), *_ = blocks
    write_small(in_tmp_path, "Books")
    Path("study.yaml").write_text(plan, encoding="utf-8")
    assert len(read_plan("study.yaml", {"data_path": ".", "datasets": ["Books"]}).cells()) == 2 * 3 * 2
    for line in commands.splitlines():
        words = [word for word in shlex.split(line)[1:] if not word.startswith("--workers")]  # tests/study has some
        fewer = [] if any(word.startswith("--datasets") for word in words) else ["--datasets=[Books]"]
        assert main([*words, *fewer, *SMALL]) == 0, capsys.readouterr().err
        monkeypatch.setattr(stages, "fit", stages.fit if "--dry-run" in words else None)  # the last two train nothing
    printed = capsys.readouterr().out
    assert "3 runs to do, 0 finished" in printed
    assert printed.count("Test results on") == 3 * 2
    assert {path.name for path in Path("study").iterdir()} == {"study.md", "study.tex", "study.csv", "study.json"}
    (shares,) = (word for word in shlex.split(curve) if word.startswith("--train_share="))
    keys = {"data_path": ".", "datasets": ["Books"], "train_share": shares.partition("=")[2]}
    assert len(read_plan("study.yaml", keys).tables) == 5 * 2
    Path("searched.yaml").write_text(searched, encoding="utf-8")
    assert len(load_plan(Path("searched.yaml"))["rows"]) == 3
    for source in ("Games", "Toys"):
        write_small(in_tmp_path, source)
    Path("joined.yaml").write_text(joined, encoding="utf-8")
    assert read_plan("joined.yaml", {"data_path": "."}).tables[0].ensembles == {"second opinion": [0, 1, 2]}
    value = yaml.safe_load(published)["published"]
    assert Published.of(value, ["Office"], ["recall@10", "ndcg@10"])
