"""The pictures of a domain: a folder ``images`` and a list of addresses.

``images/<item_id>.jpg``, or ``images/<item_id>/<name>.jpg`` for several pictures of one item. ``<domain>.pictures`` has
one line for each address: ``item_id`` and ``url``.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import pyarrow as pa

from recbole_xfer.data.atomic_writer import write_table
from recbole_xfer.errors import XferError
from recbole_xfer.log import logger
from recbole_xfer.prepare.dropped import Dropped

FOLDER = "images"
LIST_SUFFIX = ".pictures"
SUFFIXES = {".avif", ".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
SCHEMA = pa.schema([("item_id", pa.string()), ("url", pa.string())])
MOST = 4
"""Pictures of an item that count."""


def pictures_by_item(root: Path) -> dict[str, list[Path]]:
    """The pictures of each item in a folder, by their numbers; the items are sorted."""
    found: dict[str, list[Path]] = {}
    for path in sorted(root.glob("[!.]*"), key=lambda path: path.name):
        if path.is_dir():
            paths = sorted(filter(is_picture, path.iterdir()), key=by_number)
            if paths:
                found.setdefault(path.name, []).extend(paths)
        elif is_picture(path):
            found.setdefault(path.stem, []).insert(0, path)
    return {item: found[item][:MOST] for item in sorted(found)}


def is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES and path.is_file()


def by_number(path: Path) -> list[tuple[int, str]]:
    """Sorts 2.jpg before 10.jpg."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"([0-9]+)", path.name)]


def is_old_picture(folders: Collection[str] = (), lists: Collection[str] = ()) -> Callable[[Path], bool]:
    """Whether a file is in the folder of pictures of a domain in ``folders``, or the addresses of one in ``lists``."""

    def is_old(path: Path) -> bool:
        in_folder = any(parent.name == FOLDER and parent.parent.name in folders for parent in path.parents)
        return in_folder or (path.suffix == LIST_SUFFIX and path.parent.name == path.stem and path.stem in lists)

    return is_old


def write_addresses(folder: Path, pictures: Iterable[pa.RecordBatch]) -> None:
    """Writes ``<domain>.pictures``, unless there is no address."""
    table = pa.Table.from_batches(pictures, SCHEMA)
    if len(table):
        write_table(folder / f"{folder.name}{LIST_SUFFIX}", table)


def add_pictures(folder: Path, source: Path, items: Collection[str]) -> None:
    """Adds the pictures of items to a domain's folder, as links where the file system has them; logs how many.

    Raises:
        XferError: if the source is not a folder, or has no picture of an item.
    """
    if not source.is_dir():
        raise XferError(f"The folder of pictures {source} does not exist. Check --images.")
    dropped, found = Dropped(source), dict[str, list[Path]]()
    for entry in sorted(os.scandir(source), key=lambda entry: entry.name):
        item = entry.name if entry.is_dir() else Path(entry.name).stem
        pictures = _pictures_in(Path(entry.path), dropped)
        if item not in items:
            dropped.add("pictures are of no item of the domain", entry.name, len(pictures))
        elif item in found:
            dropped.add("pictures repeat an item and are left out", entry.name, len(pictures))
        elif pictures:
            found[item] = pictures
    if not found:
        raise XferError(
            f"{source} has no picture of an item, such as {min(items)}.jpg. Name the pictures after the items."
        )
    for item, pictures in found.items():
        for picture in pictures:
            name = picture.name if picture.parent == source else Path(item) / picture.name
            _link(picture, folder / FOLDER / name)
    dropped.report()
    logger.info(f"{folder.name}: pictures of {len(found):,} items.")


def add_named_pictures(folder: Path, root: Path | None, names: Mapping[str, list[str]]) -> None:
    """Adds the pictures that a column names: a path below ``root``, or an address; counts what cannot be used.

    Raises:
        XferError: if no picture can be used.
    """
    dropped, addresses, linked = Dropped(f"{folder.name}: the column of pictures"), list[tuple[str, str]](), 0
    for item, found in names.items():
        addresses += [(item, name) for name in found if is_address(name)]
        paths = [] if root is None else [root / name for name in found if not is_address(name)]
        usable = [path for path in paths if _is_picture_below(root, path)]
        dropped.add("paths are no pictures in the folder of --images", item, len(paths) - len(usable))
        if usable and Path(item).name != item:
            dropped.add("items have an id that cannot be the name of a file", item)
            continue
        for number, path in enumerate(usable):
            name = f"{item}{path.suffix}" if len(usable) == 1 else f"{item}/{number}{path.suffix}"
            _link(path, folder / FOLDER / name)
        linked += len(usable)
    dropped.report()
    if not addresses and not linked:
        raise XferError(
            f"{folder.name}: no picture of the column can be used. Write addresses, or paths below --images."
        )
    columns = {"item_id": [item for item, _ in addresses], "url": [address for _, address in addresses]}
    write_addresses(folder, [pa.RecordBatch.from_pydict(columns, SCHEMA)])


def is_address(text: str) -> bool:
    """Whether a text is the address of a picture."""
    return text.startswith(("http://", "https://")) and len(text.split()) == 1


def _is_picture_below(root: Path | None, path: Path) -> bool:
    """Whether a path that a file names is a picture, and inside the folder of pictures."""
    return is_picture(path) and root is not None and path.resolve().is_relative_to(root.resolve())


def _pictures_in(path: Path, dropped: Dropped) -> list[Path]:
    """The picture of this path, or the first pictures of the folder of this path."""
    paths = sorted(path.iterdir(), key=by_number) if path.is_dir() else [path]
    pictures = list(filter(is_picture, paths))
    dropped.add("files are not pictures", path.name, len(paths) - len(pictures))
    dropped.add(f"pictures are left out, because an item has at most {MOST}", path.name, len(pictures[MOST:]))
    return pictures[:MOST]


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
