"""Histories from lists, frames and files of every format; a mistake is one sentence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recbole_xfer.errors import XferError
from recbole_xfer.serving.histories import Fields, Histories, read_ids

FIELDS = Fields("user_id", "item_id", "timestamp")
ROWS = [("u2", "b", 3), ("u1", "c", 9), ("u2", "NA", 1), ("u1", "a", 2), ("u2", "b", 7)]
BY_TIME = {"u2": ["NA", "b", "b"], "u1": ["a", "c"]}
AS_WRITTEN = {"u2": ["b", "NA", "b"], "u1": ["c", "a"]}


def lists_of(histories: Histories) -> dict[str, list[str]]:
    parts = np.split(histories.items[histories.codes], histories.offsets[1:-1]) if len(histories) else []
    return {user: part.tolist() for user, part in zip(histories.users, parts, strict=True)}


def written(folder: Path, suffix: str, timed: bool) -> Path:
    frame = pd.DataFrame(ROWS, columns=["user_id", "item_id", "timestamp"])
    frame = frame if timed else frame.drop(columns="timestamp")
    path = folder / f"new{suffix}"
    if suffix == ".parquet":
        frame.to_parquet(path)
    elif suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif suffix == ".inter":
        header = [f"{name}:{'float' if name == 'timestamp' else 'token'}" for name in frame]
        frame.to_csv(path, sep="\t", index=False, header=header)
    else:
        text = frame.to_csv(sep="\t" if ".tsv" in suffix else ",", index=False)
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("timed", [True, False], ids=["with times", "in order"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".tsv", ".inter", ".jsonl", ".parquet"])
def test_files_of_interactions(tmp_path: Path, suffix: str, timed: bool) -> None:
    assert lists_of(Histories.read(written(tmp_path, suffix, timed), FIELDS)) == (BY_TIME if timed else AS_WRITTEN)


def test_files_of_lists(tmp_path: Path) -> None:
    rows = [{"user_id": user, "item_id": items} for user, items in {**BY_TIME, "nobody": []}.items()]
    (tmp_path / "new.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    pd.DataFrame(rows).to_parquet(tmp_path / "new.parquet")
    for name in ("new.jsonl", "new.parquet"):
        assert lists_of(Histories.read(tmp_path / name, FIELDS)) == {**BY_TIME, "nobody": []}


def test_values() -> None:
    frame = pd.DataFrame(
        {"user_id": [7, 7], "item_id": [1, 2], "timestamp": pd.to_datetime(["2024-02-01", "2024-01-01"])}
    )
    assert lists_of(Histories.of(frame, FIELDS)) == {"7": ["2", "1"]}
    assert lists_of(Histories.of(BY_TIME, FIELDS)) == BY_TIME
    assert lists_of(Histories.of([["a", 5], [], np.array(["b"])], FIELDS)) == {"0": ["a", "5"], "1": [], "2": ["b"]}


def test_unknown_items_are_left_out_and_counted() -> None:
    histories = Histories.of([["a", "x", "b"], ["x"], [], ["b", "[PAD]"]], FIELDS)
    ids, offsets, unknown = histories.known(pd.Index(["[PAD]", "a", "b"], dtype=object))
    assert ids.tolist() == [1, 2, 2] and offsets.tolist() == [0, 2, 2, 2, 3] and unknown == 3
    assert Histories.of([], FIELDS).known(pd.Index(["[PAD]"]))[2] == 0


def frame(**columns: list[Any]) -> pd.DataFrame:
    return pd.DataFrame(columns)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("u1", r"The file u1 does not exist"),
        (5, "5 is no list of histories. Give a list of lists"),
        (["a", "b"], r"A history must be a list of items: write \['a'\] instead of 'a' for 0"),
        ([["a", None]], "An item must be a string: None in the history of 0 is not"),
        ([["a", 1.5]], "An item must be a string: 1.5"),
        ([["a", ["b"]]], "An item must be a string: "),
        (frame(user=["u"], item_id=["a"]), "the frame has no column 'user_id' .columns: user, item_id."),
        (frame(user_id=["u", None], item_id=["a", "b"]), "the frame, row 2: 'user_id' is empty"),
        (frame(user_id=["u"], item_id=[1.5]), "the column 'item_id' has decimal numbers"),
        (frame(user_id=["u"], item_id=["a"], timestamp=["noon"]), "row 1: 'noon' in column 'timestamp'"),
        (frame(user_id=["u", "u"], item_id=[["a"], ["b"]]), "row 2: the user 'u' is repeated"),
        (frame(user_id=["u", "v"], item_id=[["a"], "b"]), r"write \['b'\] instead of 'b' for the frame, row 2"),
    ],
)
def test_invalid_histories_are_explained(value: Any, message: str) -> None:
    with pytest.raises(XferError, match=message):
        Histories.of(value, FIELDS)


def test_files_of_ids(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("a\nb c\n", encoding="utf-8")
    (tmp_path / "ids.csv").write_text("item_id,x\na,1\na,2\nb,3\n", encoding="utf-8")
    assert read_ids(tmp_path / "ids.txt", "item_id") == ["a", "b c"]
    assert read_ids(tmp_path / "ids.csv", "item_id") == ["a", "b"]
    with pytest.raises(XferError, match="has no column 'user_id'"):
        read_ids(tmp_path / "ids.csv", "user_id")
