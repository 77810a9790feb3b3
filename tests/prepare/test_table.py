"""Any table to atomic files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from recbole_xfer.errors import XferError
from recbole_xfer.prepare.reading import TextFormat, read_table
from recbole_xfer.prepare.summary import describe
from recbole_xfer.prepare.table import ItemTable, prepare_table
from tests.helpers.preparing import LOG, inter, item, prepare, real, table_file


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
@pytest.mark.parametrize("gzipped", [False, True])
def test_every_format_gives_equal_files(tmp_path: Path, suffix: str, gzipped: bool) -> None:
    table = pd.DataFrame({"user": ["001", "NA user"], "item": ["a", "b"], "time": [20, 10], "stars": [5.0, 3.5]})
    path = tmp_path / f"log.{suffix}"
    if suffix in ("csv", "tsv"):
        table.to_csv(path, sep="," if suffix == "csv" else "\t", index=False)
    elif suffix == "parquet":
        table.to_parquet(path)
    else:
        table.to_json(path, orient="records", lines=True)
    if gzipped:
        content = path.read_bytes()
        path = path.with_name(path.name + ".gz")
        path.write_bytes(gzip.compress(content))
    options = ["--columns", "user=user", "item=item", "time=time", "rating=stars", "--name", "D"]
    (folder,) = prepare("table", tmp_path, "--input", path, *options)
    assert inter(folder).to_dict("list") == {
        "user_id": ["NA user", "001"],
        "item_id": ["b", "a"],
        "timestamp": [10.0, 20.0],
        "rating": [3.5, 5.0],
    }


def test_several_files_become_one_table(tmp_path: Path) -> None:
    splits = ("train", "valid", "test")
    for time in ("time:float", "when:float"):
        rows = {"train": "u\ta\t1\nv\tb\t7\n", "valid": "u\tc\t1\n", "test": "u\tb\t1\n"}
        paths = [
            table_file(tmp_path, f"user:token\titem:token\t{time}\n{rows[split]}", f"D.{split}.inter")
            for split in splits
        ]
        columns = {"user": "user", "item": "item"} | ({"time": "time"} if time == "time:float" else {})
        [folder] = prepare_table(tmp_path, paths, columns, name="D")
        of_user = inter(folder)[inter(folder)["user_id"] == "u"]
        assert of_user["item_id"].tolist() == ["a", "c", "b"]  # rows of equal time keep their order
    with pytest.raises(XferError, match=r"D\.valid\.inter, column item, row 1: the value is missing"):
        table_file(tmp_path, "user\titem\tother\nu\t\t\n", "D.valid.inter")
        prepare_table(tmp_path, paths, columns, name="D")


def test_separator_without_header(tmp_path: Path) -> None:
    log = table_file(tmp_path, "1::007::5::20\n2::008::4::10\n", "log.dat")
    items = table_file(tmp_path, '007::"It" (1915)::Drama|War\n', "movies.dat")
    options = ["--separator", "::", "--header", "none", "--columns", "user=1", "item=2", "time=4", "--name", "D"]
    options += ["--item_columns", "item=1", "text=2+3"]
    (folder,) = prepare("table", tmp_path, "--input", log, "--items", items, *options)
    assert inter(folder)["item_id"].tolist() == ["008", "007"]
    assert item(folder)["text"].tolist() == ['"It" (1915) Drama|War']
    assert describe(folder).unlisted == 1


@pytest.mark.parametrize(
    "content",
    [
        '\ufeff"user";"item";"time"\r\n"u";"a, b";"1,5"\r\n',
        "user\titem\ttime\nu\ta, b\t1,5\n",
        '"user";"item";"time";"price,\nnet"\n"u";"a, b";"1,5";"2"\n',
        'user,item,time\nu,"a, b","1,5"\n',
    ],
)
def test_csv_of_a_spreadsheet(tmp_path: Path, content: str) -> None:
    table = read_table(table_file(tmp_path, content), TextFormat())
    assert table[["user", "item", "time"]].to_dict("records") == [{"user": "u", "item": "a, b", "time": "1,5"}]


def test_a_tab_as_a_shell_passes_it(tmp_path: Path) -> None:
    path = table_file(tmp_path, "user\titem, of a shop\nu\ta\n", "log.txt")
    options = ["--columns", "user=user", "item=item, of a shop", "--name", "D", "--separator", r"\t"]
    (folder,) = prepare("table", tmp_path, "--input", path, *options)
    assert inter(folder)["item_id"].to_list() == ["a"]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_long_numbers_beside_missing_ones_are_exact(tmp_path: Path, suffix: str) -> None:
    ids, path = [2**53 + 1, None, 7], tmp_path / f"log.{suffix}"
    if suffix == "parquet":
        parquet.write_table(pa.table({"user": pa.array(ids), "item": [1, 2, 3]}), path)
    else:
        path.write_text("".join(json.dumps({"user": id, "item": 1}) + "\n" for id in ids))
    columns = {"user": "user", "item": "item"}
    (folder,) = prepare_table(tmp_path, path, columns, name="D", skip_missing_ids=True)
    assert inter(folder)["user_id"].to_list() == ["9007199254740993", "7"]


def test_ids_that_pandas_made_floats(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pd.DataFrame({"user": [1.0, 2.0], "item": ["a", "b"]}).to_parquet(path)
    columns = {"user": "user", "item": "item"}
    assert inter(prepare_table(tmp_path, path, columns, name="D")[0])["user_id"].to_list() == ["1", "2"]
    pd.DataFrame({"user": [1.0, 2.5], "item": ["a", "b"]}).to_parquet(path)
    with pytest.raises(XferError, match=r"log\.parquet, column user, row 2: '2\.5' is not an id"):
        prepare_table(tmp_path, path, columns, name="D")


@pytest.mark.parametrize("separator", ["::", ":"])
def test_blanks_at_the_ends_of_a_line_are_kept(tmp_path: Path, separator: str) -> None:
    log = table_file(tmp_path, " u::a::1\nv:: b ::2\nw:: b \n".replace("::", separator), "log.dat")
    table = read_table(log, TextFormat(separator, header=False))
    assert table["1"].tolist() == [" u", "v", "w"]
    assert table["2"].tolist() == ["a", " b ", " b "]
    assert table["3"].isna().tolist() == [False, False, True]


def test_a_domain_may_be_called_na(tmp_path: Path) -> None:
    log = table_file(tmp_path, "user,item,time,shop\nu, NA,1,NA\n")
    (folder,) = prepare_table(tmp_path, log, LOG, domain_column="shop", form=TextFormat(), name="Shop")
    assert folder.name == "Shop-NA"
    assert inter(folder)["item_id"].tolist() == [" NA"]


def test_a_line_with_the_character_that_replaces_a_long_separator(tmp_path: Path) -> None:
    log = table_file(tmp_path, "u::a\x1f::1\n", "log.dat")
    with pytest.raises(XferError, match=r"log\.dat has the character '.x1f'. Remove it"):
        read_table(log, TextFormat("::", header=False))


def test_types_in_an_atomic_header_are_removed(tmp_path: Path) -> None:
    path = table_file(tmp_path, "user_id:token\titem_id:token\ttime:float\nu\ta\t2015-06-23\n", "log.inter")
    (folder,) = prepare_table(tmp_path, path, {"user": "user_id", "item": "item_id", "time": "time"}, name="D")
    assert inter(folder)["timestamp"].tolist() == [1435017600]


def test_quotation_marks_as_characters(tmp_path: Path) -> None:
    path = table_file(tmp_path, 'user\titem\nu\t"a\nv\tb"\n', "log.tsv")
    (folder,) = prepare("table", tmp_path, "--input", path, "--columns", "user=user", "item=item", "--name", "D",
                        "--quotes", "none")  # fmt: skip
    assert inter(folder)["item_id"].tolist() == ['"a', 'b"']


def test_quotation_marks_in_atomic_files_are_letters(tmp_path: Path) -> None:
    path = table_file(tmp_path, 'user\titem\nu\t"a\nv\tb\nv\t"c\n', "log.inter")
    (folder,) = prepare_table(tmp_path, path, {"user": "user", "item": "item"}, name="D")
    assert inter(folder)["item_id"].tolist() == ['"a', "b", '"c']


def test_json_by_user_and_by_item(tmp_path: Path) -> None:
    log = table_file(tmp_path, json.dumps({"0": [1, 0], "1": [0]}, indent=1), "log.json")
    records = {"0": {"title": "A", "tags": ["x", ["y"]], "brand": None}, "1": {"title": "B&amp;C", "tags": []}}
    for indent in (None, 1):
        items = table_file(tmp_path, json.dumps(records, indent=indent), "items.json")
        table = ItemTable(items, {"item": "index", "text": "title+tags+brand"})
        (folder,) = prepare_table(tmp_path, log, {"user": "user", "item": "item"}, table, name="D")
        assert inter(folder)[["user_id", "item_id"]].to_numpy().tolist() == [["0", "1"], ["0", "0"], ["1", "0"]]
        assert item(folder)["text"].tolist() == ["A x y", "B&C"]


def test_domain_column(tmp_path: Path) -> None:
    log = table_file(tmp_path, "user,item,time,shop\nu,1,1,Food\nu,1,2,Home\nv,2,3,Home\n")
    items = table_file(tmp_path, "item,title,shop\n1,Bread,Food\n1,Lamp,Home\n2,Bed,Home\n3,Rug,Home\n", "items.csv")
    table = ItemTable(items, {"item": "item", "text": "title"})
    folders = prepare_table(tmp_path, log, LOG, table, domain_column="shop")
    assert [folder.name for folder in folders] == ["Food", "Home"]
    assert [item(folder)["text"].tolist() for folder in folders] == [["Bread"], ["Lamp", "Bed"]]
    folders = prepare_table(tmp_path, log, LOG, name="Shop", domain_column="shop")
    assert [folder.name for folder in folders] == ["Shop-Food", "Shop-Home"]


@pytest.mark.parametrize(
    ("last", "sentence"),
    [
        ("Ho/me", "'Ho/me' is not the name of a folder"),
        ("A+B", "which joins domains"),
        ("Home ", "'Home ' begins or"),
    ],
)
def test_domain_column_with_a_value_that_is_no_name(tmp_path: Path, last: str, sentence: str) -> None:
    log = table_file(tmp_path, f"user,item,time,shop\nu,1,1,Food\nv,2,3,{last}\n")
    with pytest.raises(XferError, match=sentence):
        prepare_table(tmp_path / "out", log, LOG, domain_column="shop")
    assert not (tmp_path / "out").exists()


def test_domains_are_written_all_or_none(tmp_path: Path) -> None:
    log = table_file(tmp_path, "user,item,time,shop\nu,1,1,Food\nv,a\tb,3,Home\n")
    with pytest.raises(XferError, match=r"Home\.inter, column item_id, row 1: the value 'a\\tb' "):
        prepare_table(tmp_path / "out", log, LOG, domain_column="shop")
    assert not (tmp_path / "out" / "Food").exists()


def test_rows_without_ids_are_left_out_on_request(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    log = table_file(tmp_path, "user,item,time\n,a,1\nu,a,2\nNA,b,3\nu,  ,4\nv,b,5\n")
    items = table_file(tmp_path, "id,title\nNA,none\na,first\n", "items.csv")
    table = ItemTable(items, {"item": "id", "text": "title"})
    (folder,) = prepare_table(tmp_path, log, LOG, table, name="D", skip_missing_ids=True)
    assert inter(folder)["user_id"].tolist() == ["u", "v"]
    assert item(folder)["text"].tolist() == ["first"]
    assert "log.csv: 2 rows have no user and are left out (first: row 1)." in caplog.text
    assert "log.csv: 1 rows have no item and are left out (first: row 4)." in caplog.text
    assert "items.csv: 1 rows have no id and are left out (first: row 1)." in caplog.text


@pytest.mark.parametrize("rows", [",a,1", "NA,a,1"])
def test_a_missing_id_names_the_remedy(tmp_path: Path, rows: str) -> None:
    log = table_file(tmp_path, f"user,item,time\n{rows}\n")
    with pytest.raises(XferError, match="column user, row 1: .* missing.*--skip_missing_ids"):
        prepare_table(tmp_path, log, LOG, name="D")
    with pytest.raises(XferError, match=r"log\.csv has no row with user and item"):
        prepare_table(tmp_path, log, LOG, name="D", skip_missing_ids=True)


def test_a_document_with_a_byte_order_mark(tmp_path: Path) -> None:
    path = table_file(tmp_path, '\ufeff[\n{"user": 1, "item": 2}]\n', "log.json")
    assert read_table(path, TextFormat()).to_dict("list") == {"user": [1], "item": [2]}


@pytest.mark.parametrize(
    ("folder", "options", "expected"),
    [
        (
            "food-kitchen",
            "--input interactions.tsv.gz --columns user=user_id item=item_id time=position --domain_column domain "
            "--items items.tsv.gz --item_columns item=item_id text=title",
            {"Food": (14870, 8661, 98316, 8661, 0), "Kitchen": (47589, 27637, 337811, 27637, 0)},
        ),
        (
            "amazon5",
            "--input interactions.tsv.gz --columns user=user_id item=item_id time=timestamp --domain_column domain",
            {"Books": (5000, 53466, 69553, 0, 0), "Video": (5000, 6891, 13560, 0, 0)},
        ),
        (
            "movietweetings",
            "--input ratings.dat --columns user=1 item=2 rating=3 time=4 --separator :: --header none --name Movies "
            "--items movies.dat --item_columns item=1 text=2+3",
            {"Movies": (16554, 10506, 100000, 10506, 0)},
        ),
        (
            "pantry",
            "--input Pantry.inter.gz --columns user=user_id item=item_id time=timestamp --name Pantry",
            {"Pantry": (12608, 4926, 109007, 0, 0)},
        ),
        (
            "amazon-gift-cards",
            "--input Gift_Cards_5.json.gz --columns user=reviewerID item=asin time=unixReviewTime --name Gifts "
            "--items meta_Gift_Cards.json.gz --item_columns item=asin text=title+brand+category price=price "
            "--price_format $1,234.56",
            {"Gifts": (458, 148, 2972, 148, 107)},
        ),
        (
            "office",
            "--input Office.inter.json.gz --columns user=user item=item --name Office "
            "--items Office.item.json.gz --item_columns item=index text=title+brand+categories",
            {"Office": (4905, 2420, 53258, 2420, 0)},
        ),
    ],
)
def test_real_tables(tmp_path: Path, folder: str, options: str, expected: dict[str, tuple[int, ...]]) -> None:
    source = real(folder)
    words = [str(source / word) if (source / word).is_file() else word for word in options.split()]
    summaries = {path.name: describe(path) for path in prepare("table", tmp_path, *words)}
    for name, counts in expected.items():
        found = summaries[name]
        assert (found.users, found.items, found.interactions, found.with_text, found.with_price) == counts
