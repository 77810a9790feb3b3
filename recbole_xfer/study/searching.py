"""Searches rows of a study on the validation split before their cells run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from recbole_xfer.errors import XferError
from recbole_xfer.log import logger
from recbole_xfer.search.record import Search
from recbole_xfer.study.plan import Row, StudyPlan, TablePlan


def searched(plan: StudyPlan) -> StudyPlan:
    """The plan in which each row with a space has the keys of its best trial, and captions say what was searched.

    A search uses the first seed; all seeds then get its keys. A finished search is read, an interrupted one resumed.
    """
    if not any(row.space for table in plan.tables for row in table.rows):
        return plan
    return replace(plan, tables=[_searched_table(table, plan.seeds[0]) for table in plan.tables])


def _searched_table(table: TablePlan, seed: int) -> TablePlan:
    """A table after the searches of its rows."""
    rows: list[Row] = []
    sizes: dict[str, list[str]] = {}
    for row in table.rows:
        found, trials = _search(row, table, seed) if row.space else (row, 0)
        rows.append(found)
        sizes.setdefault(f"searched on validation, {trials} trials" if trials else "as given", []).append(row.label)
    return replace(table, rows=rows, notes=[*table.notes, *(_note(size, labels) for size, labels in sizes.items())])


def _note(size: str, labels: Sequence[str]) -> str:
    each = " each" if len(labels) > 1 and size != "as given" else ""
    return f"{size}{each}: {', '.join(labels)}"


def _search(row: Row, table: TablePlan, seed: int) -> tuple[Row, int]:
    """A row with the keys of its best trial, or why there is none; and the number of trials."""
    logger.info(f"Searching {row.label} on {table.name}")
    space = row.space if isinstance(row.space, str) else None
    try:
        search = _tune(space, row.trials, {**row.keys, "seed": seed})
    except XferError as error:
        return replace(row, failure=str(error)), row.trials or 0
    return replace(row, keys={**row.keys, **search.best.keys}), len(search.configurations)


def _tune(space: str | None, trials: int | None, overrides: dict[str, Any]) -> Search:
    from recbole_xfer.search.search import tune  # imports Ray, which takes seconds

    return tune(space, trials, overrides=overrides)
