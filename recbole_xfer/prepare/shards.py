"""Encodes inputs shard by shard: a killed run loses one shard at most, and resumes with the others.

The same shards have the same vectors, whether one process computes them one after another or Ray on several machines.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from tqdm import tqdm

from recbole_xfer.files import replacing
from recbole_xfer.log import progress_bar
from recbole_xfer.prepare.model_files import ModelFiles

CUT = "cut"
"""The note of an input that is longer than what the encoder reads; it has a vector."""


@dataclass(frozen=True)
class Inputs:
    """What is encoded for the items of a domain.

    Attributes:
        items: ids, [N].
        values: each item's text, or the paths of its pictures, [N].
        digests: equal for equal values, [N].
        sizes: larger values are encoded first, [N]; a shard then has values of similar sizes.
        source: where the values are from, for the metadata.
    """

    items: list[str]
    values: list[Any]
    digests: list[str]
    sizes: list[int]
    source: str


class Encoder(Protocol):
    """A loaded encoder: values to vectors [N, D], NaN for a value that cannot be encoded, and a note for each value."""

    facts: dict[str, str]
    """What decides the vectors beside the recipe's settings."""

    def __call__(self, values: list[Any], progress: tqdm, /) -> tuple[np.ndarray, list[str]]: ...


class Recipe(Protocol):
    """How values become vectors; small, so that it can be sent to other machines."""

    unit: ClassVar[str]
    shard: ClassVar[int]

    @property
    def kind(self) -> str: ...

    @property
    def encoder(self) -> str: ...

    @property
    def device(self) -> str: ...

    def find(self) -> ModelFiles: ...

    def settings(self) -> dict[str, str]: ...

    def load(self, files: ModelFiles) -> Encoder: ...


@dataclass(frozen=True)
class Shard:
    """Vectors [n, D] of some values, a note for each, and the facts of their encoder."""

    vectors: np.ndarray
    notes: list[str]
    facts: dict[str, str]

    def to_bytes(self) -> bytes:
        """The shard as the content of a file."""
        content = io.BytesIO()
        facts = np.array(list(self.facts.items()), dtype=str)
        np.savez(content, vectors=self.vectors, notes=np.array(self.notes, dtype=str), facts=facts)
        return content.getvalue()

    @classmethod
    def from_bytes(cls, content: bytes) -> Shard:
        """The shard in the content of a file."""
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            return cls(found["vectors"], found["notes"].tolist(), dict(found["facts"].tolist()))


Encoded = Iterator[tuple[int, Shard]]
"""Shards by the index of their first value."""

Work = Callable[[Recipe, ModelFiles, list[Any], list[int], tqdm], Encoded]
"""Encodes the shards of ``values`` that begin at the given indices, in any order."""


def shards(
    recipe: Recipe, files: ModelFiles, values: list[Any], cache: Path, title: str, work: Work
) -> Iterator[Shard]:
    """Yields the shards of ``values`` in order; writes each to ``cache``, or reads it from there."""
    starts = range(0, len(values), recipe.shard)
    missing = [start for start in starts if not (cache / f"{start}.npz").is_file()]
    with progress_bar(total=len(values), desc=title, unit=recipe.unit, unit_scale=True) as progress:
        progress.update(len(values) - sum(len(values[start : start + recipe.shard]) for start in missing))
        if missing:
            for start, shard in work(recipe, files, values, missing, progress):
                with replacing(cache / f"{start}.npz") as temporary:
                    temporary.write_bytes(shard.to_bytes())
    for start in starts:
        yield Shard.from_bytes((cache / f"{start}.npz").read_bytes())


def one_after_another(
    recipe: Recipe, files: ModelFiles, values: list[Any], starts: list[int], progress: tqdm
) -> Encoded:
    """Encodes shards in this process."""
    encoder = recipe.load(files)
    for start in starts:
        yield start, Shard(*encoder(values[start : start + recipe.shard], progress), encoder.facts)
