"""Cross-entropy over items by cosine similarity, with candidates from the batch or the whole catalogue.

Symbols in comments: T targets, C candidates, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


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
    chunks: Sequence[Tensor],
    temperature: float,
) -> Tensor:
    """:func:`cosine_cross_entropy` over a catalogue that is encoded piece by piece, forward and again backward.

    No more than one piece and its logits is held at a time, at the price of a second encoding of each.

    Args:
        users: [T, d].
        positives: each user's target item, [T, d]; it also lies in one of the chunks.
        encode: item ids [C] to items [C, d]; the gradient of its parameters is left in their ``grad``.
        chunks: item ids of each piece.
    """
    users = F.normalize(users, dim=-1)

    def log_sum(users: Tensor, ids: Tensor) -> Tensor:
        logits = users @ F.normalize(encode(ids), dim=-1).T / temperature
        return torch.logsumexp(precise(logits), dim=1)  # [T]

    positive = precise(users * F.normalize(positives, dim=-1)).sum(dim=-1) / temperature
    return (_ChunkedLogSum.apply(users, log_sum, chunks) - positive).mean()


class _ChunkedLogSum(torch.autograd.Function):
    """Log of a sum over pieces, each computed again in the backward pass.

    Like ``torch.utils.checkpoint`` on every piece, but what outlives a piece is allocated before the first: small
    blocks that stay between large ones that go would make the heap of the process grow with the number of pieces.
    """

    @staticmethod
    def forward(ctx: Any, users: Tensor, log_sum: Callable[[Tensor, Tensor], Tensor], chunks: Sequence[Tensor]) -> Any:
        kind = users.device.type
        seeds = torch.randint(2**31, (len(chunks),)).tolist()
        total = users.new_full((len(users),), -torch.inf, dtype=torch.promote_types(users.dtype, torch.float32))
        for ids, seed in zip(chunks, seeds, strict=True):
            with _seeded(seed, users.device):
                torch.logaddexp(total, log_sum(users, ids), out=total)
        ctx.save_for_backward(users, total)
        ctx.log_sum, ctx.chunks, ctx.seeds = log_sum, chunks, seeds
        ctx.autocast = {"enabled": torch.is_autocast_enabled(kind), "dtype": torch.get_autocast_dtype(kind)}
        return total

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        users, total = ctx.saved_tensors
        users = users.detach().requires_grad_()
        users.grad = torch.zeros_like(users)
        for ids, seed in zip(ctx.chunks, ctx.seeds, strict=True):
            autocast = torch.autocast(users.device.type, **ctx.autocast)
            with torch.enable_grad(), _seeded(seed, users.device), autocast:
                piece = ctx.log_sum(users, ids)
            piece.backward(gradient[0] * (piece.detach() - total).exp())
        return users.grad, None, None


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout drawn from this seed; the generators go on afterwards as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def precise(x: Tensor) -> Tensor:
    """At least float32: sums over many candidates lose too much in bf16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
