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

ERRORS = 2
"""Standard errors by which a validation score must be higher to count as such."""

TINY = 1e-12
"""The smallest spread by which scores are divided."""

CELLS = 2**24
"""Maximal number of scores that are held to find the weights; above, candidates are drawn."""


@torch.no_grad()
def choose_weights(trainer: RankingTrainer, loader: TargetLoader, fallback: int | None = None) -> np.ndarray:
    """Sets the ``weights`` of a model with ``member_scores``; returns those of scores of equal spread, of sum 1, [M].

    Args:
        trainer: of the model.
        loader: of the validation split.
        fallback: the member to which weights stay close if there are few targets (see :func:`cautious`).
    """
    model: Any = trainer.model
    model.eval()
    with seeded(trainer.config["seed"]):
        margins, ranked = validation_margins(trainer, loader)
    spread = margins.where(ranked, 0).square().sum(dim=(1, 2)).div(ranked.sum()).sqrt().clamp(min=TINY)
    margins = (margins / spread[:, None, None]).masked_fill_(~ranked, -torch.inf)
    drawn = ranked.shape[1] / (loader._dataset.item_num - 1)
    k = cutoff(trainer.config["topk"])
    weights = selected(margins, k, drawn)
    if fallback is not None:
        weights = cautious(margins, k, weights, fallback, drawn)
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
        found = [float(ndcg_of(total + own, k, drawn).mean()) for own in margins]
        added = int(np.argmax(found))
        total += margins[added]
        counts[added] += 1
        if found[added] > best:
            best, weights = found[added], counts / counts.sum()
    return weights


def cautious(margins: Tensor, k: int, weights: np.ndarray, fallback: int, drawn: float = 1.0) -> np.ndarray:
    """The weights nearest to one model that are not surely worse than the given ones, [M].

    As the rule of one standard error (Breiman et al., 1984), with two: of the steps from the model alone to
    ``weights``, the first whose NDCG@k is below that of ``weights`` by at most twice the standard error of the
    difference over targets. With few targets that is the model alone, with many almost ``weights``.

    Args:
        margins, k, drawn: see :func:`selected`.
        weights: of sum 1, [M].
        fallback: the model.
    """
    alone = np.eye(len(weights))[fallback]
    if margins.shape[1] < 2:
        return alone  # one target has no standard error
    best = ndcg_of(_joined(margins, weights), k, drawn)
    for step in np.linspace(0, 1, ROUNDS + 1)[:-1]:
        mixed = step * weights + (1 - step) * alone
        lost = best - ndcg_of(_joined(margins, mixed), k, drawn)
        if lost.mean() <= ERRORS * lost.std() / len(lost) ** 0.5:
            return mixed
    return weights


def _joined(margins: Tensor, weights: np.ndarray) -> Tensor:
    """The weighted sum of the margins of models, [B, C]; those of a model without weight may be infinite."""
    weighted = [weight * own for weight, own in zip(weights.tolist(), margins, strict=True) if weight]
    return torch.stack(weighted).sum(dim=0)


def ndcg_of(margins: Tensor, k: int, drawn: float) -> Tensor:
    """NDCG@k of each target by the margins of its candidates, [B, C] to [B]; a tie has the mean of its ranks' gains."""
    above, tied = (((count / drawn).round().long()) for count in ((margins > 0).sum(dim=1), (margins == 0).sum(dim=1)))
    gains = F.pad(1 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64)), (1, 0)).cumsum(dim=0).to(margins.device)
    return (gains[(above + tied + 1).clamp(max=k)] - gains[above.clamp(max=k)]) / (tied + 1)
