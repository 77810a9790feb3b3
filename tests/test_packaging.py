"""The wheel contains every module and default value, and a clone runs without installation."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from recbole_xfer.version import __version__
from tests.conftest import ROOT


def test_the_wheel_contains_modules_properties_and_templates(tmp_path: Path) -> None:
    source = tmp_path / "source"  # a copy, since a build writes folders into the source
    for folder in ("recbole_xfer", "properties"):
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(command, check=True, capture_output=True)
    [wheel] = tmp_path.glob(f"recbole_xfer-{__version__}-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    properties = {f"recbole_xfer/{path.relative_to(ROOT)}" for path in ROOT.glob("properties/**/*.yaml")}
    modules = {str(path.relative_to(ROOT)) for path in ROOT.glob("recbole_xfer/**/*.py")}
    templates = {str(path.relative_to(ROOT)) for path in ROOT.glob("recbole_xfer/**/*.jinja")}
    assert templates
    assert properties | modules | templates <= names
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)


@pytest.mark.parametrize("start", [["run_recbole_xfer.py"], ["-m", "recbole_xfer"]])
def test_a_clone_runs_without_installation(start: list[str]) -> None:
    answer = subprocess.run([sys.executable, *start, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "usage" in answer.stdout
