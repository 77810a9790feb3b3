"""The processes that run a command together, as torchrun or Ray Train started them; usually there is one."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from recbole_xfer.errors import Lost, XferError

NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""Environment variables with which PyTorch's processes find each other; one process has none of them."""

GRACE = 5
"""Seconds in which the first process reports an error that all have, and torchrun ends the others."""


def count() -> int:
    """The number of processes."""
    return int(os.environ["WORLD_SIZE"]) if os.environ.keys() >= set(NAMES) else 1


def number() -> int:
    """The number of this process, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def is_first() -> bool:
    """Whether this process reads and writes files and prints for all of them."""
    return number() == 0


def own(rows: int) -> slice:
    """The rows of a batch or a table that this process computes: a block of them, in the order of the processes."""
    return slice(rows * number() // count(), rows * (number() + 1) // count())


def own_gpu(gpus: Any) -> str:
    """The GPU of this process: one of those in the key ``gpu_id``, or where it names one for all, one of the machine.

    ``''`` and -1, which stand for the CPU, stay.
    """
    listed = [str(gpu).strip() for gpu in (gpus if isinstance(gpus, tuple) else str(gpus).split(","))]
    place = int(os.environ.get("LOCAL_RANK", 0))
    if len(listed) == 1:
        return listed[0] if listed[0] in ("", "-1") else str(place)
    if place >= len(listed):
        raise XferError(f"gpu_id={gpus} lists {len(listed)} GPUs, fewer than the processes. List one for each.")
    return listed[place]


def check_one_process(verb: str) -> None:
    """Raises XferError if several processes were started for a command that runs in one."""
    if count() > 1:
        raise XferError(f"{verb} runs in one process. Start it without torchrun.")


@contextmanager
def as_one_command() -> Iterator[None]:
    """Lets several processes print, in the block, what one would: results of the first, and one sentence at the end.

    torchrun ends all processes with a signal after one of them has ended. Two of them then say so, since one may be the
    process that ended.
    """
    if count() == 1:
        yield
        return
    if number() < 2:
        signal.signal(signal.SIGTERM, _end)
    with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stdout(sys.stdout if is_first() else nowhere):
        yield


def _end(*_: Any) -> None:
    """Ends this process at once: others that it could wait for have ended."""
    print(f"error: {Lost()}", file=sys.stderr, flush=True)
    os._exit(128 + signal.SIGTERM)


def reports(error: BaseException) -> bool:
    """Whether this process prints an error; the first one prints those that all have."""
    if count() == 1:
        return True
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if isinstance(error, Lost):
        return number() < 2
    if not is_first():
        time.sleep(GRACE)
    return True
