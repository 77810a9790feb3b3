"""Shell completion, as a shell asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_xfer.cli.main import main
from tests.conftest import ROOT


@pytest.fixture
def data(in_tmp_path: Path) -> Path:
    """Two domains, and a folder that is not a domain."""
    for name in ("Food", "Home"):
        folder = in_tmp_path / "dataset" / name
        folder.mkdir(parents=True)
        (folder / f"{name}.inter").touch()
    (in_tmp_path / "dataset" / "other").mkdir()
    return in_tmp_path


def completions(line: str, folder: Path) -> set[str]:
    """The words that a shell offers at the end of a line."""
    answer = folder / "answer"
    environment = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_SUPPRESS_SPACE": "1",
        "_ARGCOMPLETE_COMP_WORDBREAKS": " \t\n\"'><=;|&(:",  # as in bash
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": line,
        "COMP_POINT": str(len(line)),
        "PYTHONPATH": str(ROOT),
    }
    subprocess.run([sys.executable, "-m", "recbole_xfer"], cwd=folder, env=os.environ | environment, check=True)
    return set(answer.read_text().split("\n"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("recbole-xfer pr", {"pretrain", "prepare"}),
        ("recbole-xfer run --adap", {"--adaptation"}),
        ("recbole-xfer run --learning_r", {"--learning_rate", "--learning_rate_decay"}),
        ("recbole-xfer run -m ANT --fus", {"--fusion", "--fusion_weight"}),
        ("recbole-xfer run -m XRE", {"XRETR"}),
        ("recbole-xfer run --model=BERT", {"BERT4Rec"}),
        ("recbole-xfer run -d ", {"Food", "Home"}),
        ("recbole-xfer run --source=Food+", {"Food+Home"}),
        ("recbole-xfer prepare to", {"toy"}),
        ("recbole-xfer encode --drop", {"--drop_words"}),
        ("recbole-xfer completion ", {"bash", "zsh", "fish"}),
    ],
)
def test_a_word_is_completed(line: str, expected: set[str], data: Path) -> None:
    assert completions(line, data) == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_has_its_script(shell: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["completion", shell]) == 0
    assert "recbole-xfer" in capsys.readouterr().out
