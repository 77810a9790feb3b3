"""Dropout by 16 bits per entry against its definition, and attention against PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from recbole_xfer.layers.dropout import Dropout, attention, attention_weights


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_dropout_drops_the_share_and_scales_the_rest(share: float) -> None:
    torch.manual_seed(0)
    dropout, x = Dropout(share), torch.ones(301, 333, requires_grad=True)
    y = dropout(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert torch.equal(gradient, y)
    assert y.unique().tolist() == pytest.approx([0, 1 / (1 - share)], abs=1e-4)
    deviation = (share * (1 - share) / x.numel()) ** 0.5
    assert abs(float((y == 0).double().mean()) - share) < 5 * deviation
    neighbours = ((y[:, 1:] == 0) & (y[:, :-1] == 0)).double().mean()
    assert abs(float(neighbours) - share**2) < 5 * deviation  # entries of one draw are independent
    assert not torch.equal(dropout(x), y)
    torch.manual_seed(0)
    assert torch.equal(dropout(x), y)
    assert torch.equal(dropout.eval()(x), x)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_equals_pytorchs(masked: bool) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 7, 5, dtype=torch.float64)
    seen = (torch.rand(2, 1, 7, 7) < 0.5) | torch.eye(7, dtype=torch.bool) if masked else None
    expected = F.scaled_dot_product_attention(query, key, value, seen, is_causal=not masked)
    assert torch.allclose(attention_weights(query, key, seen) @ value, expected, atol=1e-12)
    assert torch.equal(attention(query, key, value, seen), expected)


def test_attention_drops_weights_and_has_their_gradient() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 3, 4, 6, 5, dtype=torch.float64, requires_grad=True)
    everywhere = torch.eye(6, dtype=torch.float64).expand(3, 4, 6, 6)  # so that the output is the weights
    dropped = attention(query, key, everywhere, share=0.5)
    whole = attention_weights(query, key)
    kept = dropped > 0
    assert 0.4 < float(kept[whole > 0].double().mean()) < 0.6
    assert torch.allclose(dropped, torch.where(kept, 2 * whole, 0), atol=1e-12)
    towards = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    for found, expected in zip(
        torch.autograd.grad((dropped * towards).sum(), (query, key)),
        torch.autograd.grad((torch.where(kept, 2 * whole, 0) * towards).sum(), (query, key)),
        strict=True,
    ):
        assert torch.allclose(found, expected, atol=1e-12)
