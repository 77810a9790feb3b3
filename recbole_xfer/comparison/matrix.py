"""The matrix of a model's transfer to a target: sets of sources by adaptations, compared with training from scratch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any

import numpy as np

from recbole_xfer.comparison.layout import Entry, Layout, Line
from recbole_xfer.comparison.table import Change, Comparison, place_values
from recbole_xfer.evaluation.result import score_text


def name_of(model: str, adaptation: str, source: str | None = None) -> str:
    """The label of a row, such as ``ANT (scratch)`` and ``ANT (relearn) from Food``."""
    return f"{model} ({adaptation})" + (f" from {source}" if source else "")


@dataclass(frozen=True)
class TransferMatrix(Comparison):
    """A comparison whose rows are a model from scratch, its adaptations, and rows that are only references.

    The baseline is the model from scratch. Rows are labelled by :func:`name_of`.

    Attributes:
        model: that is adapted.
        sources: the lines, each a set of domains that are joined by ``+``.
        adaptations: the columns.
    """

    model: str = ""
    sources: Sequence[str] = ()
    adaptations: Sequence[str] = ()

    @classmethod
    def of(cls, table: Comparison, model: str, sources: Sequence[str], adaptations: Sequence[str]) -> TransferMatrix:
        """The matrix of a table that has the rows of one."""
        values = {field.name: getattr(table, field.name) for field in fields(table)}
        return cls(**values, model=model, sources=sources, adaptations=adaptations)

    def cells(self) -> dict[str, tuple[str, str]]:
        """The source and the adaptation of each row of the matrix, by label."""
        return {
            name_of(self.model, way, source): (source, way) for source, way in product(self.sources, self.adaptations)
        }

    def references(self) -> list[str]:
        """The labels of rows that are no cell of the matrix: the model from scratch, and those of other models."""
        cells = self.cells()
        return [label for label in dict.fromkeys([*self.by_label(), *self._failed_by_label()]) if label not in cells]

    def change(self, label: str) -> Change | None:
        """The difference of a row from the model from scratch; None if one of them failed."""
        return next((change for change in self.changes() if change.label == label), None)

    # --- the table -------------------------------------------------------------------------------------------------

    def layout(self) -> Layout:
        """The matrix as a table. Lines of references are the first, equal in the columns of all adaptations."""
        by_name = {label: [label] * len(self.adaptations) for label in self.references()}
        by_name |= {source: [name_of(self.model, way, source) for way in self.adaptations] for source in self.sources}
        columns = [self._column(labels) for labels in zip(*by_name.values(), strict=True)]
        lines = [
            Line([name], [entry for column in columns for entry in column[number]])
            for number, name in enumerate(by_name)
        ]
        heads = [head for way in self.adaptations for head in (way, "vs scratch")]
        name = self.name or self.results[0].dataset
        return Layout(self.title(), name, self.caption(), ["source"], heads, lines)

    def layouts(self) -> list[Layout]:
        """The matrix, and a table of all metrics of its rows."""
        return [self.layout(), super().layout()]

    def title(self) -> str:
        """Such as ``Transfer of ANT to Office: NDCG@10``."""
        return f"Transfer of {self.model} to {self.name or self.results[0].dataset}: {self.metric.upper()}"

    def _column(self, labels: Sequence[str]) -> list[tuple[Entry, Entry]]:
        """The values of some rows and their changes; the best and the second value are marked."""
        summary, several = self.summary(), any(len(results) > 1 for results in self.by_label().values())
        places = place_values(
            self.metric, {label: summary[label][self.metric]["mean"] for label in labels if label in summary}
        )
        changes = {change.label: change.text() for change in self.changes()}
        return [
            (Entry(score_text(summary[label][self.metric], several), places.get(label)), Entry(changes.get(label, "")))
            if label in summary
            else (Entry("failed"), Entry())
            for label in labels
        ]

    # --- what to use -----------------------------------------------------------------------------------------------

    def validation(self) -> dict[str, float]:
        """The validation score of each row without a failed run, as a mean over seeds."""
        whole = {label: results for label, results in self.by_label().items() if label not in self._failed_by_label()}
        return {label: float(np.mean([result.valid_score for result in results])) for label, results in whole.items()}

    def verdict(self) -> str:
        """Says what to use. The validation split chooses; the test split only says what the choice is worth."""
        scores, cells = self.validation(), self.cells()
        adapted = {label: score for label, score in scores.items() if label in cells}
        if self.baseline not in scores or not adapted:
            return "Nothing is recommended: training from scratch, or each adaptation, has a run that failed."
        best, scratch = max(adapted, key=adapted.__getitem__), scores[self.baseline]
        source, way = cells[best]
        found = f"{way} from {source}"
        if adapted[best] > scratch:
            reason = f"best on validation, {adapted[best]:.4f} against {scratch:.4f} from scratch"
            advice = f"Use {found} ({reason}){self._on_test(best)}."
        else:
            advice = (
                f"Train from scratch: no adaptation is better on validation ({scratch:.4f} from scratch). The best of "
                f"them is {found} ({adapted[best]:.4f} on validation){self._on_test(best)}."
            )
        return " ".join([advice, *self._untrained(max(adapted[best], scratch), scores)])

    def _on_test(self, label: str) -> str:
        """What the test split says about a row."""
        change = self.change(label)
        if change is None:
            return ""
        found = "" if change.significant else ", no significant difference"
        return f": {change.change:+.1%} NDCG@{self.results[0].cutoff} on test, p = {change.p_corrected:.2g}{found}"

    def _untrained(self, best: float, scores: Mapping[str, float]) -> Iterator[str]:
        """A sentence for each reference that is better on validation than all that was trained."""
        for label in self.references():
            if label != self.baseline and scores.get(label, best) > best:
                yield f"{label}, without training, is better on validation ({scores[label]:.4f}){self._on_test(label)}."

    # --- files -----------------------------------------------------------------------------------------------------

    def records(self) -> list[dict[str, Any]]:
        """The records of a comparison, with source, adaptation and validation score."""
        cells, scores = self.cells(), self.validation()
        return [
            {
                **record,
                **dict(zip(("source", "adaptation"), cells.get(record["row"], (None, None)), strict=True)),
                "validation": scores.get(record["row"]),
            }
            for record in super().records()
        ]

    def as_dict(self) -> dict[str, Any]:
        """The content of a comparison, with the cells of the matrix."""
        scores, cells = self.validation(), self.cells()
        matrix = [
            {"source": source, "adaptation": way, "row": label, "validation": scores.get(label)}
            for label, (source, way) in cells.items()
        ]
        return {**super().as_dict(), "validation": scores, "matrix": matrix}
