"""Two views of a window of joined domains: across all domains, and each item with only its own domain's past.

Both views read the same positions of a window. The single-domain view consists of an attention mask and position
numbers, so that the sequences of all domains are one batch and no history is copied.

Symbols in comments: B windows, L positions of items; position 0 is the start token, common to all sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class View:
    """The sequences in windows, and the R states of each window that are read.

    Attributes:
        single: whether the sequences are single-domain.
        place: place of each item in its sequence; the start token has place 0, [B, 1 + L].
        seen: positions (columns) to which each position attends, bool [B or 1, 1 + L, 1 + L].
        read: positions that are read, the items' positions last, [R].
        task: sequence of each read position: number of its domain, or D for the cross-domain sequence, [B, R].
    """

    single: bool
    place: Tensor
    seen: Tensor
    read: Tensor
    task: Tensor


def across(domain: Tensor, domains: int) -> View:
    """The cross-domain view of windows with the domains of their items, [B, L]: each item is read, R = L."""
    number = torch.arange(1 + domain.shape[1], device=domain.device)
    seen = torch.ones(1, *2 * number.shape, dtype=torch.bool, device=domain.device).tril()
    return View(False, number.expand(domain.shape[0], -1), seen, number[1:], torch.full_like(domain, domains))


def per_domain(domain: Tensor, domains: int) -> View:
    """The single-domain view of windows with the domains of their items, [B, L].

    The start token is read once per domain, then each item, R = D + L.
    """
    same = past_of(domain, domain)
    seen = F.pad(same, (1, 0, 1, 0))
    seen[:, :, 0] = True  # every sequence begins with the start token
    read = torch.arange(1 - domains, 1 + domain.shape[1], device=domain.device).clamp(min=0)
    starts = torch.arange(domains, device=domain.device).expand(len(domain), -1)
    return View(True, F.pad(same.sum(dim=-1), (1, 0)), seen, read, torch.cat([starts, domain], dim=1))


def past_of(domain: Tensor, target_domain: Tensor) -> Tensor:
    """Items up to each position that have the domain of its target, bool [B, L, L]; both arguments [B, L]."""
    return (target_domain[:, :, None] == domain[:, None, :]).tril()


def last_of(domain: Tensor, target_domain: Tensor) -> Tensor:
    """Position of the last item with the domain of each position's target, 0 (the start) without any, [B, L]."""
    number = torch.arange(1, 1 + domain.shape[1], device=domain.device)
    return (past_of(domain, target_domain) * number).amax(dim=-1)
