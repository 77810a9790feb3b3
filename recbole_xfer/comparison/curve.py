"""How much target data models need: the metric of each row over the fraction of users trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from recbole_xfer.comparison.layout import Entry, Layout, Line
from recbole_xfer.comparison.table import Comparison, place_values
from recbole_xfer.data.splits import percentage
from recbole_xfer.evaluation.result import score_text


@dataclass(frozen=True)
class Curve:
    """Comparisons that differ in nothing but the fraction of users trained.

    Attributes:
        name: their dataset and setting.
        tables: the comparison of each fraction, from small to large; at least one.
    """

    name: str
    tables: Mapping[float, Comparison]

    @property
    def metric(self) -> str:
        """The metric that is shown; see :class:`~recbole_xfer.comparison.table.Comparison`."""
        return next(iter(self.tables.values())).metric

    def frame(self) -> pd.DataFrame:
        """The points: ``row``, ``train_share``, ``mean`` and ``spread`` over seeds, and the number of ``seeds``."""
        points = [
            {"row": label, "train_share": share, **metrics[self.metric], "seeds": len(table.by_label()[label])}
            for share, table in self.tables.items()
            for label, metrics in table.summary().items()
        ]
        return pd.DataFrame(points)

    def layout(self) -> Layout:
        """The points as a table of rows and fractions, in which the best and the second of each fraction are marked."""
        frame = self.frame()
        several = bool((frame["seeds"] > 1).any())
        cells: dict[str, dict[float, Entry]] = {}
        for share, table in self.tables.items():
            points = frame[frame["train_share"] == share].set_index("row")
            places = place_values(self.metric, points["mean"].to_dict())
            for label, value in points[["mean", "spread"]].to_dict("index").items():
                cells.setdefault(label, {})[share] = Entry(score_text(value, several), places.get(label))
            for failure in table.failed:
                cells.setdefault(failure.label, {}).setdefault(share, Entry("failed"))
        lines = [Line([label], [own.get(share, Entry()) for share in self.tables]) for label, own in cells.items()]
        columns = [percentage(share) for share in self.tables]
        title = f"{self.metric} by users trained on {self.name}"
        return Layout(title, self.name, self.caption(), ["model"], columns, lines)

    def caption(self) -> str:
        """What is the same for all fractions, as text."""
        share = max(self.tables)
        first = self.tables[share].results[0]
        seeds = sorted({result.seed for table in self.tables.values() for result in table.results})
        split = first.protocol.split
        if share < 1:  # its last part is the fraction
            split = split.rpartition(", ")[0]
        spread = "mean and standard deviation over seeds" if len(seeds) > 1 else "seed"
        return "; ".join(
            [
                f"larger fractions of users contain the smaller; {first.rows:,} test targets for each",
                str(replace(first.protocol, split=split)),
                f"{spread} {', '.join(map(str, seeds))}",
            ]
        )

    def as_dict(self) -> dict[str, Any]:
        """The points and how they were measured, for json."""
        points = self.frame().to_dict("records")
        shown = {"measured": self.caption(), "points": points, "layout": asdict(self.layout())}
        return {"curve": self.name, "metric": self.metric, **shown}
