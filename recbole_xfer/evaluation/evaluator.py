"""Extends RecBole's evaluator: keeps the evaluated rows, and measures each domain."""

from __future__ import annotations

from typing import Any

from recbole.evaluator import Evaluator
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_xfer.evaluation.domain_ranking import DomainRanking
from recbole_xfer.evaluation.metrics import CORRECTED


class KeepingEvaluator(Evaluator):
    """RecBole's Evaluator that keeps the rows of the last evaluation, for results per target.

    Attributes:
        collected: what RecBole collected in the last evaluation.
        ranking: of the current evaluation, if targets are ranked within their domains.
    """

    collected: DataStruct
    ranking: DomainRanking | None = None

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.metric_class |= {name: CORRECTED[name](config) for name in self.metrics if name in CORRECTED}

    @property
    def topk(self) -> Tensor | None:
        """For each evaluated row, hits at every rank, followed by the number of positives, [N, k + 1]."""
        return self.collected.get("rec.topk") if "rec.topk" in self.collected else None

    def evaluate(self, dataobject: DataStruct) -> Any:
        """RecBole's metrics over all targets, and those of each domain if targets are ranked within their domains."""
        self.collected = dataobject
        if self.ranking is not None:
            self.ranking.gather()
        result = self.measure(dataobject)
        if self.ranking is not None:
            places = self.config["metric_decimal_place"]
            result.update(self.ranking.metrics_by_domain(dataobject, self.measure, places))
        return result

    def measure(self, collected: DataStruct) -> Any:
        """RecBole's metrics of the collected rows, or of some of them."""
        return super().evaluate(collected)
