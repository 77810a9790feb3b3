"""Figures of a paper, which a comparison prints beside its own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from recbole_xfer.errors import XferError, did_you_mean


class Published(BaseModel):
    """The figures of one source.

    Attributes:
        source: where they are printed, such as ``ANT, Table 3``.
        same_data: whether its data, split and candidates are ours.
        mask_history: how the source ranked; None where that is not known, and its figures are in every table.
        figures: by table, row and metric.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    source: str = Field(min_length=1)
    same_data: bool
    mask_history: bool | None = None
    figures: dict[str, dict[str, dict[str, float]]]

    @classmethod
    def of(
        cls, value: Mapping[str, Any] | None, tables: Collection[str] | None, metrics: Collection[str]
    ) -> Published | None:
        """The value of the key ``published``.

        Args:
            value: None without figures.
            tables: names of the comparison's tables; None: figures of any table are allowed.
            metrics: that the comparison measures, such as ``ndcg@10``.

        Raises:
            XferError: if a key is unknown, missing or has a value of another type, or a table or metric is unknown.
        """
        if value is None:
            return None
        try:
            found = cls.model_validate(value)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, ("published", *first["loc"])))
            raise XferError(f"{place} is invalid: {first['msg']}. See docs/studies.md.") from error
        for table, rows in found.figures.items():
            if tables is not None and table not in tables:
                raise XferError(f"published.figures: '{table}' is no table of this plan{did_you_mean(table, tables)}")
            for metric in (metric for figures in rows.values() for metric in figures):
                if metric.partition(" [")[0] not in metrics:
                    raise XferError(f"published.figures: '{metric}' is not measured{did_you_mean(metric, metrics)}")
        return found

    def rows(self, table: str, masked: bool | None) -> Mapping[str, Mapping[str, float]]:
        """The figures of a table whose history is masked or kept, by row and metric; empty if they are of the other."""
        return {} if self.mask_history not in (None, masked) else self.figures.get(table, {})

    def note(self) -> str:
        """What the caption says about the figures."""
        return f"published: {self.source}, {'same data' if self.same_data else 'not the same data'}"
