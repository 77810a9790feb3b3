"""How the threads of OpenMP, which PyTorch computes with, wait for each other."""

from __future__ import annotations

import os

SPINS = "2000"
"""Rounds in which a thread asks for work before it sleeps; libgomp's default is billions."""


def wait_briefly() -> None:
    """Lets waiting threads sleep, unless the user has set how they wait; works until torch is imported.

    On cores that other processes use too, a thread that spins keeps the thread that it waits for from running. A small
    training step then takes ten to a hundred times as long (benchmarks/speed/waiting_threads.py).
    """
    if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        os.environ["GOMP_SPINCOUNT"] = SPINS
