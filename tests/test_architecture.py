"""Imports run downwards only: a module imports modules of lower layers or of its own package, and never in a circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGE = "recbole_xfer"

LAYERS = (
    "version", "runtime", "errors", "network", "processes", "hooks", "files", "log", "import_hooks", "device",
    "collectives", "compat", "reaper", "cluster", "workers",
    "config", "data", "layers", "prepare", "model", "evaluation", "comparison", "trainer",
    "experiment", "measure", "ensemble", "stages", "serving", "search", "study", "probing", "report", "check",
    "quick_start", "demo", "testing", "cli", "__main__", "plugin",
)  # fmt: skip
"""Modules and packages, lowest first. A part can then be read, tested and replaced without those above it."""

MODULE_NAME = re.compile(rf"{PACKAGE}(\.\w+)+")

Imports = dict[str, set[str]]
"""For each module the modules that it imports."""


def modules_of(root: Path) -> dict[str, Path]:
    """The files of the package's modules by dotted name, without the package's own ``__init__``."""
    files = {".".join(path.relative_to(root).with_suffix("").parts): path for path in root.glob(f"{PACKAGE}/**/*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in files.items()}
    return {name: path for name, path in modules.items() if name != PACKAGE}


def imports_of(root: Path) -> Imports:
    """Every import of the package's modules, also inside functions and as the name of a module in a string."""
    modules = modules_of(root)
    found: Imports = {}
    for name, path in modules.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        names = names_in(ast.parse(path.read_text(encoding="utf-8")), package)
        found[name] = {target for target in (module_of(name, modules) for name in names) if target} - {name}
    return found


def names_in(tree: ast.AST, package: str) -> Iterator[str]:
    """Dotted names that a module imports, or holds as strings that :func:`import_module` can be called with."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and MODULE_NAME.fullmatch(node.value):
            yield node.value


def module_of(name: str, modules: Mapping[str, Path]) -> str | None:
    """The module of the package that holds a dotted name; None for other packages and the package's ``__init__``."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def layer(module: str) -> str:
    """The layer of a module: its first name below the package."""
    return module.split(".")[1]


def upward(imports: Imports) -> list[str]:
    """Imports against the order of the layers, one sentence each."""
    height = {name: number for number, name in enumerate(LAYERS)}
    return [
        f"{module} must not import {target}: {layer(target)} is a higher layer than {layer(module)}."
        for module, targets in sorted(imports.items())
        for target in sorted(targets)
        if height[layer(module)] < height[layer(target)]
    ]


def circles(imports: Imports) -> list[str]:
    """Circles of modules, one sentence each."""
    graph, found = {module: set(targets) for module, targets in imports.items()}, []
    while circle := circle_in(graph):
        found.append(f"Imports run in a circle: {' -> '.join(circle)}.")
        graph[circle[0]].discard(circle[1])
    return found


def circle_in(graph: Imports) -> list[str]:
    """Modules that import each the next, the last of which is the first; empty where there is no circle."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1][::-1]
    return []


def test_every_module_has_a_layer() -> None:
    assert {layer(module) for module in modules_of(ROOT)} <= set(LAYERS)


def test_imports_run_downwards() -> None:
    found = upward(imports_of(ROOT))
    assert not found, "\n".join(["", *found])


def test_no_imports_run_in_a_circle() -> None:
    found = circles(imports_of(ROOT))
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize(
    "line",
    [
        "import recbole_xfer.trainer.trainer",
        "from recbole_xfer.trainer import trainer",
        "from recbole_xfer.trainer.trainer import XferTrainer",
        "from ..trainer import trainer",
        "def function():\n    from recbole_xfer.trainer.trainer import XferTrainer",
        "from importlib import import_module\nimport_module('recbole_xfer.trainer.trainer')",
        "PARTS = {'trainer': 'recbole_xfer.trainer.trainer'}",
    ],
)
def test_a_model_that_imports_a_trainer_is_found(line: str, tmp_path: Path) -> None:
    write_package(tmp_path, {"model/mine.py": line, "trainer/trainer.py": "import recbole_xfer.model.mine"})
    imports = imports_of(tmp_path)
    wrong = (
        "recbole_xfer.model.mine must not import recbole_xfer.trainer.trainer: trainer is a higher layer than model."
    )
    assert upward(imports) == [wrong]
    [circle] = circles(imports)
    assert circle.count("recbole_xfer.model.mine") + circle.count("recbole_xfer.trainer.trainer") == 3


def test_imports_within_a_layer_and_of_other_packages_are_allowed(tmp_path: Path) -> None:
    write_package(
        tmp_path, {"model/mine.py": "import torch\nfrom recbole_xfer.model.base import Base", "model/base.py": ""}
    )
    imports = imports_of(tmp_path)
    assert imports["recbole_xfer.model.mine"] == {"recbole_xfer.model.base"}
    assert not upward(imports) and not circles(imports)


def write_package(root: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = root / PACKAGE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name("__init__.py").touch()
        path.write_text(text, encoding="utf-8")
