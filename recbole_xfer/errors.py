"""The exception that the command line prints as a sentence instead of a traceback, and suggestions for it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class XferError(ValueError):
    """An error in the input.

    The message is one sentence, or two: it names the file, column, row or key, and says what to do.
    """


SIMILAR = 0.7
"""The smallest similarity of two spellings, from 0 to 1, at which one is a plausible mistake for the other."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: ``. Did you mean 'learning_rate'?``, or only a full stop.

    The suggestion is the known word of the most similar spelling, whatever its capitals.
    """
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(names), n=1, cutoff=SIMILAR)
    return f". Did you mean '{names[near[0]]}'?" if near else "."


def missing_package(model: str, error: ModuleNotFoundError) -> XferError:
    """The error for a model of RecBole that imports a package which is not installed."""
    return XferError(f"RecBole's {model} needs the package '{error.name}', which is not installed. Install it.")
