"""Files are replaced whole or not at all."""

from pathlib import Path

import pytest

from recbole_xfer.errors import XferError
from recbole_xfer.files import replacing


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
