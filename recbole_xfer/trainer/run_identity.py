"""What identifies a run: digests of the settings and parameters that matter, and the name of a folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from recbole_xfer.config.plain import plain
from recbole_xfer.config.values import split_domains

ORIGIN = {"data_digest", "pretrained_digest"}
"""Keys that identify the data and the pre-trained model of a run."""

UNIMPORTANT = ORIGIN | {
    "checkpoint_dir", "data_path", "device", "gpu_id", "log_wandb", "pretrained", "wandb_project", "resume", "run_dir",
    "show_progress", "state", "use_gpu", "config_files", "local_rank", "single_spec", "worker",
}  # fmt: skip
"""Keys that change neither what is learned nor what is measured."""

LONGEST_NAME = 120
"""Characters of joined domains in the name of a folder; file systems allow 255 bytes."""


def digest(settings: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits of the settings that matter to a run."""
    important = {key: value for key, value in plain(settings).items() if key not in UNIMPORTANT}
    return hashlib.blake2b(json.dumps(important, sort_keys=True).encode(), digest_size=4).hexdigest()


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Returns a digest of parameters: equal values under equal names give the same one."""
    made = hashlib.blake2b(digest_size=8)
    for name, value in sorted(weights.items()):
        made.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        made.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return made.hexdigest()


def short_name(dataset: str) -> str:
    """The name of a dataset, or the first of many joined domains and the number of the others."""
    first, *others = split_domains(dataset)
    return f"{first}+{len(others)}-more" if len(dataset) > LONGEST_NAME else dataset
