"""Rows of a study that join the runs of other rows, seed by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recbole_xfer.comparison.table import Failure
from recbole_xfer.ensemble import join_runs
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import Result, weights_text
from recbole_xfer.log import logger
from recbole_xfer.study.cells import Outcome


@dataclass(frozen=True)
class JoinedRow:
    """A row whose results are those of ensembles.

    Attributes:
        results: one for each seed whose runs can be joined.
        failed: the other seeds.
        problems: why runs that have finished cannot be joined.
        note: what the row is, for the caption; empty without results.
    """

    results: Sequence[Result]
    failed: Sequence[Failure]
    problems: Sequence[str]
    note: str


def join_row(
    name: str,
    table: str,
    members: Mapping[str, Sequence[Outcome]],
    seeds: Sequence[int],
    number: int,
    keys: Mapping[str, Any],
) -> JoinedRow:
    """Joins the runs of rows, with weights of their scores that are chosen for each seed on the validation split.

    Args:
        name: of the joined row.
        table: its table, for messages.
        members: the outcomes of each row by its label, one per seed.
        seeds: of the outcomes.
        number: of the results of an outcome, which has one for each history.
        keys: of evaluation.
    """
    results, weights, failed, problems = [], [], [], []
    for seed, outcomes in zip(seeds, zip(*members.values(), strict=True), strict=True):
        missing = [label for label, outcome in zip(members, outcomes, strict=True) if outcome.failure]
        if missing:
            failed.append(Failure(name, seed, f"{', '.join(missing)} failed"))
            continue
        logger.info(f"{name}, seed {seed}: joining {', '.join(members)}")
        try:
            result, chosen = join_runs([outcome.results[number].folder for outcome in outcomes], keys, name)
        except XferError as error:
            failed.append(Failure(name, seed, str(error)))
            problems.append(f"{name} on {table}, seed {seed} failed: {error}")
            continue
        results.append(result)
        weights.append(chosen)
    by_label = [dict(zip(members, some, strict=True)) for some in weights]
    return JoinedRow(results, failed, problems, f"{name}: {weights_text(by_label)}" if by_label else "")
