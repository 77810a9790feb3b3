"""A window of joined domains seen in two ways: across all, and each item with the past of its own domain alone.

Both views read the same positions of one window. The single-domain view is an attention mask and a numbering, so that
the sequences of all domains are one batch and no history is copied.

Symbols in comments: B windows, L positions of items; position 0 is the start token, common to all sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class View:
    """Which sequence each position belongs to.

    Attributes:
        task: number of the sequence's kind: its domain, or the number of domains for the cross-domain sequence, [B, L].
        place: place of each item in its sequence; the start token has place 0, [B, 1 + L].
        mask: which positions each position attends to, bool [B, 1 + L, 1 + L]; None where to all up to itself.
    """

    task: Tensor
    place: Tensor
    mask: Tensor | None


def across(domain: Tensor, domains: int) -> View:
    """The cross-domain view of windows whose items have these domains, [B, L]."""
    length = domain.shape[1]
    place = torch.arange(1 + length, device=domain.device).expand(len(domain), -1)
    return View(torch.full_like(domain, domains), place, None)


def per_domain(domain: Tensor) -> View:
    """The single-domain view of windows whose items have these domains, [B, L]."""
    same = past_of(domain, domain)
    mask = F.pad(same, (1, 0, 1, 0))
    mask[:, :, 0] = True  # every sequence begins with the start token
    return View(domain, F.pad(same.sum(dim=-1), (1, 0)), mask)


def past_of(domain: Tensor, target_domain: Tensor) -> Tensor:
    """Which items up to each position share the domain of its target, bool [B, L, L]; both arguments [B, L]."""
    return (target_domain[:, :, None] == domain[:, None, :]).tril()


def last_of(domain: Tensor, target_domain: Tensor) -> Tensor:
    """Position of the last item that shares the domain of each position's target, 0 (the start) without any, [B, L]."""
    number = torch.arange(1, 1 + domain.shape[1], device=domain.device)
    return (past_of(domain, target_domain) * number).amax(dim=-1)
