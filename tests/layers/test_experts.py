"""Encoders in one computation equal separate encoders."""

from __future__ import annotations

import torch
from torch import nn

from recbole_xfer.layers.encoder import CausalEncoder
from recbole_xfer.layers.experts import Experts

CONFIG = {
    "hidden_size": 8,
    "n_layers": 2,
    "n_heads": 2,
    "inner_size": 6,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "hidden_dropout_prob": 0.3,
    "attn_dropout_prob": 0.3,
    "initializer_range": 0.02,
}


def test_experts_equal_separate_encoders() -> None:
    """States and gradients, of parameters and input."""
    torch.manual_seed(0)
    experts = Experts(CONFIG, 3).double().eval()
    for parameter in experts.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(4, 7, 8, dtype=torch.float64, requires_grad=True)
    towards = torch.randn(3, 4, 7, 8, dtype=torch.float64)
    states = experts(x, torch.ones(1, 7, 7).tril().bool())
    of_x, *of_parameters = torch.autograd.grad((states * towards).sum(), [x, *experts.parameters()])
    names = [name for name, _ in experts.named_parameters()]

    total = torch.zeros_like(of_x)
    for number in range(3):
        encoder = CausalEncoder(CONFIG).double().eval()
        encoder.load_state_dict({name: value[number] for name, value in experts.state_dict().items()})
        alone = encoder(x)
        assert torch.allclose(states[number], alone, atol=1e-12)
        part, *gradients = torch.autograd.grad((alone * towards[number]).sum(), [x, *encoder.parameters()])
        total += part
        assert names == [name for name, _ in encoder.named_parameters()]
        for ours, theirs in zip(of_parameters, gradients, strict=True):
            assert torch.allclose(ours[number], theirs, atol=1e-12)
    assert torch.allclose(of_x, total, atol=1e-12)
