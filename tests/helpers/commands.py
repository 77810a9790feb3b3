"""Commands of this package in a text: pages of the documentation, and comments of plans."""

from __future__ import annotations

import re
import shlex

from recbole_xfer.cli.main import parse
from recbole_xfer.config.schema import kind_of
from recbole_xfer.errors import XferError

PROGRAM = r"(?:recbole-xfer|python run_recbole_xfer\.py|torchrun .*-m recbole_xfer)"
COMMAND = re.compile(rf"^ *{PROGRAM} ((?:.*\\\n)*.*)$", re.MULTILINE)


def commands(text: str) -> list[list[str]]:
    """The arguments of the commands that begin a line, without comments and ``...``."""
    found = (arguments.replace("\\\n", " ") for arguments in COMMAND.findall(text))
    words = (shlex.split(arguments, comments=True) for arguments in found)
    return [[word for word in line if word != "..."] for line in words]


def invalid(text: str) -> list[str]:
    """What is wrong with the commands: an unknown verb, option or key."""
    return [f"{' '.join(arguments)}: {wrong}" for arguments in commands(text) if (wrong := mistake(arguments))]


def mistake(arguments: list[str]) -> str:
    """What is wrong with a command; empty if nothing is."""
    try:
        _, _, keys = parse(arguments)
    except XferError as error:
        return str(error)
    unknown = [key for key in keys if kind_of(key) is None]
    return f"unknown keys {unknown}" if unknown else ""
