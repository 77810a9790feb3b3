"""Vector files: what is written is read by item id, and the error for each mistake."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recbole_xfer.data import vectors
from recbole_xfer.data.vectors import allocate, find_vectors, read_metadata, read_vectors, write_vectors
from recbole_xfer.errors import XferError

ROOT = Path(__file__).resolve().parents[2]
REAL = Path(os.environ.get("RECBOLE_XFER_DATA", ROOT.parent / "shared" / "data")) / "scientific-mm"
IDS = ["a", "b", "c", "d"]
TOKENS = np.array(["[PAD]", "d", "x", "b", "a"])
VALUES = np.arange(1, 13, dtype=np.float32).reshape(4, 3)


def write(path: Path, values: np.ndarray = VALUES, ids: list[str] | None = None) -> Path:
    write_vectors(path, IDS if ids is None else ids, values, encoder="an encoder", source="a source")
    return path


def write_table(path: Path, **columns: object) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def write_npy(path: Path, values: np.ndarray = VALUES, ids: str = "a\nb\nc\nd\n") -> Path:
    np.save(path, values)
    path.with_suffix(".ids").write_text(ids)
    return path


def write_raw(path: Path, values: np.ndarray = VALUES, index: str = "c\t2\nd\t3\na\t0\nb\t1\n") -> Path:
    values.tofile(path)
    path.with_suffix(".item2index").write_text(index)
    return path


def assert_aligned(table: vectors.VectorTable) -> None:
    assert table.present.tolist() == [False, True, False, True, True]
    np.testing.assert_array_equal(table.values, [[0] * 3, [10, 11, 12], [0] * 3, [4, 5, 6], [1, 2, 3]])


class TestReading:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    def test_parquet_is_aligned_by_id(self, tmp_path: Path, dtype: type) -> None:
        table = read_vectors(write(tmp_path / "D.text.parquet", VALUES.astype(dtype)), TOKENS)
        assert_aligned(table)
        assert table.values.dtype == dtype
        assert (table.encoder, table.source) == ("an encoder", "a source")

    def test_npy_and_raw_are_aligned_by_id(self, tmp_path: Path) -> None:
        assert_aligned(read_vectors(write_npy(tmp_path / "D.text.npy"), TOKENS))
        assert_aligned(read_vectors(write_raw(tmp_path / "D.feat3CLS"), TOKENS))

    def test_parquet_of_other_tools_is_read(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "D.text.parquet", item_id=IDS, vector=VALUES.astype(float).tolist())
        table = read_vectors(path, TOKENS)
        assert_aligned(table)
        assert table.values.dtype == np.float32
        numbers = write_table(tmp_path / "N.text.parquet", item_id=[1, 2], vector=[[1.0], [2.0]])
        assert read_vectors(numbers, np.array(["[PAD]", "2"])).values.tolist() == [[0], [2]]

    @pytest.mark.parametrize("write_form", [write, write_npy, write_raw])
    def test_large_table_is_kept_in_a_file(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_form) -> None:
        """Blocks of two rows: every block is a row group of the parquet file and is read separately."""
        monkeypatch.setattr(vectors, "BLOCK", 2)
        path = write_form(tmp_path / {write: "D.image.parquet", write_npy: "D.image.npy"}.get(write_form, "D.feat3CLS"))
        if write_form is write:
            assert pq.ParquetFile(path).num_row_groups == 2
        small, large = read_vectors(path, TOKENS), read_vectors(path, TOKENS, memory_limit=59)
        assert not isinstance(small.values, np.memmap)
        assert isinstance(large.values, np.memmap)
        assert_aligned(large)

    def test_full_disk_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        usage = shutil.disk_usage(".")._replace(free=100)
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
        with pytest.raises(XferError, match=r"has too little space for .* set TMPDIR"):
            allocate((100, 100), np.dtype(np.float32), memory_limit=10)

    def test_order_of_formats(self, tmp_path: Path) -> None:
        assert find_vectors(tmp_path, "D", "text") is None
        for suffix in ("feat1CLS", "text.npy", "text.parquet"):
            (tmp_path / f"D.{suffix}").touch()
            assert find_vectors(tmp_path, "D", "text") == tmp_path / f"D.{suffix}"
        assert find_vectors(tmp_path, "D", "image") is None

    def test_published_names(self, tmp_path: Path) -> None:
        for modality, suffix in (("text", "feat1CLS"), ("word_drop", "feat2CLS"), ("image", "feat3CLS")):
            (tmp_path / f"D.{suffix}").touch()
            assert find_vectors(tmp_path, "D", modality) == tmp_path / f"D.{suffix}"

    @pytest.mark.skipif(not REAL.is_dir(), reason=f"the real data scientific-mm is not in {REAL.parent}")
    @pytest.mark.parametrize(("modality", "suffix"), [("text", "feat1CLS"), ("image", "feat3CLS")])
    def test_published_files(self, modality: str, suffix: str) -> None:
        path = find_vectors(REAL, "Scientific", modality)
        assert path == REAL / f"Scientific.{suffix}"
        lines = (REAL / "Scientific.item2index").read_text().splitlines()
        index = dict(line.split("\t") for line in reversed(lines))
        table = read_vectors(path, np.array(["[PAD]", *index]))
        raw = np.fromfile(path, np.float32).reshape(1585, 512)
        np.testing.assert_array_equal(table.values[1:], raw[np.array(list(index.values()), dtype=int)])
        assert table.present[1:].all()


class TestWriting:
    def test_file_has_the_documented_schema(self, tmp_path: Path) -> None:
        path = tmp_path / "D.text.parquet"
        write_vectors(path, IDS, VALUES, encoder="e", source="s", metadata={"digest": "d"})
        schema = pq.read_schema(path)
        assert schema.field("item_id").type == pa.string()
        assert schema.field("vector").type == pa.list_(pa.float32(), 3)
        assert read_metadata(path) == {"encoder": "e", "dimension": "3", "source": "s", "digest": "d"}

    @pytest.mark.parametrize(
        ("values", "ids", "message"),
        [
            (VALUES, ["a", "b"], "2 item ids do not fit vectors of shape \\(4, 3\\)"),
            (VALUES[:0], [], "0 item ids do not fit vectors"),
            (VALUES, ["a", "b", "a", "c"], "item 'a' is repeated"),
            (VALUES.astype(int), IDS, "Convert them to float16 or float32"),
            (np.where(VALUES == 5, np.inf, VALUES), IDS, "vector of item 'b' has a value that is NaN or infinite"),
        ],
    )
    def test_mistake_keeps_the_old_file(self, tmp_path: Path, values: np.ndarray, ids: list[str], message: str) -> None:
        path = write(tmp_path / "D.text.parquet")
        before = path.read_bytes()
        with pytest.raises(XferError, match=message):
            write(path, values, ids)
        assert path.read_bytes() == before
        assert os.listdir(tmp_path) == [path.name]


class TestMistakes:
    def assert_rejected(self, path: Path, message: str) -> None:
        with pytest.raises(XferError, match=message) as caught:
            read_vectors(path, TOKENS)
        assert str(path) in str(caught.value) or str(path.with_suffix("")) in str(caught.value)

    def test_no_id_matches(self, tmp_path: Path) -> None:
        path = write(tmp_path / "D.text.parquet", ids=["p", "q", "r", "s"])
        self.assert_rejected(path, "no id matches. Its first id is 'p'; an id of the dataset is 'd'")

    def test_duplicate_id(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "D.text.parquet", item_id=["a", "b", "a"], vector=[[1.0], [2.0], [3.0]])
        self.assert_rejected(path, "item 'a' has two vectors")

    @pytest.mark.parametrize("odd", [[3.0], None, []])
    def test_unequal_lengths(self, tmp_path: Path, odd: list[float] | None) -> None:
        path = write_table(tmp_path / "D.text.parquet", item_id=["a", "b", "c"], vector=[[1.0, 2.0], [3.0, 4.0], odd])
        self.assert_rejected(path, "different lengths: that of item 'c' has [01] values, others have 2")

    @pytest.mark.parametrize("missing", [[0], [2], [1, 2], [0, 1, 2]])
    def test_missing_vector_in_a_fixed_size_column(self, tmp_path: Path, missing: list[int]) -> None:
        rows = [None if row in missing else [1.0, 2.0] for row in range(3)]
        column = pa.array(rows, pa.list_(pa.float32(), 2))
        path = write_table(tmp_path / "D.text.parquet", item_id=["a", "b", "c"], vector=column)
        self.assert_rejected(path, f"that of item '{'abc'[missing[0]]}' has 0 values, others have 2")

    @pytest.mark.parametrize("value", [np.nan, np.inf, None])
    def test_value_that_is_not_finite(self, tmp_path: Path, value: float | None) -> None:
        path = write_table(tmp_path / "D.text.parquet", item_id=["a", "b"], vector=[[1.0, 2.0], [3.0, value]])
        self.assert_rejected(path, "vector of item 'b' has a value that is NaN or infinite")

    def test_missing_column(self, tmp_path: Path) -> None:
        path = write_table(tmp_path / "D.text.parquet", item=["a"], vector=[[1.0]])
        self.assert_rejected(path, r"has no column 'item_id' \(columns: item, vector\)")
        path = write_table(tmp_path / "D.text.parquet", item_id=["a"], embedding=[[1.0]])
        self.assert_rejected(path, "has no column 'vector'")

    def test_column_without_vectors(self, tmp_path: Path) -> None:
        self.assert_rejected(
            write_table(tmp_path / "D.text.parquet", item_id=["a"], vector=["1 2"]), "'vector' is string"
        )
        self.assert_rejected(write_table(tmp_path / "D.text.parquet", item_id=["a"], vector=[[1]]), "list<.*int64>")

    @pytest.mark.parametrize("keep", [0, 10, 0.5, 0.9])
    def test_truncated_parquet(self, tmp_path: Path, keep: float) -> None:
        path = write(tmp_path / "D.text.parquet")
        size = path.stat().st_size
        os.truncate(path, int(keep * size) if keep < 1 else int(keep))
        self.assert_rejected(path, "cannot be read")

    def test_damaged_row_group(self, tmp_path: Path) -> None:
        path = write(tmp_path / "D.text.parquet")
        content = bytearray(path.read_bytes())
        content[4:100] = bytes(96)
        path.write_bytes(content)
        self.assert_rejected(path, "cannot be read")

    def test_truncated_npy_and_raw(self, tmp_path: Path) -> None:
        path = write_npy(tmp_path / "D.text.npy")
        os.truncate(path, path.stat().st_size - 4)
        self.assert_rejected(path, "cannot be read")
        path = write_raw(tmp_path / "D.feat1CLS")
        os.truncate(path, path.stat().st_size - 4)
        self.assert_rejected(path, "44 bytes, which does not give float32 vectors of equal length for the 4 items")

    def test_pickled_npy_is_not_run(self, tmp_path: Path) -> None:
        self.assert_rejected(write_npy(tmp_path / "D.text.npy", np.array([[None]] * 4)), "cannot be read")

    def test_companion_file(self, tmp_path: Path) -> None:
        self.assert_rejected(write_npy(tmp_path / "D.text.npy", ids="a\nb\n"), "has 4 rows, .*ids has 2 lines")
        np.save(tmp_path / "E.text.npy", VALUES)
        self.assert_rejected(tmp_path / "E.text.npy", "needs .*E.text.ids, with the item id of each row")
        for line in ("b\t7", "b", "b\t0", "b\t-1", "b\tone"):
            path = write_raw(tmp_path / "D.feat1CLS", index=f"a\t0\n{line}\nc\t2\nd\t3\n")
            self.assert_rejected(
                path, "item2index, line 2 is invalid. Write the item id, a tab and .* a number from 0 to 3"
            )

    def test_unknown_format(self, tmp_path: Path) -> None:
        self.assert_rejected(tmp_path / "D.text.csv", "has an unknown format")


def test_metadata_in_another_encoding_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "A.text.parquet"
    table = pa.table({"item_id": IDS, "vector": VALUES.tolist()})
    pq.write_table(table.replace_schema_metadata({b"encoder": b"\xff\xfe"}), path)
    for reader in (read_metadata, lambda file: read_vectors(file, TOKENS)):
        with pytest.raises(XferError, match=r"A.text.parquet cannot be read: 'utf-8' codec"):
            reader(path)
