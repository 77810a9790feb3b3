"""A study: a plan becomes cells, the cells become results, and the results become tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from recbole_xfer.comparison.curve import Curve
from recbole_xfer.comparison.joint import JointAgainstAlone, joint_against_alone
from recbole_xfer.comparison.table import Comparison, Failure
from recbole_xfer.config.values import split_domains, text_of
from recbole_xfer.errors import XferError, by_reason
from recbole_xfer.evaluation.result import Result
from recbole_xfer.study.cells import Outcome, run_cells
from recbole_xfer.study.ensembles import JoinedRow, join_row
from recbole_xfer.study.plan import Cell, Place, StudyPlan, TablePlan
from recbole_xfer.study.searching import searched


@dataclass(frozen=True)
class Study:
    """The tables of a plan.

    Attributes:
        tables: those with results.
        failures: rows with runs that failed, and tables whose results cannot be compared, in one line each.
        failed: number of runs that failed.
        cells: number of runs.
        curves: over the fractions of users trained, where the plan has several.
    """

    tables: Sequence[Comparison]
    failures: Sequence[str]
    failed: int
    cells: int
    curves: Sequence[Curve] = ()

    def check(self) -> None:
        """Raises XferError if a run failed, or a table could not be made."""
        if len(self.failures) == 1:
            raise XferError(self.failures[0])
        if self.failures:
            listed = "\n  ".join(self.failures)
            raise XferError(
                f"{self.failed} of {self.cells} runs failed. The same command tries what is missing again.\n  {listed}"
            )

    def as_dict(self) -> dict[str, Any]:
        """The content of the file of ``--result``: that of its only table, or of all tables."""
        tables = [table.as_dict() for table in self.tables]
        if len(tables) == 1 and not self.failures:
            return tables[0]
        curves = {"curves": [curve.as_dict() for curve in self.curves]} if self.curves else {}
        return {"tables": tables, **curves, "failures": list(self.failures)}


def run_study(plan: StudyPlan, workers: int | None = None) -> Study:
    """Searches the rows that ask for it, runs all cells, and makes the tables.

    An interrupted study resumes where it stopped; finished runs are only evaluated again.

    Args:
        plan: from :func:`recbole_xfer.study.plan.read_plan`.
        workers: see :func:`recbole_xfer.study.cells.run_cells`.
    """
    plan = searched(plan)
    cells = plan.cells()
    distinct = {cell.identity: cell for cell in cells.values()}
    outcomes = dict(zip(distinct, run_cells(list(distinct.values()), workers), strict=True))
    by_place = {place: outcomes[cell.identity] for place, cell in cells.items()}
    failures = [*_failed_searches(plan), *_failed_runs(distinct, outcomes)]
    tables: list[Comparison] = []
    by_share: dict[str, dict[float, Comparison]] = {}
    for table in plan.tables:
        for number in range(len(plan.histories)):
            maker = _Maker(plan, table, by_place, number)
            made, problems = maker.comparison()
            tables += made
            failures += problems
            if table.share is not None:
                for comparison in made:
                    by_share.setdefault(maker.name_of_curve(comparison), {})[table.share] = comparison
    failed = sum(outcome.failure is not None for outcome in outcomes.values())
    curves = [Curve(name, shares) for name, shares in by_share.items() if len(shares) > 1]
    return Study(tables, failures, failed, len(distinct), curves)


def _failed_searches(plan: StudyPlan) -> list[str]:
    """Why searches of rows failed."""
    failures = [
        (f"The search of {row.label} on {table.name}", row.failure)
        for table in plan.tables
        for row in table.rows
        if row.failure
    ]
    return by_reason(failures, "failed")


def _failed_runs(cells: Mapping[str, Cell], outcomes: Mapping[str, Outcome]) -> list[str]:
    """Why runs failed, one line for all seeds and rows with one reason."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for identity, cell in cells.items():
        failure = outcomes[identity].failure
        if failure is not None:
            seeds.setdefault((cell.name, failure), []).append(str(cell.keys["seed"]))
    failures = (
        (f"{name}, {'seed' if len(own) == 1 else 'seeds'} {', '.join(own)}", reason)
        for (name, reason), own in seeds.items()
    )
    return by_reason(failures, "failed")


@dataclass(frozen=True)
class _Maker:
    """Makes the comparison of a table from the outcomes of its cells, measured with one of the plan's histories."""

    plan: StudyPlan
    table: TablePlan
    outcomes: Mapping[Place, Outcome]
    number: int

    def comparison(self) -> tuple[list[Comparison], list[str]]:
        """The comparison, if there are results that can be compared; and why they cannot."""
        by_row = [self._results(number, None) for number in range(len(self.table.rows))]
        joined = [self._ensemble(name, rows) for name, rows in self.table.ensembles.items()]
        results = [result for row in (*by_row, *(row.results for row in joined)) for result in row]
        problems = [problem for row in joined for problem in row.problems]
        if not results:
            return [], problems
        masked = results[0].protocol.history_masked
        published = self.plan.published
        figures = published.rows(self.table.name, masked) if published else {}
        of_figures = [published.note()] if published and figures else []
        try:
            comparison = Comparison(
                results,
                self._joint(by_row),
                name=self._name(self.table.name, masked) if self.plan.several else "",
                baseline=self.table.baseline,
                own_baselines={row.label: row.baseline for row in self.table.rows if row.baseline},
                failed=[*self._failed(), *(failure for row in joined for failure in row.failed)],
                figures=figures,
                notes=[
                    *self.table.notes,
                    *self._repeats(results[0]),
                    *(row.note for row in joined if row.note),
                    *of_figures,
                ],
            )
        except XferError as error:
            return [], [*problems, str(error)]
        return [comparison], problems

    def name_of_curve(self, comparison: Comparison) -> str:
        """The name of the curve that the table's comparison is part of."""
        return self._name(self.table.curve, comparison.results[0].protocol.history_masked)

    def _name(self, name: str, masked: bool | None) -> str:
        """The name of a table or curve, with the history if it is both kept and masked."""
        history = f"history {'masked' if masked else 'kept'}" if len(self.plan.histories) > 1 else ""
        return ", ".join(filter(None, [name, history]))

    def _outcome(self, row: int, domain: str | None, seed: int) -> Outcome:
        place = Place(self.table.name, row, domain, seed)
        return self.outcomes.get(place, Outcome(failure=self.table.rows[row].failure))

    def _results(self, row: int, domain: str | None) -> list[Result]:
        """The results of a row, or of its model of one domain, one per seed that did not fail."""
        outcomes = [self._outcome(row, domain, seed) for seed in self.plan.seeds]
        name = self.table.rows[row].label
        if domain and self.table.rows[row].alone_keys:
            name += f", {text_of(self.table.rows[row].alone_keys)}"
        return [replace(outcome.results[self.number], label=name) for outcome in outcomes if not outcome.failure]

    def _ensemble(self, name: str, rows: Sequence[int]) -> JoinedRow:
        """The row that joins others."""
        masked = self.plan.histories[self.number]
        keys = {"show_progress": False, **({} if masked is None else {"mask_history": masked})}
        members = {
            self.table.rows[row].label: [self._outcome(row, None, seed) for seed in self.plan.seeds] for row in rows
        }
        return join_row(name, self.table.name, members, self.plan.seeds, self.number, keys)

    def _failed(self) -> list[Failure]:
        outcomes = [
            (row.label, seed, self._outcome(number, None, seed).failure)
            for number, row in enumerate(self.table.rows)
            for seed in self.plan.seeds
        ]
        return [Failure(label, seed, reason) for label, seed, reason in outcomes if reason]

    def _joint(self, by_row: Sequence[Sequence[Result]]) -> JointAgainstAlone | None:
        """Joint against single-domain training, of the rows that ask for it and whose runs have all finished."""
        domains, whole = split_domains(self.table.dataset), len(self.plan.seeds)
        against = [
            reference
            if reference is not None
            and len(by_row[number]) == whole
            and all(len(self._results(reference, domain)) == whole for domain in domains)
            else None
            for number, reference in enumerate(row.reference for row in self.table.rows)
        ]
        return joint_against_alone(by_row, against, domains, self._results)

    def _repeats(self, first: Result) -> list[str]:
        """The share of repeats, which the caption of a plain comparison has only where they count as misses."""
        if not self.plan.several or first.repeats is None or (first.protocol.history_masked and first.repeats):
            return []
        return [f"{first.repeats:.1%} of the targets are repeats"]
