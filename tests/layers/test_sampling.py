"""Sampled softmax: against its reference, and its expectation against the full softmax."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_xfer.layers.losses import Correction, item_cross_entropy
from recbole_xfer.layers.sampling import Candidates, CandidateSampler
from tests.reference import sampled_softmax as reference

ITEMS, WIDTH, DRAWS = 150, 6, 20
WINDOWS = [[3, 7, 8], [7], [9, 12], [40, 3]]


def counts() -> np.ndarray:
    """Training targets of each item by popularity, [1 + ITEMS]."""
    return np.r_[0, np.random.default_rng(0).geometric(0.15, ITEMS) - 1]


SAMPLER = CandidateSampler(counts(), DRAWS)


def padded(windows: list[list[int]]) -> Tensor:
    """Targets of windows, [B, L], with positions without a target on both sides."""
    longest = max(map(len, windows))
    return torch.tensor([[0, *window, *[0] * (longest - len(window) + 1)] for window in windows])


def data() -> tuple[Tensor, Tensor]:
    """States of the targets of WINDOWS, and vectors of all items."""
    torch.manual_seed(0)
    users = torch.randn(sum(map(len, WINDOWS)), WIDTH, dtype=torch.float64)
    return users.requires_grad_(), torch.randn(1 + ITEMS, WIDTH, dtype=torch.float64) * 0.3


def draw(windows: list[list[int]], seed: int) -> Candidates:
    torch.manual_seed(seed)
    return SAMPLER(padded(windows))


def test_candidates_are_the_targets_and_the_draws_with_their_probabilities() -> None:
    ids, target, (log_q, certain) = draw(WINDOWS, 1)
    torch.manual_seed(1)
    drawn = set(torch.randint(1, 1 + ITEMS, (DRAWS,)).tolist())
    assert ids.tolist() == sorted(drawn | {item for window in WINDOWS for item in window})
    assert ids[target].tolist() == [item for window in WINDOWS for item in window]
    total = int(counts().sum())
    q = [reference.probability(int(counts()[item]), total, len(target), ITEMS, DRAWS) for item in ids.tolist()]
    assert np.allclose(log_q.exp().numpy(), q, atol=1e-6)
    assert [sorted(set(row)) for row in ids[certain].tolist()] == [w for w in map(sorted, WINDOWS) for _ in w]


def test_the_loss_equals_its_reference_and_its_gradient_the_one_of_the_corrected_logits() -> None:
    users, vectors = data()
    ids, target, correction = draw(WINDOWS, 2)
    items = vectors[ids].requires_grad_()
    loss = item_cross_entropy(users, items, target, correction=correction)
    q = np.zeros(1 + ITEMS)
    q[ids.numpy()] = correction.log_q.double().exp().numpy()
    rows = iter(users.detach().numpy())
    states = [[next(rows) for _ in window] for window in WINDOWS]
    drawn = set(ids.tolist())
    assert abs(float(loss.detach()) - reference.loss(states, vectors.numpy(), WINDOWS, drawn, q)) < 1e-12

    shift = correction.log_q.double().expand(len(users), -1).clone().scatter_(1, correction.certain, 0.0)
    plain = F.cross_entropy(users @ items.T - shift, target)
    expected = torch.autograd.grad(plain, (users, items))
    for ours, theirs in zip(torch.autograd.grad(loss, (users, items)), expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-14)


def test_the_expectation_is_the_full_loss_and_gradient_only_with_the_correction() -> None:
    """Over batches whose other windows' targets are drawn from those of training, and over the uniform draws.

    The estimated sum is unbiased, so the bias of its logarithm and of the gradient is of the order of its relative
    variance, which falls with the number of candidates.
    """
    users, vectors = data()
    own = WINDOWS[0]
    users, vectors = users[: len(own)].detach(), vectors.requires_grad_()
    others = torch.tensor([item for item in np.argsort(counts()).tolist() if item not in [0, *own]])

    def of(loss: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, and its gradient by quarters of the other items, from the rarest to the most popular."""
        gradient = torch.autograd.grad(loss, vectors)[0]
        return loss.detach(), torch.stack([gradient[part].sum(dim=0) for part in others.chunk(4)])

    full, push = of(item_cross_entropy(users, vectors[1:], torch.tensor(own) - 1))
    pool, rng, repetitions = np.repeat(np.arange(1 + ITEMS), counts()), np.random.default_rng(0), 150
    found = {corrected: [torch.zeros_like(full), torch.zeros_like(push)] for corrected in (True, False)}
    for seed in range(repetitions):
        windows = [own, *rng.choice(pool, 30, replace=False).reshape(-1, 3).tolist()]
        ids, target, (log_q, certain) = draw(windows, seed)
        for corrected, sums in found.items():
            correction = Correction(log_q, certain[: len(own)]) if corrected else None
            loss = item_cross_entropy(users, vectors[ids], target[: len(own)], correction=correction)
            for total, value in zip(sums, of(loss), strict=True):
                total += value / repetitions
    error = {key: (abs(float(a - full)), float((b - push).norm() / push.norm())) for key, (a, b) in found.items()}
    assert error[True][0] < 0.06 and error[True][1] < 0.06
    assert error[False][0] > 1 and error[False][1] > 0.3
