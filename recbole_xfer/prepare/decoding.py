"""Decodes pictures: whatever a file contains, it gives an RGB picture of bounded size, or the reason why not."""

from __future__ import annotations

import io
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

warnings.filterwarnings("ignore", module=r"PIL\.")  # about damaged metadata, and about sizes that are limited here

T = TypeVar("T")
R = TypeVar("R")

MOST_BYTES = 50 * 2**20
"""Size of a file above which it is not read."""

MOST_PIXELS = 80 * 10**6
"""Pixels above which a picture is not decoded."""

LONGEST = 100
"""Ratio of a picture's sides above which it is dropped: scaled to a usual height, it would fill the memory."""


class PictureError(ValueError):
    """A picture cannot be used; the message is the reason."""


def open_picture(content: bytes) -> Image.Image:
    """Decodes the first frame of a picture as RGB with 8 bits: upright, and on white where it is transparent.

    Raises:
        PictureError: if it cannot be decoded completely, or is too large.
    """
    if not content:
        raise PictureError("the file is empty")
    if len(content) > MOST_BYTES:
        raise PictureError(f"the file has more than {MOST_BYTES // 2**20} MiB")
    try:
        picture = Image.open(io.BytesIO(content))
        width, height = picture.size
        if width * height > MOST_PIXELS:
            raise PictureError(f"more than {MOST_PIXELS:,} pixels")
        if max(width, height) > LONGEST * min(width, height):
            raise PictureError(f"more than {LONGEST} times as long as wide")
        picture.load()
        return _as_rgb(ImageOps.exif_transpose(picture))
    except PictureError:
        raise
    except Image.UnidentifiedImageError:
        raise PictureError("not a picture, or of an unknown format") from None
    except Image.DecompressionBombError:
        raise PictureError(f"more than {MOST_PIXELS:,} pixels") from None
    except Exception as error:  # Pillow's decoders raise errors of many kinds for damaged files
        raise PictureError((str(error).splitlines() or [""])[0] or type(error).__name__) from error


def _as_rgb(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16 bits; convert() would show all but the darkest as white
        values = np.asarray(picture).astype(np.int64).clip(0, 65535) >> 8
        return Image.fromarray(values.astype(np.uint8)).convert("RGB")
    if picture.mode == "F":
        raise PictureError("the pixels are floating-point numbers")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def read_picture(path: str) -> Image.Image:
    """Reads and decodes a file; raises PictureError if that fails."""
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise PictureError(str(error.strerror or error)) from error
    return open_picture(content)


def ahead(pool: ThreadPoolExecutor, work: Callable[[T], R], values: Iterable[T], count: int = 256) -> Iterator[R]:
    """Yields the results of the values in order; at most ``count`` are computed ahead, or kept."""
    waiting: deque[Future[R]] = deque()
    try:
        for value in values:
            waiting.append(pool.submit(work, value))
            if len(waiting) >= count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
