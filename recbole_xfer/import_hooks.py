"""Calls a function when Python first imports a module, so that slow modules are imported only when they are used."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.abc import Loader  # slow to import, like the base class of a finder

Hook = Callable[[ModuleType], None]


def after_import(name: str, hook: Hook) -> None:
    """Calls ``hook`` with the module ``name``: now if it is already imported, else right after its execution."""
    if name in sys.modules:
        hook(sys.modules[name])
    else:
        _add(_HookFinder(name, after=hook))


def before_import(name: str, hook: Hook) -> None:
    """Calls ``hook`` with the module ``name`` right before its execution; never if it is already imported."""
    if name not in sys.modules:
        _add(_HookFinder(name, before=hook))


def _add(finder: _HookFinder) -> None:
    if not any(isinstance(other, _HookFinder) and other.name == finder.name for other in sys.meta_path):
        sys.meta_path.insert(0, finder)


class _HookFinder:
    """Finds one module as Python does, and calls hooks before and after its execution."""

    def __init__(self, name: str, before: Hook | None = None, after: Hook | None = None) -> None:
        self.name, self.before, self.after = name, before, after
        self.searching = False

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != self.name or self.searching:
            return None
        self.searching = True  # find_spec asks the other finders
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self.searching = False
        if spec is not None and spec.loader is not None:
            self._wrap(spec.loader)
        return spec

    def _wrap(self, loader: Loader) -> None:
        execute = loader.exec_module

        def execute_with_hooks(module: ModuleType) -> None:
            if self in sys.meta_path:
                sys.meta_path.remove(self)
            if self.before:
                self.before(module)
            execute(module)
            if self.after:
                self.after(module)

        loader.exec_module = execute_with_hooks  # type: ignore[method-assign]
