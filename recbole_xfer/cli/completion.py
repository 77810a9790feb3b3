"""Shell completion of verbs, options, keys, model names and domains, by argcomplete."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from recbole_xfer.cli.verb import Parser, Verb

DOMAINS = ("--dataset", "--source", "--sources")
"""Options whose values are domains."""

MODEL_OPTION = re.compile(r"\s(?:-m|--model)[ =](\S+)")


def asked() -> bool:
    """Whether a shell started this process for completions."""
    return "_ARGCOMPLETE" in os.environ


def words() -> list[str]:
    """The words of the command to complete, without the program's name."""
    return os.environ["COMP_LINE"].split()[1:]


def complete(parser: Parser, verb: Verb | None, of_verb: Parser | None) -> None:
    """Answers the shell, and ends the process.

    Args:
        parser: of the whole command line.
        verb: the verb of the command to complete; None where that is still to come.
        of_verb: the verb's parser.
    """
    import argcomplete

    if verb and of_verb:
        if verb.accepts_keys:
            model = MODEL_OPTION.search(os.environ["COMP_LINE"])
            for key in sorted(keys_of(model and model[1])):
                if of_verb.option(f"--{key}") is None:
                    of_verb.add_argument(f"--{key}")
        for name in ("--model", *DOMAINS):
            option: Any = of_verb.option(name)
            if option is not None:
                option.completer = models if name == "--model" else domains
    argcomplete.autocomplete(parser, always_complete_options=False)


def keys_of(model: str | None) -> set[str]:
    """The keys that yaml files give a default: RecBole's and ours for every model, and those of one model."""
    from recbole_xfer.config import properties

    theirs = properties.recbole_folder()
    files = [theirs / "overall.yaml", theirs / "quick_start_config" / "sequential.yaml"]
    if model:
        files.append(theirs / "model" / f"{model}.yaml")
    given: set[str] = set()
    for file in files:
        if file.is_file():
            given |= set(properties.read_yaml(file))
    return given | set(properties.defaults(model or "", ""))


def models(**_: Any) -> set[str]:
    """The names of all models."""
    from recbole_xfer.config import properties

    return properties.recbole_models() | set(properties.models())


def domains(prefix: str, parsed_args: argparse.Namespace, **_: Any) -> Iterator[str]:
    """The domains in the data folder; after a ``+`` those that are not named yet."""
    *first, _last = prefix.split("+")
    for name in _names_in(Path(getattr(parsed_args, "data_path", None) or "dataset")):
        if name not in first:
            yield "+".join([*first, name])


def _names_in(data: Path) -> Iterable[str]:
    return sorted(path.parent.name for path in data.glob("*/*.inter") if path.stem == path.parent.name)


def add_options(parser: Parser) -> None:
    """Adds the options of completion."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="zsh needs compinit first")


def print_script(options: argparse.Namespace, keys: dict[str, str]) -> None:
    """Prints the script that a shell evaluates."""
    import argcomplete

    print(argcomplete.shellcode(["recbole-xfer"], shell=options.shell))


VERBS = (
    Verb(
        "completion",
        "print a script for shell completion, for the shell's start file",
        (
            'eval "$(recbole-xfer completion bash)"',
            'eval "$(recbole-xfer completion zsh)"',
            "recbole-xfer completion fish | source",
        ),
        add_options,
        print_script,
        accepts_keys=False,
    ),
)
