"""What a user sees of a run on the terminal, in redirected output and in the log."""

from __future__ import annotations

import logging
from io import StringIO
from pathlib import Path

import pytest

from recbole_xfer.cli.main import main
from recbole_xfer.log import logging_to
from recbole_xfer.testing.data import settings, write_small

COLOUR = "\x1b["
BAR = "\r", "%|", "it/s"


class Terminal(StringIO):
    """Standard error that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def command(root: Path) -> list[str]:
    write_small(root)
    keys = settings(root, "SASRec") | {"show_progress": True}
    return ["--model=SASRec", "--dataset=Small", *(f"--{key}={value}" for key, value in keys.items())]


def test_redirected_output_and_logs_have_no_colours_and_no_progress_bars(
    in_tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    assert main(command(in_tmp_path)) == 0
    (log,) = (in_tmp_path / "saved").glob("*/*.log")
    written = log.read_text(encoding="utf-8")
    assert "valid_score" in written  # RecBole's messages are in the log
    for text in (*capfd.readouterr(), written):
        assert not any(mark in text for mark in (COLOUR, *BAR))


def test_training_and_evaluation_have_our_progress_bar_on_a_terminal(
    in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert main(command(in_tmp_path)) == 0
    shown = terminal.getvalue()
    assert "SASRec on Small, epoch 1" in shown and "Evaluating SASRec on Small: " in shown
    assert "Evaluate   " not in shown and "\x1b[1;35m" not in shown  # RecBole's bar, in pink


def test_a_log_has_no_colours(tmp_path: Path) -> None:
    with logging_to(tmp_path / "run"):
        logging.getLogger().warning("\x1b[1;35mtrain loss\x1b[0m: 0.5")
    assert (tmp_path / "run" / "run.log").read_text(encoding="utf-8").endswith("WARNING train loss: 0.5\n")
