"""Downloads a file: continues an interrupted download, and checks the length and the content."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from recbole_xfer.errors import XferError
from recbole_xfer.files import explaining, locked
from recbole_xfer.log import logger, progress_bar

PIECE = 2**20
SECONDS = 60
"""How long the server may send nothing."""

PAUSES = (1, 2, 4, 8)
"""Seconds before each further attempt."""

FAULTS = (urllib.error.URLError, http.client.HTTPException, OSError)


def download(address: str, folder: Path, digests: Mapping[str, str]) -> Path:
    """Returns the path of the downloaded file; a complete file in ``folder`` is not downloaded again.

    An unfinished download is in ``<name>.part``. It is continued if the server still has the same version, and begins
    again otherwise.

    Args:
        digests: the SHA-256 that files must have, by name.

    Raises:
        XferError: if the server does not have the file, does not answer, or the content is not what it should be.
    """
    if urlsplit(address).scheme not in ("http", "https"):
        raise XferError(f"The address {address} is invalid: it must begin with http:// or https://.")
    name = Path(urlsplit(address).path).name
    path = folder / name
    with explaining(path):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(path):
        if not path.exists():
            part = folder / f"{name}.part"
            _complete(address, part)
            _check(part, path, digests.get(name))
            part.replace(path)
            _version_file(part).unlink(missing_ok=True)
        else:
            logger.info(f"{path} is already downloaded.")
    return path


def _complete(address: str, part: Path) -> None:
    """Makes ``part`` the complete file, with further attempts after a fault."""
    for pause in (*PAUSES, None):
        try:
            _continue(address, part)
            return
        except urllib.error.HTTPError as error:
            if error.code < 500 and error.code != 429:
                raise XferError(
                    f"{address}: the server answers {error.code} {error.reason}. Check the name."
                ) from error
            fault: Exception = error
        except FAULTS as error:
            fault = error
        if pause is None:
            raise XferError(f"{address} cannot be downloaded: {fault}. Run the command again to continue.") from fault
        logger.info(f"{address}: {fault}; next attempt in {pause} s.")
        time.sleep(pause)


def _continue(address: str, part: Path) -> None:
    """Requests the rest of the file and appends it.

    Raises:
        OSError: after any fault of the connection, also if the content is shorter than announced.
    """
    request = urllib.request.Request(address, headers={"User-Agent": "recbole-xfer", "Accept-Encoding": "identity"})
    start, version = part.stat().st_size if part.exists() else 0, _version_file(part)
    if start and version.exists():
        request.add_header("Range", f"bytes={start}-")
        request.add_header("If-Range", version.read_text())
    try:
        answer = urllib.request.urlopen(request, timeout=SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416 and error.headers.get("Content-Range") == f"bytes */{start}":
            return  # it was complete
        if error.code == 416:
            part.unlink()
            raise OSError("the unfinished file is longer than the server's") from error
        raise
    with answer:
        if answer.status != 206:
            start = 0
            identity = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
            version.write_text(identity) if identity and not identity.startswith("W/") else version.unlink(True)
        length = answer.headers.get("Content-Length")
        with part.open("ab" if start else "wb") as file, progress_bar(
            total=start + int(length) if length else None, initial=start, desc=part.stem, unit="B", unit_scale=True
        ) as progress:  # fmt: skip
            while piece := answer.read(PIECE):
                file.write(piece)
                progress.update(len(piece))
            os.fsync(file.fileno())
    if length and part.stat().st_size != start + int(length):
        raise OSError(f"the connection ended after {part.stat().st_size:,} bytes")


def _check(part: Path, path: Path, expected: str | None) -> None:
    """Raises XferError, and removes the file, if its digest differs or it cannot be decompressed."""
    problem = None
    if expected is not None and _sha256(part) != expected.lower():
        problem = f"its SHA-256 is {_sha256(part)}, not {expected}"
    elif path.suffix == ".gz":
        problem = _gzip_problem(part)
    if problem:
        part.unlink()
        _version_file(part).unlink(missing_ok=True)
        raise XferError(f"The downloaded file {path.name} is wrong: {problem}. It was removed; run the command again.")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _gzip_problem(path: Path) -> str | None:
    try:
        with gzip.open(path) as file:
            while file.read(PIECE):
                pass
    except (EOFError, OSError, zlib.error) as error:
        return str(error)
    return None


def _version_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.version")
