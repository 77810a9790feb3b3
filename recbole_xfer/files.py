"""Writing files so that a reader never finds half of one."""

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
    """Yields a path beside ``path`` to write to; it takes ``path``'s place only if the block succeeds.

    The temporary path keeps the suffix of ``path``; the block may make it a file or a folder.

    Raises:
        XferError: if the disk is full, the folder cannot be written, or ``path`` is a folder that is not empty
            and a folder was made.
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
