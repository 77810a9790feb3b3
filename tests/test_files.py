"""Files are replaced whole or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_xfer.errors import XferError
from recbole_xfer.files import remove_leftovers, replacing
from tests.conftest import ROOT


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.name.startswith("."))


def test_a_file_is_replaced_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), replacing(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    with replacing(target) as temporary:
        temporary.write_text("new")
    assert target.read_text() == "new"
    assert not left_over(tmp_path)


def test_temporary_folders_of_killed_processes_are_removed(tmp_path: Path) -> None:
    target = tmp_path / "file.txt"
    kill = "with replacing(Path('file.txt')) as temporary: temporary.touch(); os.kill(os.getpid(), 9)"
    script = f"import os; from pathlib import Path; from recbole_xfer.files import replacing\n{kill}"
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert len(left_over(tmp_path)) == 1
    for name in (".file.txt.backup", ".file.txt.mine1234", ".other.txt.abcd1234"):
        (tmp_path / name).mkdir()
    (tmp_path / ".file.txt.mine1234" / "notes").touch()  # a user's
    with replacing(target) as temporary, replacing(target) as second:  # of two processes at once
        temporary.touch()
        second.touch()
    assert left_over(tmp_path) == [".file.txt.backup", ".file.txt.mine1234", ".other.txt.abcd1234"]
    remove_leftovers(tmp_path)
    assert left_over(tmp_path) == [".file.txt.backup", ".file.txt.mine1234"]


def test_a_full_device_is_explained(tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with (
        pytest.raises(XferError, match="The disk is full"),
        replacing(tmp_path / "file"),
        open("/dev/full", "w") as file,
    ):
        file.write("x" * 100_000)
    assert not left_over(tmp_path)
