"""Headers of pictures that name enormous sides; random pictures are a kind of test_fuzz.py."""

from __future__ import annotations

import struct
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recbole_xfer.prepare.decoding import PictureError, open_picture


def png(width: int, height: int) -> bytes:
    """A PNG whose header names these sides, with one row of pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.integers(1_000, 2**31 - 1), st.integers(1_000, 2**31 - 1))
def test_headers_that_name_enormous_sides_cost_no_memory(width: int, height: int) -> None:
    with pytest.raises(PictureError, match=r"."):
        open_picture(png(width, height))
