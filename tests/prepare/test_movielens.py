"""MovieLens copies of every layout to atomic files."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from recbole_xfer.errors import XferError
from recbole_xfer.prepare.movielens import prepare_movielens
from recbole_xfer.prepare.summary import describe
from tests.helpers.preparing import inter, item, prepare, real

RATINGS = [("1", "10", "5", "978300760"), ("2", "20", "3.5", "978300000"), ("1", "20", "4", "978300761")]
TITLES = {"10": "Misérables, Les (1995)", "20": 'It"s "Toy" Story (1995)', "30": "Nobody rated it (2000)"}
GENRES = {"10": "Drama|Musical", "20": "Animation|Children's", "30": "Drama"}


def write(folder: Path, form: str) -> Path:
    """Writes three ratings and three movies; RecBole's copies call the column of genres ``class`` or ``genre``."""
    folder.mkdir(parents=True, exist_ok=True)
    if form == "dat":
        (folder / "ratings.dat").write_text("".join("::".join(row) + "\n" for row in RATINGS))
        movies = "".join(f"{key}::{title}::{GENRES[key]}\n" for key, title in TITLES.items())
        (folder / "movies.dat").write_text(movies, encoding="latin-1")
    elif form == "csv":
        rows = ["userId,movieId,rating,timestamp", *(",".join(row) for row in RATINGS)]
        (folder / "ratings.csv").write_text("\n".join(rows) + "\n")
        quoted = {key: title.replace('"', '""') for key, title in TITLES.items()}
        lines = ["movieId,title,genres", *(f'{key},"{title}",{GENRES[key]}' for key, title in quoted.items())]
        (folder / "movies.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        rows = ["user_id:token\titem_id:token\trating:float\ttimestamp:float", *("\t".join(row) for row in RATINGS)]
        (folder / "ml-1m.inter").write_text("\n".join(rows) + "\n")
        lines = [f"item_id:token\tmovie_title:token_seq\trelease_year:token\t{form}:token_seq"]
        for key, title in TITLES.items():
            lines.append(f"{key}\t{title[:-7]}\t{title[-6:]}\t{GENRES[key].replace('|', ' ')}")
        (folder / "ml-1m.item").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.mark.parametrize("form", ["dat", "csv", "class", "genre"])
@pytest.mark.parametrize("zipped", [False, True])
def test_every_layout_gives_equal_files(tmp_path: Path, form: str, zipped: bool) -> None:
    copy = write(tmp_path / "ml-1m", form)
    if zipped:
        copy = tmp_path / "ml-1m.zip"
        with zipfile.ZipFile(copy, "w") as archive:
            archive.writestr("ml-1m/README", "unused")
            for path in (tmp_path / "ml-1m").iterdir():
                archive.write(path, f"ml-1m/{path.name}")
    (folder,) = prepare("movielens", tmp_path / "out", "--input", copy)
    assert folder.name == "ml-1m"
    assert inter(folder).to_dict("list") == {
        "user_id": ["2", "1", "1"],
        "item_id": ["20", "10", "20"],
        "timestamp": [978300000, 978300760, 978300761],
        "rating": [3.5, 5, 4],
    }
    assert item(folder).set_index("item_id")["text"].to_dict() == {
        "10": "Misérables, Les (1995) Drama Musical",
        "20": 'It"s "Toy" Story (1995) Animation Children\'s',
    }
    (named,) = prepare("movielens", tmp_path / "out", "--input", copy, "--name", "ML-1M")
    assert named.name == "ML-1M"


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("ratings.dat", "1::10::5::soon\n", r"raw/ratings\.dat, column 4, row 1: 'soon' is not a number"),
        ("ratings.dat", "1::10::5::9\n1::10\n", r"raw/ratings\.dat, column 4, row 2: the value is not a number"),
        ("ratings.dat", "1::10::5::9\n1::10::5::9::9\n", r"raw/ratings\.dat cannot be read: .* line 2"),
        ("ratings.dat", "1::10::good::9\n", r"raw/ratings\.dat, column 3, row 1: 'good' is not a number"),
        ("ratings.dat", "", r"raw/ratings\.dat is empty"),
        ("movies.dat", None, r"raw/movies\.dat does not exist. For ratings without movies"),
        (
            "ratings.csv",
            "userId\n",
            r"raw must contain exactly one file of ratings .* Found: ratings\.dat, ratings\.csv",
        ),
        ("ratings.dat", None, r"raw must contain exactly one file of ratings \(ratings\.dat, .* Found: none"),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_invalid_copies(tmp_path: Path, file: str, content: str | None, sentence: str, zipped: bool) -> None:
    copy = write(tmp_path / "raw", "dat")
    (copy / file).unlink() if content is None else (copy / file).write_text(content)
    if zipped:
        with zipfile.ZipFile(tmp_path / "raw.zip", "w") as archive:
            for path in copy.iterdir():
                archive.write(path, path.name)
        copy, sentence = tmp_path / "raw.zip", sentence.replace("raw", r"raw\.zip", 1)
    with pytest.raises(XferError, match=sentence) as error:
        prepare_movielens(tmp_path / "out", copy)
    assert str(tmp_path) in str(error.value)  # the user's file, not a temporary file
    assert not (tmp_path / "out").exists()


def test_input_that_is_not_a_copy(tmp_path: Path) -> None:
    with pytest.raises(XferError, match="ml-1m.zip does not exist"):
        prepare_movielens(tmp_path, tmp_path / "ml-1m.zip")
    (tmp_path / "ml-1m.zip").write_text("half a download")
    with pytest.raises(XferError, match="ml-1m.zip cannot be unpacked: .* Name the published zip file or a folder"):
        prepare_movielens(tmp_path, tmp_path / "ml-1m.zip")


def test_zip_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "ml.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ratings.dat", b"0" * 2**27)
        archive.writestr("movies.dat", "1::A::B\n")
    monkeypatch.setattr(zipfile.ZipFile, "extractall", None)
    with pytest.raises(XferError, match=r"ml\.zip unpacks to more than 64 MiB and 100 times its size"):
        prepare_movielens(tmp_path / "out", tmp_path / "ml.zip")


def test_real_movietweetings(tmp_path: Path) -> None:
    summary = describe(prepare_movielens(tmp_path, real("movietweetings")))
    assert summary.interactions == 100_000
    assert summary.with_text == summary.items == 10_506
