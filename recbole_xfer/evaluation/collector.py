"""RecBole's collector, with an order of equal scores that is the same on every device and for every batch size."""

from __future__ import annotations

from typing import Any

import torch
from recbole.evaluator import Collector
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_xfer.collectives import gather, total
from recbole_xfer.evaluation.ties import TieOrder, best, row_numbers
from recbole_xfer.evaluation.tiles import VectorScores


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

    @property
    def needs_all_scores(self) -> bool:
        """Whether a metric is measured from more than the best items."""
        return any(self.register.need(name) for name in ("rec.meanrank", "rec.score"))

    def eval_batch_collect(
        self, scores_tensor: Tensor | VectorScores, interaction: Any, positive_u: Tensor, positive_i: Tensor
    ) -> None:
        """Collects a batch (see RecBole's docstring); of the scores of vectors, row u has the target u."""
        if isinstance(scores_tensor, VectorScores):
            self._collect_tiles(scores_tensor, positive_i)
            return super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)
        if self._needed or self.register.need("rec.meanrank"):
            row, item = positive_u.to(scores_tensor.device), positive_i.to(scores_tensor.device)
            target = scores_tensor[row, item]
            candidate = target > -torch.inf
            ranking = scores_tensor if len(row) == len(scores_tensor) else scores_tensor[row]
            self._count_ties(((ranking == target[:, None]).sum(dim=1) > 1) & candidate)
        if self._needed:
            rows, items = scores_tensor.shape
            numbers = self._numbers(rows, items, scores_tensor.device)
            self._collect_best(*best(scores_tensor, max(self.topk), *numbers), row * items + item, items)
        if self.register.need("rec.meanrank"):
            lowest = scores_tensor.new_tensor(torch.finfo(scores_tensor.dtype).min)
            scores_tensor = scores_tensor.index_put((row[~candidate], item[~candidate]), lowest)
        return super().eval_batch_collect(scores_tensor, interaction, positive_u, positive_i)

    def _collect_tiles(self, scores: VectorScores, positive_i: Tensor) -> None:
        """Collects a batch of rows with one target each; the items of the scores are all but the padding."""
        device, rows, items = scores.users.device, len(scores.users), len(scores.items) + 1
        number, row = self._numbers(rows, items, device)
        item = positive_i.to(device)
        ranking = scores.best(max(self.topk), number[1:], row, item - 1)
        self._count_ties(ranking.tied)
        positive = torch.arange(rows, device=device) * items + item
        self._collect_best(ranking.values, ranking.places + 1, positive, items)

    def _count_ties(self, tied: Tensor) -> None:
        self._targets += len(tied)
        self._tied += int(tied.sum())

    def _collect_best(self, values: Tensor, ranked: Tensor, positive: Tensor, items: int) -> None:
        """Collects the best items and where they are hits.

        Args:
            values, ranked: scores and items, best first, [B, k].
            positive: row * items + item of each positive.
            items: number of items.
        """
        ranked, positive = ranked.masked_fill(values == -torch.inf, 0), positive.unique()
        place = torch.arange(len(ranked), device=ranked.device)[:, None] * items + ranked
        count = torch.bincount(positive // items, minlength=len(ranked))[:, None]
        hits = torch.cat([torch.isin(place, positive), count], dim=1).int()
        for name, value in {"rec.items": ranked, "rec.topk": hits}.items():
            if name in self._needed:
                self.data_struct.update_tensor(name, value)

    def _numbers(self, rows: int, items: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """The numbers of the items and of the next rows in the order of ties, [items] and [rows]."""
        if self._order is None:
            self._order = TieOrder.draw(self.config["seed"], items, device)
            self._rows = self._order.rows()
            row_numbers(self._rows, self._first or 0)  # of the rows before
        return self._order.items, row_numbers(self._rows, rows).to(device)

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
