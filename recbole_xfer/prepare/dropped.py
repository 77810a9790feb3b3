"""Counts what a source drops or ignores, and names the first of each."""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger(__name__)


class Dropped:
    """Counts of a file, or of several, by what happened, such as ``lines are not JSON and are dropped``."""

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.counts: dict[str, int] = {}
        self._first: dict[str, str] = {}

    def add(self, what: str, first: object, count: int = 1) -> None:
        """Adds ``count`` cases; ``first`` describes one of them and is printed if it is the first of all."""
        if count:
            self.counts[what] = self.counts.get(what, 0) + int(count)
            self._first.setdefault(what, " ".join(str(first).split())[:80])

    def report(self) -> None:
        """Logs one line for each kind of case."""
        for what, count in self.counts.items():
            logger.warning("%s: %s %s (first: %s).", self.path, f"{count:,}", what, self._first[what])
