"""Processes of several machines find each other; the machines are network namespaces."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from recbole_xfer.network import INTERFACE, interface_to, use_network_of

SUM = "import torch; from recbole_xfer.collectives import total; print(total(torch.tensor(float({}))))"
FIRST, SECOND = "10.9.8.1", "10.9.8.2"


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """Two network namespaces that are connected, whose addresses are FIRST and SECOND."""
    names = [f"{os.getpid()}-{number}" for number in (1, 2)]
    ends = [f"x{os.getpid()}a", f"x{os.getpid()}b"]
    try:
        ip("netns", "add", names[0])
        ip("netns", "add", names[1])
        ip("link", "add", ends[0], "type", "veth", "peer", "name", ends[1])
        for name, end, address in zip(names, ends, (FIRST, SECOND), strict=True):
            ip("link", "set", end, "netns", name)
            for command in (
                ["addr", "add", f"{address}/24", "dev", end],
                ["link", "set", "lo", "up"],
                ["link", "set", end, "up"],
            ):
                ip("-n", name, *command)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces cannot be made here: {error}")
    try:
        yield names
    finally:
        for name in names:
            ip("netns", "delete", name)


def test_processes_of_two_machines_whose_own_name_is_local_are_connected(machines: list[str]) -> None:
    """As by Debian's default, the name of this machine is 127.0.0.1 or unknown in a namespace."""
    processes = []
    for rank, name in enumerate(machines):
        own = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": FIRST, "MASTER_PORT": "29511"}
        environment = {**os.environ, **own, "OMP_NUM_THREADS": "1"}
        environment.pop(INTERFACE, None)
        command = ["ip", "netns", "exec", name, sys.executable, "-c", SUM.format(rank + 1)]
        processes.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
    try:
        for process in processes:
            printed, errors = process.communicate(timeout=60)
            assert printed.strip() == "tensor(3.)", errors
    finally:
        for process in processes:
            process.kill()


def test_an_interface_is_that_of_the_route(machines: list[str]) -> None:
    script = f"from recbole_xfer.network import *; print(interface_to('{SECOND}'), interface_to('{FIRST}'))"
    found = subprocess.run(
        ["ip", "netns", "exec", machines[0], sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert found.stdout.split() == [f"x{os.getpid()}a"] * 2


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "", "no.such.host.invalid", "::1"])
def test_this_machine_and_unknown_ones_have_no_interface(host: str) -> None:
    assert interface_to(host) is None


def test_the_users_interface_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(INTERFACE, "eth7")
    use_network_of("127.0.0.1")
    assert os.environ[INTERFACE] == "eth7"
    monkeypatch.setattr("recbole_xfer.network.interface_to", lambda host: "eth1")
    use_network_of("10.0.0.1")
    assert os.environ[INTERFACE] == "eth7"
    monkeypatch.delenv(INTERFACE)
    with monkeypatch.context() as patched:
        patched.setattr(os, "environ", {**os.environ})
        use_network_of("10.0.0.1")
        assert os.environ.get(INTERFACE) == ("eth1" if sys.platform == "linux" else None)
