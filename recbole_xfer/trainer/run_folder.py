"""What a run leaves in its folder. Nothing in it is a pickle that could run code when it is loaded.

==================== =========================================================================================
``model.safetensors`` the parameters of the best epoch
``config.yaml``       the configuration that the run was made with
``result.json``       the metrics and what they were measured on; written last, so that it marks a finished run
``epochs.json``       losses, other scalars and validation metrics of each epoch, while the run goes on too
``state.pt``          everything needed to go on exactly; only while the run is not finished
``<name>.log``        the log
``lock``              held by the process that pre-trains
==================== =========================================================================================
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recbole_xfer.config.values import read_yaml_file, text_of
from recbole_xfer.errors import XferError
from recbole_xfer.files import replacing

WEIGHTS, CONFIG, RESULT, STATE = "model.safetensors", "config.yaml", "result.json", "state.pt"
HISTORY = "epochs.json"

ORIGIN = {"data_digest", "pretrained"}
"""Keys that tell what a run was made from."""

UNIMPORTANT = ORIGIN | {
    "checkpoint_dir", "data_path", "device", "gpu_id", "log_wandb", "wandb_project", "resume", "run_dir",
    "show_progress", "state", "use_gpu", "config_files", "local_rank", "single_spec", "worker",
}  # fmt: skip
"""Keys that change neither what is learned nor what is measured."""


def save_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Writes ``model.safetensors``; parameters that share memory are written each."""
    copies = {
        name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()
    }
    with replacing(folder / WEIGHTS) as temporary:
        try:
            save_file(copies, temporary)
        except SafetensorError as error:  # how safetensors reports a full disk
            raise XferError(f"{folder / WEIGHTS} was not written: {error}. Free some space and run again.") from error


def load_weights(folder: Path) -> dict[str, Tensor]:
    """Reads ``model.safetensors`` of a run or pre-training.

    Raises:
        XferError: if it is missing, truncated or no safetensors file.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise XferError(f"{folder} holds no pre-trained model ({WEIGHTS} is missing).")
    try:
        return load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise XferError(f"{path} is damaged or incomplete ({error}). Train it again, or copy it again.") from error


def as_tensors(name: str, value: Any) -> dict[str, Tensor]:
    """What a RecBole model keeps besides its parameters (a similarity matrix, counts) as named tensors.

    The names tell :func:`from_tensors` what it was. What is neither a tensor, an array nor a sparse matrix is left
    out: RecBole's models compute it again.
    """
    if isinstance(value, Tensor):
        return {f"{name}.tensor": value}
    if isinstance(value, np.ndarray) and value.dtype != object:
        return {f"{name}.array": torch.from_numpy(np.ascontiguousarray(value))}
    if scipy.sparse.issparse(value):
        matrix = value.tocsr()
        parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": matrix.shape}
        return {f"{name}.sparse.{part}": torch.as_tensor(content) for part, content in parts.items()}
    return {}


def from_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The values that :func:`as_tensors` took apart, by name."""
    values: dict[str, Any] = {}
    for key, tensor in tensors.items():
        name, kind, *_ = key.split(".")
        if kind == "tensor":
            values[name] = tensor
        elif kind == "array":
            values[name] = tensor.cpu().numpy()
        elif name not in values:
            data, indices, indptr, shape = (
                tensors[f"{name}.sparse.{part}"].cpu().numpy() for part in ("data", "indices", "indptr", "shape")
            )
            values[name] = scipy.sparse.csr_matrix((data, indices, indptr), shape=tuple(shape))
    return values


def save_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Writes ``state.pt``: tensors and plain values only, so that ``torch.load(weights_only=True)`` takes it."""
    with replacing(folder / STATE) as temporary:
        torch.save(dict(state), temporary)


def load_state(folder: Path) -> dict[str, Any] | None:
    """Reads ``state.pt`` into main memory; None where a run has none.

    Raises:
        XferError: if the file is damaged.
    """
    path = folder / STATE
    if not path.is_file():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise XferError(f"{path} is damaged: {error}. Remove it to start the run over.") from error


def save_history(folder: Path, epochs: Sequence[Mapping[str, Any]]) -> None:
    """Writes ``epochs.json``, one line an epoch."""
    lines = ",\n".join(json.dumps(plain(epoch)) for epoch in epochs)
    with replacing(folder / HISTORY) as temporary:
        temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def load_history(folder: Path) -> list[dict[str, Any]]:
    """Reads ``epochs.json``; empty where a run has none.

    Raises:
        XferError: if the file is damaged.
    """
    return _read_json(folder / HISTORY) or []


def save_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Writes ``config.yaml`` and removes ``result.json``: training begins, and other weights will lie beside it."""
    with replacing(folder / CONFIG) as temporary:
        temporary.write_text(yaml.safe_dump(plain(config), sort_keys=True, allow_unicode=True), encoding="utf-8")
        (folder / RESULT).unlink(missing_ok=True)


def config_file(folder: Path) -> Path:
    """The ``config.yaml`` of a run.

    Raises:
        XferError: if it is missing.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise XferError(f"{folder} is no run of this package ({CONFIG} is missing).")
    return path


def check_same_run(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises XferError where the run that a folder holds was made with other keys than those given."""
    theirs, ours = read_yaml_file(config_file(folder)), plain(config)
    differing = {key: theirs.get(key) for key in ours.keys() - (UNIMPORTANT - ORIGIN) if theirs.get(key) != ours[key]}
    if differing:
        raise XferError(
            f"{folder} holds a run with {text_of(dict(sorted(differing.items())))}. "
            f"Name another folder with --run_dir, or start over with --resume=False."
        )


def save_result(folder: Path, result: Mapping[str, Any]) -> None:
    """Writes ``result.json`` and removes ``state.pt``: the run is finished."""
    with replacing(folder / RESULT) as temporary:
        temporary.write_text(as_json(result), encoding="utf-8")
    (folder / STATE).unlink(missing_ok=True)


def as_json(value: Mapping[str, Any]) -> str:
    """The text of a json file."""
    return json.dumps(plain(value), indent=2) + "\n"


def check_finished_pretraining(folder: Path) -> None:
    """Raises XferError for the model of a run or pre-training that was interrupted."""
    if (folder / WEIGHTS).is_file() and not load_result(folder):
        raise XferError(
            f"pretrained={folder} was interrupted ({RESULT} is missing). Finish it with the same pretrain command."
        )


def load_result(folder: Path) -> dict[str, Any] | None:
    """Reads ``result.json``; None where the run is not finished."""
    return _read_json(folder / RESULT)


def finished_result(folder: Path) -> dict[str, Any]:
    """What a finished run measured.

    Raises:
        XferError: if the run is not finished, or measured no test split.
    """
    result = load_result(folder)
    if not result or "test" not in result:
        raise XferError(f"{folder} holds no finished run.")
    return result


def _read_json(path: Path) -> Any:
    """What a json file of a run holds; None where it is missing."""
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise XferError(f"{path} is damaged: {error}. Remove it to run again.") from error


def plain(value: Any) -> Any:
    """Containers of plain values: what yaml and json can hold; anything else by its text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def run_digest(settings: Mapping[str, Any]) -> str:
    """Eight hexadecimal digits that stand for what a run depends on."""
    important = {key: value for key, value in plain(settings).items() if key not in UNIMPORTANT}
    return hashlib.blake2b(json.dumps(important, sort_keys=True).encode(), digest_size=4).hexdigest()
