"""Finds what an earlier run has encoded, and joins it with what is new."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_xfer.data.vectors import allocate, read_columns, read_metadata, read_vectors
from recbole_xfer.prepare.shards import Inputs, Shard

COLUMNS = ["item_id", "digest", "note"]


@dataclass(frozen=True)
class Previous:
    """What an earlier run with equal settings encoded.

    Attributes:
        table: item_id, digest and note of each vector.
        path: the file of the vectors.
        dropped: item_id, digest and note of each item whose value, or a part of it, cannot be encoded.
        facts: the facts of the encoder.
    """

    table: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=COLUMNS, dtype=object))
    path: Path = Path()
    dropped: list[list[str]] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, settings: str) -> Previous:
        """Reads what was encoded with these settings; empty if the file has other settings, or does not exist."""
        metadata = read_metadata(path) if path.is_file() else {}
        table = read_columns(path, COLUMNS) if metadata.get("settings") == settings else None
        return cls() if table is None else cls(table, path, read_dropped(metadata), json.loads(metadata["facts"]))

    @cached_property
    def digests(self) -> dict[str, str]:
        """The digest of each item's value."""
        found = {item: digest for item, digest, _ in self.dropped}
        return found | dict(zip(self.table["item_id"], self.table["digest"], strict=True))

    def kept(self, inputs: Inputs) -> pd.DataFrame:
        """The rows of the table that have a value of the inputs, one for each value."""
        return self.table[self.table["digest"].isin(inputs.digests)].drop_duplicates("digest")

    def new_values(self, inputs: Inputs) -> pd.DataFrame:
        """The distinct values, with their digests, that were not encoded before; larger ones first."""
        table = pd.DataFrame({"digest": inputs.digests, "size": inputs.sizes, "value": inputs.values})
        table = table.drop_duplicates("digest")
        table = table[~table["digest"].isin(self.digests.values())]
        return table.sort_values("size", ascending=False, kind="stable")


def read_dropped(metadata: dict[str, str]) -> list[list[str]]:
    """The items in the metadata whose value, or a part of it, cannot be encoded: item_id, digest and note."""
    return json.loads(metadata.get("dropped", "[]"))


@dataclass(frozen=True)
class Result:
    """What is known of the items.

    Attributes:
        vectors: [N, D]; None if no value could be encoded.
        has: whether the item has a vector, bool [N].
        notes: empty, or what is to say about the item's value, [N].
        facts: the facts of the encoder.
    """

    vectors: np.ndarray | None
    has: np.ndarray
    notes: list[str]
    facts: dict[str, str]


def join(inputs: Inputs, previous: Previous, digests: Sequence[str], made: Iterator[Shard], kind: np.dtype) -> Result:
    """Gives each item the vector of its value: a previous one, or one of the new shards of these digests."""
    kept = previous.kept(inputs)
    known = [*kept["digest"], *digests]
    place = pd.Index(known, dtype=object).get_indexer(inputs.digests)  # -1: could not be encoded before
    order = np.argsort(place, kind="stable")
    ordered = place[order]
    notes = {digest: note for _, digest, note in previous.dropped}
    vectors, has, facts, start = None, np.zeros(len(place), dtype=bool), dict(previous.facts), 0
    for shard in chain(_kept_vectors(previous, kept), made):
        end = start + len(shard.notes)
        rows = order[slice(*np.searchsorted(ordered, (start, end)))]
        if vectors is None:
            vectors = allocate((len(place), shard.vectors.shape[1]), kind)
        vectors[rows] = shard.vectors[place[rows] - start]
        has[rows] = ~np.isnan(shard.vectors[place[rows] - start, 0])
        notes |= dict(zip(known[start:end], shard.notes, strict=True))
        facts |= shard.facts
        start = end
    return Result(vectors, has, [notes[digest] for digest in inputs.digests], facts)


def _kept_vectors(previous: Previous, kept: pd.DataFrame) -> Iterator[Shard]:
    """The previous vectors as a shard; none if nothing is kept."""
    if not kept.empty:
        table = read_vectors(previous.path, np.array(["[PAD]", *kept["item_id"]], dtype=object))
        yield Shard(table.values[1:], kept["note"].tolist(), previous.facts)
