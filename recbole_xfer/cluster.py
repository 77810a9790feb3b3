"""Starts Ray on this machine, or connects to a cluster."""

from __future__ import annotations

import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray

from recbole_xfer import reaper
from recbole_xfer.errors import XferError

ADDRESS = "RAY_ADDRESS"
"""The environment variable with which Ray names a cluster."""


TOKEN = secrets.token_hex(32)
"""By which the processes of a local Ray know each other: Ray keeps the first one of a process, and would write another
one to the home directory, which later processes might not find."""


@contextmanager
def local_ray(object_store: int) -> Iterator[None]:
    """Starts Ray on this machine; its processes end with the block, also if this process is killed.

    Args:
        object_store: bytes of memory that its processes share.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_AUTH_TOKEN", TOKEN)
    script = [sys.executable, reaper.__file__, str(os.getpid())]
    watcher = subprocess.Popen(script, stdin=subprocess.PIPE, start_new_session=True)
    try:
        ray.init(address="local", include_dashboard=False, object_store_memory=object_store, **_shared())
        yield
    finally:
        ray.shutdown()
        watcher.communicate()


@contextmanager
def cluster_or_local_ray(object_store: int) -> Iterator[None]:
    """Connects to the cluster at RAY_ADDRESS, or starts Ray on this machine; uses a connection that exists.

    Raises:
        XferError: if no cluster is at the address.
    """
    if ray.is_initialized():
        yield
    elif os.environ.get(ADDRESS):
        try:
            ray.init(**_shared())
        except (ConnectionError, ValueError) as error:
            raise XferError(f"No Ray cluster is at {os.environ[ADDRESS]}. Start one, or name its address.") from error
        try:
            yield
        finally:
            ray.shutdown()
    else:
        with local_ray(object_store):
            yield


def _shared() -> dict[str, Any]:
    root = str(Path(__file__).resolve().parents[1])  # workers find the package in a clone too
    path = os.pathsep.join(filter(None, [root, os.getenv("PYTHONPATH")]))
    runtime = {"env_vars": {"PYTHONPATH": path}}
    return {"log_to_driver": False, "logging_level": logging.CRITICAL, "runtime_env": runtime}
