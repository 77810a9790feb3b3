"""The help texts: fast, with examples that the parser accepts."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys

import pytest

from recbole_xfer.cli.main import VERBS, main, parse
from recbole_xfer.cli.tables import svg
from recbole_xfer.version import __version__
from tests.conftest import ROOT

SLOW = {"numpy", "pandas", "pyarrow", "pydantic", "ray", "recbole", "rich", "scipy", "torch", "transformers", "yaml"}
"""Libraries that help needs no import of."""

IN_A_FRESH_PROCESS = """
import sys
from recbole_xfer.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


@pytest.mark.parametrize("verb", [(), *((name,) for name in VERBS), ("prepare", "table")], ids=" ".join)
def test_help_imports_nothing_slow(verb: tuple[str, ...]) -> None:
    command = [sys.executable, "-c", IN_A_FRESH_PROCESS, *verb, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"usage: {' '.join(['recbole-xfer', *verb])} ")
    assert not SLOW & set(done.stderr.split())


@pytest.mark.parametrize("example", [example for verb in VERBS.values() for example in verb.examples])
def test_the_parser_accepts_every_example(example: str) -> None:
    command = re.search(r"recbole-xfer [^|)]+", example)
    assert command
    words = shlex.split(command[0])[1:]
    verb, _, keys = parse(words)
    assert example in verb.examples
    assert all(re.fullmatch(r"\w+", key) for key in keys)


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_has_an_example(verb: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main([verb, "--help"])
    assert f"\n  {VERBS[verb].examples[0]}\n" in capsys.readouterr().out


def test_version(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"recbole-xfer {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "required: VERB. See `recbole-xfer --help`."),
        (["rnu"], "invalid choice: 'rnu'"),
        (["adapt"], "required: --pretrained. See `recbole-xfer adapt --help`."),
        (["tune", "--trials=many"], "invalid int value: 'many'"),
    ],
)
def test_a_wrong_command_names_the_help(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and len(error.splitlines()) == 1


def test_keys_are_separated_from_options_wherever_they_stand() -> None:
    _, options, keys = parse(
        ["compare", "--eval_args={mode: full}", "--topk", "[5, 10]", "plan.yaml", "--weight", "-1"]
    )
    assert str(options.file) == "plan.yaml"
    assert keys == {"eval_args": "{mode: full}", "topk": "[5, 10]", "weight": "-1"}


def test_a_table_is_drawn_without_a_web_font() -> None:
    from rich.table import Table

    table = Table("model", "ndcg@10")
    table.add_row("ANT", "0.1234")
    picture = svg([table, "No transfer."])
    assert picture == svg([table, "No transfer."])
    assert "0.1234" in picture and "@font-face" not in picture
