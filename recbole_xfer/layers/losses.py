"""Cross-entropy over items by cosine similarity, with candidates from the batch or the whole catalogue.

Symbols in comments: T targets, C candidates, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_xfer.collectives import alone, drawn, mean, total

TILE = {"cpu": 2**20, "cuda": 2**26}
"""Logits held at a time, by kind of device: on a CPU they stay in its cache."""
FEWEST_ROWS = 64
"""Minimum targets of a tile, also where it outgrows the cache: with fewer, the matrix product is slow."""


class Correction(NamedTuple):
    """Makes the sum over sampled candidates an estimate of the sum over all items.

    Attributes:
        log_q: logarithm of the probability that each candidate is sampled, subtracted from its logits, [C].
        certain: indices of each user's own candidates, which are sampled in any case and keep their logits, [T, K].
    """

    log_q: Tensor
    certain: Tensor


class Repeats(NamedTuple):
    """A bias of the logits of candidates that a user had before.

    Attributes:
        bias: [].
        places: indices of each user's earlier candidates, each once; -1 for none, [T, L].
    """

    bias: Tensor
    places: Tensor

    def entries(self, rows: Tensor | slice = slice(None)) -> tuple[Tensor, Tensor]:
        """Of some users, the candidates whose logits change, and by how much, [R, L] each; by 0 where there is none."""
        places = self.places[rows]
        return places.clamp(min=0), self.bias * (places >= 0)

    def gradient(self, of_logits: Tensor, rows: Tensor) -> Tensor:
        """The gradient of the bias by that of some users' logits, [R, C]."""
        places = self.places[rows]
        return (of_logits.gather(1, places.clamp(min=0)) * (places >= 0)).sum()


def item_cross_entropy(
    users: Tensor,
    items: Tensor,
    target: Tensor,
    excluded: Tensor | None = None,
    correction: Correction | None = None,
    repeats: Repeats | None = None,
) -> Tensor:
    """Mean over targets of -log softmax(user . item) at the target; never holds all logits in memory.

    As :func:`~recbole_xfer.collectives.mean`, it is this process' summand where several share the targets.

    Args:
        users: [T, d].
        items: candidates, [C, d].
        target: index of each user's own candidate, [T].
        excluded: candidates that are not negatives of a user, bool [T, C]; never the target itself.
        correction: of sampled candidates; None where they are all items, or the loss is that of the candidates.
        repeats: a bias of the candidates that a user had before.
    """
    bias = None if repeats is None else repeats.bias  # an argument of its own, so that it has a gradient
    return _ItemCrossEntropy.apply(users, items, bias, target, excluded, correction, repeats)


def cosine_cross_entropy(
    users: Tensor, items: Tensor, target: Tensor, temperature: float, excluded: Tensor | None = None
) -> Tensor:
    """:func:`item_cross_entropy` of cos(user, item) / temperature."""
    return item_cross_entropy(F.normalize(users, dim=-1) / temperature, F.normalize(items, dim=-1), target, excluded)


class _ItemCrossEntropy(torch.autograd.Function):
    """Computes the gradient along with the loss, tile by tile, while the logits of a tile are in the cache.

    With PyTorch's own operations, the logits would move between memory and cache some six times.
    """

    @staticmethod
    def forward(
        ctx: Any,
        users: Tensor,
        items: Tensor,
        bias: Tensor | None,
        target: Tensor,
        excluded: Tensor | None,
        correction: Correction | None,
        repeats: Repeats | None,
    ) -> Tensor:
        kind = users.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else users.dtype
        table = items.to(dtype)
        size = max(FEWEST_ROWS, TILE.get(kind, TILE["cuda"]) // len(items))
        losses, users_gradient, items_gradient = [], [], precise(torch.zeros_like(items))
        bias_gradient = None if bias is None else torch.zeros_like(bias)
        for rows in torch.arange(len(users), device=users.device).split(size):
            user, own = users[rows].to(dtype), (torch.arange(len(rows), device=rows.device), target[rows])
            logits = precise(user @ table.T)
            if repeats is not None:
                logits.scatter_add_(1, *repeats.entries(rows))
            if excluded is not None:
                logits.masked_fill_(excluded[rows], -torch.inf)
            if correction is not None:
                certain = correction.certain[rows]
                kept = logits.gather(1, certain)
                logits.sub_(correction.log_q).scatter_(1, certain, kept)
            largest, of_target = logits.amax(dim=1), logits[own]
            probability = torch.softmax(logits, dim=1, out=logits)  # in place: new memory is slow to touch
            # log-sum-exp by the largest term; the target's own probability may underflow
            losses.append(largest - probability.amax(dim=1).log() - of_target)
            probability[own] -= 1
            if repeats is not None and bias_gradient is not None:
                bias_gradient += repeats.gradient(probability, rows)
            gradient = probability.to(dtype)
            users_gradient.append(gradient @ table)
            items_gradient += gradient.T @ user
        ctx.save_for_backward(torch.cat(users_gradient).to(users.dtype), items_gradient.to(items.dtype), bias_gradient)
        ctx.targets = total(torch.tensor(len(users)))
        return mean(torch.cat(losses))

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        users_gradient, items_gradient, bias_gradient = ctx.saved_tensors
        share = gradient[0] / ctx.targets
        of_bias = None if bias_gradient is None else bias_gradient * share
        return users_gradient * share, items_gradient * share, of_bias, None, None, None, None


def chunked_cross_entropy(
    users: Tensor,
    target: Tensor,
    encode: Callable[[Tensor], Tensor],
    chunks: Sequence[Tensor],
    temperature: float,
    excluded: Callable[[Tensor], Tensor] | None = None,
    repeats: Callable[[Tensor], Repeats | None] | None = None,
) -> Tensor:
    """:func:`item_cross_entropy` of user . item / temperature over a catalogue that is encoded in pieces.

    Holds one piece and its logits at a time, at the price of encoding each twice, in the forward and the backward pass.

    Args:
        users: [T, d].
        target: each user's own item id, [T]; it is in one of the chunks.
        encode: item ids [C] to items [C, d]; the gradient of its parameters is added to their ``grad``.
        chunks: item ids of each piece, ascending.
        excluded: item ids [C] to those that are not negatives of a user, bool [T, C]; never the target itself.
        repeats: item ids [C] to a bias of those that a user had before, or None.
    """

    def piece(users: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Log-sum-exp over a piece, [T], and the target's logit, or 0 where it is in another piece, [T]."""
        logits = precise(users @ encode(ids).T / temperature)
        biased = None if repeats is None else repeats(ids)
        if biased is not None:
            logits = logits.scatter_add(1, *biased.entries())
        if excluded is not None:
            logits = logits.masked_fill(excluded(ids), torch.finfo(logits.dtype).min)  # finite: it may be all of them
        place = torch.searchsorted(ids, target).clamp(max=len(ids) - 1)
        own = logits.gather(1, place[:, None]).squeeze(1)
        return torch.logsumexp(logits, dim=1), torch.where(ids[place] == target, own, 0)

    return mean(_ChunkedLoss.apply(users, piece, chunks))


Piece = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class _ChunkedLoss(torch.autograd.Function):
    """Log-sum-exp over pieces minus the target's logit, [T]; the backward pass computes each piece again.

    Like ``torch.utils.checkpoint`` on every piece, but all tensors that outlive a piece are allocated before the first:
    small lasting blocks between large freed ones would make the heap grow with the number of pieces.
    """

    @staticmethod
    def forward(ctx: Any, users: Tensor, piece: Piece, chunks: Sequence[Tensor]) -> Any:
        kind = users.device.type
        seeds = drawn(torch.empty(len(chunks), dtype=torch.long), lambda x: x.random_(0, 2**31), shared=True).tolist()
        dtype = torch.promote_types(users.dtype, torch.float32)
        total = users.new_full((len(users),), -torch.inf, dtype=dtype)
        target = torch.zeros_like(total)
        for ids, seed in zip(chunks, seeds, strict=True):
            with _seeded(seed, users.device):
                log_sum, own = piece(users, ids)
            torch.logaddexp(total, log_sum, out=total)
            target += own
        ctx.save_for_backward(users, total)
        ctx.piece, ctx.chunks, ctx.seeds = piece, chunks, seeds
        ctx.autocast = {"enabled": torch.is_autocast_enabled(kind), "dtype": torch.get_autocast_dtype(kind)}
        return total - target

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        users, total = ctx.saved_tensors
        users = users.detach().requires_grad_()
        users.grad = torch.zeros_like(users)
        for ids, seed in zip(ctx.chunks, ctx.seeds, strict=True):
            autocast = torch.autocast(users.device.type, **ctx.autocast)
            with torch.enable_grad(), _seeded(seed, users.device), autocast:
                log_sum, own = ctx.piece(users, ids)
            share = (log_sum.detach() - total).exp()  # of the piece in the sum
            torch.autograd.backward([log_sum, own], [gradient[0] * share, -gradient[0]])
        return users.grad, None, None


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Draws dropout from this seed, and restores the generators afterwards."""
    with alone(), torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def precise(x: Tensor) -> Tensor:
    """Converts to at least float32: sums over many candidates lose too much precision in bf16."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
