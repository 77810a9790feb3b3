"""RecBole's collector, with an order of equal scores that is the same on every device and for every batch size."""

from __future__ import annotations

from typing import Any

import torch
from recbole.evaluator import Collector
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_xfer.collectives import gather, total
from recbole_xfer.evaluation.ties import TieOrder, best, row_numbers


class SeededCollector(Collector):
    """RecBole's Collector that ranks equal scores in an order drawn from ``seed`` for each evaluated row.

    An item that scores minus infinity is not a candidate: it is never recommended (``rec.items`` has 0 instead) and
    never a hit. A target that is not a candidate ranks below all candidates.

    Attributes:
        tied: share of the targets of the last pass whose score another candidate has, too.
    """

    tied = 0.0

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self._needed = [name for name in ("rec.items", "rec.topk") if self.register.need(name)]
        for name in self._needed:
            setattr(self.register, name, False)  # RecBole's Collector collects the rest
        self.begin()

    def begin(self, first: int | None = None) -> None:
        """Begins a pass: each pass draws the same order of ties.

        Args:
            first: the first row that this process ranks; None if each process ranks all rows.
        """
        self._first = first
        self._order: TieOrder | None = None
        self._targets = self._tied = 0

    def eval_batch_collect(
        self, scores_tensor: Tensor, interaction: Any, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """Collects a batch (see RecBole's docstring)."""
        if self._needed or self.register.need("rec.meanrank"):
            row, item = positive_u.to(scores_tensor.device), positive_i.to(scores_tensor.device)
            target = scores_tensor[row, item]
            candidate = target > -torch.inf
            ranking = scores_tensor if len(row) == len(scores_tensor) else scores_tensor[row]
            self._targets += len(target)
            self._tied += int((((ranking == target[:, None]).sum(dim=1) > 1) & candidate).sum())
        if self._needed:
            ranked, (rows, items) = self._ranked(scores_tensor), scores_tensor.shape
            positive = (row * items + item).unique()
            place = torch.arange(rows, device=row.device)[:, None] * items + ranked
            count = torch.bincount(positive // items, minlength=rows)[:, None]
            hits = torch.cat([torch.isin(place, positive), count], dim=1).int()
            for name, value in {"rec.items": ranked, "rec.topk": hits}.items():
                if name in self._needed:
                    self.data_struct.update_tensor(name, value)
        if self.register.need("rec.meanrank"):
            lowest = scores_tensor.new_tensor(torch.finfo(scores_tensor.dtype).min)
            scores_tensor = scores_tensor.index_put((row[~candidate], item[~candidate]), lowest)
        super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)

    def _ranked(self, scores: Tensor) -> Tensor:
        """The best items of each row, best first; 0 (the padding item) where a row has fewer candidates, [B, k]."""
        if self._order is None:
            self._order = TieOrder.draw(self.config["seed"], scores.shape[1], scores.device)
            self._rows = self._order.rows()
            row_numbers(self._rows, self._first or 0)  # of the rows before
        row = row_numbers(self._rows, len(scores)).to(scores.device)
        values, ranked = best(scores, max(self.topk), self._order.items, row)
        return ranked.masked_fill(values == -torch.inf, 0)

    def get_data_struct(self) -> DataStruct:
        """Ends a pass: returns what all processes collected (see RecBole's docstring)."""
        collected = super().get_data_struct()
        tied = torch.tensor([self._tied, self._targets])
        if self._first is not None:
            tied = total(tied)
            for name, value in collected._data_dict.items():
                collected.set(name, gather(value) if name.startswith("rec.") else value)
        self.tied = int(tied[0]) / max(int(tied[1]), 1)
        return collected
