"""Keys of the configuration on the command line: ``--key=value`` or ``--key value``, for any key."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from recbole_xfer.errors import XferError

HELP = """Every key of the configuration is also an option, such as --learning_rate=1e-3 or
--topk='[5, 10]'. The yaml files in properties/ list the keys with their defaults."""


def separate(words: Iterable[str], is_option: Callable[[str], bool]) -> tuple[list[str], dict[str, str]]:
    """Separates keys from the other words of a command.

    Args:
        words: all words after the verb.
        is_option: whether ``--name`` is an option of the verb itself.

    Returns:
        The other words in their order, and the values by key, as text.

    Raises:
        XferError: if a key has no value.
    """
    others: list[str] = []
    keys: dict[str, str] = {}
    remaining = iter(words)
    for word in remaining:
        name, equals, value = word.partition("=")
        if not name.startswith("--") or is_option(name):
            others.append(word)
            continue
        if not equals:
            value = next(remaining, "")
            if not value or value.startswith("--"):
                raise XferError(f"The option '{word}' has no value. Write {word}=VALUE.")
        keys[name.removeprefix("--")] = value
    return others, keys
