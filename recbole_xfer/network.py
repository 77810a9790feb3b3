"""The network by which the processes of several machines reach each other."""

from __future__ import annotations

import os
import socket
import struct
import sys

INTERFACE = "GLOO_SOCKET_IFNAME"
"""The environment variable that names the network interface of gloo, PyTorch's backend for CPUs."""

SIOCGIFADDR = 0x8915
"""Linux' request for the address of a network interface, which it writes behind its name and two numbers."""

NAME_SIZE, REQUEST_SIZE, ADDRESS = 16, 40, slice(20, 24)
ANY_PORT = 9


def use_network_of(host: str) -> None:
    """Lets gloo use the interface by which a host is reached, unless the user has named one; only on Linux.

    Otherwise gloo takes the address that this machine's own name has. On many machines, Debian's and Ubuntu's by
    default, that is 127.0.0.1, where other machines find nothing.
    """
    name = interface_to(host) if sys.platform == "linux" and INTERFACE not in os.environ else None
    if name is not None:
        os.environ[INTERFACE] = name


def interface_to(host: str) -> str | None:
    """The interface with the address from which a host is reached; None for this machine's own, and for IPv6."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, ANY_PORT))  # sends nothing
        except OSError:
            return None
        own = probe.getsockname()[0]
        found = [name for _, name in socket.if_nameindex() if _address(probe, name) == own]
    return next((name for name in found if not own.startswith("127.")), None)


def _address(some: socket.socket, interface: str) -> str | None:
    """The IPv4 address of an interface; None without one."""
    import fcntl  # not on Windows

    try:
        request = struct.pack(f"{REQUEST_SIZE}s", interface.encode()[: NAME_SIZE - 1])
        return socket.inet_ntoa(fcntl.ioctl(some.fileno(), SIOCGIFADDR, request)[ADDRESS])
    except OSError:
        return None
