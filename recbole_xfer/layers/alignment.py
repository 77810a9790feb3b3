"""Gradient alignment (section 3.2 of TP): k steps of descent along a path, and where they lead together.

Symbols in comments: P paths, N ids that a path looks up, m different ids among them, d width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Weights = Mapping[str, Tensor]


def outer_gradient(
    loss: Callable[[Weights, Any], Tensor], start: Weights, batches: Sequence[Any], rate: float
) -> tuple[dict[str, Tensor], Tensor]:
    """(theta_0 - theta_k) / (alpha k) behind k steps of descent (Eq. 6), the gradient of Eq. 7 up to its scale.

    It is the mean of the gradients along the path: their sum is kept, for a difference of parameters that hardly
    moved would have few digits left. With one batch it is the ordinary gradient.

    Deviation: Eq. 6 ascends, and Algorithm 1 then moves away from theta_k; what is meant is descent, and a move
    towards it.

    Args:
        loss: parameters and a batch to a loss, or to the losses [P] of paths whose parameters are stacked.
        start: theta_0 by name.
        batches: one for each inner step.
        rate: alpha.

    Returns:
        by name, in the shape of ``start``, and the loss along the path: its mean over steps, [] or [P].
    """
    theta, total, losses = start, dict.fromkeys(start, torch.zeros(())), []
    for number, batch in enumerate(batches, start=1):
        theta = {name: value.detach().requires_grad_() for name, value in theta.items()}
        value = loss(theta, batch)
        gradients = torch.autograd.grad(value.sum(), list(theta.values()), materialize_grads=True)
        total = {name: total[name] + gradient for name, gradient in zip(theta, gradients, strict=True)}
        losses.append(value.detach())
        if number < len(batches):
            steps = zip(theta.items(), gradients, strict=True)
            theta = {name: value.detach() - rate * gradient for (name, value), gradient in steps}  # Eq. 6
    return {name: value / len(batches) for name, value in total.items()}, torch.stack(losses).mean(dim=0)


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
    """A loss whose gradient is known already."""

    @staticmethod
    def forward(ctx: Any, loss: Tensor, gradients: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return loss.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        return None, None, *(known * gradient[0] for known in ctx.gradients)
