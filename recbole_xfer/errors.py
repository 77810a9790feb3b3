"""The exception that the command line prints as a sentence instead of a traceback, and suggestions for it."""

from __future__ import annotations

import difflib
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType


class XferError(ValueError):
    """An error in the input.

    The message is one sentence, or two: it names the file, column, row or key, and says what to do.
    """


class Lost(XferError):
    """The end of another process, without which this one cannot continue."""

    def __init__(self) -> None:
        super().__init__("Another process of this run has ended. Run the same command again to resume.")


SIMILAR = 0.7
"""The smallest similarity of two spellings, from 0 to 1, at which one is a plausible mistake for the other."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: ``. Did you mean 'learning_rate'?``, or only a full stop.

    The suggestion is the known word of the most similar spelling, whatever its capitals.
    """
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), list(names), n=1, cutoff=SIMILAR)
    return f". Did you mean '{names[near[0]]}'?" if near else "."


def by_reason(failures: Iterable[tuple[str, str]], verb: str) -> list[str]:
    """One line for each reason, whatever the number of rows that fail for it.

    Args:
        failures: what failed, and why.
        verb: such as ``failed``.

    Returns:
        Lines such as ``ANT on Pantry and 44 other rows failed: ...``.
    """
    names: dict[str, list[str]] = {}
    for name, reason in failures:
        names.setdefault(reason, []).append(name)
    return [f"{own[0]}{_others(len(own) - 1)} {verb}: {reason}" for reason, own in names.items()]


def _others(number: int) -> str:
    return f" and {number} other {'row' if number == 1 else 'rows'}" if number else ""


LIBRARIES = {"numpy", "pandas", "scipy", "torch"} | sys.stdlib_module_names
"""Packages that raise errors about the values with which others call them."""


@contextmanager
def explaining_recbole(task: str) -> Iterator[None]:
    """Turns an error that RecBole's own code raises in the block into a sentence.

    Errors of other code pass unchanged, those of this package's models and of callbacks included.

    Args:
        task: of the block, such as ``train SASRec``.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, XferError) or _origin(error.__traceback__) != "recbole":
            raise
        if isinstance(error, ModuleNotFoundError):
            raise XferError(f"RecBole cannot {task} without the package '{error.name}'. Install it.") from error
        reason = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) and error.args else error
        sentence = " ".join(str(reason).split()).rstrip(".") or type(error).__name__
        raise XferError(
            f"RecBole cannot {task}: {sentence}. Change the keys or the data that this is about."
        ) from error


def _origin(traceback: TracebackType | None) -> str:
    """The package whose code raised an error or called the library that raised it."""
    origin = ""
    while traceback is not None:
        package = traceback.tb_frame.f_globals.get("__name__", "").split(".")[0]
        origin = origin if package in LIBRARIES else package
        traceback = traceback.tb_next
    return origin
