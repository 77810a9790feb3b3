"""Writes files so that no reader finds half of one."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from recbole_xfer.errors import XferError


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary path to write to, which replaces ``path`` if the block succeeds.

    The temporary path has the suffix of ``path``; the block can make a file or a folder of it.

    Raises:
        XferError: if the disk is full, the folder is not writable, or a folder would replace one that is not empty.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        workspace = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    except OSError as error:
        raise _explained(error, path) from error
    try:
        temporary = workspace / path.name
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise _explained(error, path) from error
    finally:
        shutil.rmtree(workspace, ignore_errors=True)


def _explained(error: OSError, path: Path) -> XferError:
    if error.errno == errno.ENOSPC:
        return XferError(f"The disk is full: {path} was not written. Free some space and run the command again.")
    reason = error.strerror or error
    return XferError(f"{path} cannot be written: {reason}. Check the folder and its permissions.")
