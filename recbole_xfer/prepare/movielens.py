"""MovieLens, from the user's own copy: its licence forbids redistribution, so nothing is downloaded.

A copy is a folder or the published zip file, with one of these pairs of files at any depth:

* ``ratings.dat`` and ``movies.dat``, separated by ``::`` (1M and 10M; also MovieTweetings).
* ``ratings.csv`` and ``movies.csv`` (20M, 25M, 32M and the "latest" ones).
* ``ml-1m.inter`` and ``ml-1m.item``, or another name that begins with ``ml-``: RecBole's atomic files.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from recbole_xfer.data.atomic_writer import check_domain_name, write_domain
from recbole_xfer.errors import XferError
from recbole_xfer.prepare.reading import TextFormat, check_unpacked_size, read_table
from recbole_xfer.prepare.summary import Summary, describe
from recbole_xfer.prepare.table import ItemTable, interactions_of, items_of


@dataclass(frozen=True)
class Layout:
    """A pair of files and the roles of their columns."""

    ratings: str
    """Pattern of the file name; with ``*``, both files have the same stem."""
    movies: str
    form: TextFormat
    rating_columns: Mapping[str, str]
    movie_columns: Mapping[str, str]

    def movies_of(self, ratings: Path) -> Path:
        """The file of movies that belongs to a file of ratings."""
        return ratings.with_name(self.movies.replace("*", ratings.stem))


LAYOUTS = (
    Layout(
        "ratings.dat", "movies.dat", TextFormat("::", header=False),
        {"user": "1", "item": "2", "rating": "3", "time": "4"}, {"item": "1", "text": "2+3"},
    ),
    Layout(
        "ratings.csv", "movies.csv", TextFormat(),
        {"user": "userId", "item": "movieId", "rating": "rating", "time": "timestamp"},
        {"item": "movieId", "text": "title+genres"},
    ),
    Layout(
        "ml-*.inter", "*.item", TextFormat(quotes=False),
        {"user": "user_id", "item": "item_id", "rating": "rating", "time": "timestamp"},
        {"item": "item_id", "text": "movie_title+release_year+genre"},
    ),
)  # fmt: skip


def run(args: argparse.Namespace) -> list[Summary]:
    """Writes the domain; returns what is in it."""
    return [describe(prepare_movielens(args.output, args.input, args.name))]


def prepare_movielens(output: Path, copy: Path, name: str | None = None) -> Path:
    """Writes one domain: the ratings, and each movie's title, year and genres as its text.

    Args:
        output: the folder that holds the domains.
        copy: a folder or a zip file.
        name: name of the domain; by default, the name of the copy.

    Raises:
        XferError: if the copy has no pair of files or several, or a value cannot be read; it names the row.
    """
    copy = Path(copy).resolve()
    name = name or (copy.name if copy.is_dir() else copy.stem)
    check_domain_name(name)
    with _unpacked(copy) as folder:
        layout, ratings = _found(folder, copy)
        movies = layout.movies_of(ratings)
        form = replace(layout.form, encoding=_encoding(movies))
        interactions = interactions_of(read_table(ratings, form), layout.rating_columns, ratings)
        source = ItemTable(movies, layout.movie_columns)
        described = read_table(movies, form).rename(columns={"class": "genre"})  # as RecBole's copy of 100K has it
        items = items_of(described, source, interactions["item_id"])
    items["text"] = items["text"].str.replace("|", " ")  # between genres
    return write_domain(output, name, interactions, items)


@contextmanager
def _unpacked(copy: Path) -> Iterator[Path]:
    """Yields the copy as a folder. A zip file is unpacked while the block runs; errors then name the zip file."""
    if copy.is_dir():
        yield copy
        return
    if not copy.is_file():
        raise XferError(f"The file {copy} does not exist. Check --input.")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / copy.name
        try:
            with zipfile.ZipFile(copy) as archive:
                wanted = [member for member in archive.infolist() if _is_wanted(PurePosixPath(member.filename).name)]
                check_unpacked_size(copy, sum(member.file_size for member in wanted))
                archive.extractall(folder, wanted)
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, OSError) as error:
            raise XferError(f"{copy} cannot be unpacked: {error}. Name the published zip file or a folder.") from error
        try:
            yield folder
        except XferError as error:
            raise XferError(str(error).replace(str(folder), str(copy))) from error


def _is_wanted(name: str) -> bool:
    return any(fnmatch(name, pattern) for layout in LAYOUTS for pattern in (layout.ratings, layout.movies))


def _found(folder: Path, copy: Path) -> tuple[Layout, Path]:
    """The layout and the ratings of the only pair of files."""
    found = [(layout, path) for layout in LAYOUTS for path in sorted(folder.rglob(layout.ratings))]
    if len(found) != 1:
        there = ", ".join(str(path.relative_to(folder)) for _, path in found) or "none"
        wanted = ", ".join(layout.ratings for layout in LAYOUTS)
        raise XferError(f"{copy} must contain exactly one file of ratings ({wanted}). Found: {there}.")
    return found[0]


def _encoding(path: Path) -> str:
    """The encoding of the titles: latin-1 in older copies."""
    if not path.is_file():
        raise XferError(
            f"The file {path} does not exist. For ratings without movies, use `recbole-xfer prepare table`."
        )
    try:
        path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8"
