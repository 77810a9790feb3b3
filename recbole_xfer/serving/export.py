"""Exports a finished run as a folder that is served without this package, RecBole or PyTorch.

======================= =======================================================================================
``items.parquet``       ids, domains, texts, vectors and popularity of the items; row i is the item i + 1 of the
                        user encoder, whose 0 is padding
``user_encoder.onnx``   histories to vectors of users, whose products with the items' vectors are the run's scores; an
                        item of the history has ``repeat_score`` of the manifest more
``users.parquet``       instead of the encoder, for models that know users by their ids: the vectors of the users
``index.faiss``         the items' vectors for search, where faiss is installed
``serve.py``            an example that recommends from this folder
``manifest.json``       origin, sizes, checks and digests
======================= =======================================================================================
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from recbole.data.interaction import Interaction
from recbole.utils import ModelType

from recbole_xfer.config.plain import as_json
from recbole_xfer.data.atomic import AtomicFormat
from recbole_xfer.errors import XferError, explaining_recbole
from recbole_xfer.evaluation.vectors import vectors_of
from recbole_xfer.experiment import Experiment, label, load, target
from recbole_xfer.files import replacing_folders
from recbole_xfer.hooks import hooks_of
from recbole_xfer.log import logger
from recbole_xfer.model.base import VectorRecommender
from recbole_xfer.serving import serve_example
from recbole_xfer.serving.approximate import hnsw, recall
from recbole_xfer.serving.catalogue import Catalogue, make_catalogue
from recbole_xfer.serving.user_encoder import (
    NO_PRODUCTS,
    NotExportable,
    UserEncoder,
    check,
    item_vectors,
    random_histories,
    write_onnx,
)
from recbole_xfer.trainer.run_folder import RunFolder
from recbole_xfer.trainer.run_identity import weights_digest
from recbole_xfer.version import __version__

FORMAT = 1
"""Number of the layout of an export; it grows when a reader of the previous one would fail."""

MANIFEST = "manifest.json"
ITEMS, USERS, ENCODER, INDEX, EXAMPLE = "items.parquet", "users.parquet", "user_encoder.onnx", "index.faiss", "serve.py"
KINDS = ("flat", "hnsw", "none")
TEXTS = ("title", "text")
"""Columns of an .item file that an export copies."""

BATCH = 2**14
"""Users by id whose vectors are computed at a time."""

RECALL_AT = 20


def export(
    folder: str | Path, output: str | Path, overrides: Mapping[str, Any] | None = None, index: str = "flat"
) -> Path:
    """Writes what serves a finished run without this package; returns its folder.

    The folder is written whole or not at all, and replaces an earlier export.

    Args:
        folder: of the run.
        output: the new folder.
        overrides: keys with new values, such as ``data_path``.
        index: ``flat`` searches exactly, where faiss is installed; ``hnsw`` approximately; ``none`` writes no index.

    Raises:
        XferError: if the model cannot be exported, ``output`` is no export, or a package is missing.
    """
    output = Path(output)
    check_output(output)
    check_packages(index)
    experiment = load(folder, {**(overrides or {}), "gpu_id": ""})
    root = output.resolve()
    try:
        with replacing_folders(root.parent, is_obsolete=lambda _: True) as new:
            (new / root.name).mkdir()
            write(experiment, Path(folder), new / root.name, index)
    except NotExportable as error:  # nothing was written
        name = experiment.config["model"]
        raise XferError(f"{name} cannot be exported: {error}. Rank with `recbole-xfer recommend` instead.") from error
    return output


def check_output(output: Path) -> None:
    """Raises XferError if a folder has something other than an export."""
    if output.is_dir():
        own = (output / MANIFEST).is_file() and (output / ITEMS).is_file()
        if own or not any(output.iterdir()):
            return
    elif not output.exists():
        return
    raise XferError(f"{output} exists and is not an export. Name another folder with --output.")


def check_packages(index: str) -> None:
    """Raises XferError for an unknown kind of index, or if a package of the extra ``serving`` is missing."""
    if index not in KINDS:
        raise XferError(f"index={index} is invalid: it must be {', '.join(KINDS[:-1])} or {KINDS[-1]}.")
    needed = ["onnx", "onnxscript", "onnxruntime", *(["faiss"] if index == "hnsw" else [])]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise XferError(f"Export needs {' and '.join(missing)}. Run `pip install recbole-xfer[serving]`.")


def write(experiment: Experiment, run: Path, folder: Path, index: str) -> None:
    """Writes all files of an export into a folder.

    Raises:
        NotExportable: if the model cannot be exported.
    """
    config, dataset = experiment.config, experiment.dataset
    sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    made = write_encoder if sequential else write_users
    with explaining_recbole(f"export {config['model']}"), torch.no_grad():
        items, users, checked = made(experiment, folder)
    table = items_table(make_catalogue(experiment), AtomicFormat.of(config), items)
    pq.write_table(table, folder / ITEMS)
    searched = write_index(folder / INDEX, index, items, users)
    shutil.copy(serve_example.__file__, folder / EXAMPLE)
    features = experiment.train_data._dataset.features if hooks_of(experiment.model).reads_features else None
    manifest = {
        "format": FORMAT,
        "written_by": f"recbole-xfer {__version__}",
        "model": label(config),
        "dataset": target(config),
        "run": str(run),
        "weights": weights_digest(RunFolder(run).weights()),
        "text_encoder": getattr(features and features.text, "encoder", None),
        "image_encoder": getattr(features and features.image, "encoder", None),
        "vector_scaling": config["vector_scaling"] if features else None,
        "items": len(items),
        "dimension": items.shape[1],
        "score": "cosine" if is_unit(items) and is_unit(users) else "dot product",
        "repeat_score": repeat_score(experiment.model),
        "longest_history": config["MAX_ITEM_LIST_LENGTH"] if sequential else None,
        "domains": list(dataset.domains),
        "histories_of_one_domain": config["histories"] == "per_domain" and len(dataset.domains) > 1,
        "check": checked,
        "index": searched,
        "files": {path.name: describe(path) for path in sorted(folder.iterdir())},
    }
    (folder / MANIFEST).write_text(as_json(manifest), encoding="utf-8")


Exported = tuple[np.ndarray, np.ndarray, dict[str, Any]]
"""Vectors of all items [N, d] and of some users [n, d], and how they were checked."""


def write_encoder(experiment: Experiment, folder: Path) -> Exported:
    """Writes the user encoder of a sequential model, and checks it."""
    config, dataset = experiment.config, experiment.dataset
    encoder = UserEncoder(experiment.model, config["MAX_ITEM_LIST_LENGTH"], dataset.item_num)
    ids = np.arange(1, dataset.item_num)
    separate = config["histories"] == "per_domain"
    groups = [ids[dataset.item_domain[1:] == domain] for domain in range(len(dataset.domains))] if separate else [ids]
    items = item_vectors(*encoder.factors(*next(random_histories(groups, encoder.longest))))
    logger.info(f"Converting the user encoder of {label(config)} to ONNX.")
    write_onnx(encoder, folder / ENCODER)
    users, difference = check(encoder, folder / ENCODER, groups, config["show_progress"])
    logger.info(
        f"Checked {len(users):,} random histories of 1 to {encoder.longest} items: the largest difference from the "
        f"model is {difference:.1e}."
    )
    return as_array(items)[1:], users, {"histories": len(users), "largest_difference": difference}


def write_users(experiment: Experiment, folder: Path) -> Exported:
    """Writes the vectors of all users of a model that knows them by their ids."""
    dataset = experiment.dataset
    batches = [Interaction({dataset.uid_field: ids}) for ids in torch.arange(1, dataset.user_num).split(BATCH)]
    vectors = vectors_of(experiment.model, batches[0][:2])
    if vectors is None:
        raise NotExportable(NO_PRODUCTS)
    users = np.concatenate([as_array(vectors.users(batch)) for batch in batches])
    tokens = pa.array(dataset.field2id_token[dataset.uid_field][1:], pa.string())
    pq.write_table(pa.table({"user_id": tokens, "vector": as_column(users)}), folder / USERS)
    return as_array(vectors.items)[1:], users, {"users": len(users)}


def items_table(catalogue: Catalogue, form: AtomicFormat, vectors: np.ndarray) -> pa.Table:
    """The table of all items, in the order of their ids."""
    columns = {"item_id": catalogue.tokens}
    if len(catalogue.domains) > 1:
        columns["domain"] = np.array(catalogue.domains)[catalogue.domain]
    columns |= {name: values for name in TEXTS if (values := catalogue.column(name, form)) is not None}
    table = {name: pa.array(values[1:], pa.string()) for name, values in columns.items()}
    popularity = pa.array(catalogue.popularity[1:])
    return pa.table({**table, "popularity": popularity, "vector": as_column(vectors)})


def write_index(path: Path, kind: str, items: np.ndarray, users: np.ndarray) -> dict[str, Any] | None:
    """Writes an index of faiss; returns how it searches, with the recall of an approximate one; None without faiss."""
    if kind == "none":
        return None
    if find_spec("faiss") is None:
        logger.info("faiss is not installed, so the export has no index. `pip install recbole-xfer[serving]` adds it.")
        return None
    import faiss

    exact = faiss.IndexFlatIP(items.shape[1])
    exact.add(items)
    if kind == "flat":
        faiss.write_index(exact, str(path))
        return {"kind": "flat", "exact": True}
    index = hnsw(items)
    faiss.write_index(index, str(path))
    k = min(RECALL_AT, len(items))
    share = recall(*(search.search(users, k)[1] for search in (index, exact)))
    logger.info(f"The index is approximate: recall@{k} is {share:.4f} against exact search for {len(users):,} users.")
    return {"kind": "hnsw", "exact": False, f"recall@{k}": share, "users": len(users)}


def as_array(vectors: torch.Tensor) -> np.ndarray:
    """Vectors as float32 in C order."""
    return np.ascontiguousarray(vectors.detach().float().numpy())


def as_column(vectors: np.ndarray) -> pa.FixedSizeListArray:
    """Vectors [N, d] as a column of lists of fixed size."""
    return pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float32()), vectors.shape[1])


def repeat_score(model: Any) -> float:
    """What a model adds to the scores of the items of a history."""
    score = model.repeat_score if isinstance(model, VectorRecommender) else None
    return 0.0 if score is None else score.item()


def is_unit(vectors: np.ndarray) -> bool:
    """Whether all vectors have the length 1; one without any feature may be zero."""
    lengths = np.linalg.norm(vectors, axis=1)
    return bool((np.isclose(lengths, 1, atol=1e-4) | (lengths == 0)).all())


def describe(path: Path) -> dict[str, Any]:
    """Size and digest of a file."""
    made = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            made.update(block)
    return {"bytes": path.stat().st_size, "blake2b": made.hexdigest()}
