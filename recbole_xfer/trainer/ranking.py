"""Ranks targets for any model of RecBole or of this package: masks histories and items of other domains."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from recbole.data.dataloader import NegSampleEvalDataLoader
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.trainer import Trainer
from recbole.utils import EvaluatorType, ModelType
from torch import Tensor

from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.data.negatives import WithinDomain
from recbole_xfer.data.targets import TargetLoader
from recbole_xfer.device import seeded
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation import domain_ranking as domains
from recbole_xfer.evaluation.collector import SeededCollector
from recbole_xfer.evaluation.evaluator import KeepingEvaluator
from recbole_xfer.evaluation.tiles import VectorScores
from recbole_xfer.evaluation.vectors import Vectors, vectors_of


class RankingTrainer(Trainer):
    """A trainer of RecBole that masks history by ``mask_history`` and ranks within domains on request.

    Reads ``mask_history`` and ``rank_within_domain``.
    """

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        super().__init__(config, model)
        self.valid_metric = domains.metric_key(config["valid_metric"])
        self.evaluator = KeepingEvaluator(config)
        self.eval_collector = SeededCollector(config)
        self._vectors: Vectors | None = None
        self._tiled = False

    def evaluate(self, eval_data: Any, *args: Any, **kwargs: Any) -> Any:
        """RecBole's evaluate; ranks each target within its domain if ``rank_within_domain`` is set."""
        self._evaluated, self._own_loader = eval_data._dataset, isinstance(eval_data, TargetLoader)
        first = eval_data.first if self._own_loader else None
        self.evaluator.ranking = self._domain_ranking(eval_data, first)
        self.eval_collector.begin(first)
        self._tiled = self._own_loader and not self.evaluator.ranking and not self.eval_collector.needs_all_scores
        try:
            with seeded(self.config["seed"]):  # some models, such as Random and SLIMElastic, draw a part of a score
                return super().evaluate(eval_data, *args, **kwargs)
        finally:
            self._tiled, self._vectors = False, None

    def _domain_ranking(self, eval_data: Any, first: int | None) -> domains.DomainRanking | None:
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
        return domains.DomainRanking(self._evaluated.domains, item_domain, first)

    def _full_sort_batch_eval(self, batched_data: tuple) -> tuple:
        """Ranks the candidates of a batch; ``mask_history`` alone decides whether earlier items are left out."""
        interaction, left_out, positive_u, positive_i = batched_data
        in_tiles = self._in_tiles(interaction, left_out) if self._tiled else None
        if in_tiles is not None:
            return interaction, in_tiles, positive_u, positive_i
        if not self._own_loader:
            left_out = self._seen(interaction, left_out) if self.config["mask_history"] else None
        ranked = self.ranked_items(len(interaction), self.tot_item_num, left_out)
        interaction = interaction.to(self.device)
        return self._ranked(interaction, self.scores(interaction, ranked), positive_u, positive_i)

    def _in_tiles(self, interaction: Any, left_out: Any) -> VectorScores | None:
        """The scores of all items but the padding, if they are products of vectors and none can overflow.

        Args:
            interaction: rows of a loader.
            left_out: (row, item) of what is not ranked; None for nothing, a mask for sampled candidates.
        """
        ids = interaction[self.config["USER_ID_FIELD"]]
        if isinstance(left_out, Tensor) or ids[0] == ids[-1]:  # what the model multiplies is seen with two users
            return None
        interaction = interaction.to(self.device)
        if self._vectors is None:
            with seeded(self.config["seed"]):  # without changing what a model draws next
                self._vectors = vectors_of(self.model, interaction[torch.tensor([0, len(ids) - 1])])
        if self._vectors is None:
            self._tiled = False
            return None
        row, item = left_out or torch.zeros(2, 0, dtype=torch.long)
        users = self._vectors.users(interaction).float()
        if not self._vectors.bounded(users):
            return None
        left_out = row.to(self.device), item.to(self.device) - 1
        repeated = self._vectors.repeated(interaction)
        if repeated is not None:
            repeated = repeated._replace(item=repeated.item - 1)
        return VectorScores(users, self._vectors.items[1:].float(), left_out, repeated)

    def ranked_items(self, rows: int, items: int, left_out: Any = None) -> Tensor:
        """Whether an item is ranked, bool [rows, items]: all but the padding item and those that are left out."""
        ranked = torch.ones(rows, items, dtype=torch.bool, device=self.device)
        ranked[:, 0] = False
        if left_out is not None:
            ranked[left_out] = False
        return ranked

    def scores(self, rows: Any, ranked: Tensor) -> Tensor:
        """The scores of the ranked items, and minus infinity for the others.

        Args:
            rows: of a loader, on the model's device, [B].
            ranked: whether an item is ranked, [B, n_items].

        Returns:
            [B, n_items]

        Raises:
            XferError: if a ranked item's score is not finite.
        """
        score = self.model.full_sort_predict if self._scores_all_items else partial(self._predicted, ranked=ranked)
        scores = score(rows).view(ranked.shape)
        self.check_finite(scores.isfinite() | ~ranked)
        return scores.masked_fill_(~ranked, -torch.inf)

    def _seen(self, interaction: Any, left_out: Any) -> Any:
        """What RecBole's loader leaves out; for its sequential models, which leave out nothing, the earlier items."""
        if left_out is None and isinstance(self._evaluated, TransferDataset):
            return self._evaluated.seen_items(interaction)
        return left_out

    @property
    def _scores_all_items(self) -> bool:
        """Whether the model has a method for it; others, such as DIN, score pairs of a row and an item."""
        return type(self.model).full_sort_predict is not AbstractRecommender.full_sort_predict

    def _predicted(self, rows: Any, ranked: Tensor) -> Tensor:
        """The scores of the ranked items by a model for pairs, at most ``eval_batch_size`` of them at a time.

        Args:
            rows: of the loader, [B].
            ranked: whether an item is, [B, n_items].

        Returns:
            [B, n_items]; zeros for what is not ranked.
        """
        scores = torch.zeros(ranked.shape, device=self.device)
        step = self.test_batch_size
        for some in torch.arange(len(ranked)).split(max(step // ranked.shape[1], 1)):
            row, item = ranked[some[0] : some[-1] + 1].nonzero(as_tuple=True)
            for r, i in zip((row + some[0]).split(step), item.split(step), strict=True):
                pairs = rows[r]
                pairs.update(self.item_tensor[i])
                scores[r, i] = self.model.predict(pairs).view(-1)
        return scores

    def _neg_sample_batch_eval(self, batched_data: tuple) -> tuple:
        """RecBole's method, except that a sequential model encodes a history once, not once per candidate."""
        interaction, row, positive_u, positive_i = batched_data
        ranking = self.config["eval_type"] == EvaluatorType.RANKING
        if self.config["MODEL_TYPE"] != ModelType.SEQUENTIAL or not ranking or not self._scores_all_items:
            batch = super()._neg_sample_batch_eval(batched_data)
            scored = (row, interaction[self.config["ITEM_ID_FIELD"]]) if ranking else ...
            self.check_finite(batch[1][scored].isfinite())
            return self._ranked(*batch)
        interaction = interaction.to(self.device)
        users, histories = interaction[self.model.USER_ID], interaction[self.model.ITEM_SEQ]
        _, history = torch.cat([users[:, None], histories], dim=1).unique(dim=0, return_inverse=True)
        place = torch.arange(len(history), device=self.device)
        first = torch.empty_like(place).scatter_(0, history, place)[: int(history.max()) + 1]  # one row per history
        item = interaction[self.model.ITEM_ID]
        scores = self.model.full_sort_predict(interaction[first]).view(len(first), -1)[history, item]
        self.check_finite(scores.isfinite())
        table = scores.new_full((int(positive_u[-1]) + 1, self.tot_item_num), -torch.inf)
        table[row.to(self.device), item] = scores
        return self._ranked(interaction, table, positive_u, positive_i)

    def check_finite(self, finite: Tensor) -> None:
        """Raises XferError unless all scores are finite: others have no order."""
        if not finite.all():
            raise XferError(
                f"{self.config['model']} scores items with values that are not finite, so they cannot be ranked. Lower "
                f"learning_rate, now {self.config['learning_rate']:g}, or set clip_grad_norm, such as "
                f"--clip_grad_norm='{{max_norm: 5}}'."
            )

    def _ranked(self, interaction: Any, scores: Tensor, row: Tensor, item: Tensor) -> tuple:
        """The batch in the form that RecBole collects; items of other domains are masked if requested."""
        if self.evaluator.ranking is not None:
            scores, row = self.evaluator.ranking.mask_other_domains(scores, row, item)
        return interaction, scores, row, item
