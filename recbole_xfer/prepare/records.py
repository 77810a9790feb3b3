"""Reads JSON lines block by block, so that a file of any size needs little memory."""

from __future__ import annotations

import gc
import io
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

from recbole_xfer.errors import XferError
from recbole_xfer.prepare.dropped import Dropped
from recbole_xfer.prepare.reading import opened

BLOCK = 2**24
"""Bytes that are read at once."""

LONGEST = 2**28
"""Bytes of the longest line."""

Record = TypeVar("Record", bound=msgspec.Struct)

INVALID = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Records(Generic[Record]):
    """Parses lines of JSON into records with the fields that a class declares; other fields are skipped."""

    def __init__(self, kind: type[Record], dropped: Dropped) -> None:
        self._decoder, self._dropped = msgspec.json.Decoder(kind), dropped

    def read(self, path: Path) -> Iterator[list[Record]]:
        """Yields the records of each block; counts lines that are not such records.

        Raises:
            XferError: if the file does not exist, is cut off or damaged, or no line is a record.
        """
        line, found = 1, False
        for block in _ahead(line_blocks(path)):
            records = self._parse(block, line)
            found = found or bool(records)
            line += block.count(b"\n")
            yield records
        if not found:
            raise XferError(f"{path}: no line is a JSON object with the expected fields. Check which file it is.")

    def _parse(self, block: bytes, line: int) -> list[Record]:
        collects = gc.isenabled()
        gc.disable()  # it would visit all records again and again; none of them is in a circle
        try:
            return self._decoder.decode_lines(block)
        except INVALID:
            return list(self._parse_each(block, line))
        finally:
            if collects:
                gc.enable()

    def _parse_each(self, block: bytes, line: int) -> Iterator[Record]:
        for number, text in enumerate(block.split(b"\n"), start=line):
            if text.strip():
                try:
                    yield self._decoder.decode(text)
                except INVALID as error:
                    self._dropped.add("lines cannot be read and are dropped", f"line {number}, {error}")


def line_blocks(path: Path) -> Iterator[bytes]:
    """Yields the file in blocks of whole lines.

    Raises:
        XferError: if the file does not exist, is cut off or damaged, or a line is too long.
    """
    if not path.is_file():
        raise XferError(f"The file {path} does not exist.")
    rest: list[bytes] = []
    try:
        with opened(path) as file:
            while piece := _read(file):
                head, newline, tail = piece.rpartition(b"\n")
                if newline:
                    yield b"".join([*rest, head, newline])
                    rest = []
                rest.append(tail)
                if len(rest) * BLOCK > LONGEST:
                    raise XferError(f"{path} has a line of more than {LONGEST:,} bytes. Write one JSON object a line.")
    except (EOFError, OSError, zlib.error) as error:
        raise XferError(f"{path} is cut off or damaged: {error}. Get the file again.") from error
    if any(rest):
        yield b"".join(rest)


def _read(file: io.BufferedIOBase) -> bytes:
    return file.read(BLOCK)


def _ahead(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """The same blocks; the next one is read in another thread while the caller uses one."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, blocks, None)
        while (block := following.result()) is not None:
            following = pool.submit(next, blocks, None)
            yield block
