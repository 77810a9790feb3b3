"""Gradient alignment (section 3.2 of TP): k steps of descent along each path, and their joint direction.

Symbols in comments: P paths, N ids that a path looks up, m distinct ids among them, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from recbole_xfer.layers.dropout import attention, dropout

Weights = Mapping[str, Tensor]


def descend(
    loss: Callable[[Weights, Any], Tensor],
    start: Weights,
    batches: Sequence[Any],
    rates: Mapping[str, float],
    factored: Collection[str] = (),
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Takes a step of descent for each batch (Eq. 6), and yields each step's gradients and loss.

    The mean of the gradients is (theta_0 - theta_k) / (alpha k), the gradient of the outer update (Eq. 7) up to its
    scale, and with one batch the ordinary gradient. The difference of almost equal parameters would lose precision.

    In-place changes of the yielded gradients take part in the step.

    Deviation: Eq. 6 ascends, and Algorithm 1 then moves away from theta_k; here the steps descend, and the outer update
    moves towards theta_k.

    Args:
        loss: maps parameters and a batch to a loss, or to the losses [P] of paths with stacked parameters.
        start: theta_0 by name.
        batches: one per inner step.
        rates: alpha of each parameter.
        factored: names that stay at theta_0, since :class:`AllPaths` records how each path moved them.
    """
    theta = start
    for number, batch in enumerate(batches, start=1):
        theta = {name: value.detach().requires_grad_() for name, value in theta.items()}
        value = loss(theta, batch)
        found = torch.autograd.grad(value.sum(), list(theta.values()), materialize_grads=True)
        gradients = dict(zip(theta, found, strict=True))
        yield gradients, value.detach()
        if number < len(batches):
            # in the memory layout of the gradients, which for a layer's weight is not that of theta
            theta = {
                name: value if name in factored else gradients[name].mul(-rates[name]).add_(value.detach())  # Eq. 6
                for name, value in theta.items()
            }


class AllPaths(TorchFunctionMode):
    """A context in which linear layers, dropout and attention inside ``vmap`` are one call for all paths.

    A step moves a linear layer's weight by -alpha G^T X. X [N, d] are the layer's inputs on the path, and G [N, h] the
    gradients of its outputs. The moved weight is never computed, since with few positions N the factors are much
    smaller: its map is x W_0^T - alpha (x X^T) G. So the paths share one product with theta_0, forward and backward,
    and the gradient of theta_0 is already their sum. Dropout and attention have no parameters, and ``vmap`` would
    compute them more slowly.

    Args:
        rates: alpha of each weight of a linear layer, by name; only ``F.linear`` may use these weights.
    """

    def __init__(self, rates: Mapping[str, float]) -> None:
        super().__init__()
        self.moves = {name: Moves(rate) for name, rate in rates.items()}
        self._moves_of: dict[int, Moves] = {}

    def under(self, theta: Weights) -> AllPaths:
        """Prepares for a loss under ``theta``, which holds theta_0 of these weights."""
        self._moves_of = {id(theta[name]): moves for name, moves in self.moves.items()}
        return self

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.linear and id(args[1]) in self._moves_of:
            x, weight, bias = args  # as nn.Linear calls it
            mapped = _Together.apply(partial(_moved, weight, self._moves_of[id(weight)]), x)
            return mapped if bias is None else mapped + bias
        if func in (dropout, F.dropout):
            return _Together.apply(lambda x: func(x, *args[1:], **kwargs), args[0])
        if func is attention and args[3] is None:
            return _Together.apply(partial(_attention, args[4]), *args[:3])
        return func(*args, **kwargs)


@dataclass(frozen=True)
class Moves:
    """The previous steps' moves of a weight [h, d] on each path."""

    rate: float
    steps: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """X [P, N, d] and G [P, N, h] of each step."""


def _moved(weight: Tensor, moves: Moves, x: Tensor) -> Tensor:
    """Maps inputs [P, ..., d] by the moved weight, [P, ..., h]; under autocast in its precision, as ``F.linear``."""
    device = x.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    flat = x.reshape(len(x), -1, x.shape[-1]).to(dtype)
    return _FactoredLinear.apply(flat, weight.to(dtype), moves).view(*x.shape[:-1], -1)


def _attention(share: float, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention on [P, B, ...], computed as [P B, ...]."""
    mixed = attention(query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1), share=share)
    return mixed.unflatten(0, query.shape[:2])


class _Together(torch.autograd.Function):
    """A function of the tensors [P, ...] of all paths, called inside ``vmap``, where code sees those of one path."""

    @staticmethod
    def forward(function: Callable[..., Tensor], *of_one: Tensor) -> Tensor:
        raise NotImplementedError("callable inside vmap only")

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Required by ``vmap``."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, function: Callable[..., Tensor], *of_all: Tensor) -> tuple[Tensor, int]:
        return function(*(x.movedim(dim, 0) for x, dim in zip(of_all, in_dims[1:], strict=True))), 0


class _FactoredLinear(torch.autograd.Function):
    """See :class:`AllPaths`: x [P, N, d] to [P, N, h]; the backward pass adds its factors to the moves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, moves: Moves) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.moves, ctx.before = moves, tuple(moves.steps)
        y = F.linear(x, weight)
        for inputs, gradients in ctx.before:
            y.baddbmm_(x @ inputs.mT, gradients, alpha=-moves.rate)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        ctx.moves.steps.append((x, gradient))
        of_x = gradient @ weight
        for inputs, gradients in ctx.before:
            of_x.baddbmm_(gradient @ gradients.mT, inputs, alpha=-ctx.moves.rate)
        return of_x, gradient.flatten(0, 1).mT @ x.flatten(0, 1), None


def sum_of_paths(x: Tensor) -> Tensor:
    """Sums [P, ...] to [...], in the order of the memory layout."""
    order = sorted(range(1, x.dim()), key=x.stride, reverse=True)
    inverse = [order.index(dim) for dim in range(1, x.dim())]
    ordered = x.permute(0, *order)
    return (x.new_ones(len(x)) @ ordered.reshape(len(x), -1)).view(ordered.shape[1:]).permute(inverse)


def number_ids(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct ids of each path, and each id's place among them; 0, the padding, is always the first.

    Args:
        ids: [P, N].

    Returns:
        (rows [P, m], padded with 0; places [P, N]).
    """
    ordered, order = torch.cat([torch.zeros_like(ids[:, :1]), ids], dim=1).sort(dim=1)
    number = (ordered.diff(dim=1, prepend=ordered[:, :1]) > 0).cumsum(dim=1)  # [P, N + 1]
    rows = ids.new_zeros(len(ids), int(number.max()) + 1).scatter(1, number, ordered)
    return rows, torch.empty_like(number).scatter(1, order, number)[:, 1:]


class WithGradient(torch.autograd.Function):
    """A loss with a known gradient, for one backward pass."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        return None, None, *(known.mul_(gradient[0]) for known in ctx.gradients)
