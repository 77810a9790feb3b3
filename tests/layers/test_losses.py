"""The fused cross-entropy against PyTorch's own, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_xfer.layers import losses
from recbole_xfer.layers.losses import chunked_cross_entropy, item_cross_entropy

TARGETS, ITEMS, WIDTH = 300, 40, 8


def data(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    users, items = torch.randn(TARGETS, WIDTH, dtype=dtype), torch.randn(ITEMS, WIDTH, dtype=dtype)
    return users.requires_grad_(), items.requires_grad_(), torch.randint(ITEMS, (TARGETS,))


def plain(users: Tensor, items: Tensor, target: Tensor, excluded: Tensor | None = None) -> Tensor:
    logits = users @ items.T
    return F.cross_entropy(logits if excluded is None else logits.masked_fill(excluded, -torch.inf), target)


@pytest.mark.parametrize("tile", [1, 2**20], ids=["tiles of the fewest rows", "one tile"])
@pytest.mark.parametrize("masked", [False, True])
def test_loss_and_gradients_equal_the_plain_ones(monkeypatch: pytest.MonkeyPatch, tile: int, masked: bool) -> None:
    monkeypatch.setitem(losses.TILE, "cpu", tile)
    found = []
    for loss in (item_cross_entropy, plain):
        users, items, target = data()
        excluded = torch.rand(TARGETS, ITEMS) < 0.3
        excluded[torch.arange(TARGETS), target] = False
        value = loss(users, items, target, excluded if masked else None)
        (3 * value).backward()  # a weight, as of a sum of losses
        found.append([value, users.grad, items.grad])
    for ours, theirs in zip(*found, strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-14)


def test_a_target_of_zero_probability_has_a_finite_loss() -> None:
    users, items, target = torch.tensor([[500.0]]), torch.tensor([[1.0], [-1.0]]), torch.tensor([1])
    assert item_cross_entropy(users, items, target) == plain(users, items, target) == 1000


def test_under_autocast_the_loss_is_close_and_gradients_have_the_parameters_type() -> None:
    users, items, target = data(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        loss = item_cross_entropy(users, items, target)
    loss.backward()
    assert users.grad.dtype == items.grad.dtype == torch.float32
    expected = [plain(users, items, target), *torch.autograd.grad(plain(users, items, target), (users, items))]
    for ours, theirs in zip((loss, users.grad, items.grad), expected, strict=True):
        assert (ours - theirs).norm() < 0.02 * theirs.norm()


def test_in_chunks_the_target_has_the_same_noise_as_in_the_sum() -> None:
    """An item is encoded once in a chunk, with noise: the target's logit is that of the sum over all."""
    users, items, target = data()
    drawn: list[Tensor] = []

    def encode(ids: Tensor) -> Tensor:
        drawn.append(items[ids] + torch.randn(len(ids), WIDTH, dtype=items.dtype))
        return F.normalize(drawn[-1], dim=-1)

    chunks = torch.arange(ITEMS).split(7)
    loss = chunked_cross_entropy(F.normalize(users, dim=-1), target, encode, chunks, temperature=0.1)
    loss.backward()
    found = [loss, users.grad, items.grad]
    forward, again = torch.cat(drawn[: len(drawn) // 2]), torch.cat(drawn[len(drawn) // 2 :])
    assert torch.equal(forward, again)
    users, items, _ = data()
    noisy = items + (forward - items).detach()
    expected = plain(F.normalize(users, dim=-1) / 0.1, F.normalize(noisy, dim=-1), target)
    expected.backward()
    for ours, theirs in zip(found, [expected, users.grad, items.grad], strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
