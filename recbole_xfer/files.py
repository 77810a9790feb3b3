"""Writes files and folders so that no reader finds half of one, and removes what killed processes left over."""

from __future__ import annotations

import errno
import io
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

try:
    import fcntl
except ImportError:  # Windows, where temporary folders of killed processes stay
    fcntl = None  # type: ignore[assignment]

from recbole_xfer.errors import XferError

WORKSPACE = ".unfinished"
"""The temporary folders of :func:`replacing_folders` begin with this."""

COMPLETE = "complete"
"""Within a temporary folder of :func:`replacing_folders`, the folder of what only has to be moved to its place."""


class WithoutNul(io.RawIOBase):
    """The bytes of a text file; raises XferError at a NUL character, at which pandas would silently cut a value.

    Args:
        path: of the file, for the error.
        file: opened for reading bytes.
    """

    def __init__(self, path: Path, file: io.BufferedIOBase) -> None:
        self.path, self.file, self.line = path, file, 1

    def readable(self) -> bool:
        """See :class:`io.RawIOBase`."""
        return True

    def readinto(self, buffer: Any) -> int:
        """See :class:`io.RawIOBase`."""
        read = self.file.read(len(buffer))
        place = read.find(b"\0")
        self.line += read.count(b"\n", 0, place if place >= 0 else None)
        if place >= 0:
            raise nul_error(self.path, self.line)
        buffer[: len(read)] = read
        return len(read)


def nul_error(path: Path, line: int) -> XferError:
    """The error for a NUL character in a line of a text file."""
    return XferError(f"{path}, line {line}: there is a NUL character. Remove it.")


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


@contextmanager
def replacing_folders(
    root: str | os.PathLike[str], is_obsolete: Callable[[Path], bool] = lambda path: False
) -> Iterator[Path]:
    """Yields a temporary folder; if the block succeeds, each folder in it replaces the one of its name in ``root``.

    A new folder keeps the files of the old one that it lacks, except obsolete ones. One process at a time is in the
    block. If a process is killed while it moves complete folders to their places, the next block first moves the
    others too; incomplete folders are removed.

    Raises:
        XferError: if the disk is full, or ``root`` is not writable.
    """
    root = Path(root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / "folders"):
            for unfinished in _workspaces(root):
                _move_complete(unfinished, root)
                shutil.rmtree(unfinished, ignore_errors=True)
            workspace = Path(tempfile.mkdtemp(prefix=f"{WORKSPACE}.", dir=root))
            try:
                (workspace / "new").mkdir()
                yield workspace / "new"
                _complete(workspace, root, is_obsolete)
            except XferError as error:  # names the folders that the user knows
                raise XferError(str(error).replace(str(workspace / "new"), str(root))) from error
            finally:
                _move_complete(workspace, root)  # after Ctrl-C while folders were moved
                shutil.rmtree(workspace, ignore_errors=True)
    except OSError as error:
        raise _explained(error, root) from error


def check_complete(folder: str | os.PathLike[str]) -> None:
    """Raises XferError if a process was killed before it moved the new version of a folder to its place."""
    folder = Path(folder)
    if any((workspace / COMPLETE / folder.name).exists() for workspace in _workspaces(folder.parent)):
        raise XferError(
            f"The preparation of {folder} was interrupted, or is still running. Run `recbole-xfer prepare` again."
        )


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """Lets one process at a time into the block for this path, by a hidden file beside it."""
    path = Path(path)
    lock = FileLock(path.parent / f".{path.name}.lock")
    try:
        lock.acquire()
    except OSError as error:
        raise _explained(error, path) from error
    try:
        yield
    finally:
        lock.release()


def _workspaces(root: Path) -> list[Path]:
    return sorted(root.glob(f"{WORKSPACE}.*"))


def _folders(parent: Path) -> list[Path]:
    return sorted(path for path in parent.glob("[!.]*") if path.is_dir())


def _complete(workspace: Path, root: Path, is_obsolete: Callable[[Path], bool]) -> None:
    """Moves new folders to their places, each with the other files of the folder that it replaces."""
    new = workspace / "new"
    with ExitStack() as locks:
        for folder in _folders(new):
            if not (root / folder.name).exists():
                continue
            locks.enter_context(locked(root / folder.name))
            _keep_others(root / folder.name, folder, is_obsolete)
        new.rename(workspace / COMPLETE)  # from here on, a killed process is completed by the next one
        _move_complete(workspace, root)


def _move_complete(workspace: Path, root: Path) -> None:
    for folder in _folders(workspace / COMPLETE):
        if (root / folder.name).exists():
            (workspace / "old").mkdir(exist_ok=True)
            (root / folder.name).rename(workspace / "old" / folder.name)
        folder.rename(root / folder.name)


def _keep_others(old: Path, new: Path, is_obsolete: Callable[[Path], bool]) -> None:
    """Adds the files of the old folder that the new one lacks, as links where the file system has them."""
    for place, folders, names in os.walk(old):
        target = new / Path(place).relative_to(old)
        target.mkdir(parents=True, exist_ok=True)
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        for name in {*names, *links}.difference(os.listdir(target)):
            source = Path(place, name)
            if is_obsolete(source):
                continue
            try:
                os.link(source, target / name, follow_symlinks=False)
            except OSError:
                shutil.copy2(source, target / name, follow_symlinks=False)


def _explained(error: OSError, path: Path) -> XferError:
    if error.errno == errno.ENOSPC:
        return XferError(f"The disk is full: {path} was not written. Free some space and run the command again.")
    reason = error.strerror or error
    return XferError(f"{path} cannot be written: {reason}. Check the folder and its permissions.")
