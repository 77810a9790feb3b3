"""The files of one domain, as they are read for a check, and the facts about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.atomic import AtomicFormat, read_atomic_file, read_header
from recbole_xfer.data.atomic_writer import check_domain_name
from recbole_xfer.data.domain_folder import check_domain
from recbole_xfer.data.histories import Sequences, ranges
from recbole_xfer.data.splits import leave_one_out
from recbole_xfer.data.vectors import VectorTable, find_vectors, read_metadata, read_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.prepare.pictures import FOLDER, pictures_by_item
from recbole_xfer.prepare.shards import CUT

DATED = 1e8
"""Times below this are positions in a history, not seconds since 1970."""

POPULAR = 0.2
"""Share of items that are called popular."""

EXAMPLES = 6
"""Number of items that are shown."""

PAIRS = 100_000
"""Maximal number of successive items that are compared."""


@dataclass(frozen=True)
class Example:
    """An item as a reader would see it."""

    item: str
    interactions: int
    text: str | None
    price: float | None
    pictures: list[Path]


@dataclass(frozen=True)
class Domain:
    """A domain's files.

    Attributes:
        name: of the domain.
        folder: of its files.
        user, item: tokens of each interaction, in order of time, [M].
        time: of each interaction, [M]; None without a column of times.
        items: the .item file with the tokens as its index; empty without one.
        vectors: of ``text`` and ``image`` for the items with interactions, where there are any.
        metadata: of the files of vectors.
        pictures: the paths of each item's pictures.
    """

    name: str
    folder: Path
    user: pd.Series
    item: pd.Series
    time: pd.Series | None
    items: pd.DataFrame
    vectors: Mapping[str, VectorTable]
    metadata: Mapping[str, Mapping[str, str]]
    pictures: Mapping[str, list[Path]]

    @classmethod
    def read(cls, name: str, keys: Mapping[str, Any]) -> Domain:
        """Reads a domain's files.

        Args:
            name: of the domain.
            keys: of the configuration, such as ``data_path`` and the names of columns.

        Raises:
            XferError: if a file is missing or invalid.
        """
        check_domain_name(name)
        config = XferConfig("Pop", name, overrides=dict(keys))
        folder, form = Path(config["data_path"]), AtomicFormat.of(config)
        check_domain(folder)
        user, item, time = (config[key] for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD"))
        path = folder / f"{name}.inter"
        columns = read_header(path, form)
        for column, key in ((user, "USER_ID_FIELD"), (item, "ITEM_ID_FIELD")):
            if column not in columns:
                raise XferError(
                    f"{path} has no column '{column}' (columns: {', '.join(columns)}). Rename the column or "
                    f"set --{key}."
                )
        frame = read_atomic_file(path, {user, item, time}, form)
        if time in frame:
            frame = frame.sort_values(time, kind="stable", ignore_index=True)
        items = _items(folder / f"{name}.item", form)
        tokens = np.array(["[PAD]", *frame[item].dropna().unique()], dtype=str)
        paths = {kind: file for kind in ("text", "image") if (file := find_vectors(folder, name, kind))}
        return cls(
            name=name,
            folder=folder,
            user=frame[user],
            item=frame[item],
            time=frame.get(time),
            items=items,
            vectors={kind: read_vectors(path, tokens) for kind, path in paths.items()},
            metadata={kind: read_metadata(path) for kind, path in paths.items() if path.suffix == ".parquet"},
            pictures=pictures_by_item(folder / FOLDER),
        )

    @cached_property
    def sequences(self) -> Sequences:
        """The histories."""
        return Sequences.from_interactions(pd.factorize(self.user)[0], pd.factorize(self.item)[0])

    @cached_property
    def counts(self) -> pd.Series:
        """Number of interactions of each item, most first."""
        return self.item.value_counts(sort=True)

    @property
    def dated(self) -> bool:
        """Whether times are seconds since 1970."""
        return self.time is not None and bool(self.time.max() >= DATED)

    @property
    def listed(self) -> pd.DataFrame:
        """The rows of the .item file whose item has an interaction."""
        return self.items[self.items.index.isin(self.counts.index)]

    def present(self, column: str) -> int:
        """Number of items with interactions that have a value in a column of the .item file."""
        return int(self.listed[column].notna().sum()) if column in self.items else 0

    def examples(self) -> list[Example]:
        """Items from the most popular to the rarest, those with a picture first."""
        with_picture = self.counts[self.counts.index.isin(list(self.pictures))]
        chosen = with_picture if len(with_picture) >= EXAMPLES else self.counts
        chosen = chosen.iloc[np.unique(np.linspace(0, len(chosen) - 1, EXAMPLES).astype(int))]
        return [
            Example(
                item=str(item),
                interactions=int(count),
                text=self._value(item, "text"),
                price=self._value(item, "price"),
                pictures=self.pictures.get(str(item), []),
            )
            for item, count in chosen.items()
        ]

    def _value(self, item: Any, column: str) -> Any:
        """A value of the .item file; None where there is none."""
        if column not in self.items or item not in self.items.index:
            return None
        value = self.items.at[item, column]
        return None if pd.isna(value) else value


def _items(path: Path, form: AtomicFormat) -> pd.DataFrame:
    """The .item file, one row per item; an empty table without the file."""
    if not path.is_file():
        return pd.DataFrame()
    frame = read_atomic_file(path, form=form)
    if form.item_id not in frame:
        raise XferError(f"{path} has no column '{form.item_id}'. Rename the column of item ids.")
    return frame.drop_duplicates(form.item_id).set_index(form.item_id)


@dataclass(frozen=True)
class Facts:
    """What is in a domain, in numbers; counts of features are of items with interactions.

    Attributes:
        density: share of the pairs of a user and an item that are interactions.
        first, last: days of the first and the last interaction; None where times are no dates.
        history_median, history_longest: number of items in a history.
        repeats: share of the interactions with an item that the user had interacted with before.
        popular_share: share of the interactions with the most popular fifth of the items.
        test_targets: last items of users with at least three interactions (leave one out).
        cold_targets: those whose item no training interaction has.
        cut_texts: texts that are longer than their encoder reads; None where this is unknown.
        price: lowest, median and highest price; None without prices.
        text_likeness, image_likeness: of successive items (see :func:`likeness`); None without vectors of two of them.
    """

    name: str
    users: int
    items: int
    interactions: int
    density: float
    first: str | None
    last: str | None
    history_median: float
    history_longest: int
    repeats: float
    popular_share: float
    test_targets: int
    cold_targets: int
    texts: int
    text_vectors: int
    cut_texts: int | None
    pictures: int
    image_vectors: int
    prices: int
    price: tuple[float, float, float] | None
    text_likeness: float | None
    image_likeness: float | None

    @classmethod
    def of(cls, domain: Domain) -> Facts:
        """Counts a domain."""
        histories, counts = domain.sequences, domain.counts
        lengths = histories.ends - histories.starts
        first, last = (_day(domain.time.min()), _day(domain.time.max())) if domain.dated else (None, None)  # type: ignore[union-attr]
        targets, cold = _held_out(histories)
        prices = domain.listed["price"].dropna() if domain.present("price") else None
        cut = domain.metadata.get("text", {}).get(CUT)
        return cls(
            name=domain.name,
            users=len(histories),
            items=len(counts),
            interactions=len(domain.item),
            density=len(domain.item) / (len(histories) * len(counts)),
            first=first,
            last=last,
            history_median=float(np.median(lengths)),
            history_longest=int(lengths.max()),
            repeats=float(histories.repeated(np.arange(len(histories.items))).mean()),
            popular_share=float(counts.iloc[: max(1, round(POPULAR * len(counts)))].sum() / len(domain.item)),
            test_targets=targets,
            cold_targets=cold,
            texts=domain.present("text"),
            text_vectors=_with_vectors(domain, "text"),
            cut_texts=None if cut is None else int(cut),
            pictures=int(counts.index.isin(list(domain.pictures)).sum()),
            image_vectors=_with_vectors(domain, "image"),
            prices=domain.present("price"),
            price=None if prices is None else (float(prices.min()), float(prices.median()), float(prices.max())),
            text_likeness=likeness(domain, "text"),
            image_likeness=likeness(domain, "image"),
        )


def likeness(domain: Domain, modality: str) -> float | None:
    """The mean cosine similarity of successive items of a user, minus that of random pairs of these items.

    Each dimension of the vectors is standardised first. A model that is pre-trained where successive items are similar
    expects the same of its target, so a source with a similar value is safer. At most :data:`PAIRS` pairs are compared,
    evenly spaced over all histories. None without vectors of two successive items.
    """
    table, histories = domain.vectors.get(modality), domain.sequences
    if table is None:
        return None
    within = np.ones(len(histories.items), dtype=bool)
    within[histories.starts] = False  # a history's first item follows none
    second = np.flatnonzero(within)
    pairs = histories.items[np.stack([second - 1, second])] + 1  # row 0 is padding
    pairs = pairs[:, table.present[pairs].all(axis=0)]
    if not pairs.shape[1]:
        return None
    pairs = pairs[:, np.unique(np.linspace(0, pairs.shape[1] - 1, PAIRS).astype(np.int64))]
    known = np.unique(pairs)
    values = np.asarray(table.values[known], dtype=np.float32)
    values -= values.mean(axis=0)
    values /= np.maximum(values.std(axis=0), 1e-12)
    values /= np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)
    first, following = np.searchsorted(known, pairs)
    chunks = range(0, len(first), 2**14)
    cosines = sum(float((values[first[i : i + 2**14]] * values[following[i : i + 2**14]]).sum()) for i in chunks)
    by_chance = values[first].mean(axis=0) @ values[following].mean(axis=0)
    return cosines / len(first) - float(by_chance)


def _held_out(histories: Sequences) -> tuple[int, int]:
    """Number of test targets (leave one out), and of those whose item is not trained on."""
    (first, end), _, test = leave_one_out(histories, "valid_and_test")
    trained = histories.items[ranges(first - 1, end)]
    targets = histories.items[ranges(*test)]
    return len(targets), int((~np.isin(targets, trained)).sum())


def _with_vectors(domain: Domain, modality: str) -> int:
    return int(domain.vectors[modality].present.sum()) if modality in domain.vectors else 0


def _day(seconds: float) -> str | None:
    """A day as 2018-09-30; None outside the years of the calendar."""
    try:
        return f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%d}"
    except (OverflowError, ValueError, OSError):
        return None
