"""Ends the processes of a local Ray after its driver has died; a script of its own, started by the driver.

Ray ends most of its processes when the driver is killed, but its agents live on.

    python reaper.py PID    # waits until standard input ends, as it does when the driver dies
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

PAUSE = 0.5
"""Seconds between two looks at the processes."""
PATIENCE = 20
"""Looks after which the script gives up."""


def processes_of(driver: int) -> Iterator[int]:
    """Yields the processes with an open file in the driver's Ray session, whose name ends with the driver's number."""
    in_session = re.compile(rf"/session_[^/]*_{driver}/")
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is another user's
            if any(in_session.search(os.readlink(file)) for file in (process / "fd").iterdir()):
                yield int(process.name)


def end_processes(driver: int) -> None:
    """Kills the processes of the driver's session until there are none; does nothing on systems without ``/proc``."""
    for _ in range(PATIENCE):
        found = [number for number in processes_of(driver) if number not in (driver, os.getpid())]
        for number in found:
            with suppress(OSError):
                os.kill(number, signal.SIGKILL)
        if not found:
            return
        time.sleep(PAUSE)


if __name__ == "__main__":
    sys.stdin.read()
    end_processes(int(sys.argv[1]))
