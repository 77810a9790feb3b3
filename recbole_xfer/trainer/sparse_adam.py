"""Adam for large tables of items: a step costs as many rows as it reads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class SparseAdam(torch.optim.Adam):
    """Adam that updates only the rows of a table that a step reads; an approximation of Adam.

    Adam also moves each other row by its momentum, at a cost that grows with the table. Here a row's moments and values
    stay as they are until it is read again, as in PyTorch's SparseAdam, which has no dense parameters. Parameters with
    dense gradients are updated by Adam.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Makes one step; see :class:`torch.optim.Optimizer`."""
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None and table.grad.is_sparse:
                    self._update_rows(table, table.grad.coalesce(), group)
                    table.grad = None
        return super().step(closure)

    def _update_rows(self, table: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        beta1, beta2 = group["betas"]
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros((), device=table.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        state["step"] += 1
        step = float(state["step"])
        rows, values = gradient.indices()[0], gradient.values()
        mean = state["exp_avg"][rows].lerp_(values, 1 - beta1)
        square = state["exp_avg_sq"][rows].lerp_(values.square(), 1 - beta2)
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = mean, square
        deviation = square.sqrt_().div_((1 - beta2**step) ** 0.5).add_(group["eps"])
        table[rows] -= group["lr"] / (1 - beta1**step) * mean / deviation
