"""Runs cells of a study: one after another in this process, or several at a time in processes of Ray."""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from recbole_xfer import stages
from recbole_xfer.config.config import XferConfig
from recbole_xfer.config.plain import plain
from recbole_xfer.config.properties import STAGE_PREFIX
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import Result
from recbole_xfer.experiment import load
from recbole_xfer.files import explaining
from recbole_xfer.hooks import is_adapted
from recbole_xfer.log import logger
from recbole_xfer.measure import measure
from recbole_xfer.runtime import return_freed_memory
from recbole_xfer.study.plan import Cell

OBJECT_STORE = 2**28
"""Bytes that the processes of a local Ray share; a result has some MiB."""

DIED = "The process died, possibly because memory ran out."


@dataclass(frozen=True)
class Outcome:
    """The results of a cell, one for each of its histories; or why it failed, as one line."""

    results: Sequence[Result] = field(default_factory=list)
    failure: str | None = None


def run_cells(cells: Sequence[Cell], workers: int | None = None) -> Iterator[Outcome]:
    """Yields the outcome of each cell, in their order; a cell that fails does not stop the others.

    Finished cells are only evaluated.

    Args:
        cells: with distinct identities.
        workers: number of processes; 1 runs all cells in this process. None is 1 here, and on the cluster that
            RAY_ADDRESS names one per GPU or, without GPUs, one per machine.
    """
    if os.environ.get("RAY_ADDRESS") or (workers or 1) > 1:
        yield from _on_ray(cells, workers)
        return
    for number, cell in enumerate(cells, start=1):
        logger.info(f"[{number}/{len(cells)}] {cell}")
        outcome = run_cell(cell)
        if outcome.failure:
            logger.info(_line(number, cells, cell, outcome))
        yield outcome


def run_cell(cell: Cell, **keys: Any) -> Outcome:
    """Trains and measures a cell, or only measures it if an identical run is finished.

    Args:
        cell: one run.
        keys: of this machine, such as ``gpu_id``.
    """
    overrides = {**cell.keys, **keys}
    try:
        config = XferConfig(overrides=overrides)
        result = stages.train_and_evaluate(config, stages.starting_point(config, [], overrides), reuse=True)
        return Outcome([result, *(again(result, masked, keys) for masked in cell.histories[1:])])
    except Exception as error:
        return Outcome(failure=_reason(error, cell))
    finally:
        return_freed_memory()  # else a process grows with the number of its cells


def again(result: Result, masked: bool | None, keys: Mapping[str, Any]) -> Result:
    """Measures a finished run with another ``mask_history``."""
    experiment = load(result.folder, {**keys, "mask_history": masked, "show_progress": False})
    return measure(experiment, result.valid, result.seconds, result.best_epoch)


def _reason(error: Exception, cell: Cell) -> str:
    """An error in one line; the traceback of one that is not in the input is added to ``failed.log``."""
    text = " ".join(str(error).split())
    if isinstance(error, (XferError, OSError)):
        return text
    if isinstance(error, ModuleNotFoundError):
        return f"This needs the Python module {error.name}. Install the package that provides it."
    path = Path(cell.keys.get("checkpoint_dir") or "saved") / "failed.log"
    with explaining(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{cell}\n{''.join(traceback.format_exception(error))}\n")
    return f"{type(error).__name__}: {text} (see {path})"


def _line(number: int, cells: Sequence[Cell], cell: Cell, outcome: Outcome) -> str:
    """A message about a cell that ended."""
    if outcome.failure:
        return f"[{number}/{len(cells)}] {cell} failed: {outcome.failure}"
    first = outcome.results[0]
    metric, value = next(iter(first.test.items()), ("seconds", first.seconds))
    return f"[{number}/{len(cells)}] {cell}: {metric} {value:.4f}, {first.seconds:.0f} s of training"


# --- on Ray ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Share:
    """What each process gets.

    Attributes:
        processes: their number.
        cpus, gpus: of Ray's resources.
        threads: with which it computes.
        folder: in which it works, because paths may be relative.
    """

    processes: int
    cpus: float
    gpus: float
    threads: int
    folder: str


def share_of(resources: dict[str, float], machines: int, workers: int | None) -> Share:
    """Divides the resources of a cluster, or of this machine, by a number of processes.

    Args:
        resources: by kind, as Ray counts them.
        machines: their number.
        workers: number of processes; None for one per GPU or, without GPUs, one per machine.
    """
    cores, gpus = resources.get("CPU", 1), resources.get("GPU", 0)
    workers = workers or int(gpus) or machines
    threads = max(1, int(cores / workers))
    return Share(workers, min(threads, cores / workers), min(1, gpus / workers), threads, os.getcwd())


def _on_ray(cells: Sequence[Cell], workers: int | None) -> Iterator[Outcome]:
    """Runs cells in processes of Ray; one that dies ends its cell only."""
    import ray  # takes seconds

    from recbole_xfer.cluster import cluster_or_local_ray

    outcomes: dict[int, Outcome] = {}
    with cluster_or_local_ray(OBJECT_STORE):
        machines = sum(node["Alive"] for node in ray.nodes())
        share = share_of(ray.cluster_resources(), machines, workers)
        logger.info(f"{len(cells)} runs, {share.processes} at a time. A line follows for each that ends.")
        task = ray.remote(num_cpus=share.cpus, num_gpus=share.gpus, max_retries=0)(run_in_worker)
        later = waiting(cells)
        held = {number for numbers in later.values() for number in numbers}
        order = [*later, *(number for number in range(len(cells)) if number not in held | later.keys())]
        running = {task.remote(cells[number], share): number for number in order}
        while running:
            (ended,), _ = ray.wait(list(running), num_returns=1)
            number = running.pop(ended)
            running |= {task.remote(cells[other], share): other for other in later.get(number, [])}
            try:
                outcomes[number] = ray.get(ended)
            except ray.exceptions.RayTaskError as error:  # such as a folder that another machine does not have
                outcomes[number] = Outcome(failure=" ".join(str(error.cause).split()))
            except ray.exceptions.RayError:
                outcomes[number] = Outcome(failure=DIED)
            logger.info(_line(len(outcomes), cells, cells[number], outcomes[number]))
    yield from (outcomes[number] for number in range(len(cells)))


OF_TARGET = {"dataset", "adaptation", "train_share"}
"""Keys of a cell that its pre-training does not have."""


def waiting(cells: Sequence[Cell]) -> dict[int, list[int]]:
    """The cells that adapt a pre-training, by the first of them, which pre-trains; the others would wait for it.

    Returns:
        Numbers of cells, in their order.
    """
    found: dict[str, list[int]] = {}
    for number, cell in enumerate(cells):
        if is_adapted(cell.keys.get("adaptation")) and not cell.keys.get("pretrained"):
            keys = {key: value for key, value in plain(cell.keys).items() if key not in OF_TARGET}
            own = {key: value for key, value in keys.items() if f"{STAGE_PREFIX}{key}" not in keys}
            found.setdefault(json.dumps(own, sort_keys=True), []).append(number)
    return {first: others for first, *others in found.values()}


def run_in_worker(cell: Cell, share: Share) -> Outcome:
    """Runs a cell in a process of Ray."""
    import ray

    os.chdir(share.folder)
    torch.set_num_threads(share.threads)
    own = {"gpu_id": tuple(ray.get_gpu_ids())} if share.gpus else {}
    return run_cell(cell, show_progress=False, **own)
