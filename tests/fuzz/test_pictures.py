"""Random pictures and random damage: each is decoded as RGB of a bounded size, or dropped with a reason."""

from __future__ import annotations

import io
import struct
import warnings
import zlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from recbole_xfer.prepare.decoding import LONGEST, MOST_PIXELS, PictureError, open_picture
from recbole_xfer.prepare.fetch import stored_form

FORMATS = {
    "JPEG": ("L", "RGB", "CMYK"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "GIF": ("L", "P"),
    "WEBP": ("RGB", "RGBA"),
    "TIFF": ("1", "L", "RGB", "CMYK", "I;16", "F"),
    "BMP": ("1", "L", "P", "RGB"),
}
SIDES = st.integers(1, 40) | st.sampled_from([1, 1, 300])


@st.composite
def files(draw: st.DrawFn) -> bytes:
    """The content of a file: a picture, mostly with bytes replaced or its end cut off; or no picture."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=40) | st.sampled_from([b"", b"<html>", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"]))
    form = draw(st.sampled_from(sorted(FORMATS)))
    mode = draw(st.sampled_from(FORMATS[form]))
    made = Image.new(mode, (draw(SIDES), draw(SIDES)), 0 if len(mode) == 1 or ";" in mode else None)
    frames = (
        {"save_all": True, "append_images": [made.copy()]} if form in ("GIF", "WEBP") and draw(st.booleans()) else {}
    )
    content = io.BytesIO()
    made.save(content, form, **frames)
    found = bytearray(content.getvalue())
    for _ in range(draw(st.integers(0, 4))):
        found[draw(st.integers(0, len(found) - 1))] = draw(st.integers(0, 255))
    return bytes(found[: draw(st.integers(0, len(found)))] if draw(st.integers(0, 3)) == 0 else found)


@settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(files())
def test_random_files(content: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about damaged metadata
        try:
            picture = open_picture(content)
            suffix, stored = stored_form(content, 16)
        except PictureError:
            return
    width, height = picture.size
    assert (
        picture.mode == "RGB" and width * height <= MOST_PIXELS and max(width, height) <= LONGEST * min(width, height)
    )
    assert suffix in (".jpg", ".png", ".webp") and open_picture(stored).size


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
