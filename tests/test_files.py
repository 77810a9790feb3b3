"""Files are replaced whole or not at all."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_xfer import files
from recbole_xfer.errors import XferError
from recbole_xfer.files import check_complete, remove_leftovers, replacing, replacing_folders
from tests.conftest import ROOT


def left_over(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.name.startswith(".") and path.suffix != ".lock")


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


def write(root: Path, names: str, content: str) -> None:
    """Writes ``<name>/data`` for each name, all or none."""
    with replacing_folders(root) as temporary:
        for name in names:
            (temporary / name).mkdir()
            (temporary / name / "data").write_text(content)


def contents(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*")) if path.is_file()}


def data(root: Path) -> list[str]:
    return [text for name, text in contents(root).items() if name.endswith("/data") and not name.startswith(".")]


def test_folders_are_replaced_together_and_keep_other_files(tmp_path: Path) -> None:
    write(tmp_path, "AB", "old")
    (tmp_path / "A" / "pictures").mkdir()
    (tmp_path / "A" / "pictures" / "mine").write_text("mine")
    (tmp_path / "A" / "stale").write_text("generated")
    with pytest.raises(RuntimeError), replacing_folders(tmp_path) as temporary:
        (temporary / "A").mkdir()
        raise RuntimeError
    assert data(tmp_path) == ["old", "old"]
    with replacing_folders(tmp_path, lambda path: path.name == "stale") as temporary:
        (temporary / "A").mkdir()
        (temporary / "A" / "data").write_text("new")
    assert data(tmp_path) == ["new", "old"]
    assert (tmp_path / "A" / "pictures" / "mine").read_text() == "mine"
    assert not (tmp_path / "A" / "stale").exists()
    assert not left_over(tmp_path)


KILLED = """
import os, signal, sys
from pathlib import Path
from recbole_xfer.files import replacing_folders
place, root = sys.argv[1:]
rename = Path.rename
def killed(self, target):
    moved = rename(self, target)
    if str(target).endswith(place):
        os.kill(os.getpid(), signal.SIGKILL)
    return moved
Path.rename = killed
with replacing_folders(root) as temporary:
    for name in "AB":
        (temporary / name).mkdir()
        (temporary / name / "data").write_text("killed")
        if place == "half":
            os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
@pytest.mark.parametrize("place", ["half", "complete", "old/A", "/A", "old/B"])
def test_a_killed_process_never_mixes_two_versions(tmp_path: Path, place: str) -> None:
    write(tmp_path, "AB", "old")
    killed = subprocess.run([sys.executable, "-c", KILLED, place, str(tmp_path)], check=False)
    assert killed.returncode == -signal.SIGKILL
    if place == "half":
        check_complete(tmp_path / "B")
    else:
        with pytest.raises(XferError, match=r"The preparation of .*B was interrupted"):
            check_complete(tmp_path / "B")
    write(tmp_path, "C", "new")
    assert data(tmp_path) == [*(["old"] if place == "half" else ["killed"]) * 2, "new"]
    check_complete(tmp_path / "B")
    assert not left_over(tmp_path)


def test_ctrl_c_while_folders_are_moved_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "AB", "old")
    move, calls = files._move_complete, []

    def interrupted(workspace: Path, root: Path) -> None:
        calls.append(workspace)
        if len(calls) == 1:
            raise KeyboardInterrupt
        move(workspace, root)

    monkeypatch.setattr(files, "_move_complete", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, "AB", "new")
    assert data(tmp_path) == ["new", "new"]
    assert not left_over(tmp_path)


WRITES = """
import sys, time
from recbole_xfer.files import replacing_folders
for _ in range(5):
    with replacing_folders(sys.argv[1]) as temporary:
        for name in "AB":
            (temporary / name).mkdir()
            (temporary / name / "data").write_text(sys.argv[2])
            time.sleep(0.01)
"""


def test_three_processes_write_one_after_another(tmp_path: Path) -> None:
    commands = [[sys.executable, "-c", WRITES, str(tmp_path), number] for number in "123"]
    running = [subprocess.Popen(command) for command in commands]
    assert [process.wait(timeout=100) for process in running] == [0, 0, 0]
    first, second = data(tmp_path)
    assert first == second
    assert not left_over(tmp_path)


def test_errors_name_the_folder_that_the_user_named(tmp_path: Path) -> None:
    with pytest.raises(XferError, match=f"^{tmp_path}/A is wrong$"), replacing_folders(tmp_path) as temporary:
        raise XferError(f"{temporary}/A is wrong")
    (tmp_path / "file").touch()
    with pytest.raises(XferError, match="cannot be written"), replacing_folders(tmp_path / "file"):
        pass
