"""The plan of a study with every configuration checked: tables, their rows, and the cells that must run.

A table has one dataset, one setting and one fraction of users trained. A cell is one run: a row of a table with a seed,
or the model of a row trained on one domain alone. Cells of several tables with one configuration are one run.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from recbole_xfer.comparison.plan import (
    TableKeys,
    alone_keys,
    check_rows,
    histories_of,
    load_plan,
    row_keys,
    shares_of,
    tables_of,
)
from recbole_xfer.comparison.published import Published
from recbole_xfer.comparison.table import distinct_labels
from recbole_xfer.config.config import XferConfig
from recbole_xfer.config.plain import plain
from recbole_xfer.config.values import split_domains
from recbole_xfer.data.domain_folder import check_domain
from recbole_xfer.errors import XferError, did_you_mean
from recbole_xfer.experiment import label
from recbole_xfer.search.space import read_space

STUDY_KEYS = ("datasets", "settings", "ensembles", "baseline", "published")
"""Keys of plans that are more than one table of several models."""


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        keys: of its runs, without the seed.
        reference: number of the row whose single-domain models it is compared with, if any.
        baseline: label of the row with which it is compared, where it is not that of the table.
        space: a file, or True for the model's own; None if the row is not searched.
        trials: number of configurations to draw; None for all of the space.
        failure: why its search failed.
        alone_keys: those that replace ``keys`` in its single-domain models.
    """

    label: str
    keys: Mapping[str, Any]
    reference: int | None = None
    baseline: str | None = None
    space: str | bool | None = None
    trials: int | None = None
    failure: str | None = None
    alone_keys: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TablePlan:
    """A table.

    Attributes:
        name: its dataset, setting and fraction of users trained.
        baseline: label of the row with which the others are compared.
        metrics: that are measured, such as ``ndcg@10``.
        notes: further parts of the caption.
        curve: its dataset and setting.
        share: the fraction, where the plan has several.
        ensembles: numbers of the rows that each further row joins, by its name.
    """

    name: str
    dataset: str
    rows: Sequence[Row]
    baseline: str | None
    metrics: Collection[str]
    notes: Sequence[str] = ()
    curve: str = ""
    share: float | None = None
    ensembles: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def only(self, kept: Sequence[int]) -> TablePlan:
        """The table with some of its rows, by their numbers, without comparisons and ensembles that need the others."""
        place: dict[int | None, int] = {number: index for index, number in enumerate(kept)}
        rows = [replace(row, reference=place.get(row.reference)) for row in (self.rows[number] for number in kept)]
        ensembles = {
            name: [place[number] for number in members]
            for name, members in self.ensembles.items()
            if place.keys() >= set(members)
        }
        return replace(self, rows=rows, ensembles=ensembles)


class Place(NamedTuple):
    """Where a run belongs: a table, the number of a row, a domain if it is trained alone, and a seed."""

    table: str
    row: int
    domain: str | None
    seed: int


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        name: in messages, without its seed.
        keys: its configuration.
        histories: values of ``mask_history`` with which it is measured, the first that of its keys; or ``[None]``.
    """

    name: str
    keys: Mapping[str, Any]
    histories: Sequence[bool | None] = (None,)

    def __str__(self) -> str:
        return f"{self.name}, seed {self.keys['seed']}"

    @property
    def identity(self) -> str:
        """Equal for cells with equal keys."""
        return json.dumps(plain(self.keys), sort_keys=True)


@dataclass(frozen=True)
class StudyPlan:
    """All tables, and the seeds of each row.

    Attributes:
        histories: as in :class:`Cell`.
        published: figures of a paper.
        several: whether the plan is more than one table of several models.
    """

    tables: Sequence[TablePlan]
    seeds: Sequence[int]
    histories: Sequence[bool | None]
    published: Published | None
    several: bool

    def cells(self) -> dict[Place, Cell]:
        """The cell of each place, without rows whose search failed; those of single domains are the last."""
        joint: dict[Place, Cell] = {}
        alone: dict[Place, Cell] = {}
        for table in self.tables:
            references = {row.reference for row in table.rows} - {None}
            for number, row in enumerate(table.rows):
                if row.failure:
                    continue
                for seed in self.seeds:
                    place = Place(table.name, number, None, seed)
                    joint[place] = self._cell(f"{row.label} on {table.name}", row.keys, seed)
                    for domain in split_domains(table.dataset) if number in references else ():
                        name = f"{row.label} on {domain} alone of {table.name}"
                        keys = {**row.keys, **row.alone_keys, "single_domain": domain}
                        alone[place._replace(domain=domain)] = self._cell(name, keys, seed)
        return {**joint, **alone}

    def _cell(self, name: str, keys: Mapping[str, Any], seed: int) -> Cell:
        return Cell(name, {**keys, "seed": seed}, self.histories)


def read_plan(
    file: str | Path, overrides: Mapping[str, Any] | None = None, config_files: Iterable[str | Path] = ()
) -> StudyPlan:
    """Reads a plan and checks every row of every table before anything runs.

    Raises:
        XferError: for the first mistake.
    """
    narrowed = {"dataset", "datasets", "settings", "train_share"} & set(overrides or {})
    return make_plan(load_plan(Path(file), config_files, overrides), narrowed=bool(narrowed))


def make_plan(plan: dict[str, Any], narrowed: bool = False) -> StudyPlan:
    """Makes the tables of a plan's content, and checks every row.

    Args:
        plan: the keys of a plan; see docs/studies.md.
        narrowed: whether it may have published figures of tables that were left out.

    Raises:
        XferError: for the first mistake.
    """
    histories, shares = histories_of(plan), shares_of(plan)
    tables = [_table(table, plan) for table in tables_of(plan, shares)]
    metrics = {metric for table in tables for metric in table.metrics}
    published = Published.of(plan.get("published"), None if narrowed else [table.name for table in tables], metrics)
    several = len(histories) > 1 or shares != [None] or any(plan.get(key) for key in STUDY_KEYS)
    return StudyPlan(tables, plan.get("seeds") or [2020], histories, published, several)


def _table(table: TableKeys, plan: Mapping[str, Any]) -> TablePlan:
    """One table of a plan."""
    rows, shared = plan["rows"], table.keys
    against = check_rows(shared, rows)
    configs = [XferConfig(overrides=row_keys(shared, row)) for row in rows]
    for row, config in zip(rows, configs, strict=True):
        _check_files(row, config)
    labels = _labels(rows, configs)
    ensembles = _ensembles(plan.get("ensembles") or {}, rows, labels)

    def baseline_of(keys: Mapping[str, Any]) -> str | None:
        name = keys.get("baseline")
        return name if name is None or name in ensembles else labels[_row_named("baseline", name, rows, labels)]

    made = [
        Row(
            one,
            row_keys(shared, row),
            reference,
            baseline_of(row),
            row.get("search"),
            row.get("trials", plan.get("trials")),
            alone_keys=alone_keys(shared, row),
        )
        for row, one, reference in zip(rows, labels, against, strict=True)
    ]
    whole = TablePlan(
        table.name,
        str(shared["dataset"]),
        made,
        baseline_of(plan),
        _metrics(configs),
        curve=table.curve,
        share=table.share,
        ensembles=ensembles,
    )
    chosen = plan.get("only_rows")
    return whole.only(_rows_named("only_rows", chosen, rows, labels)) if chosen else whole


def _check_files(row: Mapping[str, Any], config: XferConfig) -> None:
    """Raises XferError if a domain of a row, or its file of a space, does not exist, or the file is invalid."""
    for domain in split_domains(str(config["dataset"])) + split_domains(config["source"] or config["dataset"]):
        check_domain(Path(config["data_path"]).parent / domain)
    if isinstance(row.get("search"), str):
        read_space(Path(row["search"]))


def _labels(rows: Sequence[Mapping[str, Any]], configs: Sequence[XferConfig]) -> list[str]:
    """The labels of rows: their names, or their models with the keys in which they differ."""
    names = [row.get("name") or label(config) for row, config in zip(rows, configs, strict=True)]
    labels = distinct_labels(names, [row_keys({}, row) for row in rows])
    twice = next((name for name in labels if labels.count(name) > 1), None)
    if twice is not None:
        raise XferError(f"Several rows are called '{twice}'. Give each a name of its own, such as 'name: {twice} 2'.")
    return labels


def _ensembles(
    given: Mapping[str, Sequence[str]], rows: Sequence[Mapping[str, Any]], labels: Sequence[str]
) -> dict[str, list[int]]:
    """The numbers of the rows that each ensemble joins, by its name.

    Raises:
        XferError: if an ensemble has the label of a row, or a member names no row or one twice.
    """
    ensembles: dict[str, list[int]] = {}
    for name, members in given.items():
        if name in labels:
            raise XferError(f"ensembles: '{name}' is also the label of a row. Choose another name.")
        ensembles[name] = _rows_named(f"ensembles.{name}", members, rows, labels)
    return ensembles


def _rows_named(key: str, names: Sequence[str], rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> list[int]:
    """The numbers of the rows that a key names (see :func:`_row_named`); raises XferError if it names one twice."""
    numbers = [_row_named(key, name, rows, labels) for name in names]
    if len({*numbers}) < len(numbers):
        raise XferError(f"{key} names a row twice: {', '.join(names)}. Name each row once.")
    return numbers


def _row_named(key: str, name: str, rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> int:
    """The number of the row that a key names, by its label, its name or its model."""
    if name in labels:
        return labels.index(name)
    found = [number for number, row in enumerate(rows) if name in (row.get("name"), row["model"])]
    if len(found) != 1:
        named = ", ".join(labels[number] for number in found)
        several = f"names {len(found)} rows ({named}); give its label" if found else "names no row"
        raise XferError(f"{key}={name} {several}{did_you_mean(name, labels)}")
    return found[0]


def _metrics(configs: Sequence[XferConfig]) -> set[str]:
    """Names of the metrics that are measured, such as ``ndcg@10`` and ``gauc``."""
    names: set[str] = set()
    for config in configs:
        metrics = [config["metrics"]] if isinstance(config["metrics"], str) else config["metrics"]
        lengths = [config["topk"]] if isinstance(config["topk"], int) else config["topk"]
        names |= {f"{metric.lower()}{end}" for metric in metrics for end in ("", *(f"@{k}" for k in lengths))}
    return names
