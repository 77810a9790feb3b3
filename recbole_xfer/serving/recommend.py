"""Recommends items with a finished run: as a frame, or in a file that is written shard by shard."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from recbole_xfer.config.schema import check
from recbole_xfer.config.value_types import Count
from recbole_xfer.config.values import parse_values
from recbole_xfer.data.atomic import AtomicFormat
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, load
from recbole_xfer.files import locked, replacing
from recbole_xfer.log import logger, progress_bar
from recbole_xfer.serving.catalogue import make_catalogue
from recbole_xfer.serving.histories import Fields, Histories, read_ids
from recbole_xfer.serving.recommender import Recommender, Request

FORMATS = (".parquet", ".csv", ".jsonl")

SHARD = 20_000
"""Users whose recommendations are written at once; a killed process loses one shard."""

PARTS = ("valid", "test")


@dataclass(frozen=True)
class Wish:
    """What is recommended to whom.

    Attributes:
        k: the number of items for each user.
        histories: users with histories: a file, a list of lists, a dictionary of lists by user, or a frame (see
            :meth:`Histories.of`); None for the users of the run's data.
        users: ids of users of the data, or a file of them.
        part: ``valid`` or ``test`` for the histories before the targets of this split, which evaluation ranks.
        items: domains whose items alone are ranked, by their features (see :func:`make_catalogue`).
        domain: the domain of the run whose items alone are ranked.
        allowed, forbidden: ids of items that alone, or that never, are recommended, or files of them.
        columns: columns of the .item files that are added, such as ``text``.
        approximate: whether the best items are searched approximately, with faiss; the notes have the measured recall.
    """

    k: int = 10
    histories: Any = None
    users: Collection[str] | Path | None = None
    part: str | None = None
    items: str | None = None
    domain: str | None = None
    allowed: Collection[str] | Path | None = None
    forbidden: Collection[str] | Path | None = None
    columns: Sequence[str] = ()
    approximate: bool = False


def recommendations(
    run: Experiment | str | Path, wish: Wish, overrides: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """The recommendations of a run as a frame, with one row for each user and rank.

    Args:
        run: loaded, or its folder.
        wish: what is recommended to whom.
        overrides: keys of evaluation and places, such as ``mask_history``, ``data_path`` and ``use_gpu``.

    Returns:
        The user, ``rank`` from 1, the item, ``score``, and the columns of the wish.

    Raises:
        XferError: if the wish names unknown items, users or columns, or k is invalid.
    """
    asked = Asked.of(run, wish, overrides)
    for note in asked.request.notes:
        logger.warning(note)
    return asked.frame(0, len(asked.request))


def write_recommendations(
    run: Experiment | str | Path, output: str | Path, wish: Wish, overrides: Mapping[str, Any] | None = None
) -> list[str]:
    """Writes what :func:`recommendations` returns to a .parquet, .csv or .jsonl file; an interrupted call is resumed.

    Returns:
        What was written, as sentences.

    Raises:
        XferError: for an unknown format, and as :func:`recommendations`.
    """
    output = Path(output)
    if output.suffix not in FORMATS:
        raise XferError(f"--output={output} has an unknown format. Name a file *{', *'.join(FORMATS)}.")
    asked = Asked.of(run, wish, overrides)
    cache = output.parent / f".{output.name}.shards-{asked.digest()}"
    with locked(output):
        for other in output.parent.glob(f".{output.name}.shards-*"):  # of a killed call with another wish
            if other != cache:
                shutil.rmtree(other, ignore_errors=True)
        rows = _write(asked.shards(cache), output)
        shutil.rmtree(cache, ignore_errors=True)
    return [f"{rows:,} recommendations for {len(asked.request):,} users: {output}", *asked.request.notes]


@dataclass(frozen=True)
class Asked:
    """A wish with the run that fulfils it."""

    wish: Wish
    recommender: Recommender
    request: Request
    columns: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, run: Experiment | str | Path, wish: Wish, overrides: Mapping[str, Any] | None) -> Asked:
        """Loads the run and what the wish names, and checks the wish."""
        check("k", wish.k, Count)
        if sum(value is not None for value in (wish.histories, wish.users, wish.part)) > 1:
            raise XferError("histories, users and part exclude one another. Give one of them, or none for all users.")
        if wish.part not in (None, *PARTS):
            raise XferError(f"part={wish.part} is unknown. Choose {' or '.join(PARTS)}.")
        experiment = run if isinstance(run, Experiment) else load(run, overrides)
        config = experiment.config
        fields = Fields.of(config)
        allowed, forbidden = (_ids(ids, fields.item) for ids in (wish.allowed, wish.forbidden))
        catalogue = make_catalogue(experiment, wish.items, wish.domain, allowed, forbidden)
        if wish.k > len(catalogue.candidates):
            raise XferError(f"k={wish.k} exceeds the {len(catalogue.candidates):,} items that may be recommended.")
        columns = catalogue.columns(wish.columns, AtomicFormat.of(config))
        default = config["mask_history"] if wish.part else True
        masked = parse_values(overrides).get("mask_history", default)
        recommender = Recommender(experiment, catalogue, masked, wish.approximate)
        if wish.histories is not None:
            request = recommender.for_histories(Histories.of(wish.histories, fields))
        elif wish.part is not None:
            request = recommender.for_targets(wish.part)
        else:
            request = recommender.for_users(_ids(wish.users, fields.user))
        if wish.approximate:
            share, users = recommender.recall(request, wish.k)
            request.notes.append(f"The search is approximate: recall@{wish.k} is {share:.4f} for {users:,} users.")
        return cls(wish, recommender, request, columns)

    def frame(self, first: int, end: int) -> pd.DataFrame:
        """The recommendations for some of the users."""
        ranked = self.recommender.rank(self.request, self.wish.k, first, end)
        if not self.columns:
            return ranked
        place = self.recommender.catalogue.tokens.get_indexer(pd.Index(ranked.iloc[:, 2], dtype=object))
        return ranked.assign(**{name: values[place] for name, values in self.columns.items()})

    def shards(self, cache: Path) -> Iterator[pa.Table]:
        """Yields the recommendations of :data:`SHARD` users after another; writes each to ``cache`` or reads it."""
        users = len(self.request)
        with progress_bar(total=users, desc="Recommending", unit="users", unit_scale=True) as progress:
            for first in range(0, users, SHARD):
                path, end = cache / f"{first}.parquet", min(first + SHARD, users)
                if not path.is_file():
                    with replacing(path) as temporary:
                        pq.write_table(pa.Table.from_pandas(self.frame(first, end), preserve_index=False), temporary)
                progress.update(end - first)
                yield pq.read_table(path)

    def digest(self) -> str:
        """Equal for equal recommendations: of the parameters, the data, the users and the items."""
        wish, request = self.wish, self.request
        catalogue, config = self.recommender.catalogue, self.recommender.config
        values = [
            wish.k,
            list(wish.columns),
            wish.approximate,
            bool(config["mask_history"]),
            config["data_digest"],
            len(request),
        ]
        found = hashlib.blake2b(json.dumps(values).encode(), digest_size=8)
        for column in (request.users, catalogue.tokens):
            found.update(pd.util.hash_array(np.asarray(column, dtype=object)).tobytes())
        for numbers in (
            request.row,
            request.part.sequences.items,
            request.part.sequences.offsets,
            catalogue.candidates,
        ):
            found.update(np.ascontiguousarray(numbers).tobytes())
        for name, value in sorted(self.recommender.model.state_dict().items()):
            found.update(name.encode())
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()


def _ids(ids: Collection[str] | Path | None, column: str) -> Collection[str] | None:
    """The ids, or those in a file."""
    return read_ids(ids, column) if isinstance(ids, Path) else ids


def _write(shards: Iterator[pa.Table], output: Path) -> int:
    """Joins shards in one file; returns the number of rows."""
    rows = 0
    with replacing(output) as temporary:
        if output.suffix == ".jsonl":
            with temporary.open("w", encoding="utf-8") as file:
                for shard in shards:
                    shard.to_pandas().to_json(file, orient="records", lines=True, force_ascii=False)
                    rows += len(shard)
            return rows
        writer = None
        try:
            for shard in shards:
                if writer is None:
                    make = pq.ParquetWriter if output.suffix == ".parquet" else pyarrow.csv.CSVWriter
                    writer = make(temporary, shard.schema)
                writer.write_table(shard.cast(writer.schema) if output.suffix == ".parquet" else shard)
                rows += len(shard)
        finally:
            if writer is not None:
                writer.close()
    return rows
