"""Random pictures of all formats, mostly damaged."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

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
def pictures(draw: st.DrawFn) -> bytes:
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


def check_picture(content: bytes, _: Path) -> bool:
    """Decodes a picture, which must be RGB of a bounded size, and stores it in a form that can be decoded again."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, about damaged metadata
        try:
            picture = open_picture(content)
            suffix, stored = stored_form(content, 16)
        except PictureError:
            return False
    width, height = picture.size
    assert picture.mode == "RGB"
    assert width * height <= MOST_PIXELS
    assert max(width, height) <= LONGEST * min(width, height)
    assert suffix in (".jpg", ".png", ".webp")
    assert open_picture(stored).size
    return True
