"""Item tables: texts, prices and pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from recbole_xfer.errors import XferError
from recbole_xfer.prepare.table import ItemTable, prepare_table
from tests.helpers.preparing import LOG, inter, item, prepare, table_file


def test_layout_of_microlens(tmp_path: Path) -> None:
    log = table_file(tmp_path, "user,item,timestamp\n7,1,1529193600500\n7,2,1529193600501\n", "pairs.csv")
    items = table_file(tmp_path, '1,"Tea, hot"\n2,Cake\n', "titles.csv")
    covers = tmp_path / "covers"
    covers.mkdir()
    (covers / "2.jpg").write_bytes(b"picture")
    options = ["--items_header", "none", "--columns", "user=user", "item=item", "time=timestamp", "--name", "D"]
    options += ["--item_columns", "item=1", "text=2", "--images", covers]
    (folder,) = prepare("table", tmp_path, "--input", log, "--items", items, *options)
    assert item(folder)["text"].tolist() == ["Tea, hot", "Cake"] and (folder / "images" / "2.jpg").exists()


def test_items_have_an_encoding_of_their_own(tmp_path: Path) -> None:
    log = table_file(tmp_path, "user,item\nJosé,a\nJosé,b\nJosé,c\n")
    items = tmp_path / "items.csv"
    items.write_bytes("item;title\na;Müller\nb;Söhne\nc;Tee\n".encode("cp1252"))
    options = ["--columns", "user=user", "item=item", "--item_columns", "item=item", "text=title", "--name", "D"]
    options = ["--input", log, "--items", items, *options]
    with pytest.raises(XferError, match=r"items.csv cannot be read: .*--items_encoding if only the items have it"):
        prepare("table", tmp_path, *options)
    (folder,) = prepare("table", tmp_path, *options, "--items_encoding", "cp1252")
    assert item(folder)["text"].tolist() == ["Müller", "Söhne", "Tee"] and set(inter(folder)["user_id"]) == {"José"}


def test_a_column_of_pictures(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = table_file(tmp_path, "user,item,time\nu,a,1\nu,b,2\nu,c,3\nu,d/d,4\nu,e,5\n")
    covers = tmp_path / "covers"
    (covers / "x").mkdir(parents=True)
    for name in ("x/1.jpg", "2.png", "../out.jpg", "note.txt"):
        (covers / name).write_bytes(b"picture")
    rows = [
        {"id": "a", "cover": "x/1.jpg"}, {"id": "b", "cover": ["x/1.jpg", "2.png", "http://h/b.jpg"]},
        {"id": "c", "cover": ["../out.jpg", "note.txt", "none.jpg"]}, {"id": "d/d", "cover": "2.png"},
        {"id": "e", "cover": None}, {"id": "other", "cover": "2.png"},
    ]  # fmt: skip
    items = table_file(tmp_path, json.dumps(rows), "items.json")
    table = ItemTable(items, {"item": "id", "image": "cover"})
    (folder,) = prepare_table(tmp_path, log, LOG, table, name="D", images=covers)
    found = sorted(str(path.relative_to(folder / "images")) for path in folder.rglob("images/**/*.*"))
    assert found == ["a.jpg", "b/0.jpg", "b/1.png"]
    assert (folder / "D.pictures").read_text() == "item_id:token\turl:token\nb\thttp://h/b.jpg\n"
    assert "3 paths are no pictures in the folder of --images (first: c)" in caplog.text
    assert "1 items have an id that cannot be the name of a file (first: d/d)" in caplog.text
    table_file(tmp_path, json.dumps(rows[:1]), "items.json")
    with pytest.raises(XferError, match="D: no picture of the column can be used"):
        prepare_table(tmp_path, log, LOG, table, name="D", images=tmp_path / "none")


def test_joined_texts_are_cleaned_and_repeat_nothing(tmp_path: Path) -> None:
    log = table_file(tmp_path, "user,item,time\nu,a,1\n")
    items = table_file(tmp_path, "id,title,kind,brand\na,<b>Gift</b> cards,Gift Cards,Tea &amp; Co\n", "items.csv")
    table = ItemTable(items, {"item": "id", "text": "title+kind+brand"})
    (folder,) = prepare_table(tmp_path, log, LOG, table, name="D")
    assert item(folder)["text"].tolist() == ["Gift cards Tea & Co"]


def test_listed_items(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = table_file(tmp_path, "user,item,time\nu,a,1\nu,b,2\n")
    items = table_file(tmp_path, "id,title\na,first\na,second\nc,other\n", "items.csv")
    table = ItemTable(items, {"item": "id", "text": "title"})
    (folder,) = prepare_table(tmp_path, log, LOG, table, name="D")
    assert item(folder)["text"].tolist() == ["first"]
    assert "1 rows repeat an item, of which the first row counts (first: a)." in caplog.text
    (folder,) = prepare_table(tmp_path, log, LOG, ItemTable(items, table.columns, all_items=True), name="D")
    assert item(folder)["item_id"].tolist() == ["a", "c"]
    prepare_table(tmp_path, log, LOG, name="D")
    assert "D.item of an earlier preparation is kept. Remove it, or name --items" in caplog.text


@pytest.mark.parametrize(
    ("price_format", "written", "price"),
    [
        ("1234.56", "12.99", 12.99),
        ("1234.56", " 12 ", 12),
        ("$1,234.56", "$12.99", 12.99),
        ("$1,234.56", "$1,250.00", 1250),
        ("$1,234.56", "12", 12),
        ("1.234,56", "1.234,56 €", 1234.56),
        ("1.234,56", "EUR 12,50", 12.5),
        ("$1,234.56", "12.50 USD", 12.5),
        ("1.234,56", "12,99", 12.99),
    ],
)
def test_prices(tmp_path: Path, price_format: str, written: str, price: float) -> None:
    folder = prepare_prices(tmp_path, written, price_format)
    assert item(folder)["price"].iloc[0] == price
    assert np.isnan(item(folder)["price"].iloc[1])


@pytest.mark.parametrize(
    ("price_format", "written"),
    [
        ("1234.56", "$12.99"),
        ("1234.56", "12,99"),
        ("1234.56", "-1"),
        ("1234.56", "inf"),
        ("$1,234.56", "12,99"),
        ("$1,234.56", "$1.95 - $49.95"),
        ("1.234,56", "12.99"),
    ],
)
def test_invalid_prices(tmp_path: Path, price_format: str, written: str) -> None:
    with pytest.raises(XferError, match=r"items\.csv, column cost, row 1: .* --price_format .*_unreadable") as error:
        prepare_prices(tmp_path, written, price_format)
    assert repr(written) in str(error.value)
    folder = prepare_prices(tmp_path, written, price_format, skip_unreadable_prices=True)
    assert item(folder)["price"].isna().all()


def prepare_prices(folder: Path, written: str, price_format: str, **options: bool) -> Path:
    log = table_file(folder, "user,item,time\nu,a,1\nu,b,2\n")
    items = table_file(folder, f'id,cost\na,"{written}"\nb,\n', "items.csv")
    table = ItemTable(items, {"item": "id", "price": "cost"}, price_format, **options)
    return prepare_table(folder, log, LOG, table, name="D")[0]


def test_item_table_of_other_items(tmp_path: Path) -> None:
    log = table_file(tmp_path, "user,item,time\nu,a,1\n")
    items = table_file(tmp_path, "id,title\n0001,x\n", "items.csv")
    with pytest.raises(XferError, match=r"items\.csv, column id: no item, such as '0001'"):
        prepare_table(tmp_path, log, LOG, ItemTable(items, {"item": "id"}), name="D")
    table_file(tmp_path, "id,title\na,x\n", "items.csv")
    with pytest.raises(XferError, match=r"items\.csv has no column 'titel' .* Did you mean 'title'"):
        prepare_table(tmp_path, log, LOG, ItemTable(items, {"item": "id", "text": "titel"}), name="D")
