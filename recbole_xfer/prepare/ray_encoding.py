"""Encodes shards with Ray Data, on a cluster or on this machine."""

from __future__ import annotations

import json
import logging
from typing import Any

import ray
import ray.data
import torch
from tqdm import tqdm

from recbole_xfer.cluster import cluster_or_local_ray
from recbole_xfer.errors import XferError
from recbole_xfer.log import progress_bar
from recbole_xfer.prepare.model_files import ModelFiles
from recbole_xfer.prepare.shards import Encoded, Encoder, Recipe, Shard

OBJECT_STORE = 2**29
"""Bytes that the processes of a local Ray share; a shard has some MiB."""


def on_ray(recipe: Recipe, files: ModelFiles, values: list[Any], starts: list[int], progress: tqdm) -> Encoded:
    """Encodes shards in processes of Ray, as many as its GPUs, or its CPUs without them, allow.

    Each process computes with as many threads as this one would, and so finds the same vectors.

    Raises:
        XferError: if the encoder cannot be loaded on a machine.
    """
    rows = [{"start": start, "values": json.dumps(values[start : start + recipe.shard])} for start in starts]
    with cluster_or_local_ray(OBJECT_STORE):
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)
        ray.data.DataContext.get_current().enable_progress_bars = False
        resources, processes = _resources(recipe.device)
        encoded = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            EncodesShards,  # type: ignore[arg-type]  # the class of a callable
            fn_constructor_args=(recipe, files, torch.get_num_threads()),
            concurrency=min(processes, len(rows)),
            **resources,
        )
        for row in encoded.iter_rows():
            if row["error"]:
                raise XferError(row["error"])
            shard = Shard.from_bytes(row["shard"])
            progress.update(len(shard.notes))
            yield row["start"], shard


def _resources(device: str) -> tuple[dict[str, Any], int]:
    """What a process needs, and how many processes fit."""
    found = ray.cluster_resources()
    gpus, cpus = int(found.get("GPU", 0)), int(found.get("CPU", 1))
    if gpus and device != "cpu":
        return {"num_gpus": 1}, gpus
    threads = min(torch.get_num_threads(), cpus)
    return {"num_cpus": threads}, max(1, cpus // threads)


class EncodesShards:
    """Encodes shards in one process of Ray; loads the encoder once."""

    def __init__(self, recipe: Recipe, files: ModelFiles, threads: int) -> None:
        torch.set_num_threads(threads)
        self.recipe, self.files = recipe, files
        self.encoder: Encoder | None = None

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        """Returns the shard of a row, or the sentence of an error."""
        try:
            self.encoder = self.encoder or self.recipe.load(self.files)
        except XferError as error:
            return {"start": row["start"], "shard": b"", "error": str(error)}
        shard = Shard(*self.encoder(json.loads(row["values"]), progress_bar(shown=False)), self.encoder.facts)
        return {"start": row["start"], "shard": shard.to_bytes(), "error": ""}
