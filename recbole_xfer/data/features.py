"""Item features: text, image and price, aligned to RecBole's item ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_xfer.config.values import join_domains
from recbole_xfer.data.atomic import RECBOLE_FORMAT, AtomicFormat, read_atomic_file, read_header, read_item_column
from recbole_xfer.data.domain_folder import command
from recbole_xfer.data.vectors import WORD_DROP, VectorTable, allocate, find_vectors, read_vectors, vector_ids
from recbole_xfer.errors import XferError

MODALITIES = ("text", "image", "price")


@dataclass(frozen=True)
class ItemFeatures:
    """Tables over item ids; row 0 is the padding item and empty.

    Attributes:
        text: vectors of the texts, [n_items, D_t], or None.
        image: vectors of the pictures, [n_items, D_m], or None.
        price: prices in the currency of the file, NaN where unknown, [n_items], or None.
    """

    text: VectorTable | None
    image: VectorTable | None
    price: np.ndarray | None

    @property
    def modalities(self) -> tuple[str, ...]:
        """The available modalities, in the order text, image, price."""
        return tuple(name for name in MODALITIES if getattr(self, name) is not None)

    def present(self, modality: str) -> np.ndarray:
        """Which items have the modality, bool [n_items]."""
        if modality == "price":
            assert self.price is not None
            return np.isfinite(self.price)
        return getattr(self, modality).present

    def indistinct(self) -> int:
        """Number of items whose vectors, or lack of any, are those of another item; prices are not compared."""
        tables = [table.values[1:] for table in (self.text, self.image) if table is not None]
        rows = zip(*(map(np.ndarray.tobytes, values) for values in tables), strict=True)
        return sum(count for count in Counter(map(hash, rows)).values() if count > 1)

    def coverage(self) -> str:
        """Counts items as text, such as ``text 4,385 of 4,385 items, image 4,102, price 3,377``."""
        counts = [f"{name} {self.present(name).sum():,}" for name in self.modalities]
        if counts:
            counts[0] += f" of {len(self.present(self.modalities[0])) - 1:,} items"
        return ", ".join(counts) or "none"


def load_item_features(
    root: Path,
    domains: Sequence[str],
    item_domain: np.ndarray,
    item_tokens: np.ndarray,
    modalities: Sequence[str] | None,
    form: AtomicFormat = RECBOLE_FORMAT,
) -> ItemFeatures:
    """Reads the features of all domains.

    Args:
        root: folder with one folder per domain.
        domains: names of the domains.
        item_domain: index into ``domains`` of each item, [n_items].
        item_tokens: id of each item in the files of its domain, [n_items].
        modalities: required modalities; None loads all available ones.
        form: format of the .item files.

    Raises:
        XferError: if no domain has a required modality or any modality, or a file is invalid.
    """
    unknown = set(modalities or ()) - set(MODALITIES)
    if unknown:
        raise XferError(f"modalities={sorted(unknown)}: unknown modality. Choose among {', '.join(MODALITIES)}.")
    wanted = MODALITIES if modalities is None else modalities
    items = _items_by_domain(item_domain, len(domains))
    found = {
        "text": _joined_vectors(root, domains, items, item_tokens, "text") if "text" in wanted else None,
        "image": _joined_vectors(root, domains, items, item_tokens, "image") if "image" in wanted else None,
        "price": _joined_prices(root, domains, items, item_tokens, form) if "price" in wanted else None,
    }
    missing = [name for name in wanted if found[name] is None]
    if missing and (modalities is not None or len(missing) == len(MODALITIES)):
        raise XferError(_what_is_missing(root, domains, missing, form))
    return ItemFeatures(**found)  # type: ignore[arg-type]


def listed_items(root: Path, domain: str, form: AtomicFormat = RECBOLE_FORMAT) -> pd.Index:
    """Returns the distinct ids of a domain's items with features: those of its .item file and its files of vectors.

    Raises:
        XferError: if the domain has none of these files, or one cannot be read.
    """
    folder, path = root / domain, root / domain / f"{domain}.item"
    found = [find_vectors(folder, domain, modality) for modality in ("text", "image")]
    ids = [vector_ids(vectors) for vectors in found if vectors is not None]
    if path.is_file():
        ids.append(pd.Index(read_atomic_file(path, [form.item_id], form)[form.item_id]))
    if not ids:
        raise XferError(f"{folder} has no items: there is no {path.name} and no file of vectors. Check the name.")
    return ids[0].append(ids[1:]).unique()


def with_items(first: ItemFeatures, other: ItemFeatures) -> ItemFeatures:
    """Returns the features of the first items, followed by those of others, without their row 0.

    Raises:
        XferError: if vectors of a modality come from different encoders, or have different lengths.
    """
    tables: dict[str, Any] = {}
    for name in ("text", "image"):
        mine, theirs = getattr(first, name), getattr(other, name)
        tables[name] = mine and _appended(name, mine, theirs)
    tables["price"] = None if first.price is None or other.price is None else np.r_[first.price, other.price[1:]]
    return ItemFeatures(**tables)


def _appended(modality: str, first: VectorTable, other: VectorTable) -> VectorTable:
    width, theirs = first.values.shape[1], other.values.shape[1]
    if width != theirs or first.encoder != other.encoder:
        raise XferError(
            f"The {modality} vectors of the new items ({other.encoder}, {theirs} values) and of those of training "
            f"({first.encoder}, {width} values) differ. Encode the new items with the encoder of training."
        )
    count = len(first.values)
    values = allocate((count + len(other.values) - 1, width), first.values.dtype)
    values[:count], values[count:] = first.values, other.values[1:]
    return VectorTable(values, np.r_[first.present, other.present[1:]], first.encoder, first.source)


def load_word_drop(
    root: Path, domains: Sequence[str], item_domain: np.ndarray, item_tokens: np.ndarray, text: VectorTable
) -> VectorTable | None:
    """Reads vectors of texts without some of their words, arguments as above; None if a domain has none.

    Args:
        text: vectors of the complete texts.

    Raises:
        XferError: if a file is invalid, or its encoder differs from that of the complete texts.
    """
    if not all(find_vectors(root / domain, domain, WORD_DROP) for domain in domains):
        return None
    table = _joined_vectors(root, domains, _items_by_domain(item_domain, len(domains)), item_tokens, WORD_DROP)
    assert table is not None
    if table.values.shape[1] != text.values.shape[1] or table.encoder != text.encoder:
        name = join_domains(domains)
        raise XferError(
            f"{name}: the vectors of the texts ({text.encoder}) and of the texts without some words ({table.encoder}) "
            f"come from different encoders. Encode both with one encoder: `{word_drop_command(name, root)}`."
        )
    return table


def word_drop_command(dataset: str, root: Path) -> str:
    """Returns the command that makes the vectors of texts without some of their words."""
    return f"{command('encode', dataset, root)} --drop_words=0.2"


def _items_by_domain(item_domain: np.ndarray, domains: int) -> list[np.ndarray]:
    """Ids of each domain's items, after the padding item."""
    return [np.r_[0, np.flatnonzero(item_domain[1:] == index) + 1] for index in range(domains)]


def _joined_vectors(
    root: Path, domains: Sequence[str], items: list[np.ndarray], tokens: np.ndarray, modality: str
) -> VectorTable | None:
    """The vectors of all domains in one table; None if no domain has any."""
    paths = {index: find_vectors(root / domain, domain, modality) for index, domain in enumerate(domains)}
    tables = {
        index: read_vectors(path, np.r_[tokens[:1], tokens[items[index][1:]]]) for index, path in paths.items() if path
    }
    if not tables:
        return None
    first = next(iter(tables.values()))
    if len(domains) == 1:
        return first
    for index, table in tables.items():
        if table.values.shape[1] != first.values.shape[1] or table.encoder != first.encoder:
            raise XferError(
                f"The {modality} vectors of {domains[index]} ({table.encoder}, {table.values.shape[1]} values) and of "
                f"{domains[next(iter(tables))]} ({first.encoder}, {first.values.shape[1]} values) differ. "
                f"Encode both with one encoder: `{command('encode', join_domains(domains), root)}`."
            )
    values = allocate((len(tokens), first.values.shape[1]), first.values.dtype)
    present = np.zeros(len(tokens), dtype=bool)
    for index, table in tables.items():
        values[items[index][1:]] = table.values[1:]
        present[items[index][1:]] = table.present[1:]
    return VectorTable(values=values, present=present, encoder=first.encoder, source=first.source)


def _joined_prices(
    root: Path, domains: Sequence[str], items: list[np.ndarray], tokens: np.ndarray, form: AtomicFormat
) -> np.ndarray | None:
    """The ``price`` columns of the domains' .item files; None if no domain has one."""
    prices = np.full(len(tokens), np.nan)
    for index, domain in enumerate(domains):
        path = root / domain / f"{domain}.item"
        table = read_item_column(path, "price", form)
        if table is None:
            continue
        if not pd.api.types.is_float_dtype(table):
            raise XferError(f"{path}: the column 'price' does not contain floats. Write 'price:float' in the header.")
        if (table < 0).any():
            token = table.index[table < 0][0]
            raise XferError(f"{path}: the price of item {token} is {table[token]}, but must be at least 0. Correct it.")
        prices[items[index][1:]] = table.reindex(pd.Index(tokens[items[index][1:]])).to_numpy()
    return prices if np.isfinite(prices).any() else None


def _what_is_missing(root: Path, domains: Sequence[str], missing: Sequence[str], form: AtomicFormat) -> str:
    """A sentence with the missing files and how to make each."""
    name = join_domains(domains)
    first = root / domains[0] / domains[0]
    places = {
        "text": f"{first}.text.parquet",
        "image": f"{first}.image.parquet",
        "price": f"'price:float' in {first}.item",
    }
    sentence = f"{name} has no {' and no '.join(missing)} ({', '.join(places[kind] for kind in missing)})."
    header = read_header(Path(f"{first}.item"), form) if Path(f"{first}.item").is_file() else {}
    if "text" in missing and "text" in header:
        sentence += f" Make the text vectors with `{command('encode', name, root)}`."
    elif missing != ["image"]:
        sentence += " Add an item table with text or price with `recbole-xfer prepare table --items FILE ...`."
    if "image" in missing:
        sentence += (
            f" Put pictures into {root / domains[0] / 'images'}, named after the items, and make their vectors with "
            f"`{command('encode', name, root)}`, or add your own as a file with the columns item_id and vector."
        )
    return sentence
