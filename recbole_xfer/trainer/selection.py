"""Ensemble selection: the weights with which the scores of several models are added, chosen on the validation split.

Up to a constant of each row, which changes no ranking, a weighted sum of scores is the weighted mean of their
log-softmax. Scores are brought to one spread first, so that cosines and dot products can be added.

Symbols in comments: M models, B rows, C candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_xfer.collectives import gather
from recbole_xfer.config.config import cutoff
from recbole_xfer.data.targets import TargetLoader
from recbole_xfer.device import seeded
from recbole_xfer.trainer.ranking import RankingTrainer

ROUNDS = 20
"""Rounds of ensemble selection; a weight is a multiple of a twentieth, or of a larger fraction."""

TINY = 1e-12
"""The smallest spread by which scores are divided."""

CELLS = 2**24
"""Maximal number of scores that are held to find the weights; above, candidates are drawn."""


@torch.no_grad()
def choose_weights(trainer: RankingTrainer, loader: TargetLoader) -> np.ndarray:
    """Sets the ``weights`` of a model with ``member_scores``; returns those of scores of equal spread, of sum 1, [M].

    Args:
        trainer: of the model.
        loader: of the validation split.
    """
    model: Any = trainer.model
    model.eval()
    with seeded(trainer.config["seed"]):
        margins, ranked = validation_margins(trainer, loader)
    spread = margins.where(ranked, 0).square().sum(dim=(1, 2)).div(ranked.sum()).sqrt().clamp(min=TINY)
    margins = (margins / spread[:, None, None]).masked_fill_(~ranked, -torch.inf)
    drawn = ranked.shape[1] / (loader._dataset.item_num - 1)
    weights = selected(margins, cutoff(trainer.config["topk"]), drawn)
    model.weights = (weights / spread.cpu().numpy()).tolist()
    return weights


def validation_margins(trainer: RankingTrainer, loader: TargetLoader) -> tuple[Tensor, Tensor]:
    """The models' scores of candidates of the validation targets, without the target's own score.

    Returns:
        margins [M, B, C], and whether a candidate is ranked (and not the target) [B, C].
    """
    model: Any = trainer.model
    domain = torch.as_tensor(loader._dataset.item_domain).to(trainer.device)
    items, rows = loader._dataset.item_num, len(loader._dataset)
    number = min(items - 1, max(1, CELLS // (rows * len(model.members))))
    found = []
    for batch in loader:
        row, target = batch[2].to(trainer.device), batch[3].to(trainer.device)
        ranked = trainer.ranked_items(len(batch[0]), items, batch[1])
        if trainer.config["rank_within_domain"]:
            ranked &= domain == domain[target][:, None]
        counted = ranked[row, target]  # with mask_history a repeated target is no candidate
        ranked[row, target] = False
        some = torch.randperm(items - 1, device=trainer.device)[:number].sort().values + 1
        scores = model.member_scores(batch[0].to(trainer.device))
        margins = torch.stack([own[:, some] - own[row, target][:, None] for own in scores], dim=1)
        found.append((margins[counted], ranked[:, some][counted]))
    margins, ranked = (gather(torch.cat(part).float()) for part in zip(*found, strict=True))
    return margins.transpose(0, 1), ranked > 0


def selected(margins: Tensor, k: int, drawn: float = 1.0) -> np.ndarray:
    """The weights of ensemble selection (Caruana et al., 2004), which sum to 1, [M].

    Each round adds one of the models, with replacement: that with which NDCG@k of the sum is highest. The proportions
    of the best round are the weights, so that the best model alone is among the choices.

    Args:
        margins: scores of candidates minus that of the target, minus infinity for what is not ranked, [M, B, C].
        k: of NDCG.
        drawn: proportion of the items that are among the candidates.
    """
    total, counts = torch.zeros_like(margins[0]), np.zeros(len(margins))
    best, weights = -1.0, counts
    for _ in range(ROUNDS):
        found = [ndcg_of(total + own, k, drawn) for own in margins]
        added = int(np.argmax(found))
        total += margins[added]
        counts[added] += 1
        if found[added] > best:
            best, weights = found[added], counts / counts.sum()
    return weights


def ndcg_of(margins: Tensor, k: int, drawn: float) -> float:
    """NDCG@k of targets by the margins of their candidates, [B, C]; a tie has the mean of its ranks' gains."""
    above, tied = (((count / drawn).round().long()) for count in ((margins > 0).sum(dim=1), (margins == 0).sum(dim=1)))
    gains = F.pad(1 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64)), (1, 0)).cumsum(dim=0).to(margins.device)
    return float(((gains[(above + tied + 1).clamp(max=k)] - gains[above.clamp(max=k)]) / (tied + 1)).mean())
