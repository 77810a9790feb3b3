"""Ranks targets for any model of RecBole or of this package: masks histories and items of other domains."""

from __future__ import annotations

from typing import Any

import torch
from recbole.data.dataloader import NegSampleEvalDataLoader
from recbole.trainer import Trainer
from recbole.utils import EvaluatorType, ModelType
from torch import Tensor

from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.data.negatives import WithinDomain
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation import domain_ranking as domains
from recbole_xfer.evaluation.evaluator import KeepingEvaluator


class RankingTrainer(Trainer):
    """A trainer of RecBole that masks history by ``mask_history`` and ranks within domains on request.

    Reads ``mask_history`` and ``rank_within_domain``.
    """

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        super().__init__(config, model)
        self.valid_metric = domains.metric_key(config["valid_metric"])
        self.evaluator = KeepingEvaluator(config)

    def evaluate(self, eval_data: Any, *args: Any, **kwargs: Any) -> Any:
        """RecBole's evaluate; ranks each target within its domain if ``rank_within_domain`` is set."""
        self._evaluated = eval_data._dataset
        self.evaluator.ranking = self._domain_ranking(eval_data)
        return super().evaluate(eval_data, *args, **kwargs)

    def _domain_ranking(self, eval_data: Any) -> domains.DomainRanking | None:
        if not self.config["rank_within_domain"]:
            return None
        if self.config["eval_type"] != EvaluatorType.RANKING:
            raise XferError(f"rank_within_domain=True needs ranking metrics, not {self.config['metrics']}.")
        if isinstance(eval_data, NegSampleEvalDataLoader) and not isinstance(eval_data._sampler, WithinDomain):
            raise XferError(
                "RecBole's own functions sample the negatives of evaluation from all domains. Use run of recbole_xfer, "
                "or rank all items with eval_args.mode full."
            )
        item_domain = torch.from_numpy(self._evaluated.item_domain).long().to(self.device)
        return domains.DomainRanking(self._evaluated.domains, item_domain)

    def _full_sort_batch_eval(self, batched_data: tuple) -> tuple:
        """Ranks all items for a batch; ``mask_history`` alone decides whether earlier items are left out."""
        interaction, seen, positive_u, positive_i = batched_data
        if not self.config["mask_history"]:
            seen = None
        elif seen is None and isinstance(self._evaluated, TransferDataset):
            seen = self._evaluated.seen_items(interaction)
        return self._ranked(*super()._full_sort_batch_eval((interaction, seen, positive_u, positive_i)))

    def _neg_sample_batch_eval(self, batched_data: tuple) -> tuple:
        """RecBole's method, except that a sequential model encodes a history once, not once per candidate."""
        interaction, row, positive_u, positive_i = batched_data
        ranking = self.config["eval_type"] == EvaluatorType.RANKING
        if self.config["MODEL_TYPE"] != ModelType.SEQUENTIAL or not ranking:
            return self._ranked(*super()._neg_sample_batch_eval(batched_data))
        interaction = interaction.to(self.device)
        users, histories = interaction[self.model.USER_ID], interaction[self.model.ITEM_SEQ]
        _, history = torch.cat([users[:, None], histories], dim=1).unique(dim=0, return_inverse=True)
        place = torch.arange(len(history), device=self.device)
        first = torch.empty_like(place).scatter_(0, history, place)[: int(history.max()) + 1]  # one row per history
        item = interaction[self.model.ITEM_ID]
        scores = self.model.full_sort_predict(interaction[first]).view(len(first), -1)[history, item]
        table = scores.new_full((int(positive_u[-1]) + 1, self.tot_item_num), -torch.inf)
        table[row.to(self.device), item] = scores
        return self._ranked(interaction, table, positive_u, positive_i)

    def _ranked(self, interaction: Any, scores: Tensor, row: Tensor, item: Tensor) -> tuple:
        """The batch in the form that RecBole collects; items of other domains are masked if requested."""
        if self.evaluator.ranking is not None:
            scores, row = self.evaluator.ranking.mask_other_domains(scores, row, item)
        return interaction, scores, row, item
