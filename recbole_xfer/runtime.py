"""What PyTorch computes on: how OpenMP's threads wait for each other, and whether freed memory is kept."""

from __future__ import annotations

import ctypes
import os

SPINS = "2000"
"""Rounds in which a thread asks for work before it sleeps; libgomp's default is billions."""

KEPT = 2**26
"""Bytes of the largest blocks whose memory stays with the process; glibc's default grows to half of it."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Parameters of glibc's mallopt."""

ALLOCATION = {"GLIBC_TUNABLES", "LD_PRELOAD", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_"}
"""Variables by which a user sets how memory is allocated."""


def wait_briefly() -> None:
    """Lets waiting threads sleep, unless the user has set how they wait; works until torch is imported.

    On cores that other processes use too, a thread that spins keeps the thread that it waits for from running. A small
    training step then takes ten to a hundred times as long (benchmarks/speed/waiting_threads.py).
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS


def keep_freed_memory() -> None:
    """Lets glibc reuse the memory of freed tensors, unless the user has set how it allocates; elsewhere does nothing.

    By default glibc returns the memory of a large tensor to the system, which clears it page by page for the next one.
    Five epochs of SASRec on Pantry had 1.8 million page faults and 4.4 s in the system; now 0.13 million and 0.6 s.
    """
    if ALLOCATION & os.environ.keys():
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, KEPT)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def return_freed_memory() -> None:
    """Returns the memory that glibc kept to the system, after work whose memory the next work may not need."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)
