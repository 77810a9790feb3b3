"""Cross-entropy over items by cosine similarity, with candidates from the batch or the whole catalogue.

Symbols in comments: T targets, C candidates, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def cosine_cross_entropy(
    users: Tensor, items: Tensor, target: Tensor, temperature: float, excluded: Tensor | None = None
) -> Tensor:
    """Mean over targets of -log softmax(cos(user, item) / temperature) at the target.

    Args:
        users: [T, d].
        items: candidates, [C, d].
        target: index of each user's own candidate, [T].
        excluded: candidates that are no negatives for a user, bool [T, C]; never the target itself.
    """
    logits = F.normalize(users, dim=-1) @ F.normalize(items, dim=-1).T / temperature  # [T, C]
    if excluded is not None:
        logits = logits.masked_fill(excluded, -torch.inf)
    return F.cross_entropy(precise(logits), target)


def chunked_cosine_cross_entropy(
    users: Tensor,
    positives: Tensor,
    encode: Callable[[Tensor], Tensor],
    chunks: Iterable[Tensor],
    temperature: float,
) -> Tensor:
    """:func:`cosine_cross_entropy` over a catalogue that is encoded piece by piece, forward and again backward.

    No more than one piece and its logits is held at a time, at the price of a second encoding of each.

    Args:
        users: [T, d].
        positives: each user's target item, [T, d]; it also lies in one of the chunks.
        encode: item ids [C] to items [C, d].
        chunks: item ids of each piece.
    """
    users = F.normalize(users, dim=-1)

    def log_sum(users: Tensor, ids: Tensor) -> Tensor:
        logits = users @ F.normalize(encode(ids), dim=-1).T / temperature
        return torch.logsumexp(precise(logits), dim=1)  # [T]

    pieces = [checkpoint(log_sum, users, ids, use_reentrant=False) for ids in chunks]
    positive = precise(users * F.normalize(positives, dim=-1)).sum(dim=-1) / temperature
    return (torch.logsumexp(torch.stack(pieces), dim=0) - positive).mean()


def precise(x: Tensor) -> Tensor:
    """At least float32: sums over many candidates lose too much in bf16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
