"""No process of Ray outlives its driver."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from recbole_xfer import reaper


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="this system has no /proc")
def test_processes_of_a_dead_drivers_session_are_ended(tmp_path: Path) -> None:
    sessions = [tmp_path / f"session_2026_{number}" for number in (os.getpid(), f"1{os.getpid()}")]
    for session in sessions:
        session.mkdir()
    agents = [
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], stdout=(session / "log").open("w"))
        for session in sessions
    ]
    script = subprocess.Popen([sys.executable, reaper.__file__, str(os.getpid())], stdin=subprocess.PIPE)
    assert agents[0].poll() is None
    script.communicate(timeout=30)  # ends its input, as the driver's death does
    assert agents[0].wait(timeout=30) < 0
    assert agents[1].poll() is None
    agents[1].kill()
