"""A critic that estimates the distance of two distributions of vectors (Gulrajani et al., improved WGAN).

Symbols in comments: B vectors of each distribution, d width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from recbole_xfer.collectives import mean


class Critic(nn.Module):
    """Fully connected layers with ReLU between them, from a vector to one number.

    Args:
        width: size of the vectors.
        size: width of the hidden layers.
        layers: number of linear layers, at least 2.
    """

    def __init__(self, width: int, size: int, layers: int) -> None:
        super().__init__()
        hidden = [nn.Linear(width if number == 0 else size, size) for number in range(layers - 1)]
        self.layers = nn.Sequential(*(part for layer in hidden for part in (layer, nn.ReLU())), nn.Linear(size, 1))

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] to [...]"""
        return self.layers(x)[..., 0]

    def distance(self, a: Tensor, b: Tensor) -> Tensor:
        """The estimated Wasserstein distance: the mean score of a [B, d] minus that of b [B, d]."""
        scores = mean(self(torch.stack([a, b])), dim=1)
        return scores[0] - scores[1]


def gradient_penalty(critic: nn.Module, a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Penalises a gradient norm other than 1 between the two distributions: mean of (|gradient| - 1)^2.

    Args:
        critic: [B, d] to [B].
        a: vectors of one distribution, [B, d].
        b: vectors of the other, [B, d].
        share: the point between each row's vectors, 0 (at b) to 1 (at a), [B, 1].
    """
    between = (share * a + (1 - share) * b).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return mean((gradient.norm(dim=-1) - 1).square())
