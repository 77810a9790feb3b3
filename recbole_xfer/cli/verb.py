"""A verb of the command line, and the parser that all verbs share.

argparse is kept: keys and the sources of ``prepare`` are options that no decorator of typer or click could declare.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from recbole_xfer.cli import keys
from recbole_xfer.errors import XferError


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of examples, and has room for the names of options."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=30)


class Parser(argparse.ArgumentParser):
    """An argument parser that raises XferError and accepts no abbreviated options."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(allow_abbrev=False, formatter_class=HelpFormatter, **settings)

    def option(self, name: str) -> argparse.Action | None:
        """The option with this name, such as ``--model``; None if there is none."""
        return self._option_string_actions.get(name)

    def error(self, message: str) -> NoReturn:
        """Raises XferError instead of ending the process."""
        raise XferError(f"{message[0].upper()}{message[1:]}. See `{self.prog} --help`.")


@dataclass(frozen=True)
class Verb:
    """One command, ``recbole-xfer <name>``.

    Attributes:
        name: the word on the command line.
        help: what it does, as the rest of a sentence in lower case.
        examples: commands that ``--help`` shows.
        add_options: declares its options.
        run: does it, given the options and the keys.
        accepts_keys: whether all other options are keys of the configuration.
        shared: whether several processes can share its work, as torchrun or Ray Train starts them.
    """

    name: str
    help: str
    examples: Sequence[str]
    add_options: Callable[[Parser], None]
    run: Callable[[argparse.Namespace, dict[str, str]], None]
    accepts_keys: bool = True
    shared: bool = False

    def epilog(self) -> str:
        """The end of the help text: examples, and how keys are written."""
        lines = ["example:" if len(self.examples) == 1 else "examples:", *(f"  {line}" for line in self.examples)]
        return "\n".join([*lines, *(["", keys.HELP] if self.accepts_keys else [])])

    def declare(self, parser: Parser) -> None:
        """Adds the verb's options to its parser."""
        self.add_options(parser)
        if self.accepts_keys:
            help_text = "yaml files of keys, separated by spaces; later files win"
            parser.add_argument("--config_files", action="append", default=[], metavar="FILES", help=help_text)
        if self.shared:
            help_text = "share the work among N processes of Ray, on this machine or the cluster at --address"
            parser.add_argument("--ray_workers", type=positive, metavar="N", help=help_text)
            add_address(parser)


def add_address(parser: Parser) -> None:
    """Adds the address of a Ray cluster."""
    help_text = "of a Ray cluster, such as auto or 10.0.0.1:6379 (default: $RAY_ADDRESS, or a Ray on this machine)"
    parser.add_argument("--address", dest="ray_address", metavar="ADDRESS", help=help_text)


def positive(text: str) -> int:
    """Parses an integer of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"{text} is invalid: it must be an integer of at least 1")
    return int(text)


def files(options: argparse.Namespace) -> list[str]:
    """The yaml files that ``--config_files`` names."""
    return " ".join(options.config_files).split()
