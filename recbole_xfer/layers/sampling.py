"""Candidates of a sampled softmax: the targets of a step and uniform draws, which all its targets share.

Symbols in comments: B windows, L positions, T targets, C candidates.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from recbole_xfer.collectives import drawn, gather
from recbole_xfer.layers.losses import Correction

FEWEST_OUTSIDE = 1e-12
"""Minimum fraction of the training targets that are not in a batch, so that its logarithm is finite."""


class Candidates(NamedTuple):
    """The candidates of a step.

    Attributes:
        ids: distinct items, ascending, [C].
        target: the place of each target among them, [T].
        correction: of their logits.
    """

    ids: Tensor
    target: Tensor
    correction: Correction


class CandidateSampler(nn.Module):
    """Draws the candidates of each step, with the log-Q correction by which their softmax estimates the full one.

    A sum over all items is estimated without bias by a sum over the candidates, each divided by the probability Q
    that it is a candidate (Horvitz-Thompson): log Q is subtracted from its logit (Bengio and Senecal 2008; Yi et al.
    2019). An item is a candidate where it is a target of the batch, which is drawn without replacement from those of
    training, or one of the uniform draws. A window brings its own targets with it, so for these Q is 1. A draw that is
    the target itself adds nothing, since candidates are distinct.

    Args:
        counts: the training targets of each item, [n_items].
        draws: the number of uniform draws.
    """

    counts: Tensor

    def __init__(self, counts: np.ndarray, draws: int) -> None:
        super().__init__()
        self.draws = draws
        self.total = int(counts.sum())
        self.register_buffer("counts", torch.from_numpy(counts), persistent=False)

    def forward(self, targets: Tensor) -> Candidates:
        """Targets of windows [B, L], 0 where there is none, to the candidates of their step.

        Several processes that share the step have the same candidates.
        """
        real = targets > 0
        of_step = gather(targets[real])
        draws = torch.empty(self.draws, dtype=torch.long, device=targets.device)
        draws = drawn(draws, lambda items: items.random_(1, len(self.counts)), shared=True)
        ids = torch.cat([of_step, draws]).unique()
        places = torch.searchsorted(ids, targets)
        target, window = places[real], real.nonzero()[:, 0]
        certain = torch.where(real[window], places[window], target[:, None])  # [T, L]
        return Candidates(ids, target, Correction(self.log_q(ids, len(of_step)), certain))

    def log_q(self, ids: Tensor, targets: int) -> Tensor:
        """Logarithm of the probability that items [C] are candidates of a step with so many targets, [C]."""
        outside = max(1 - targets / self.total, FEWEST_OUTSIDE)
        log_missed = self.counts[ids] * np.log(outside) + self.draws * np.log1p(-1 / (len(self.counts) - 1))
        return torch.log(-torch.expm1(log_missed)).float()
