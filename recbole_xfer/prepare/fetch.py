"""Downloads the pictures of a domain's items from the addresses in ``<name>.pictures``."""

from __future__ import annotations

import argparse
import hashlib
import io
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path
from random import uniform

import urllib3
from PIL import Image
from urllib3.exceptions import HTTPError, LocationValueError, MaxRetryError, ResponseError

from recbole_xfer.config.values import split_domains
from recbole_xfer.data.atomic import read_atomic_file, read_header
from recbole_xfer.data.atomic_writer import check_domain_name
from recbole_xfer.data.domain_folder import check_domain
from recbole_xfer.errors import XferError
from recbole_xfer.files import explaining, locked, replacing, workspace
from recbole_xfer.log import logger, progress_bar
from recbole_xfer.prepare.decoding import MOST_BYTES, PictureError, ahead, open_picture
from recbole_xfer.prepare.pictures import FOLDER, LIST_SUFFIX, MOST, pictures_by_item
from recbole_xfer.version import __version__

KEPT = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp"}
"""Formats whose files are kept as they are if the picture is small enough; others are stored as JPEG."""

QUALITY = 90
"""Quality of the JPEG files that are written."""

TRANSIENT = {408, 425, 429, 500, 502, 503, 504}
"""Answers after which an address is tried again."""

LONGEST_PAUSE = 60
"""Seconds that are waited at most before another attempt, whatever the host asks for."""

FIRST_PAUSE = 0.5
"""Seconds before the second attempt; each later pause is twice as long, and a part of it is random."""

LONGEST_NAME = 200
"""Bytes of an id that can be the name of a file."""

REDIRECTS = 5
BLOCK = 2**16


@dataclass(frozen=True)
class Picture:
    """One address, and the path of its picture without the suffix."""

    item: str
    url: str
    path: Path


@dataclass(frozen=True)
class Settings:
    """How pictures are fetched.

    Attributes:
        size: pixels of the shorter side, to which larger pictures are scaled.
        at_once: pictures that are fetched at once.
        per_host: connections to one host.
        attempts: tries of an address that gives no answer, or a transient error.
        timeout: seconds in which a host must answer, and in which the picture must then arrive.
    """

    size: int = 512
    at_once: int = 32
    per_host: int = 8
    attempts: int = 4
    timeout: float = 30

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value < 1:
                raise XferError(f"{name}={value} must be at least 1.")


class FetchError(ValueError):
    """An address gave no picture; the message is the reason."""


class TransientError(FetchError):
    """Another attempt can succeed, after some seconds if the host names them."""

    def __init__(self, reason: str, pause: float = 0) -> None:
        super().__init__(reason)
        self.pause = pause


def run(args: argparse.Namespace) -> list[Path]:
    """Fetches the pictures of each named domain; returns the folders."""
    settings = Settings(**{name: getattr(args, name) for name in vars(Settings())})
    return [fetch_pictures(args.data_path / name, name, settings) for name in split_domains(args.dataset)]


def fetch_pictures(folder: Path, name: str, settings: Settings | None = None) -> Path:
    """Downloads pictures that are missing in ``<folder>/images``; returns that folder.

    Each picture is decoded before it is stored, and scaled down if it is large. Addresses without a picture are listed
    in ``<name>.pictures.failed.tsv``; the next call tries them again. One process at a time fetches for a domain.

    Raises:
        XferError: if the file of addresses is missing or invalid, or the disk cannot be written.
    """
    settings = settings or Settings()
    check_domain_name(name)
    folder = Path(folder)
    check_domain(folder)
    pictures = read_addresses(folder, name)
    root = folder / FOLDER
    root.mkdir(exist_ok=True)
    with locked(folder.with_name(f"{name}.{FOLDER}")), workspace(root) as temporary:
        there = {path.with_suffix("") for paths in pictures_by_item(root).values() for path in paths}
        missing = [picture for picture in pictures if picture.path not in there]
        (temporary / FOLDER).mkdir()
        failures = _fetch_all(missing, settings, temporary / FOLDER)
        _report(folder, name, len(pictures), len(missing), failures)
    return root


def read_addresses(folder: Path, name: str) -> list[Picture]:
    """Reads the addresses of a domain, at most :data:`MOST` of an item.

    Raises:
        XferError: if the file is missing or lacks a column.
    """
    path = folder / f"{name}{LIST_SUFFIX}"
    header = read_header(path)
    for column in ("item_id", "url"):
        if column not in header:
            raise XferError(f"{path} has no column '{column}' (columns: {', '.join(header)}). Rename a column.")
    table = read_atomic_file(path, ["item_id", "url"]).dropna().drop_duplicates()
    rows = table.groupby("item_id", sort=False)["url"]
    return [picture for item, urls in rows for picture in _of_item(folder / FOLDER, item, urls.tolist()[:MOST])]


def _of_item(root: Path, item: str, urls: list[str]) -> Iterator[Picture]:
    """``<item>`` is the path of a single picture; ``<item>/1``, ``<item>/2`` and so on are those of several."""
    for number, url in enumerate(urls, start=1):
        yield Picture(item, url, root / item / str(number) if len(urls) > 1 else root / item)


def _fetch_all(pictures: list[Picture], settings: Settings, temporary: Path) -> list[tuple[Picture, str]]:
    """Fetches pictures; returns those that failed, and why."""
    with (
        urllib3.PoolManager(
            num_pools=max(10, settings.at_once),
            maxsize=settings.per_host,
            block=True,  # a thread waits until one of the host's connections is free
            timeout=urllib3.Timeout(connect=settings.timeout, read=settings.timeout),
            retries=urllib3.Retry(None, connect=0, read=0, status=0, other=0, redirect=REDIRECTS),
            headers={"User-Agent": f"recbole-xfer/{__version__}"},
        ) as http,
        ThreadPoolExecutor(settings.at_once) as threads,
        progress_bar(total=len(pictures), desc="pictures", unit="picture") as progress,
    ):
        failures = []
        work = partial(_fetch, http, settings, temporary)
        for picture, reason in zip(pictures, ahead(threads, work, pictures, 4 * settings.at_once), strict=True):
            if reason:
                failures.append((picture, reason))
            progress.update()
    return failures


def _fetch(http: urllib3.PoolManager, settings: Settings, temporary: Path, picture: Picture) -> str:
    """Fetches and stores a picture; returns the reason if that fails."""
    if "/" in picture.item or picture.item.startswith(".") or len(picture.item.encode()) > LONGEST_NAME:
        return "the item's id cannot be the name of a file"
    try:
        suffix, content = stored_form(_download(http, picture.url, settings), settings.size)
    except (FetchError, PictureError) as error:
        return str(error)
    with explaining(picture.path):
        made = temporary / hashlib.blake2b(str(picture.path).encode(), digest_size=16).hexdigest()
        made.write_bytes(content)
        picture.path.parent.mkdir(exist_ok=True)
        os.replace(made, f"{picture.path}{suffix}")
    return ""


def stored_form(content: bytes, size: int) -> tuple[str, bytes]:
    """Returns the suffix and the content of the file that is stored for a downloaded picture.

    Raises:
        PictureError: if the picture cannot be decoded.
    """
    picture = open_picture(content)
    found = Image.open(io.BytesIO(content)).format
    shorter = min(picture.size)
    if shorter <= size and found in KEPT:
        return KEPT[found], content
    if shorter > size:
        width, height = (max(1, round(side * size / shorter)) for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    stored = io.BytesIO()
    picture.save(stored, "JPEG", quality=QUALITY)
    return ".jpg", stored.getvalue()


def _download(http: urllib3.PoolManager, url: str, settings: Settings, attempt: int = 1) -> bytes:
    """The content at an address, after several attempts if need be; raises FetchError."""
    try:
        return _get(http, url, settings.timeout)
    except TransientError as error:
        if attempt == settings.attempts:
            raise
        pause = max(error.pause, FIRST_PAUSE * 2 ** (attempt - 1) * uniform(1, 1.5))
    time.sleep(min(pause, LONGEST_PAUSE))
    return _download(http, url, settings, attempt + 1)


def _get(http: urllib3.PoolManager, url: str, timeout: float) -> bytes:
    """The content at an address, in one attempt; raises FetchError."""
    if not url.lower().startswith(("http://", "https://")):
        raise FetchError("the address does not begin with http:// or https://")
    try:
        response = http.request("GET", url, preload_content=False)
    except MaxRetryError as error:
        if isinstance(error.reason, ResponseError):
            raise FetchError(f"more than {REDIRECTS} redirects") from error
        raise TransientError(f"no answer: {type(error.reason).__name__}") from error
    except (LocationValueError, ValueError, HTTPException) as error:
        raise FetchError(f"the address is invalid: {error}") from error
    except HTTPError as error:
        raise TransientError(f"no answer: {type(error).__name__}") from error
    try:
        return _content(response, timeout)
    except HTTPError as error:
        raise TransientError(f"the answer broke off: {type(error).__name__}") from error
    finally:
        response.close()  # before its end, the connection cannot be used again
        response.release_conn()


def _content(response: urllib3.BaseHTTPResponse, timeout: float) -> bytes:
    if response.status in TRANSIENT:
        pause = response.headers.get("Retry-After", "")
        raise TransientError(f"status {response.status}", float(pause) if pause.isdecimal() else 0)
    if response.status != 200:
        raise FetchError(f"status {response.status}")
    content = bytearray()
    deadline = time.monotonic() + timeout
    while block := response.read1(BLOCK, decode_content=True):  # returns what has arrived
        content += block
        if len(content) > MOST_BYTES:
            raise FetchError(f"more than {MOST_BYTES // 2**20} MiB")
        if time.monotonic() > deadline:
            raise TransientError("too slow")
    return bytes(content)


def _report(folder: Path, name: str, count: int, missing: int, failures: list[tuple[Picture, str]]) -> None:
    """Logs the counts; writes the failures to a file, or removes it if there are none."""
    listed = folder / f"{name}{LIST_SUFFIX}.failed.tsv"
    fetched = f"{missing - len(failures):,} of {count:,} pictures were fetched, {count - missing:,} were there"
    if not failures:
        listed.unlink(missing_ok=True)
        logger.info(f"{folder / FOLDER}: {fetched}.")
        return
    with replacing(listed) as temporary:
        lines = "".join(f"{picture.item}\t{picture.url}\t{reason}\n" for picture, reason in failures)
        temporary.write_text(f"item_id:token\turl:token\treason:token_seq\n{lines}", encoding="utf-8")
    counts = Counter(reason for _, reason in failures).most_common(3)
    common = ", ".join(f"{reason}: {number:,}" for reason, number in counts)
    logger.warning(
        f"{folder / FOLDER}: {fetched}, {len(failures):,} failed ({common}). {listed} lists them; the next run tries "
        f"them again."
    )
