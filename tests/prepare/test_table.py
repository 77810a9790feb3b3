"""Any table to atomic files, and the error for each mistake."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from pyarrow import parquet

from recbole_xfer.errors import XferError
from recbole_xfer.prepare.reading import TextFormat, read_table
from recbole_xfer.prepare.summary import describe
from recbole_xfer.prepare.table import ItemTable, prepare_table
from tests.helpers.preparing import LOG, inter, item, prepare, real


class TestTable:
    def write(self, folder: Path, content: str, name: str = "log.csv") -> Path:
        path = folder / name
        path.write_text(content)
        return path

    @pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
    @pytest.mark.parametrize("gzipped", [False, True])
    def test_every_format_gives_equal_files(self, tmp_path: Path, suffix: str, gzipped: bool) -> None:
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

    @pytest.mark.parametrize(
        ("value", "seconds"),
        [
            ("2015-06-23", 1435017600),
            ("2015-06-23T01:00:00Z", 1435021200),
            ("2015-06-23 03:00:00+02:00", 1435021200),
            ("06 17, 2018", 1529193600),
            ("1529193600", 1529193600),
            ("12.5", 12.5),
        ],
    )
    def test_times(self, tmp_path: Path, value: str, seconds: float) -> None:
        path = self.write(tmp_path, f'user,item,time\nu,a,"{value}"\n')
        (folder,) = prepare_table(tmp_path, path, LOG, name="D")
        assert inter(folder)["timestamp"].tolist() == [seconds]

    def test_times_of_parquet_and_in_a_named_format(self, tmp_path: Path) -> None:
        days = pd.to_datetime(["2015-06-23", "2015-06-24"])
        pd.DataFrame({"user": 1, "item": [1, 2], "time": days}).to_parquet(tmp_path / "log.parquet")
        (folder,) = prepare_table(tmp_path, tmp_path / "log.parquet", LOG, name="D")
        assert inter(folder)["timestamp"].tolist() == [1435017600, 1435104000]
        path = self.write(tmp_path, "user,item,time\nu,a,24/06/2015\n")
        (folder,) = prepare_table(tmp_path, path, LOG, name="D", time_format="%d/%m/%Y")
        assert inter(folder)["timestamp"].tolist() == [1435104000]

    def test_an_invalid_time_format_is_rejected(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "user,item,time\nu,a,24/06/2015\n")
        with pytest.raises(XferError, match="--time_format=%q is invalid: .* Use codes such as %Y-%m-%d"):
            prepare_table(tmp_path, path, LOG, name="D", time_format="%q")

    def test_without_a_time_the_order_of_the_rows_counts(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "user,item\nu,c\nu,a\nu,b\n")
        (folder,) = prepare_table(tmp_path, path, {"user": "user", "item": "item"}, name="D")
        assert inter(folder)["item_id"].tolist() == ["c", "a", "b"]

    @pytest.mark.parametrize(
        ("written", "suggested"), [("31.12.2024 18:05", "%d.%m.%Y %H:%M"), ("12/31/2024", "%m/%d/%Y")]
    )
    def test_a_date_suggests_its_format(self, tmp_path: Path, written: str, suggested: str) -> None:
        path = self.write(tmp_path, f"user,item,time\nu,a,{written}\n")
        with pytest.raises(XferError, match=f"{written}.* --time_format, such as '{suggested}'"):
            prepare_table(tmp_path, path, LOG, name="D")
        (folder,) = prepare_table(tmp_path, path, LOG, name="D", time_format=suggested)
        assert inter(folder)["timestamp"][0] // 86400 == 20088

    def test_several_files_become_one_table(self, tmp_path: Path) -> None:
        splits = ("train", "valid", "test")
        for time in ("time:float", "when:float"):
            rows = {"train": "u\ta\t1\nv\tb\t7\n", "valid": "u\tc\t1\n", "test": "u\tb\t1\n"}
            paths = [
                self.write(tmp_path, f"user:token\titem:token\t{time}\n{rows[split]}", f"D.{split}.inter")
                for split in splits
            ]
            columns = {"user": "user", "item": "item"} | ({"time": "time"} if time == "time:float" else {})
            [folder] = prepare_table(tmp_path, paths, columns, name="D")
            of_user = inter(folder)[inter(folder)["user_id"] == "u"]
            assert of_user["item_id"].tolist() == ["a", "c", "b"]  # rows of equal time keep their order
        with pytest.raises(XferError, match=r"D\.valid\.inter, column item, row 1: the value is missing"):
            self.write(tmp_path, "user\titem\tother\nu\t\t\n", "D.valid.inter")
            prepare_table(tmp_path, paths, columns, name="D")

    def test_times_in_milliseconds(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "user,item,time\nu,a,1529193600500\nu,b,99999999999\n")
        (folder,) = prepare_table(tmp_path, path, LOG, name="D")
        assert inter(folder)["timestamp"].tolist() == [1529193600.5, 99999999999]

    def test_layout_of_microlens(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, "user,item,timestamp\n7,1,1529193600500\n7,2,1529193600501\n", "pairs.csv")
        items = self.write(tmp_path, '1,"Tea, hot"\n2,Cake\n', "titles.csv")
        covers = tmp_path / "covers"
        covers.mkdir()
        (covers / "2.jpg").write_bytes(b"picture")
        options = ["--items_header", "none", "--columns", "user=user", "item=item", "time=timestamp", "--name", "D"]
        options += ["--item_columns", "item=1", "text=2", "--images", covers]
        (folder,) = prepare("table", tmp_path, "--input", log, "--items", items, *options)
        assert item(folder)["text"].tolist() == ["Tea, hot", "Cake"] and (folder / "images" / "2.jpg").exists()

    def test_items_have_an_encoding_of_their_own(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, "user,item\nJosé,a\nJosé,b\nJosé,c\n")
        items = tmp_path / "items.csv"
        items.write_bytes("item;title\na;Müller\nb;Söhne\nc;Tee\n".encode("cp1252"))
        options = ["--columns", "user=user", "item=item", "--item_columns", "item=item", "text=title", "--name", "D"]
        options = ["--input", log, "--items", items, *options]
        with pytest.raises(XferError, match=r"items.csv cannot be read: .*--items_encoding if only the items have it"):
            prepare("table", tmp_path, *options)
        (folder,) = prepare("table", tmp_path, *options, "--items_encoding", "cp1252")
        assert item(folder)["text"].tolist() == ["Müller", "Söhne", "Tee"] and set(inter(folder)["user_id"]) == {"José"}

    def test_a_column_of_pictures(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        log = self.write(tmp_path, "user,item,time\nu,a,1\nu,b,2\nu,c,3\nu,d/d,4\nu,e,5\n")
        covers = tmp_path / "covers"
        (covers / "x").mkdir(parents=True)
        for name in ("x/1.jpg", "2.png", "../out.jpg", "note.txt"):
            (covers / name).write_bytes(b"picture")
        rows = [
            {"id": "a", "cover": "x/1.jpg"}, {"id": "b", "cover": ["x/1.jpg", "2.png", "http://h/b.jpg"]},
            {"id": "c", "cover": ["../out.jpg", "note.txt", "none.jpg"]}, {"id": "d/d", "cover": "2.png"},
            {"id": "e", "cover": None}, {"id": "other", "cover": "2.png"},
        ]  # fmt: skip
        items = self.write(tmp_path, json.dumps(rows), "items.json")
        table = ItemTable(items, {"item": "id", "image": "cover"})
        (folder,) = prepare_table(tmp_path, log, LOG, table, name="D", images=covers)
        found = sorted(str(path.relative_to(folder / "images")) for path in folder.rglob("images/**/*.*"))
        assert found == ["a.jpg", "b/0.jpg", "b/1.png"]
        assert (folder / "D.pictures").read_text() == "item_id:token\turl:token\nb\thttp://h/b.jpg\n"
        assert "3 paths are no pictures in the folder of --images (first: c)" in caplog.text
        assert "1 items have an id that cannot be the name of a file (first: d/d)" in caplog.text
        self.write(tmp_path, json.dumps(rows[:1]), "items.json")
        with pytest.raises(XferError, match="D: no picture of the column can be used"):
            prepare_table(tmp_path, log, LOG, table, name="D", images=tmp_path / "none")

    def test_joined_texts_are_cleaned_and_repeat_nothing(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, "user,item,time\nu,a,1\n")
        items = self.write(tmp_path, "id,title,kind,brand\na,<b>Gift</b> cards,Gift Cards,Tea &amp; Co\n", "items.csv")
        table = ItemTable(items, {"item": "id", "text": "title+kind+brand"})
        (folder,) = prepare_table(tmp_path, log, LOG, table, name="D")
        assert item(folder)["text"].tolist() == ["Gift cards Tea & Co"]

    def test_separator_without_header(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, "1::007::5::20\n2::008::4::10\n", "log.dat")
        items = self.write(tmp_path, '007::"It" (1915)::Drama|War\n', "movies.dat")
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
    def test_csv_of_a_spreadsheet(self, tmp_path: Path, content: str) -> None:
        table = read_table(self.write(tmp_path, content), TextFormat())
        assert table[["user", "item", "time"]].to_dict("records") == [{"user": "u", "item": "a, b", "time": "1,5"}]

    def test_a_tab_as_a_shell_passes_it(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "user\titem, of a shop\nu\ta\n", "log.txt")
        options = ["--columns", "user=user", "item=item, of a shop", "--name", "D", "--separator", r"\t"]
        (folder,) = prepare("table", tmp_path, "--input", path, *options)
        assert inter(folder)["item_id"].to_list() == ["a"]

    @pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
    def test_long_numbers_beside_missing_ones_are_exact(self, tmp_path: Path, suffix: str) -> None:
        ids, path = [2**53 + 1, None, 7], tmp_path / f"log.{suffix}"
        if suffix == "parquet":
            parquet.write_table(pa.table({"user": pa.array(ids), "item": [1, 2, 3]}), path)
        else:
            path.write_text("".join(json.dumps({"user": id, "item": 1}) + "\n" for id in ids))
        columns = {"user": "user", "item": "item"}
        (folder,) = prepare_table(tmp_path, path, columns, name="D", skip_missing_ids=True)
        assert inter(folder)["user_id"].to_list() == ["9007199254740993", "7"]

    def test_ids_that_pandas_made_floats(self, tmp_path: Path) -> None:
        path = tmp_path / "log.parquet"
        pd.DataFrame({"user": [1.0, 2.0], "item": ["a", "b"]}).to_parquet(path)
        columns = {"user": "user", "item": "item"}
        assert inter(prepare_table(tmp_path, path, columns, name="D")[0])["user_id"].to_list() == ["1", "2"]
        pd.DataFrame({"user": [1.0, 2.5], "item": ["a", "b"]}).to_parquet(path)
        with pytest.raises(XferError, match=r"log\.parquet, column user, row 2: '2\.5' is not an id"):
            prepare_table(tmp_path, path, columns, name="D")

    @pytest.mark.parametrize("separator", ["::", ":"])
    def test_blanks_at_the_ends_of_a_line_are_kept(self, tmp_path: Path, separator: str) -> None:
        log = self.write(tmp_path, " u::a::1\nv:: b ::2\nw:: b \n".replace("::", separator), "log.dat")
        table = read_table(log, TextFormat(separator, header=False))
        assert table["1"].tolist() == [" u", "v", "w"]
        assert table["2"].tolist() == ["a", " b ", " b "]
        assert table["3"].isna().tolist() == [False, False, True]

    def test_a_domain_may_be_called_na(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, "user,item,time,shop\nu, NA,1,NA\n")
        (folder,) = prepare_table(tmp_path, log, LOG, domain_column="shop", form=TextFormat(), name="Shop")
        assert folder.name == "Shop-NA"
        assert inter(folder)["item_id"].tolist() == [" NA"]

    def test_a_line_with_the_character_that_replaces_a_long_separator(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, "u::a\x1f::1\n", "log.dat")
        with pytest.raises(XferError, match=r"log\.dat has the character '.x1f'. Remove it"):
            read_table(log, TextFormat("::", header=False))

    def test_types_in_an_atomic_header_are_removed(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "user_id:token\titem_id:token\ttime:float\nu\ta\t2015-06-23\n", "log.inter")
        (folder,) = prepare_table(tmp_path, path, {"user": "user_id", "item": "item_id", "time": "time"}, name="D")
        assert inter(folder)["timestamp"].tolist() == [1435017600]

    def test_quotation_marks_as_characters(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, 'user\titem\nu\t"a\nv\tb"\n', "log.tsv")
        (folder,) = prepare("table", tmp_path, "--input", path, "--columns", "user=user", "item=item", "--name", "D",
                            "--quotes", "none")  # fmt: skip
        assert inter(folder)["item_id"].tolist() == ['"a', 'b"']

    def test_quotation_marks_in_atomic_files_are_letters(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, 'user\titem\nu\t"a\nv\tb\nv\t"c\n', "log.inter")
        (folder,) = prepare_table(tmp_path, path, {"user": "user", "item": "item"}, name="D")
        assert inter(folder)["item_id"].tolist() == ['"a', "b", '"c']

    def test_json_by_user_and_by_item(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, json.dumps({"0": [1, 0], "1": [0]}, indent=1), "log.json")
        records = {"0": {"title": "A", "tags": ["x", ["y"]], "brand": None}, "1": {"title": "B&amp;C", "tags": []}}
        for indent in (None, 1):
            items = self.write(tmp_path, json.dumps(records, indent=indent), "items.json")
            table = ItemTable(items, {"item": "index", "text": "title+tags+brand"})
            (folder,) = prepare_table(tmp_path, log, {"user": "user", "item": "item"}, table, name="D")
            assert inter(folder)[["user_id", "item_id"]].to_numpy().tolist() == [["0", "1"], ["0", "0"], ["1", "0"]]
            assert item(folder)["text"].tolist() == ["A x y", "B&C"]

    def test_domain_column(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, "user,item,time,shop\nu,1,1,Food\nu,1,2,Home\nv,2,3,Home\n")
        items = self.write(
            tmp_path, "item,title,shop\n1,Bread,Food\n1,Lamp,Home\n2,Bed,Home\n3,Rug,Home\n", "items.csv"
        )
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
    def test_domain_column_with_a_value_that_is_no_name(self, tmp_path: Path, last: str, sentence: str) -> None:
        log = self.write(tmp_path, f"user,item,time,shop\nu,1,1,Food\nv,2,3,{last}\n")
        with pytest.raises(XferError, match=sentence):
            prepare_table(tmp_path / "out", log, LOG, domain_column="shop")
        assert not (tmp_path / "out").exists()

    def test_domains_are_written_all_or_none(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, "user,item,time,shop\nu,1,1,Food\nv,a\tb,3,Home\n")
        with pytest.raises(XferError, match=r"Home\.inter, column item_id, row 1: the value 'a\\tb' "):
            prepare_table(tmp_path / "out", log, LOG, domain_column="shop")
        assert not (tmp_path / "out" / "Food").exists()

    def test_rows_without_ids_are_left_out_on_request(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        log = self.write(tmp_path, "user,item,time\n,a,1\nu,a,2\nNA,b,3\nu,  ,4\nv,b,5\n")
        items = self.write(tmp_path, "id,title\nNA,none\na,first\n", "items.csv")
        table = ItemTable(items, {"item": "id", "text": "title"})
        (folder,) = prepare_table(tmp_path, log, LOG, table, name="D", skip_missing_ids=True)
        assert inter(folder)["user_id"].tolist() == ["u", "v"]
        assert item(folder)["text"].tolist() == ["first"]
        assert "log.csv: 2 rows have no user and are left out (first: row 1)." in caplog.text
        assert "log.csv: 1 rows have no item and are left out (first: row 4)." in caplog.text
        assert "items.csv: 1 rows have no id and are left out (first: row 1)." in caplog.text

    @pytest.mark.parametrize("rows", [",a,1", "NA,a,1"])
    def test_a_missing_id_names_the_remedy(self, tmp_path: Path, rows: str) -> None:
        log = self.write(tmp_path, f"user,item,time\n{rows}\n")
        with pytest.raises(XferError, match="column user, row 1: .* missing.*--skip_missing_ids"):
            prepare_table(tmp_path, log, LOG, name="D")
        with pytest.raises(XferError, match=r"log\.csv has no row with user and item"):
            prepare_table(tmp_path, log, LOG, name="D", skip_missing_ids=True)

    def test_listed_items(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        log = self.write(tmp_path, "user,item,time\nu,a,1\nu,b,2\n")
        items = self.write(tmp_path, "id,title\na,first\na,second\nc,other\n", "items.csv")
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
    def test_prices(self, tmp_path: Path, price_format: str, written: str, price: float) -> None:
        folder = self.prepare_prices(tmp_path, written, price_format)
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
    def test_invalid_prices(self, tmp_path: Path, price_format: str, written: str) -> None:
        with pytest.raises(
            XferError, match=r"items\.csv, column cost, row 1: .* --price_format .*_unreadable"
        ) as error:
            self.prepare_prices(tmp_path, written, price_format)
        assert repr(written) in str(error.value)
        folder = self.prepare_prices(tmp_path, written, price_format, skip_unreadable_prices=True)
        assert item(folder)["price"].isna().all()

    def prepare_prices(self, folder: Path, written: str, price_format: str, **options: bool) -> Path:
        log = self.write(folder, "user,item,time\nu,a,1\nu,b,2\n")
        items = self.write(folder, f'id,cost\na,"{written}"\nb,\n', "items.csv")
        table = ItemTable(items, {"item": "id", "price": "cost"}, price_format, **options)
        return prepare_table(folder, log, LOG, table, name="D")[0]

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
    def test_invalid_interactions(self, tmp_path: Path, content: str, sentence: str) -> None:
        path = self.write(tmp_path, content)
        with pytest.raises(XferError, match=sentence):
            prepare_table(tmp_path, path, LOG, name="D")

    @pytest.mark.parametrize(
        ("name", "content", "sentence"),
        [
            ("log.txt", b"user item", r"log\.txt: the separator does not follow .* Set --separator"),
            ("log.csv", b"user,item,time\nu,\xe9,1\n", "cannot be read: .*utf-8.*--encoding"),
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
    def test_invalid_files(self, tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(XferError, match=sentence):
            prepare_table(tmp_path, tmp_path / name, LOG, name="D")

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
    def test_invalid_options(self, tmp_path: Path, options: list[str], sentence: str) -> None:
        path = self.write(tmp_path, "user,item,time\nu,a,x\n")
        with pytest.raises(XferError, match=sentence):
            prepare("table", tmp_path, "--input", path, *options)

    def test_infinite_rating(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, "user,item,stars\nu,a,4\nu,b,inf\n")
        with pytest.raises(XferError, match=r"log\.csv, column stars, row 2: 'inf' is not a number"):
            prepare_table(tmp_path, log, {"user": "user", "item": "item", "rating": "stars"}, name="D")

    def test_item_table_of_other_items(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, "user,item,time\nu,a,1\n")
        items = self.write(tmp_path, "id,title\n0001,x\n", "items.csv")
        with pytest.raises(XferError, match=r"items\.csv, column id: no item, such as '0001'"):
            prepare_table(tmp_path, log, LOG, ItemTable(items, {"item": "id"}), name="D")
        self.write(tmp_path, "id,title\na,x\n", "items.csv")
        with pytest.raises(XferError, match=r"items\.csv has no column 'titel' .* Did you mean 'title'"):
            prepare_table(tmp_path, log, LOG, ItemTable(items, {"item": "id", "text": "titel"}), name="D")

    def test_a_document_with_a_byte_order_mark(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, '\ufeff[\n{"user": 1, "item": 2}]\n', "log.json")
        assert read_table(path, TextFormat()).to_dict("list") == {"user": [1], "item": [2]}

    def test_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(XferError, match=r"is a folder. Name its files"):
            prepare_table(tmp_path, tmp_path, LOG, name="D")
        with pytest.raises(XferError, match=r"log\.csv does not exist"):
            prepare_table(tmp_path, tmp_path / "log.csv", LOG, name="D")


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
