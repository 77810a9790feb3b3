"""Pathway attention of RETR (section 3.1.1): only pivotal behaviours have queries, all have keys and values.

Symbols in comments: B windows, L positions, d width; z are behaviour tokens, [B, L, d], and a route R is 1 where a
behaviour is on the pathway and 0 elsewhere, [B, L].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.collectives import drawn, total
from recbole_xfer.hooks import Inspection
from recbole_xfer.layers.encoder import CausalEncoder, activation
from recbole_xfer.layers.losses import precise

KEPT = "kept/"
"""Prefix of the scalars of :func:`kept_fractions`."""

DROP, KEEP = 0, 1
"""The two outcomes j of Eq. 3 to 5."""


class PathwayRouter(nn.Module):
    """Decides which behaviours stay on the pathway (Eq. 2 to 6).

    A sampled route follows Eq. 3, without the token's weight; the weight acts in the gradient only (Eq. 5).

    Deviation: ``pathway_context: prefix`` pools over the behaviours up to each position. The paper pools over the whole
    window (``window``), so that a position sees the items after it.

    Args:
        config: reads ``hidden_size``, ``hidden_act``, ``pathway_context``, ``pathway_route``,
            ``pathway_hierarchical`` and ``pathway_temperature``.
    """

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.context = config["pathway_context"]
        self.learned = config["pathway_route"] == "learned"
        self.hierarchical = config["pathway_hierarchical"]
        self.temperature = config["pathway_temperature"]
        self.seed = 0 if self.learned else int(torch.randint(2**31, ()))  # of the random route in evaluation
        width, act = config["hidden_size"], config["hidden_act"]
        self.counts: Tensor | None = torch.zeros(2, dtype=torch.long)  # of kept and of all behaviours in training
        self.summary = MLP(width, width, act)
        self.keep = MLP(width, 2, act)
        self.weight = MLP(width, 1, act)

    def forward(self, z: Tensor, route: Tensor, real: Tensor) -> Tensor:
        """The route of a block.

        Args:
            z: tokens, [B, L, d].
            route: of the previous block, [B, L]; ``real`` for the first.
            real: 1 at behaviours and 0 at padding, [B, L].

        Returns:
            Zeros and ones [B, L], whose gradient is that of the relaxed sample (straight-through).
        """
        decision = self.decide(z, route) if self.learned else self.random(route)
        kept = decision * (route if self.hierarchical else real)  # Eq. 6
        if self.training and self.counts is not None:
            self.counts = self.counts.to(kept.device) + torch.stack([(kept > 0).sum(), (real > 0).sum()])
        return kept

    def random(self, route: Tensor) -> Tensor:
        """Keeps each behaviour with probability 1/2, [B, L]; in evaluation equally at each call."""
        if self.training:
            return drawn(torch.empty_like(route), lambda decisions: decisions.random_(0, 2))
        return torch.randint(2, route.shape, generator=torch.Generator().manual_seed(self.seed)).to(route)

    def decide(self, z: Tensor, route: Tensor) -> Tensor:
        """The preliminary route [B, L] (Eq. 2 to 5): sampled in training, the likelier outcome in evaluation."""
        embedded = z + z * self.summary(self.pooled(z, route))  # Z_emb of Eq. 2, [B, L, d]
        log_pi = precise(self.keep(embedded)).log_softmax(dim=-1)  # [B, L, 2]
        if not self.training:
            return log_pi.argmax(dim=-1).to(z.dtype)
        noise = -drawn(torch.empty_like(log_pi), Tensor.exponential_).log()  # standard Gumbel
        hard = (log_pi + noise).argmax(dim=-1)  # Eq. 3
        if self.temperature is not None:
            exponent = (log_pi + noise) / self.temperature  # Eq. 4
        else:
            exponent = precise(F.relu(self.weight(embedded))) * log_pi + noise  # Eq. 5
        relaxed = exponent.softmax(dim=-1)[..., KEEP]
        return (hard + (relaxed - relaxed.detach())).to(z.dtype)  # in this order exactly 0 and 1

    def pooled(self, z: Tensor, route: Tensor) -> Tensor:
        """Mean of the kept tokens, 0 if there are none: up to each position [B, L, d], or of the window [B, 1, d]."""
        kept, count = precise(z * route[..., None]), precise(route)
        if self.context == "window":
            kept, count = kept.sum(dim=1, keepdim=True), count.sum(dim=1, keepdim=True)
        else:
            kept, count = kept.cumsum(dim=1), count.cumsum(dim=1)
        return (kept / count.clamp(min=1)[..., None]).to(z.dtype)


def kept_fractions(model: nn.Module) -> dict[str, float]:
    """The fraction of behaviours that each block of a model kept in training since the last call."""
    found: dict[str, float] = {}
    for number, router in enumerate(_routers(model), start=1):
        if router.counts is not None:
            kept, every = total(router.counts).tolist()
            router.counts = torch.zeros_like(router.counts)
            found |= {f"{KEPT}block {number}": kept / every} if every else {}
    return found


def stop_counting(model: nn.Module) -> None:
    """Lets the routers of a model count nothing, for passes under ``vmap``, whose tensors must not be kept."""
    for router in _routers(model):
        router.counts = None


def _routers(model: nn.Module) -> list[PathwayRouter]:
    return [module for module in model.modules() if isinstance(module, PathwayRouter)]


class MLP(nn.Module):
    """Two linear layers at each position, with half the width between them."""

    def __init__(self, width: int, size: int, act: str) -> None:
        super().__init__()
        self.first = nn.Linear(width, width // 2)
        self.second = nn.Linear(width // 2, size)
        self.activation = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        """[..., d] to [..., size]"""
        return self.second(self.activation(self.first(x)))


@dataclass(frozen=True)
class Trace:
    """A record of a pass through a :class:`PathwayEncoder`.

    Attributes:
        states: Z^L, [B, L, d], or [B, 1, d] at one position.
        routes: R^1 to R^L, [B, L] each.
        tokens: Z^0 to Z^(L-1), the input of each block, [B, L, d] each.
    """

    states: Tensor
    routes: list[Tensor]
    tokens: list[Tensor]


class PathwayEncoder(CausalEncoder):
    """The causal encoder with a router before each attention (Eq. 1 and 7).

    Args:
        config: also reads the keys of :class:`PathwayRouter`, and ``pathway_acts_on``.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for attention in list(self.layers)[::2]:
            attention.routed = config["pathway_acts_on"]
        self.routers = nn.ModuleList(PathwayRouter(config) for _ in range(config["n_layers"]))

    def forward(self, x: Tensor, real: Tensor | None = None) -> Tensor:
        """Embedded windows to hidden states, [B, L, d]; ``real`` as for :meth:`PathwayRouter.forward`."""
        return self.trace(x, real).states

    def at(self, position: Tensor, x: Tensor, real: Tensor | None = None) -> Tensor:
        """See :meth:`~recbole_xfer.layers.encoder.CausalEncoder.at`."""
        return self.trace(x, real, position).states[:, 0]

    def trace(self, x: Tensor, real: Tensor | None = None, position: Tensor | None = None) -> Trace:
        """The states of :meth:`forward`, or those at ``position`` [B] alone, with routes and tokens of all blocks."""
        z = self.dropout(self.norm(x))
        real = z.new_ones(z.shape[:2]) if real is None else real.to(z.dtype)
        routes, tokens = [real], []  # R^0
        layers: list[Any] = list(self.layers)
        for router, attention, feed_forward in zip(self.routers, layers[::2], layers[1::2], strict=True):
            tokens.append(z)
            routes.append(router(z, routes[-1], real))
            all_states = position is None or len(tokens) < len(self.routers)
            z = feed_forward(attention(z, routes[-1]) if all_states else attention.at(position, z, routes[-1]))
        return Trace(z, routes[1:], tokens)

    def inspect(self, x: Tensor) -> Inspection:
        """How an embedded history [1, L, d] is read."""
        trace = self.trace(x)
        return Inspection(torch.cat(trace.routes), self._last_weights(trace.tokens[-1], trace.routes[-1]))
