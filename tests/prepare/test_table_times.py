"""Times of any table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from recbole_xfer.errors import XferError
from recbole_xfer.prepare.table import prepare_table
from tests.helpers.preparing import LOG, inter, table_file


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
def test_times(tmp_path: Path, value: str, seconds: float) -> None:
    path = table_file(tmp_path, f'user,item,time\nu,a,"{value}"\n')
    (folder,) = prepare_table(tmp_path, path, LOG, name="D")
    assert inter(folder)["timestamp"].tolist() == [seconds]


def test_times_of_parquet_and_in_a_named_format(tmp_path: Path) -> None:
    days = pd.to_datetime(["2015-06-23", "2015-06-24"])
    pd.DataFrame({"user": 1, "item": [1, 2], "time": days}).to_parquet(tmp_path / "log.parquet")
    (folder,) = prepare_table(tmp_path, tmp_path / "log.parquet", LOG, name="D")
    assert inter(folder)["timestamp"].tolist() == [1435017600, 1435104000]
    path = table_file(tmp_path, "user,item,time\nu,a,24/06/2015\n")
    (folder,) = prepare_table(tmp_path, path, LOG, name="D", time_format="%d/%m/%Y")
    assert inter(folder)["timestamp"].tolist() == [1435104000]


def test_an_invalid_time_format_is_rejected(tmp_path: Path) -> None:
    path = table_file(tmp_path, "user,item,time\nu,a,24/06/2015\n")
    with pytest.raises(XferError, match="--time_format=%q is invalid: .* Use codes such as %Y-%m-%d"):
        prepare_table(tmp_path, path, LOG, name="D", time_format="%q")


def test_without_a_time_the_order_of_the_rows_counts(tmp_path: Path) -> None:
    path = table_file(tmp_path, "user,item\nu,c\nu,a\nu,b\n")
    (folder,) = prepare_table(tmp_path, path, {"user": "user", "item": "item"}, name="D")
    assert inter(folder)["item_id"].tolist() == ["c", "a", "b"]


@pytest.mark.parametrize(("written", "suggested"), [("31.12.2024 18:05", "%d.%m.%Y %H:%M"), ("12/31/2024", "%m/%d/%Y")])
def test_a_date_suggests_its_format(tmp_path: Path, written: str, suggested: str) -> None:
    path = table_file(tmp_path, f"user,item,time\nu,a,{written}\n")
    with pytest.raises(XferError, match=f"{written}.* --time_format, such as '{suggested}'"):
        prepare_table(tmp_path, path, LOG, name="D")
    (folder,) = prepare_table(tmp_path, path, LOG, name="D", time_format=suggested)
    assert inter(folder)["timestamp"][0] // 86400 == 20088


def test_times_in_milliseconds(tmp_path: Path) -> None:
    path = table_file(tmp_path, "user,item,time\nu,a,1529193600500\nu,b,99999999999\n")
    (folder,) = prepare_table(tmp_path, path, LOG, name="D")
    assert inter(folder)["timestamp"].tolist() == [1529193600.5, 99999999999]
