"""The error for each mistake in a table or an option."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from recbole_xfer.errors import XferError
from recbole_xfer.prepare.reading import TextFormat, read_table
from recbole_xfer.prepare.table import prepare_table
from tests.helpers.preparing import LOG, prepare, table_file


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("", r"log\.csv is empty"),
        ("user,item,time\n", r"log\.csv is empty"),
        ("User,item,time\nu,a,1\n", r"log\.csv has no column 'user' .* Did you mean 'User'"),
        ("user,item,time\nu,a,1\n,b,2\n", r"log\.csv, column user, row 2: the value is missing. Fill it in"),
        ("user,item,time\nu,,1\n", r"log\.csv, column item, row 1: the value is missing"),
        ("user,item,time\nu,a,1\nu,b,soon\n", r"column time, row 2: 'soon' is not a number or a date"),
        ("user,item,time\nu,a,2015-06-23\nu,b,2015-06-31\n", r"column time, row 2: '2015-06-31' is not"),
        ("user,item,time\nu,a,06/23/2015\n", "row 1: '06/23/2015' is not .* --time_format"),
        ("user,item,time\nu,a,1\nu,b,inf\n", r"log\.csv, column time, row 2: 'inf' is not a number or a date"),
        ("user,item,time\nu,a,1\nu,b,\n", "column time, row 2: the value is not a number"),
        ("user,item,time\nu,a,1,2\n", "more fields than its header"),
        ("user,item,time\nu,a,1\nu,a,1,2\n", r"log\.csv cannot be read: .* line 3"),
    ],
)
def test_invalid_interactions(tmp_path: Path, content: str, sentence: str) -> None:
    path = table_file(tmp_path, content)
    with pytest.raises(XferError, match=sentence):
        prepare_table(tmp_path, path, LOG, name="D")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("log.txt", b"user item", r"log\.txt: the separator does not follow .* Set --separator"),
        ("log.csv", b"user,item,time\nu,\xe9,1\n", "cannot be read: .*utf-8.*--encoding"),
        (
            "log.csv",
            b"user,item,time\nu,a,1\nu,a\0b,2\nu,a\0c,3\n",
            r"log\.csv, line 3: there is a NUL character. Remove",
        ),
        ("log.csv.gz", gzip.compress(b"user,item\nu,\0\n"), r"log\.csv\.gz, line 2: there is a NUL character"),
        ("log.csv", "user,item,time\nu,a,1\n".encode("utf-16-le"), r"log\.csv, line 1: there is a NUL character"),
        ("log.csv.gz", b"user,item,time\n", r"log\.csv\.gz cannot be read: Not a gzipped file"),
        ("log.xlsx", b"PK", r"log\.xlsx is a spreadsheet. Save the sheet as \.csv"),
        ("log.csv.gz", gzip.compress(b"user,item\nu,a\n", mtime=0)[:-9], "cut off. Get or write it"),
        ("log.inter", b"user:token\titem:token\titem:float\nu\ta\t1\n", "has several columns 'item'. Rename them"),
        ("log.csv", b"user;item\nu;a;1\n", "more fields than its header, separated by ';'. Set another --sep"),
        ("log.jsonl", b'{"user": {"id": 1}, "item": 1, "time": 1}', "user, row 1: .* is not an id but several"),
        ("log.csv.zip", b"PK", r"log\.csv\.zip is compressed. Unpack it first"),
        ("log.parquet", b"no parquet", r"log\.parquet cannot be read"),
        ("log.json", b'{"user": 1}\n{"user"\n', r"log\.json, line 2: invalid JSON"),
        ("log.json", b"[1, 2]", "every record must be a JSON object"),
        ("log.json", b"", r"log\.json is empty"),
        ("log.json", b"[" * 100_000, r"log\.json: invalid JSON: its lists or objects are nested too deeply"),
        ("log.json", b'{"user": ' + b"9" * 5000 + b"}", r"log\.json, line 1: invalid JSON: Exceeds the limit"),
        ("log.json", b'{"user": ' + b"9" * 4000 + b"}", r"log\.json cannot be read: int too large"),
        ("log.json", b'{"user": "\\ud800"}', r"log\.json, line 1: a character is half of a surrogate pair"),
        ("log.csv.gz", gzip.compress(b"user,item\n" + b"0" * 2**27), r"log\.csv\.gz unpacks to more than 64 MiB"),
        ("log.json.gz", gzip.compress(b"0" * 2**27), r"log\.json\.gz unpacks to more than 64 MiB"),
    ],
)
def test_invalid_files(tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(XferError, match=sentence):
        prepare_table(tmp_path, tmp_path / name, LOG, name="D")


def test_a_nul_character_in_other_formats(tmp_path: Path) -> None:
    rows = "user::item::time\nu::a::1\nu::a\0b::2\n"
    for form in (
        {"separator": "::"},
        {"separator": "::", "encoding": "utf-16"},
        {"separator": ":", "encoding": "utf-16"},
    ):
        path = tmp_path / "log.csv"
        path.write_bytes(rows.replace("::", form["separator"]).encode(form.get("encoding", "utf-8")))
        with pytest.raises(XferError, match=r"log\.csv, line 3: there is a NUL character"):
            prepare_table(tmp_path, path, LOG, name="D", form=TextFormat(**form))
        path.write_bytes(rows.replace("::", form["separator"]).replace("\0", "").encode(form.get("encoding", "utf-8")))
        assert set(read_table(path, TextFormat(**form))["item"]) == {"a", "ab"}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--columns", "user=user", "itm=item"], r"unknown role 'itm' \(roles: .*\). Did you mean 'item'"),
        (["--columns", "user=user"], "--columns: the role 'item' is missing. Add item=COLUMN"),
        (["--columns", "user"], "--columns: 'user' is invalid. Write ROLE=COLUMN"),
        (["--columns", "user=a", "user=b"], "--columns: the role 'user' is repeated"),
        (
            ["--columns", "user=user", "item=item", "--item_columns", "item=id"],
            "--items and --item_columns belong together",
        ),
        (["--columns", "user=user", "item=item"], "no name. Set --name, or split .* --domain_column"),
        (["--columns", "user=user", "item=item", "rating=time", "--name", "D"], "column time, row 1: 'x' is not"),
        (["--columns", "user=user", "item=item", "--domain_column", "shop"], "no column 'shop'"),
        (
            ["--columns", "user=user", "item=item", "--name", "D", "--encoding", "klingon"],
            "klingon is unknown to Python",
        ),
    ],
)
def test_invalid_options(tmp_path: Path, options: list[str], sentence: str) -> None:
    path = table_file(tmp_path, "user,item,time\nu,a,x\n")
    with pytest.raises(XferError, match=sentence):
        prepare("table", tmp_path, "--input", path, *options)


def test_infinite_rating(tmp_path: Path) -> None:
    log = table_file(tmp_path, "user,item,stars\nu,a,4\nu,b,inf\n")
    with pytest.raises(XferError, match=r"log\.csv, column stars, row 2: 'inf' is not a number"):
        prepare_table(tmp_path, log, {"user": "user", "item": "item", "rating": "stars"}, name="D")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(XferError, match=r"is a folder. Name its files"):
        prepare_table(tmp_path, tmp_path, LOG, name="D")
    with pytest.raises(XferError, match=r"log\.csv does not exist"):
        prepare_table(tmp_path, tmp_path / "log.csv", LOG, name="D")
