"""Gradient alignment (section 3.2 of TP): k steps of descent along a path, and where they lead together.

Symbols in comments: P paths, N ids that a path looks up, m different ids among them, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]


def descend(
    loss: Callable[[Weights, Any], Tensor], start: Weights, batches: Sequence[Any], rate: float
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Takes a step of descent for each batch (Eq. 6), and gives each step's gradients and loss.

    The mean of the gradients is (theta_0 - theta_k) / (alpha k), the gradient of the outer update (Eq. 7) up to its
    scale, and with one batch the ordinary gradient. The difference of parameters that hardly moved would have few
    digits left.

    What is done to the gradients in place holds for the step.

    Deviation: Eq. 6 ascends, and Algorithm 1 then moves away from theta_k; what is meant is descent, and a move
    towards it.

    Args:
        loss: parameters and a batch to a loss, or to the losses [P] of paths whose parameters are stacked.
        start: theta_0 by name.
        batches: one for each inner step.
        rate: alpha.
    """
    theta = start
    for number, batch in enumerate(batches, start=1):
        theta = {name: value.detach().requires_grad_() for name, value in theta.items()}
        value = loss(theta, batch)
        found = torch.autograd.grad(value.sum(), list(theta.values()), materialize_grads=True)
        gradients = dict(zip(theta, found, strict=True))
        yield gradients, value.detach()
        if number < len(batches):
            # in the gradients' layout, which for a layer's weight is not that of theta
            theta = {name: gradients[name].mul(-rate).add_(value.detach()) for name, value in theta.items()}  # Eq. 6


def sum_of_paths(x: Tensor) -> Tensor:
    """[P, ...] to [...], in the order in which the numbers lie in memory."""
    order = sorted(range(1, x.dim()), key=x.stride, reverse=True)
    inverse = [order.index(dim) for dim in range(1, x.dim())]
    ordered = x.permute(0, *order)
    return (x.new_ones(len(x)) @ ordered.reshape(len(x), -1)).view(ordered.shape[1:]).permute(inverse)


def number_ids(ids: Tensor) -> tuple[Tensor, Tensor]:
    """The different ids of each path, and each id's place among them; 0, the padding, is always the first.

    Args:
        ids: [P, N].

    Returns:
        (rows [P, m], filled up with 0; places [P, N]).
    """
    ordered, order = torch.cat([torch.zeros_like(ids[:, :1]), ids], dim=1).sort(dim=1)
    number = (ordered.diff(dim=1, prepend=ordered[:, :1]) > 0).cumsum(dim=1)  # [P, N + 1]
    rows = ids.new_zeros(len(ids), int(number.max()) + 1).scatter(1, number, ordered)
    return rows, torch.empty_like(number).scatter(1, order, number)[:, 1:]


class WithGradient(torch.autograd.Function):
    """A loss whose gradient is known already, and is handed over at the first backward pass."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        return None, None, *(known.mul_(gradient[0]) for known in ctx.gradients)
