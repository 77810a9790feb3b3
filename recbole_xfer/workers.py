"""Runs a command in several processes of Ray Train, which share its work as the processes of torchrun do."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import Any

import ray
import ray.train
import torch
from ray.train.backend import Backend
from ray.train.torch import TorchConfig, TorchTrainer

from recbole_xfer.cluster import cluster_or_local_ray
from recbole_xfer.collectives import PATIENCE, backend
from recbole_xfer.errors import Lost, XferError
from recbole_xfer.files import workspace
from recbole_xfer.log import show_messages
from recbole_xfer.network import use_network_of
from recbole_xfer.processes import is_first

OBJECT_STORE = 100 * 2**20
"""Bytes that the processes of a local Ray share; they send each other gradients, not objects."""
SETTINGS = {"RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "600", "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0"}
"""Of Ray Train, unless the user set them: processes may import PyTorch for a minute."""
NAME, MESSAGES, PRINTED = "ray", "messages", "printed"
PAUSE = 0.5
"""Seconds between two looks at the messages of the first process."""


def on_workers(command: Callable[[], str], workers: int, gpus: bool = True) -> str:
    """Calls a function in several processes of Ray; returns what it returned in the first one.

    The messages of the first process are printed here too, by way of a file in the working directory, which all
    machines of a cluster must share.

    Args:
        command: the function, which can be pickled.
        workers: number of processes.
        gpus: whether each may have a GPU, if there are enough.

    Raises:
        XferError: if there are fewer cores than processes, for an error of the command, or if a process dies.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    with cluster_or_local_ray(OBJECT_STORE), workspace(Path.cwd() / NAME) as folder:
        cores = cores_of_each(workers)
        gpus = gpus and ray.cluster_resources().get("GPU", 0) >= workers
        files = folder / NAME
        files.mkdir()
        trainer = TorchTrainer(
            partial(call, command, Path.cwd(), files, cores),
            torch_config=OwnNetwork(backend=backend(), timeout_s=int(PATIENCE.total_seconds())),
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers, use_gpu=gpus, resources_per_worker={"CPU": cores, **({"GPU": 1} if gpus else {})}
            ),
            run_config=ray.train.RunConfig(name=NAME, storage_path=str(folder)),
        )
        try:
            with printing(files / MESSAGES):
                trainer.fit()
        except Exception as error:
            raise explained(error, started=(files / MESSAGES).exists()) from error
        return (files / PRINTED).read_text(encoding="utf-8")


class OwnNetwork(TorchConfig):
    """PyTorch's processes on Ray, connected by the network of Ray's machines."""

    @property
    def backend_cls(self) -> type[Backend]:
        """The backend that connects them."""
        return Connecting


class Connecting(TorchConfig().backend_cls):  # type: ignore[misc]
    """Ray's backend, each of whose processes first chooses its network."""

    def on_start(self, worker_group: Any, backend_config: Any) -> None:
        """Connects the processes."""
        worker_group.execute(_use_network_of_ray)
        super().on_start(worker_group, backend_config)


def _use_network_of_ray() -> None:
    use_network_of(ray.util.get_node_ip_address())


def cores_of_each(workers: int) -> int:
    """The most cores that each of so many processes can have, on the machines of the cluster.

    Raises:
        XferError: if there are fewer cores than processes.
    """
    machines = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    for cores in range(max(machines, default=0), 0, -1):
        if sum(machine // cores for machine in machines) >= workers:
            return cores
    raise XferError(f"--ray_workers={workers} is invalid: Ray has {sum(machines)} CPU cores. Name a larger cluster.")


def call(command: Callable[[], str], folder: Path, files: Path, threads: int) -> None:
    """Runs the command in a process of Ray, in the folder of the user's relative paths."""
    os.chdir(folder)
    torch.set_num_threads(threads)
    show_messages(open(files / MESSAGES, "w", encoding="utf-8") if is_first() else sys.stderr)  # noqa: SIM115
    result = command()
    if is_first():
        (files / PRINTED).write_text(result, encoding="utf-8")


@contextmanager
def printing(file: Path) -> Iterator[None]:
    """Prints lines to standard error, during the block, as they are added to a file."""
    done = Event()

    def follow() -> None:
        seen, last = 0, False
        while not last:
            last = done.wait(PAUSE)
            lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
            for line in lines[seen:]:
                print(line, file=sys.stderr)
            seen = len(lines)

    thread = Thread(target=follow)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def explained(error: Exception, started: bool = True) -> XferError:
    """The error of the command among those that Ray reports, or why its processes did not start or one of them died."""
    found = list(causes(error))
    own = [cause for cause in found if isinstance(cause, XferError) and not isinstance(cause, Lost)]
    if own:
        return XferError(str(own[0]))
    if started:
        return Lost()
    reason = str(found[-1]).strip().splitlines()[-1]  # the other lines are a traceback
    return XferError(f"The processes cannot be connected: {reason}. Can the machines reach each other?")


def causes(error: Any) -> Iterator[BaseException]:
    """An error and those that it was made of, in the order of the processes."""
    yield error
    inside = [*getattr(error, "worker_failures", {}).values()]
    inside += [getattr(error, name, None) for name in ("base_exc", "cause", "__cause__")]
    for cause in inside:
        if isinstance(cause, BaseException):
            yield from causes(cause)
