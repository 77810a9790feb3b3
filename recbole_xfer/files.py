"""Writes files so that no reader finds half of one, and removes what killed processes left over."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where temporary folders of killed processes stay
    fcntl = None  # type: ignore[assignment]

from recbole_xfer.errors import XferError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path to write to, which replaces ``path`` if the block succeeds.

    The temporary path has the suffix of ``path``; the block can make a file or a folder of it.

    Raises:
        XferError: if the disk is full, the folder is not writable, or a folder would replace one that is not empty.
    """
    path = Path(path)
    with explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with workspace(path) as temporary:
            yield temporary / path.name
            os.replace(temporary / path.name, path)


@contextmanager
def workspace(path: Path) -> Iterator[Path]:
    """Yields a temporary folder beside ``path``, and removes it; first removes those of killed processes."""
    remove_leftovers(path.parent, path.name)
    folder, handle = _new_workspace(path)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def remove_leftovers(folder: Path, name: str | None = None) -> None:
    """Removes the temporary folders of killed processes from a folder: those for the file ``name``, or all."""
    pattern = re.compile(rf"\.({re.escape(name) if name else '.+'})\.[a-z0-9_]{{8}}")
    for path in list(folder.glob(".*")):
        match = pattern.fullmatch(path.name)
        if not match or not path.is_dir() or path.is_symlink():
            continue
        with suppress(OSError):  # another process uses it, or has just removed it
            handle = _lock(path)
            if handle is not None:
                if {content.name for content in path.iterdir()} <= {match[1]}:  # nothing that a user put there
                    shutil.rmtree(path, ignore_errors=True)
                os.close(handle)


def _new_workspace(path: Path) -> tuple[Path, int | None]:
    """A temporary folder, and a handle that keeps it locked while this process lives."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        try:
            handle = _lock(folder)
        except BlockingIOError:  # another process removes it
            continue
        except OSError:  # some network file systems lock no folders
            handle = None
        if folder.is_dir():  # or another process removed it before it was locked
            return folder, handle
        if handle is not None:
            os.close(handle)


def _lock(folder: Path) -> int | None:
    """Locks a folder until the handle is closed; None on systems without locks.

    Raises:
        OSError: if another process has the lock.
    """
    if fcntl is None:
        return None
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


@contextmanager
def explaining(path: Path) -> Iterator[None]:
    """Raises an error of the operating system in the block as XferError about ``path``."""
    try:
        yield
    except OSError as error:
        raise _explained(error, path) from error


def _explained(error: OSError, path: Path) -> XferError:
    if error.errno == errno.ENOSPC:
        return XferError(f"The disk is full: {path} was not written. Free some space and run the command again.")
    reason = error.strerror or error
    return XferError(f"{path} cannot be written: {reason}. Check the folder and its permissions.")
