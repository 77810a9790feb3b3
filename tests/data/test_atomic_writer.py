"""Writing of atomic files."""

from __future__ import annotations

import errno
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_xfer.data import atomic_writer
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.vectors import write_vectors
from recbole_xfer.errors import XferError
from tests.helpers.preparing import inter, interactions, item


class TestWriteDomain:
    def test_files_have_recboles_format(self, tmp_path: Path) -> None:
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
        assert (folder / "D.item").read_text().splitlines()[1:] == ['a\t"Big" 12" pan', "b\ttwo lines"]

    def test_characters_that_a_file_cannot_hold(self, tmp_path: Path) -> None:
        for token in ("a\0b", "a\ud800"):
            with pytest.raises(
                XferError, match="column item_id, row 2: .* contains a character that a text file cannot"
            ):
                write_domain(tmp_path, "D", interactions(item_id=["a", token]), None)
        items = pd.DataFrame({"item_id": ["a"], "text": ["x\0y \ud800z"]})
        assert item(write_domain(tmp_path, "D", interactions(), items))["text"].tolist() == ["x y z"]

    def test_other_files_of_the_folder_are_kept(self, tmp_path: Path) -> None:
        (tmp_path / "D").mkdir()
        (tmp_path / "D" / "D.text.parquet").write_text("vectors")
        write_domain(tmp_path, "D", interactions(), None)
        assert (tmp_path / "D" / "D.text.parquet").read_text() == "vectors"

    def test_a_domain_is_written_whole_or_not_at_all(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        old = write_domain(tmp_path, "D", interactions(), pd.DataFrame({"item_id": ["a", "b"]}))
        before = {path.name: path.read_text() for path in old.iterdir()}

        def full(path: Path, table: pd.DataFrame) -> None:
            write(path, table)
            if path.suffix == ".inter":
                raise OSError(errno.ENOSPC, "full")

        write = atomic_writer._write
        monkeypatch.setattr(atomic_writer, "_write", full)
        with pytest.raises(XferError, match="The disk is full"):
            write_domain(tmp_path, "D", interactions(item_id=["c", "d"]), pd.DataFrame({"item_id": ["c", "d"]}))
        assert {path.name: path.read_text() for path in old.iterdir()} == before

    @pytest.mark.parametrize(
        ("columns", "sentence"),
        [
            ({"item_id": ["a", ""]}, r"D\.inter, column item_id, row 2: the value '' is empty"),
            ({"user_id": ["u", None]}, "column user_id, row 2: the value '' is empty"),
            ({"user_id": ["u", "v\tw"]}, "column user_id, row 2: .* contains a tab or a line break"),
            ({"item_id": ["NA", "a"]}, "row 1: the value 'NA' is read back as a missing value"),
            ({"timestamp": [1, np.nan]}, "column timestamp, row 2: nan is not a finite number"),
            ({"timestamp": [np.inf, 1]}, "column timestamp, row 1: inf is not a finite number"),
            ({"rating": [np.nan, np.inf]}, "column rating, row 2: inf is not a finite number"),
        ],
    )
    def test_invalid_interactions(self, tmp_path: Path, columns: dict[str, object], sentence: str) -> None:
        with pytest.raises(XferError, match=sentence):
            write_domain(tmp_path, "D", interactions(**columns), None)
        assert not (tmp_path / "D").exists()

    @pytest.mark.parametrize(
        ("items", "sentence"),
        [
            ({"item_id": ["a", "a"]}, "item 'a' is listed twice"),
            ({"item_id": ["a"], "price": [-1.0]}, r"D\.item, column price, row 1: -1\.0 is not a finite number"),
            ({"item_id": ["a"], "price": [np.inf]}, "column price, row 1: inf"),
            ({"text": ["a"]}, r"column item_id is missing \(columns: text\)"),
        ],
    )
    def test_invalid_items(self, tmp_path: Path, items: dict[str, object], sentence: str) -> None:
        with pytest.raises(XferError, match=sentence):
            write_domain(tmp_path, "D", interactions(), pd.DataFrame(items))

    @pytest.mark.parametrize(
        ("name", "problem"),
        [
            ("", "a name is empty"),
            ("a/b", "'a/b' is not the name of a folder"),
            ("/tmp/D", "'/tmp/D' is not the name of a folder; set the path to this folder with data_path"),
            ("A+B", r"'A\+B' has a '\+', which joins domains"),
            ("..", "is not the name of a folder"),
            (".", "is not the name of a folder"),
            (" A", "' A' begins or ends with a blank"),
            ("A\n", r"'A\\n' begins or ends with a blank"),
            ("A\nB", "a character such as a line break"),
            ("ä" * 120, "has 240 bytes; shorten it to at most 200"),
        ],
    )
    def test_invalid_names(self, tmp_path: Path, name: str, problem: str) -> None:
        with pytest.raises(XferError, match=f"cannot be the name of a domain: .*{problem}"):
            write_domain(tmp_path, name, interactions(), None)

    def test_longest_name(self, tmp_path: Path) -> None:
        folder = write_domain(tmp_path, "D" * 200, interactions(), None)
        path = folder / f"{folder.name}.word_drop.parquet"
        write_vectors(path, ["a"], np.ones((1, 2), np.float32), encoder="", source="")
        assert path.is_file()

    def test_no_interactions(self, tmp_path: Path) -> None:
        with pytest.raises(XferError, match="D has no interactions"):
            write_domain(tmp_path, "D", interactions().iloc[:0], None)
