"""The entry point of the command line: parses a command, runs its verb, and turns errors into an exit status.

Every key of the configuration is an option, ``--key=value``. Values are read as yaml and never evaluated.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from functools import partial
from io import StringIO

from recbole_xfer.cli import completion, data, keys, results, serving, training, transferability
from recbole_xfer.cli.verb import Parser, Verb
from recbole_xfer.errors import XferError
from recbole_xfer.log import show_messages
from recbole_xfer.processes import as_one_command, check_one_process, is_first, reports
from recbole_xfer.version import __version__

PARTS = (training, results, transferability, serving, data, completion)
VERBS: dict[str, Verb] = {verb.name: verb for part in PARTS for verb in part.VERBS}
OWN_OPTIONS = ("-h", "--help", "--version")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a verb; returns the exit status: 0, 2 for an error in the input, 130 when interrupted."""
    if completion.asked():
        verb = VERBS.get(next(iter(completion.words()), ""))
        completion.complete(*parsers(verb))
    show_messages()
    try:
        with as_one_command():
            verb, options, given = parse(sys.argv[1:] if arguments is None else arguments)
            run(verb, options, given)
    except (XferError, ModuleNotFoundError, OSError) as error:
        if reports(error):
            print(f"error: {sentence(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if is_first():
            print("Interrupted. Run the same command again to resume.", file=sys.stderr)
        return 130
    return 0


def run(verb: Verb, options: argparse.Namespace, given: dict[str, str]) -> None:
    """Runs a verb: in this process, with others that torchrun started, or in processes of Ray."""
    workers, address = (getattr(options, name, None) for name in ("ray_workers", "ray_address"))
    if workers or not verb.shared:
        check_one_process(f"{verb.name} --ray_workers" if workers else verb.name)
    if address:
        os.environ["RAY_ADDRESS"] = address
    if workers:
        from recbole_xfer.workers import on_workers

        print(on_workers(partial(printed, verb.name, options, given), workers, given.get("use_gpu") != "False"), end="")
    else:
        verb.run(options, given)


def printed(verb: str, options: argparse.Namespace, given: dict[str, str]) -> str:
    """Runs a verb and returns what it prints."""
    with redirect_stdout(StringIO()) as output:
        VERBS[verb].run(options, given)
    return output.getvalue()


def sentence(error: XferError | ModuleNotFoundError | OSError) -> str:
    """What is printed about an error; that of a file or folder names it."""
    if isinstance(error, ModuleNotFoundError):  # some models of RecBole need modules that RecBole does not install
        return f"This needs the Python module {error.name}. Install the package that provides it."
    return str(error)


def parse(arguments: Sequence[str]) -> tuple[Verb, argparse.Namespace, dict[str, str]]:
    """The verb, its options and the keys of a command; options without a verb are those of run, as in RecBole.

    Raises:
        XferError: if the verb or an option is unknown, or one is missing or invalid.
        SystemExit: after ``--help`` and ``--version``.
    """
    words = list(arguments)
    if words and words[0].startswith("-") and words[0] not in OWN_OPTIONS:
        words.insert(0, "run")
    verb = VERBS.get(words[0]) if words else None
    parser, verb, of_verb = parsers(verb)
    given: dict[str, str] = {}
    if verb and of_verb and verb.accepts_keys:
        others, given = keys.separate(words[1:], lambda name: of_verb.option(name) is not None)
        words = [verb.name, *others]
    options, rest = parser.parse_known_args(words)
    assert verb is not None  # the parser has accepted it
    if rest:
        advice = "Write keys as --key=value." if verb.accepts_keys else f"See `recbole-xfer {verb.name} --help`."
        raise XferError(f"'{rest[0]}' is not an option of {verb.name}. {advice}")
    return verb, options, given


def parsers(verb: Verb | None) -> tuple[Parser, Verb | None, Parser | None]:
    """The parser of the command line, in which only the given verb has its options; that verb, and its own parser."""
    parser = Parser(prog="recbole-xfer", description="Transfer learning for RecBole.", epilog=keys.HELP)
    parser.add_argument("--version", action="version", version=f"recbole-xfer {__version__}")
    commands = parser.add_subparsers(metavar="VERB", required=True)
    of_verb = None
    for known in VERBS.values():
        description = data.sentence(known.help)
        added = commands.add_parser(known.name, help=known.help, description=description, epilog=known.epilog())
        if known is verb:
            known.declare(added)
            of_verb = added
    return parser, verb, of_verb
