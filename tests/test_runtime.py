"""Threads of PyTorch sleep soon when they wait, and freed memory is kept, unless the user has set it otherwise."""

import os
import platform
import subprocess
import sys

import pytest

from recbole_xfer.runtime import ALLOCATION, SPINS, wait_briefly

NAMES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"GOMP_SPINCOUNT": SPINS}),
        ({"GOMP_SPINCOUNT": "7"}, {"GOMP_SPINCOUNT": "7"}),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
    ],
)
def test_the_users_setting_wins(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], expected: dict[str, str]
) -> None:
    for name in NAMES:
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    wait_briefly()
    assert {name: os.environ[name] for name in NAMES if name in os.environ} == expected


def test_it_is_set_before_torch_is_imported() -> None:
    program = "import os, sys, recbole_xfer; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [SPINS, "False"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is set")
@pytest.mark.parametrize(("given", "kept"), [({}, True), ({"GLIBC_TUNABLES": ""}, False)])
def test_freed_memory_is_kept(given: dict[str, str], kept: bool) -> None:
    """Touching freed blocks again costs page faults only where they were returned to the system."""
    program = """if True:
        import resource, recbole_xfer, ctypes
        c = ctypes.CDLL(None)
        c.malloc.restype, c.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
        def faults():
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            blocks = [c.malloc(20 * 2**20) for _ in range(3)]
            for block in blocks:
                ctypes.memset(block, 1, 20 * 2**20)
            for block in blocks:
                c.free(block)
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
        print([faults() for _ in range(3)][-1])
    """
    environment = {name: value for name, value in os.environ.items() if name not in ALLOCATION} | given
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert (int(done.stdout) < 100) == kept


@pytest.mark.skipif(sys.platform != "linux" or platform.libc_ver()[0] != "glibc", reason="only glibc is asked")
def test_freed_memory_is_returned_between_other_blocks() -> None:
    program = """if True:
        import recbole_xfer
        from recbole_xfer.runtime import return_freed_memory
        def megabytes():
            return int(open("/proc/self/statm").read().split()[1]) * 4096 // 2**20
        blocks = [bytearray(2**20) for _ in range(400)]
        full = megabytes()
        del blocks[:-1]
        freed = megabytes()
        return_freed_memory()
        print(full - freed, freed - megabytes())
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    kept, returned = map(int, done.stdout.split())
    assert kept < 50 and returned > 300
