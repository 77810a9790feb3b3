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
    """Which sequences the positions of windows belong to, and which of their states are read, R of each window.

    Attributes:
        single: whether the sequences are single-domain ones.
        place: place of each item in its sequence; the start token has place 0, [B, 1 + L].
        seen: which positions (columns) each position attends to, bool [B or 1, 1 + L, 1 + L].
        read: positions that are read, those of the items last, [R].
        task: as part of which sequence: number of its domain, or of domains for the cross-domain sequence, [B, R].
    """

    single: bool
    place: Tensor
    seen: Tensor
    read: Tensor
    task: Tensor


def across(domain: Tensor, domains: int) -> View:
    """The cross-domain view of windows whose items have these domains, [B, L]: each item is read, R = L."""
    number = torch.arange(1 + domain.shape[1], device=domain.device)
    seen = torch.ones(1, len(number), len(number), dtype=torch.bool, device=domain.device).tril()
    return View(False, number.expand(len(domain), -1), seen, number[1:], torch.full_like(domain, domains))


def per_domain(domain: Tensor, domains: int) -> View:
    """The single-domain view of windows whose items have these domains, [B, L].

    The start token is read as each domain's, then each item, R = D + L.
    """
    same = past_of(domain, domain)
    seen = F.pad(same, (1, 0, 1, 0))
    seen[:, :, 0] = True  # every sequence begins with the start token
    read = torch.arange(1 - domains, 1 + domain.shape[1], device=domain.device).clamp(min=0)
    starts = torch.arange(domains, device=domain.device).expand(len(domain), -1)
    return View(True, F.pad(same.sum(dim=-1), (1, 0)), seen, read, torch.cat([starts, domain], dim=1))


def past_of(domain: Tensor, target_domain: Tensor) -> Tensor:
    """Which items up to each position share the domain of its target, bool [B, L, L]; both arguments [B, L]."""
    return (target_domain[:, :, None] == domain[:, None, :]).tril()


def last_of(domain: Tensor, target_domain: Tensor) -> Tensor:
    """Position of the last item that shares the domain of each position's target, 0 (the start) without any, [B, L]."""
    number = torch.arange(1, 1 + domain.shape[1], device=domain.device)
    return (past_of(domain, target_domain) * number).amax(dim=-1)
