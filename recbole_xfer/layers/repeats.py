"""A learned bias of repeats: how much more, or less, likely a user's earlier items are than a model of sequences says.

Where users rarely take an item twice, such a model still ranks their own items first, since they are most like
themselves. One parameter corrects it, by as much as the training targets tell.

Symbols in comments: B windows, L positions, T targets, C candidates.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_xfer.layers.losses import Repeats

RATE = 30.0
"""The bias is learned this much faster than other parameters: with Adam, by this many learning rates."""


class RepeatBias(nn.Module):
    """Adds a learned bias, zero at the start, to the logits of the items of a history."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    @property
    def bias(self) -> Tensor:
        """Of a logit, []."""
        return RATE * self.weight

    def of_targets(self, items: Tensor, targets: Tensor, candidates: Tensor) -> Repeats:
        """The bias, and the candidates before each target.

        Args:
            items: of windows, [B, L].
            targets: the next item at each position, 0 where there is none, [B, L].
            candidates: item ids, ascending, [C].
        """
        window, position = (targets > 0).nonzero(as_tuple=True)
        place = torch.searchsorted(candidates, items).clamp(max=len(candidates) - 1)
        again = (items[:, :, None] == items[:, None]).tril(-1).any(dim=-1)  # an item counts once
        place = place.where((candidates[place] == items) & (items > 0) & ~again, -1)[window]
        before = torch.arange(items.shape[1], device=items.device) <= position[:, None]
        return Repeats(self.bias, place.where(before, -1))


def add_to_repeats(scores: Tensor, items: Tensor, score: Tensor) -> Tensor:
    """Scores [B, n_items] with another one added at the items of histories [B, L], and at the padding."""
    return scores.scatter(1, items, scores.gather(1, items) + score)
