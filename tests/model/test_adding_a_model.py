"""docs/adding_a_model.md: its code blocks are a package that installs, runs and passes its own tests."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_xfer.testing.data import write_small
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "adding_a_model.md"
FILE = re.compile(r"^\*\*`([^`]+)`\*\*$.*?^```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""The path of a file of the package, and the code block that follows."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the page's package."""
    folder = tmp_path_factory.mktemp("package")
    for name, content in FILE.findall(PAGE.read_text(encoding="utf-8")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def python_path(package: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where Python finds the installed package and this one; the environment stays as it is."""
    target = tmp_path_factory.mktemp("installed")
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--target", target]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, package], check=True)
    return os.pathsep.join([str(target), str(ROOT)])


def python(python_path: str, folder: Path, *arguments: str) -> str:
    """Output of Python in a folder."""
    environment = {**os.environ, "PYTHONPATH": python_path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, text=True, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_its_model_runs_and_is_adapted(python_path: str, tmp_path: Path) -> None:
    write_small(tmp_path)
    write_small(tmp_path, "Other", seed=1)
    keys = ["--epochs=1", "--pretrain_epochs=1", "--topk=[5]", "--hidden_size=16", "--show_progress=False"]
    paths = [f"--data_path={tmp_path}", f"--checkpoint_dir={tmp_path / 'saved'}"]
    transfer = ["--dataset=Small", "--source=Other", "--adaptation=finetune"]
    output = python(python_path, tmp_path, "-m", "recbole_xfer", "run", "--model=DecayedMean", *transfer, *keys, *paths)
    assert "DecayedMean (finetune)" in output


def test_its_own_tests_pass(python_path: str, package: Path) -> None:
    output = python(python_path, package, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert re.search(r"^\d+ passed", output, re.MULTILINE)
