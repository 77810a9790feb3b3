"""Times a small training step with threads that spin and threads that sleep, on idle and on busy cores.

    python -m benchmarks.speed.waiting_threads                # beside 0 and 4 busy processes
    python -m benchmarks.speed.waiting_threads --busy 0 2 8

Each measurement is a process of its own, because libgomp reads its settings when PyTorch is imported. Prints the median
and the longest of 40 steps in milliseconds. Run it on an otherwise idle machine.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

STEPS, WARM_UP = 40, 5
SETTINGS: dict[str, dict[str, str]] = {
    "PyTorch's default": {},
    "GOMP_SPINCOUNT=2000, as recbole_xfer sets it": {"GOMP_SPINCOUNT": "2000"},
    "OMP_WAIT_POLICY=PASSIVE": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}


def step_times() -> list[float]:
    """Milliseconds of each step of a transformer layer, 64 wide, on 64 windows of 20 items.

    Imports nothing of recbole_xfer, which would set how threads wait.
    """
    import torch  # here, so that the other process can set how its threads wait

    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(64, 2, 256, batch_first=True)
    optimizer = torch.optim.Adam(layer.parameters())
    batch = torch.randn(64, 20, 64)
    times = []
    for _ in range(WARM_UP + STEPS):
        start = time.perf_counter()
        optimizer.zero_grad()
        layer(batch).square().mean().backward()
        optimizer.step()
        times.append(1000 * (time.perf_counter() - start))
    return times[WARM_UP:]


@contextmanager
def busy_processes(count: int) -> Iterator[None]:
    """Keeps cores busy with processes that do nothing useful."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def main() -> None:
    """Prints a line for each number of busy processes and each setting."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--busy", type=int, nargs="+", default=[0, 4], help="numbers of busy processes")
    parser.add_argument("--steps", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.steps:
        print(*step_times())
        return
    names = {name for setting in SETTINGS.values() for name in setting}
    for count in options.busy:
        with busy_processes(count):
            for name, setting in SETTINGS.items():
                environment = {key: value for key, value in os.environ.items() if key not in names} | setting
                command = [sys.executable, __file__, "--steps"]
                done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
                times = [float(word) for word in done.stdout.split()]
                print(f"{count} busy, {name}: median {statistics.median(times):.1f} ms, longest {max(times):.0f} ms")


if __name__ == "__main__":
    main()
