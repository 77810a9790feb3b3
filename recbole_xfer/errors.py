"""The exception that the command line prints as a sentence instead of a traceback, and suggestions for it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class XferError(ValueError):
    """An error in the input.

    The message is one sentence, or two: it names the file, column, row or key, and says what to do.
    """


def nearest(word: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The known word of the most similar spelling, in capitals or not; None if its similarity is below the cutoff."""
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(names), n=1, cutoff=cutoff)
    return names[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: ``. Did you mean 'learning_rate'?``, or a full stop."""
    near = nearest(word, known)
    return f". Did you mean '{near}'?" if near else "."
