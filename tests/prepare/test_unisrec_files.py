"""The published files of UniSRec and ANT to atomic files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.vectors import write_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.prepare.unisrec import prepare_unisrec
from recbole_xfer.quick_start import run
from recbole_xfer.testing.data import settings, write_small
from tests.helpers.preparing import inter, item, prepare, real


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
        np.arange(15, 30, dtype="<f4").tofile(folder / "S.feat2CLS")
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
    def test_sequences_are_complete(self, folder: Path, tmp_path: Path, window: int) -> None:
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

    def test_written_files_are_read_as_equal_data(self, folder: Path, tmp_path: Path) -> None:
        domain = prepare_unisrec(tmp_path / "first", folder, "S")
        prepare("unisrec", tmp_path / "written", "--write", "--input", domain)
        again = prepare_unisrec(tmp_path / "second", tmp_path / "written" / "S", "S")
        assert (again / "S.inter").read_bytes() == (domain / "S.inter").read_bytes()
        pd.testing.assert_frame_equal(item(again), item(domain))
        for modality in ("text", "word_drop", "image"):
            tables = [pd.read_parquet(path / f"S.{modality}.parquet") for path in (domain, again)]
            assert tables[0]["item_id"].tolist() == tables[1]["item_id"].tolist()
            np.testing.assert_array_equal(*(np.stack(table["vector"]) for table in tables))

    def test_a_model_gives_equal_results_on_files_that_were_written_and_read(self, tmp_path: Path) -> None:
        domain, results = write_small(tmp_path), []
        for round_trip in ("first", "second"):
            prepare("unisrec", tmp_path / round_trip / "files", "--write", "--input", domain)
            domain = prepare_unisrec(tmp_path / round_trip, tmp_path / round_trip / "files" / "Small", "Small")
            results.append(run("ANT", "Small", overrides=settings(tmp_path / round_trip)))
            assert (domain / "Small.image.parquet").is_file()
        assert results[0].test == results[1].test
        assert results[0].folder != results[1].folder

    def test_any_domain_is_written(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        rows = [("u", "a", 3), ("v", "b", 1), ("u", "c", 2), ("u", "b", 1), ("v", "a", 2), ("w", "a", 1)]
        log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
        items = pd.DataFrame({"item_id": ["a", "d", "b"], "text": ["A", None, "B"]})
        domain = write_domain(tmp_path, "D", log, items)
        vectors = np.ones((1, 2), np.float16)
        write_vectors(domain / "D.text.parquet", ["b"], vectors, encoder="e", source="s")
        prepare("unisrec", tmp_path / "out", "--write", "--input", domain)
        files = tmp_path / "out" / "D"
        assert (files / "D.item2index").read_text() == "a\t0\nd\t1\nb\t2\nc\t3\n"
        assert (files / "D.train.inter").read_text().count("\n") == 1
        assert (files / "D.test.inter").read_text().splitlines()[1:] == ["0\t2 3\t0"]
        assert (files / "D.text").read_text().splitlines()[1:] == ["a\tA", "b\tB"]
        assert np.fromfile(files / "D.feat1CLS", "<f4").reshape(4, 2).sum(axis=1).tolist() == [0, 0, 2, 0]
        assert "2 users with fewer than 3 interactions are left out" in caplog.text
        assert "3 items have no text vector" in caplog.text
        write_domain(tmp_path, "E", log[:2], None)
        with pytest.raises(XferError, match=r"E\.inter: no user has 3 interactions"):
            prepare("unisrec", tmp_path / "out", "--write", "--input", tmp_path / "E")

    def test_the_name_is_needed_to_read(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(XferError, match="--name is missing"):
            prepare("unisrec", tmp_path, "--input", folder)

    def test_vectors_and_texts_belong_to_their_items(self, folder: Path, tmp_path: Path) -> None:
        domain = prepare_unisrec(tmp_path, folder, "S")
        for kind, first, width in (("text", 0, 3), ("word_drop", 15, 3), ("image", 0, 2)):
            vectors = pd.read_parquet(domain / f"S.{kind}.parquet")
            assert vectors["item_id"].tolist() == [f"item{index}" for index in range(5)]
            assert np.stack(vectors["vector"]).tolist() == (first + np.arange(5 * width)).reshape(5, width).tolist()
        assert np.stack(vectors["vector"]).dtype == np.float32
        assert item(domain)["text"][1] == '"One" inch'
        prepare("unisrec", tmp_path, "--input", folder, "--name", "S", "--half")
        assert np.stack(pd.read_parquet(domain / "S.text.parquet")["vector"]).dtype == np.float16

    @pytest.mark.parametrize(
        ("file", "content", "sentence"),
        [
            (
                "S.train.inter",
                "h\th\th\n0\t0 4\t2\n",
                r"S\.(valid|test)\.inter, line 2: the history of user 0 before item",
            ),
            ("S.test.inter", "h\th\th\n0\t0 1 2 3\t1\n", r"S\.test\.inter: user [12] must have exactly one row"),
            ("S.train.inter", "h\th\th\n0\t0 x\t2\n", r"S\.train\.inter: users and items must be integers"),
            ("S.train.inter", "h\th\n0\t0\n", "must have rows of 3 columns"),
            ("S.valid.inter", "", r"S\.valid\.inter cannot be read"),
            ("S.item2index", "item0\t0\nitem1\0\t1\n", r"S\.item2index, line 2: there is a NUL character"),
            ("S.item2index", "item0\t0\nitem1\t1\n", r"S\.item2index has no index [234]"),
            ("S.user2index", "user0\t0\nuser1\t2\n", r"S\.user2index: the indices must be 0 to 1"),
            ("S.text", "item_id\ttext\nother\tx\n", r"S\.text: no item id, such as 'other'"),
        ],
    )
    def test_invalid_files(self, folder: Path, tmp_path: Path, file: str, content: str, sentence: str) -> None:
        (folder / file).write_text(content)
        if file == "S.item2index":
            for number in (1, 2, 3):
                (folder / f"S.feat{number}CLS").unlink()
        with pytest.raises(XferError, match=sentence):
            prepare_unisrec(tmp_path, folder, "S")

    def test_truncated_vectors(self, folder: Path, tmp_path: Path) -> None:
        np.arange(14, dtype="<f4").tofile(folder / "S.feat1CLS")
        with pytest.raises(XferError, match="S.feat1CLS has 56 bytes, .* 5 items"):
            prepare_unisrec(tmp_path, folder, "S")

    def test_vectors_that_are_not_finite(self, folder: Path, tmp_path: Path) -> None:
        np.array([1, 2, 3, np.nan, 4], dtype="<f4").tofile(folder / "S.feat3CLS")
        with pytest.raises(XferError, match="S.feat3CLS: the vector of item 'item3'"):
            prepare_unisrec(tmp_path, folder, "S")

    def test_missing_file(self, folder: Path, tmp_path: Path) -> None:
        with pytest.raises(XferError, match=r"T\.item2index does not exist. Check --input and --name"):
            prepare_unisrec(tmp_path, folder, "T")

    def test_real_splits_equal_the_published_splits(self, tmp_path: Path) -> None:
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
        prepare("unisrec", tmp_path / "written", "--write", "--input", domain)
        for path in folder.iterdir():
            content, published = (tmp_path / "written" / "Scientific" / path.name).read_bytes(), path.read_bytes()
            if path.suffix == ".text":  # in another order, with blanks at the ends
                lines = [sorted(map(str.split, text.decode().split("\n"))) for text in (content, published)]
                assert lines[0] == lines[1]
            else:
                assert content == published, path.name
