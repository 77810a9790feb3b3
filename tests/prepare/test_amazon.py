"""Amazon reviews to atomic files: both editions, the rules, and the real gift cards."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recbole_xfer.data.atomic import read_atomic_file
from recbole_xfer.errors import XferError
from recbole_xfer.prepare import records
from recbole_xfer.prepare.amazon import Product, prepare_amazon, price_of, text_of
from recbole_xfer.prepare.dropped import Dropped
from recbole_xfer.prepare.interactions import core
from recbole_xfer.prepare.texts import clean, joined
from tests.helpers.preparing import inter, item, prepare, real

REVIEWS_2018 = [
    {"reviewerID": "A1", "asin": "B000000001", "overall": 5.0, "unixReviewTime": 1529193600, "reviewText": "x"},
    {"reviewerID": "A2", "asin": "B000000001", "overall": 4.0, "unixReviewTime": 1528934400},
    {"reviewerID": "A1", "asin": "B000000002", "overall": 1.0, "unixReviewTime": 1527897600},
]
PRODUCTS_2018 = [
    {
        "asin": "B000000001", "title": "Tea &amp; <b>Cake</b>", "category": ["Food", "Tea", "Tea"],
        "brand": "Tea House",
        "price": "$8.99 - $25.00", "imageURL": ["http://x/s1.jpg"],
        "imageURLHighRes": [f"http://x/{number}.jpg" for number in (1, 1, 2, 3, 4, 5)],
    },
    {"asin": "B000000002", "title": "var a = (new Date()).getTime();", "category": [], "brand": "", "price": ".a{x:1}"},
    {"asin": "B000000003", "title": "unused", "price": "$1.00"},
]  # fmt: skip


def write(path: Path, records: list[Any] | str) -> Path:
    """Writes JSON lines or text, gzipped if the name says so."""
    text = records if isinstance(records, str) else "".join(json.dumps(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def pictures(folder: Path) -> list[list[str]]:
    return read_atomic_file(folder / f"{folder.name}.pictures").to_numpy().tolist()


class TestEditions:
    def test_reviews_and_metadata_of_2018(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        reviews = write(tmp_path / "Food_5.json.gz", REVIEWS_2018)
        metadata = write(tmp_path / "meta_Food.json.gz", PRODUCTS_2018)
        summary = prepare_amazon(tmp_path, [reviews], metadata, name="Food")
        assert inter(summary.folder).to_numpy().tolist() == [
            ["A1", "B000000002", 1527897600, 1],
            ["A2", "B000000001", 1528934400, 4],
            ["A1", "B000000001", 1529193600, 5],
        ]
        rows = item(summary.folder)
        assert rows["item_id"].tolist() == ["B000000001", "B000000002"]
        assert rows["text"][0] == "Tea & Cake, Tea House" and pd.isna(rows["text"][1])
        assert rows["price"][0] == 8.99 and np.isnan(rows["price"][1])
        assert pictures(summary.folder) == [["B000000001", f"http://x/{number}.jpg"] for number in (1, 2, 3, 4)]
        assert "1 titles are scripts" in caplog.text and "1 prices cannot be read" in caplog.text
        assert str(summary) == "Food: 2 users, 2 items (1 with text, 1 with a price), 3 interactions"

    def test_reviews_and_metadata_of_2023(self, tmp_path: Path) -> None:
        reviews = write(tmp_path / "Food.jsonl.gz", [
            {"user_id": "AE1", "asin": "B1", "parent_asin": "B9", "rating": 5.0, "timestamp": 1588687728923},
            {"user_id": "AE1", "asin": "B8", "parent_asin": "B8", "rating": 3.0, "timestamp": 1588687728000},
        ])  # fmt: skip
        images = [
            {"thumb": "https://x/t.jpg", "large": "https://x/l.jpg", "hi_res": None},
            {"hi_res": "https://x/h.jpg"},
        ]
        metadata = write(tmp_path / "meta_Food.jsonl.gz", [
            {"parent_asin": "B9", "title": "Tea", "categories": ["Food", "Green"], "store": "Shop", "price": 9.5,
             "images": images, "features": ["f"], "details": {"Brand": "x"}},
            {"parent_asin": "B8", "title": None, "categories": None, "store": None, "price": "from 3.00"},
        ])  # fmt: skip
        folder = prepare_amazon(tmp_path, [reviews], metadata, name="Food").folder
        assert inter(folder)[["item_id", "timestamp"]].to_numpy().tolist() == [
            ["B8", 1588687728],
            ["B9", 1588687728.923],
        ]
        assert item(folder)["text"][0] == "Tea, Green, Shop" and item(folder)["price"].tolist() == [9.5, 3]
        assert pictures(folder) == [["B9", "https://x/l.jpg"], ["B9", "https://x/h.jpg"]]

    @pytest.mark.parametrize(
        "line", ["0143026860,A1V6B6TNIC10QE,1.0,1424304000\n", "A1V6B6TNIC10QE,0143026860,1.0,1424304000\n"]
    )
    def test_ratings_without_a_header_in_either_order(self, tmp_path: Path, line: str) -> None:
        folder = prepare_amazon(tmp_path, [write(tmp_path / "X.csv", line * 2)], name="X").folder
        assert inter(folder).to_numpy().tolist() == [["A1V6B6TNIC10QE", "0143026860", 1424304000, 1]] * 2

    def test_published_splits_stay_in_order(self, tmp_path: Path) -> None:
        header = "user_id,parent_asin,rating,timestamp,history\n"
        paths = [
            write(tmp_path / f"X.{split}.csv.gz", f"{header}u,{items},5.0,1588687728000,a b\n")
            for split, items in {"train": "z", "valid": "a", "test": "k"}.items()
        ]
        folder = prepare_amazon(tmp_path, paths, name="X").folder
        assert inter(folder)["item_id"].tolist() == ["z", "a", "k"]  # although the times are equal

    def test_a_header_without_rows(self, tmp_path: Path) -> None:
        path = write(tmp_path / "X.csv", "user_id,parent_asin,rating,timestamp")
        with pytest.raises(XferError, match=r"X\.csv has a header and no rows"):
            prepare_amazon(tmp_path, [path], name="X")

    def test_columns_that_are_not_recognized(self, tmp_path: Path) -> None:
        for text in ("", "a,b,c\n", "user,item,stars,when\nu,i,1,2\n"):
            with pytest.raises(XferError, match=r"X\.csv: the columns are not recognized. Write the header user_id"):
                prepare_amazon(tmp_path, [write(tmp_path / "X.csv", text)], name="X")


class TestRules:
    def prepared(self, folder: Path, rows: list[tuple[str, str, int]], **options: Any) -> pd.DataFrame:
        text = "".join(f"{user},{code},5.0,{time}\n" for user, code, time in rows)
        path = write(folder / "X.csv", "user_id,parent_asin,rating,timestamp\n" + text)
        return inter(prepare_amazon(folder / "out", [path], name="X", **options).folder)

    def test_ties_are_shuffled_and_two_runs_give_the_same_bytes(self, tmp_path: Path) -> None:
        rows = [("u", f"i{number:02}", 86400) for number in range(50)]
        first = self.prepared(tmp_path, rows)["item_id"].tolist()
        content = (tmp_path / "out" / "X" / "X.inter").read_bytes()
        assert first != sorted(first) and sorted(first) == [code for _, code, _ in rows]
        self.prepared(tmp_path, rows)
        assert (tmp_path / "out" / "X" / "X.inter").read_bytes() == content

    @pytest.mark.parametrize(
        ("duplicates", "times"), [("keep", [1, 1, 2, 3]), ("same_time", [1, 2, 3]), ("same_item", [1, 3])]
    )
    def test_duplicates(self, tmp_path: Path, duplicates: str, times: list[int]) -> None:
        rows = [("u", "a", 2), ("u", "a", 1), ("u", "b", 3), ("u", "a", 1)]
        assert self.prepared(tmp_path, rows, duplicates=duplicates)["timestamp"].tolist() == times

    def test_core_is_a_fixed_point(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        users, items = rng.integers(0, 60, 600), (60 * rng.random(600) ** 2).astype(int)
        table = self.prepared(
            tmp_path, [(f"u{u}", f"i{i}", 1 + n) for n, (u, i) in enumerate(zip(users, items, strict=True))], k_core=5
        )
        assert table["user_id"].value_counts().min() >= 5 and table["item_id"].value_counts().min() >= 5
        kept = pd.DataFrame({"u": users, "i": items})  # the same, one step at a time
        while True:
            enough = kept.groupby("u")["i"].transform("size").ge(5) & kept.groupby("i")["u"].transform("size").ge(5)
            if enough.all():
                break
            kept = kept[enough]
        assert len(table) == len(kept) == core(users, items, 5).sum()

    def test_an_empty_core_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(XferError, match="X has no interactions in its 5-core. Set a smaller --k_core"):
            self.prepared(tmp_path, [("u", "a", 1)], k_core=5)

    @pytest.mark.parametrize(
        ("value", "price"),
        [
            ("$12.99", 12.99), ("$8.99 - $25.00", 8.99), ("$1,250.00", 1250), ("from $7", 7), ("12.5", 12.5), (3, 3),
            ("", None), (None, None), ("-$3.00", None), ("$1,23", None), (float("nan"), None), (1e300, None),
            (-1, None), ("9" * 400, None), (".a-box{color:#fff} $3.00", None), ("12,99 €", None), ([1], None),
            (True, None),
        ],
    )  # fmt: skip
    def test_prices(self, value: Any, price: float | None) -> None:
        dropped = Dropped("meta")
        found = price_of(value, "B1", dropped)
        assert found == price if price is not None else np.isnan(found)
        assert bool(dropped.counts) == (price is None and value not in ("", None))

    @pytest.mark.parametrize(
        ("phrases", "text"),
        [
            (
                ["Starbucks Gift Cards, Multipack of 4", "Gift Cards", "Starbucks"],
                "Starbucks Gift Cards, Multipack of 4",
            ),
            (["Steak &#39;n Shake", "Gift Cards", "gift cards"], "Steak 'n Shake, Gift Cards"),
            (["Gift Card", "Gift Cards"], "Gift Card, Gift Cards"),
            (["Tea<br/>pot", "<a href='x'>Tea</a>", "3 < 4 > 2"], "Tea pot, 3 < 4 > 2"),
            (["", "&nbsp;", " Tea\n\tbag "], "Tea bag"),
            (["Bed &amp;amp; Bath"], "Bed & Bath"),
        ],
    )
    def test_texts(self, phrases: list[str], text: str) -> None:
        assert joined(phrases, ", ") == text

    def test_fields_of_unexpected_types_are_no_text(self) -> None:
        record = Product(title=7, category={"a": 1}, brand=["Brand", None, 3])
        assert text_of(record, "B1", Dropped("meta")) == "Brand"
        assert clean("a" * 10**7 + "<b") == "a" * 10**7 + "<b"


class TestDropped:
    def test_what_cannot_be_used_is_counted(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        lines = [*map(json.dumps, REVIEWS_2018), '{"reviewerID": "A9", "as', "[]", '{"asin": 3}', '{"overall": NaN}']
        lines += ['{"reviewerID": "A", "asin": "a", "overall": 1, "unixReviewTime": -1}']
        lines += ['{"reviewerID": "A", "asin": "NA", "overall": 1, "unixReviewTime": 1}']
        lines += ['{"reviewerID": "A", "asin": "a\\tb", "overall": 1, "unixReviewTime": 1}']
        lines += ['{"asin": "a", "unixReviewTime": 1}', '{"reviewerID": "A3", "asin": "B1", "unixReviewTime": 5}']
        summary = prepare_amazon(tmp_path, [write(tmp_path / "X.json", "\n".join(lines))], name="X")
        assert summary.interactions == 4 and inter(summary.folder)["rating"].isna().sum() == 1
        assert "4 lines cannot be read and are dropped (first: line 4" in caplog.text
        assert "1 rows have no time between 1970 and 2100" in caplog.text
        assert "3 rows have an empty or unusable user or item" in caplog.text

    def test_rows_of_csv(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        rows = ["u,a,5.0,1", "u,b", "u,c,5.0,1,2", "u,d,x,1", "u,e,1e300,1", "u,f,1,soon", ",g,1,1"]
        text = "\n".join(["user_id,parent_asin,rating,timestamp", *rows])
        summary = prepare_amazon(tmp_path, [write(tmp_path / "X.csv", text)], name="X")
        assert sorted(inter(summary.folder)["item_id"]) == ["a", "d", "e"]
        assert "2 rows have another number of fields" in caplog.text and "2 ratings cannot be read" in caplog.text

    def test_the_first_record_of_an_item_counts(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        reviews = write(tmp_path / "X.json", REVIEWS_2018)
        records = [{"asin": "B000000001", "title": title} for title in ("first", "second")]
        (tmp_path / "X").mkdir()
        (tmp_path / "X" / "X.pictures").write_text("old")
        folder = prepare_amazon(tmp_path, [reviews], write(tmp_path / "meta.json", records), name="X").folder
        assert item(folder)["text"].tolist() == ["first"]
        assert not (folder / "X.pictures").exists()
        assert "1 records repeat an item and are dropped; the first record counts" in caplog.text

    def test_a_title_of_ten_megabytes(self, tmp_path: Path) -> None:
        reviews = write(tmp_path / "X.json", REVIEWS_2018)
        metadata = write(tmp_path / "meta.json", [{"asin": "B000000001", "title": "tea & " * (10**7 // 6)}])
        folder = prepare_amazon(tmp_path, [reviews], metadata, name="X").folder
        assert len(item(folder)["text"][0]) == 10**7 // 6 * 6 - 1

    def test_a_line_that_is_longer_than_any_record(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(records, "BLOCK", 2**10)
        monkeypatch.setattr(records, "LONGEST", 2**12)
        path = write(tmp_path / "X.json", REVIEWS_2018 * 100)
        assert prepare_amazon(tmp_path, [path], name="X").interactions == 300  # in many blocks
        with pytest.raises(XferError, match=r"X\.json has a line of more than 4,096 bytes"):
            prepare_amazon(tmp_path, [write(path, "[" + "1," * 9000 + "1]")], name="X")

    @pytest.mark.parametrize("keep", [0.2, 0.9, 0.999])
    def test_a_cut_file_is_an_error(self, tmp_path: Path, keep: float) -> None:
        files = {
            "X.json.gz": "".join(json.dumps(row) + "\n" for row in REVIEWS_2018),
            "X.csv.gz": "user_id,parent_asin,rating,timestamp\nu,a,5.0,1\nu,b,5.0,1\n",
        }
        for name, text in files.items():
            content = gzip.compress(text.encode())
            (tmp_path / name).write_bytes(content[: int(len(content) * keep)])
            with pytest.raises(XferError, match=rf"{name} is cut off"):
                prepare_amazon(tmp_path, [tmp_path / name], name="X")
        assert not (tmp_path / "X").exists()

    def test_files_of_another_kind(self, tmp_path: Path) -> None:
        reviews = write(tmp_path / "X.json", REVIEWS_2018)
        other = write(tmp_path / "other.json", [{"asin": "B7", "title": "t"}])
        with pytest.raises(XferError, match=r"other\.json describes none of the items, such as"):
            prepare_amazon(tmp_path, [reviews], other, name="X")
        with pytest.raises(XferError, match=r"other\.json: no row is valid"):
            prepare_amazon(tmp_path, [other], name="X")
        with pytest.raises(XferError, match=r"list\.json: no line is a JSON object"):
            prepare_amazon(tmp_path, [write(tmp_path / "list.json", "[1]\n")], name="X")
        with pytest.raises(XferError, match=r"none\.json does not exist"):
            prepare_amazon(tmp_path, [tmp_path / "none.json"], name="X")


class TestImages:
    def test_pictures_of_the_items_are_added(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        reviews = write(tmp_path / "X.json", REVIEWS_2018)
        source = tmp_path / "covers"
        for name in ("B000000001.jpg", "B000000001.png", "B7.jpg", "B000000002/5.webp", "B000000002/note.txt"):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes(b"picture")
        for number in range(5):
            (source / "B000000002" / f"{number}.jpg").write_bytes(b"picture")
        folder = prepare_amazon(tmp_path, [reviews], images=source, name="X").folder
        found = sorted(str(path.relative_to(folder / "images")) for path in folder.rglob("images/**/*.*"))
        assert found == ["B000000001.jpg", *(f"B000000002/{number}.jpg" for number in range(4))]
        for sentence in (
            "1 pictures are of no item",
            "1 pictures repeat an item",
            "2 pictures are left out",
            "1 files are not",
        ):
            assert sentence in caplog.text
        (source / "B000000001.jpg").unlink()  # the next preparation replaces the folder
        folder = prepare_amazon(tmp_path, [reviews], images=source, name="X").folder
        assert (folder / "images" / "B000000001.png").exists() and not (folder / "images" / "B000000001.jpg").exists()

    def test_a_folder_without_pictures_of_the_items(self, tmp_path: Path) -> None:
        reviews = write(tmp_path / "X.json", REVIEWS_2018)
        (tmp_path / "covers").mkdir()
        with pytest.raises(XferError, match=r"covers has no picture of an item, such as B000000001\.jpg"):
            prepare_amazon(tmp_path, [reviews], images=tmp_path / "covers", name="X")
        with pytest.raises(XferError, match="folder of pictures .*none does not exist. Check --images"):
            prepare_amazon(tmp_path, [reviews], images=tmp_path / "none", name="X")


def test_real_gift_cards(tmp_path: Path) -> None:
    raw = real("amazon-gift-cards")
    [folder] = prepare(
        "amazon", tmp_path, "--name", "GiftCards", "--reviews", raw / "Gift_Cards_5.json.gz",
        "--metadata", raw / "meta_Gift_Cards.json.gz", "--images", raw / "images",
    )  # fmt: skip
    log, items = inter(folder), item(folder)
    assert (log["user_id"].nunique(), log["item_id"].nunique(), len(log)) == (458, 148, 2972)
    with_photo = {path.stem for path in (folder / "images").iterdir()}
    with_price = set(items["item_id"][items["price"].notna()])
    assert (len(with_photo), len(with_price), len(with_photo & with_price)) == (115, 107, 81)
    assert len(items) == 148 and items["text"].notna().all()
    assert not items["text"].str.contains("gift cards,? gift cards", case=False).any()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ((), "Name the files of interactions with --reviews"),
        (("--reviews", "x.json"), "and the domain with --name"),
        (("--category", "X"), "Set --category and --download to download"),
        (("--download",), "Set --category and --download to download"),
        (("--category", "../X", "--download"), r"--category=\.\./X is invalid"),
        (("--category", "X", "--download", "--address", "ftp://x"), "must begin with http"),
        (("--category", "X", "--download", "--sha256", "a=b"), "--sha256: 'a=b' is invalid"),
        (("--reviews", "x.json", "--name", "X", "--k_core", "0"), "k_core=0 must be an integer of at least 1"),
    ],
)
def test_options(tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(XferError, match=sentence):
        prepare("amazon", tmp_path, *options, "--downloads", tmp_path)
