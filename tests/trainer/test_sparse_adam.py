"""SparseAdam: Adam for dense gradients, PyTorch's SparseAdam for sparse ones."""

from __future__ import annotations

import torch
from torch import nn

from recbole_xfer.trainer.sparse_adam import SparseAdam

STEPS = torch.tensor([[0, 1, 1], [2, 1, 3], [0, 0, 4]])
"""Rows of the table that each step reads; the row 5 is never read."""


def trained(optimizers: list[type[torch.optim.Optimizer]], sparse: bool) -> list[torch.Tensor]:
    """The table and the layer after some steps, each by its own optimizer or both by one."""
    torch.manual_seed(0)
    table, layer = nn.Embedding(6, 4, sparse=sparse), nn.Linear(4, 1)
    parts = (
        [[*table.parameters()], [*layer.parameters()]] if len(optimizers) > 1 else [[table.weight, *layer.parameters()]]
    )
    made = [optimizer(part, lr=0.1) for optimizer, part in zip(optimizers, parts, strict=True)]
    for rows in STEPS:
        loss = layer(table(rows)).square().sum()
        for optimizer in made:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in made:
            optimizer.step()
    return [table.weight.detach(), *(parameter.detach() for parameter in layer.parameters())]


def test_dense_gradients_are_adams() -> None:
    for ours, theirs in zip(trained([SparseAdam], False), trained([torch.optim.Adam], False), strict=True):
        assert torch.equal(ours, theirs)


def test_sparse_gradients_are_those_of_pytorchs_sparse_adam_and_leave_other_rows() -> None:
    ours, theirs = trained([SparseAdam], True), trained([torch.optim.SparseAdam, torch.optim.Adam], True)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-6)
    torch.manual_seed(0)
    assert torch.equal(ours[0][5], nn.Embedding(6, 4).weight[5])
