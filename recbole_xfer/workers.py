"""Runs a command in several processes of Ray Train, which share its work as the processes of torchrun do."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import ray
import ray.train
import torch
from ray.train.torch import TorchConfig, TorchTrainer

from recbole_xfer.cluster import cluster_or_local_ray
from recbole_xfer.collectives import PATIENCE, backend
from recbole_xfer.errors import Lost, XferError
from recbole_xfer.files import workspace
from recbole_xfer.log import show_messages

OBJECT_STORE = 100 * 2**20
"""Bytes that the processes of a local Ray share; they send each other gradients, not objects."""
NAME, PRINTED = "ray", "printed"


def on_workers(command: Callable[[], str], workers: int, gpus: bool = True) -> str:
    """Calls a function in several processes of Ray; returns what it returned in the first one.

    Args:
        command: the function, which can be pickled.
        workers: number of processes.
        gpus: whether each may have a GPU, if there are enough.

    Raises:
        XferError: if there are fewer cores than processes, for an error of the command, or if a process dies.
    """
    with cluster_or_local_ray(OBJECT_STORE, messages=True), workspace(Path.cwd() / NAME) as folder:
        cores = cores_of_each(workers)
        gpus = gpus and ray.cluster_resources().get("GPU", 0) >= workers
        trainer = TorchTrainer(
            partial(call, command, os.getcwd(), cores),
            torch_config=TorchConfig(backend=backend(), timeout_s=int(PATIENCE.total_seconds())),
            scaling_config=ray.train.ScalingConfig(
                num_workers=workers, use_gpu=gpus, resources_per_worker={"CPU": cores, **({"GPU": 1} if gpus else {})}
            ),
            run_config=ray.train.RunConfig(name=NAME, storage_path=str(folder)),
        )
        try:
            result = trainer.fit()
        except Exception as error:
            raise explained(error) from error
        return result.metrics[PRINTED]


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


def call(command: Callable[[], str], folder: str, threads: int) -> None:
    """Runs the command in a process of Ray, in the folder of the user's relative paths."""
    os.chdir(folder)
    torch.set_num_threads(threads)
    show_messages()
    ray.train.report({PRINTED: command()})


def explained(error: Exception) -> XferError:
    """The error of the command among those that Ray reports, or the death of a process."""
    found = [cause for cause in causes(error) if isinstance(cause, XferError)]
    own = [cause for cause in found if not isinstance(cause, Lost)]
    return XferError(str(own[0])) if own else Lost()


def causes(error: Any) -> Iterator[BaseException]:
    """An error and those that it was made of, in the order of the processes."""
    yield error
    inside = [*getattr(error, "worker_failures", {}).values()]
    inside += [getattr(error, name, None) for name in ("base_exc", "cause", "__cause__")]
    for cause in inside:
        if isinstance(cause, BaseException):
            yield from causes(cause)
