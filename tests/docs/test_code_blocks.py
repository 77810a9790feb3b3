"""Code blocks of the documentation: each names its language, and what it says can be read, imported, found or set.

Other tests run some of them: the walks of serving, studies and from_recbole, and the package of adding_a_model.
"""

from __future__ import annotations

import ast
import importlib
import re
import runpy
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import setuptools
import yaml

from recbole_xfer.config.properties import MODULE
from recbole_xfer.config.schema import check_values, kind_of
from recbole_xfer.search.space import read_space
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"\n\n {4}\S")
BLOCKS = [
    (page, language, code) for page in PAGES for language, code in BLOCK.findall(page.read_text(encoding="utf-8"))
]
OTHERS = {"serve"}  # written by `recbole-xfer export`


def named(value: object) -> str:
    return value.stem if isinstance(value, Path) else ""


def blocks(language: str) -> Callable:
    """A test for each block of a language."""
    found = [(page, code) for page, own, code in BLOCKS if own == language]
    return pytest.mark.parametrize(("page", "code"), found, ids=named)


def test_every_block_names_its_language() -> None:
    assert {language for _, language, _ in BLOCKS} == {"bash", "python", "text", "toml", "yaml"}
    written = [page for page in PAGES if page.parent.name != "benchmarks"]  # the rest is generated
    assert [page.name for page in written if INDENTED.search(BLOCK.sub("", page.read_text(encoding="utf-8")))] == []


@blocks("bash")
def test_other_programs_find_what_they_are_told(page: Path, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for line in code.replace("\\\n", " ").splitlines():
        program, *arguments = shlex.split(line, comments=True) or ["pytest"]
        if program == "make":
            assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE), line
        elif program == "pip":
            assert set(re.findall(r"\[(\w+)]", line)) <= extras(monkeypatch), line
        elif program == "python" and arguments[0] == "-c":
            assert missing_imports(arguments[1]) == []
        else:  # tests/docs/test_commands.py checks ours
            assert program in ("recbole-xfer", "torchrun", "python", "pytest", "eval"), line


def extras(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of setup.py's extra dependencies."""
    given: dict = {}
    monkeypatch.setattr(setuptools, "setup", lambda **keys: given.update(keys))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return set(given["extras_require"])


@blocks("python")
def test_python_can_be_read_and_its_imports_exist(page: Path, code: str) -> None:
    assert missing_imports(code) == []


def missing_imports(code: str) -> list[str]:
    """Imports the modules of a program, without running it; returns the names that they lack."""
    missing = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            for name in node.names:
                importlib.import_module(name.name)  # raises where there is none
        elif isinstance(node, ast.ImportFrom) and node.module not in OTHERS:
            module = importlib.import_module(node.module)
            missing += [f"{node.module}.{name.name}" for name in node.names if not hasattr(module, name.name)]
    return missing


@blocks("yaml")
def test_yaml_has_known_keys_with_valid_values(page: Path, code: str, tmp_path: Path) -> None:
    keys = yaml.safe_load(code)
    if page.stem == "tuning":
        (tmp_path / "space.yaml").write_text(code, encoding="utf-8")
        assert read_space(tmp_path / "space.yaml").keys() == keys.keys()
    rows, groups = keys.pop("rows", []), keys.pop("settings", {})
    for values in (keys, *groups.values(), *rows):
        assert [key for key in values if key != MODULE and kind_of(key) is None] == []
        if page.stem != "tuning":
            check_values({key: value for key, value in values.items() if value != [False, True]})  # of mask_history
