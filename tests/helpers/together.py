"""Runs functions in several processes that work together, as torchrun starts them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import torch

PATIENCE = 120
"""Seconds after which a process counts as hanging."""


def together(function: Callable[..., Any], *arguments: Any, count: int = 2) -> list[int]:
    """Calls a function in several processes; returns their exit codes.

    They are forked, so that nothing is imported again.
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    processes = [
        fork.Process(target=_member, args=(number, count, port, function, arguments), daemon=True)
        for number in range(count)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(PATIENCE)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return [-999 if code is None else code for code in codes]


def _member(number: int, count: int, port: int, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    place = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    code = function(*arguments)
    sys.stdout.flush()
    os._exit(code or 0)
