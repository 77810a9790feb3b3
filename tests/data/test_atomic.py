"""Reading of atomic files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_xfer.data.atomic import read_atomic_file
from recbole_xfer.errors import XferError


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_any_line_ending_and_missing_last_values(tmp_path: Path, end: str) -> None:
    file = tmp_path / "D.item"
    for rows in (["i0\tred\t7", "i1\t\t"], ["i0\tred\t7", "i1"], ['i0\t"red\t7', '"i1']):
        lines = (end or "\n").join(["item_id:token\ttext:token\tprice:float", *rows])
        file.write_bytes((lines + end).encode())
        assert read_atomic_file(file)["price"].tolist() == pytest.approx([7, np.nan], nan_ok=True)


HEADER = "user_id:token\titem_id:token\ttimestamp:float"


def read(folder: Path, *rows: str, end: str = "\n") -> pd.DataFrame:
    file = folder / "D.inter"
    file.write_bytes(end.join([HEADER, *rows, ""]).encode())
    return read_atomic_file(file)


class TestEveryLineIsARow:
    def test_quotation_marks_are_letters(self, tmp_path: Path) -> None:
        """Two fields that begin with one do not swallow the rows between them."""
        rows = ['u\t"a\t1', "u\tb\t2", "v\tc\t3", 'v\t"d\t4', 'w\t"Basic" chair\t5', 'w\t""\t6', 'w\t"x"\t7']
        for end in ("\n", "\r\n", "\r"):
            tokens = read(tmp_path, *rows, end=end)["item_id"].tolist()
            assert tokens == ['"a', "b", "c", '"d', '"Basic" chair', '""', '"x"']

    def test_a_quoted_tab_separates(self, tmp_path: Path) -> None:
        with pytest.raises(XferError, match="line 2: there are 4 values for the 3 columns"):
            read(tmp_path, 'u\t"a\tb"\t1')

    def test_blank_lines_are_no_rows(self, tmp_path: Path) -> None:
        table = read(tmp_path, "", "u\ta\t1", "  ", "  \t \t2", "", "v\tb")
        assert table["item_id"].fillna("").tolist() == ["a", " ", "b"]

    def test_nul_characters_are_rejected(self, tmp_path: Path) -> None:
        """The parser cuts a value there, so that two items become one."""
        with pytest.raises(XferError, match="line 3: there is a NUL character"):
            read(tmp_path, "u\ta\t1", "u\tx\0y\t2", "u\tx\0z\t3")

    def test_carriage_return_inside_a_line_is_rejected(self, tmp_path: Path) -> None:
        """The parser makes two rows of it."""
        with pytest.raises(XferError, match="line 3: there is a carriage return inside the line"):
            read(tmp_path, "u\ta\t1", "u\tx\ry\t2", "u\tz\t3")

    def test_rows_are_counted_against_lines(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        whole = pd.read_csv
        monkeypatch.setattr(pd, "read_csv", lambda *args, **keys: whole(*args, **keys).iloc[:1])
        with pytest.raises(XferError, match="has 2 rows, but 1 were read"):
            read(tmp_path, "u\ta\t1", "u\tb\t2")


@pytest.mark.parametrize(
    ("rows", "line"), [("i1\tTrue\n", 2), ("i1\t\ni2\tFalse\ni3\tTrue\n", 3), ("i1\t1\ni2\tTrue\n", 3)]
)
def test_a_word_for_true_is_not_a_number(tmp_path: Path, rows: str, line: int) -> None:
    path = tmp_path / "D.item"
    path.write_text(f"item_id:token\tprice:float\n{rows}")
    with pytest.raises(XferError, match=f"line {line}: '(True|False)' in column 'price' is not a number"):
        read_atomic_file(path)


def test_a_column_of_ones_and_missing_numbers(tmp_path: Path) -> None:
    path = tmp_path / "D.item"
    path.write_text("item_id:token\tprice:float\ni1\tNA\ni2\t1\ni3\t\n")
    np.testing.assert_array_equal(read_atomic_file(path)["price"], [np.nan, 1, np.nan])
