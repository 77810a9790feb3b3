"""What several processes compute together; with one process, nothing here changes or costs anything.

Each process computes the loss of its own rows of a batch. The losses of all add up to the loss of the whole batch, so
gradients are added up too: :func:`mean` divides by the number of rows of all processes.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed

from recbole_xfer.device import random_state, seeded, set_random_state
from recbole_xfer.errors import Lost, XferError
from recbole_xfer.network import use_network_of
from recbole_xfer.processes import count, is_first, number

PATIENCE = timedelta(days=7)
"""How long a process waits for the others; the first one may wait for another run's lock. A dead one ends it."""

P = ParamSpec("P")
T = TypeVar("T")


def backend() -> str:
    """PyTorch's backends for the devices of this machine."""
    has_nccl = torch.cuda.is_available() and distributed.is_nccl_available()
    return "cpu:gloo,cuda:nccl" if has_nccl else "gloo"


@contextmanager
def connected() -> Iterator[None]:
    """Connects the processes before the block, unless they are.

    Raises:
        XferError: if they cannot be connected.
        Lost: if another process ended during the block.
    """
    if not distributed.is_initialized():
        use_network_of(os.environ.get("MASTER_ADDR", ""))
        try:
            distributed.init_process_group(backend(), timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise XferError(
                f"The {count()} processes cannot be connected: {reason}. Start them by torchrun."
            ) from error
        atexit.register(distributed.destroy_process_group)
    try:
        yield
    except RuntimeError as error:  # such as torch's own classes
        raise Lost from error


# --- values and rows -------------------------------------------------------------------------------------------------


def total(values: Tensor) -> Tensor:
    """The sum of a tensor over all processes, without gradient."""
    return values.detach() if count() == 1 else _add(values.detach().clone(memory_format=torch.contiguous_format))


def _add(values: Tensor) -> Tensor:
    """:func:`total` in place."""
    with connected():
        distributed.all_reduce(values)
    return values


def mean(values: Tensor, dim: int | None = None) -> Tensor:
    """The mean over the rows of all processes; each process has its summand of it, whose gradients add up."""
    if count() == 1:
        return values.mean() if dim is None else values.mean(dim)
    rows = torch.tensor(values.numel() if dim is None else values.shape[dim])
    return (values.sum() if dim is None else values.sum(dim)) / total(rows)


def place(rows: int) -> tuple[int, int]:
    """The place of the first of this process' rows among those of all processes, and the number of all."""
    if count() == 1:
        return 0, rows
    counts = total(torch.tensor([rows if process == number() else 0 for process in range(count())]))
    return int(counts[: number()].sum()), int(counts.sum())


def gather(rows: Tensor) -> Tensor:
    """The rows of all processes in the order of the batch, with their gradient: [n, ...] to [N, ...]."""
    return rows if count() == 1 else _Gather.apply(rows, *place(len(rows)))


class _Gather(torch.autograd.Function):
    """The sum of what each process writes to its own place in zeros, which is exact."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, first: int, everything: int) -> Tensor:
        ctx.own = slice(first, first + len(rows))
        gathered = rows.new_zeros((everything, *rows.shape[1:]))
        gathered[ctx.own] = rows
        return _add(gathered)

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        return total(gradient[0])[ctx.own], None, None


def add_gradients(parameters: Sequence[Tensor]) -> None:
    """Adds up the gradients of all processes; a parameter without any gradient keeps none."""
    if count() == 1:
        return
    gradients = [parameter.grad for parameter in parameters]
    kinds = [[g is not None, g is not None and g.is_sparse] for g in gradients]
    known = [
        (p, sparse > 0) for p, (has, sparse) in zip(parameters, total(torch.tensor(kinds).int()), strict=True) if has
    ]
    dense = [parameter for parameter, sparse in known if not sparse]
    if dense:
        flat = torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in dense])
        for parameter, part in zip(dense, _add(flat).split([p.numel() for p in dense]), strict=True):
            parameter.grad = part.view_as(parameter).to(parameter.dtype)
    for table in (parameter for parameter, sparse in known if sparse):
        own = (torch.zeros_like(table).to_sparse(1) if table.grad is None else table.grad).coalesce()
        rows, values = gather(own.indices()[0]), gather(own.values())
        table.grad = torch.sparse_coo_tensor(rows[None], values, table.shape)


# --- random numbers --------------------------------------------------------------------------------------------------

_common: list[list[Tensor]] = []  # the state of the common generators while this process draws from its own
_alone: list[bool] = []  # not empty in :func:`alone`


@contextmanager
def own_draws(seed: int, epoch: int) -> Iterator[None]:
    """Draws other random numbers in each process, such as those of dropout, except by :func:`drawn`.

    They depend on the seed, the epoch and the process alone, so that a resumed run draws the same.
    """
    if count() == 1:
        yield
        return
    _common.append(random_state())
    try:
        with seeded(int(np.random.SeedSequence([seed, epoch, number()]).generate_state(1)[0])):
            yield
    finally:
        set_random_state(_common.pop())


@contextmanager
def alone() -> Iterator[None]:
    """Lets :func:`drawn` draw for this process alone, where the others do not call it equally often."""
    _alone.append(True)
    try:
        yield
    finally:
        _alone.pop()


def drawn(numbers: Tensor, fill: Callable[[Tensor], Any], shared: bool = False) -> Tensor:
    """Random numbers of this process' rows: those that one process would draw for the rows of all.

    Args:
        numbers: is filled with them, [n, ...].
        fill: draws as many numbers as a tensor has, such as ``Tensor.uniform_``.
        shared: whether all processes have the same rows, and get the same numbers.
    """
    if count() == 1 or _alone:
        fill(numbers)
        return numbers
    first, everything = (0, len(numbers)) if shared else place(len(numbers))
    rows = numbers.new_empty((everything, *numbers.shape[1:]))
    own = random_state()
    set_random_state(_common[-1] if _common else own)
    fill(rows)
    if _common:
        _common[-1] = random_state()
        set_random_state(own)
    return rows[first : first + len(numbers)]


# --- the first process -----------------------------------------------------------------------------------------------

_working: list[bool] = []  # not empty while the first process works for all


def in_first(function: Callable[P, T]) -> Callable[P, T]:
    """Decorates a function that reads or writes files: the first process calls it, and all return its result.

    All processes must call it. They raise the XferError that it raises.
    """

    @wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> T:
        if count() == 1 or _working:
            return function(*args, **kwargs)
        message: list[Any] = [None, "The first process of this run has failed. Its own message says why."]
        if not is_first():
            return _answer(message)
        _working.append(True)
        try:
            message = [function(*args, **kwargs), None]
        except XferError as error:
            message[1] = str(error)
            raise
        finally:
            _working.pop()
            _answer(message)
        return message[0]

    return called


def _answer(message: list[Any]) -> Any:
    """Sends a result and an error from the first process to the others, which return or raise it."""
    with connected():
        distributed.broadcast_object_list(message, device=torch.device("cpu"))
    result, error = message
    if error is not None and not is_first():
        raise XferError(error)
    return result
