"""The folder of a run: the one place that reads and writes the files of a run.

==================== =========================================================================================
``model.safetensors`` the parameters of the best epoch
``config.yaml``       the configuration of the run
``result.json``       the metrics and how they were measured; written last, so that it marks a finished run
``epochs.json``       losses, other scalars and validation metrics of each epoch, also during the run
``state.pt``          everything that is needed to resume exactly; removed when the run is finished
``optimizer.pt``      the optimizer's state at the end of a refit or an update
``data``              the files of the domains, of a refit or an update; the folder can then be used without others
``<name>.log``        the log
``lock``              held by the process that trains
==================== =========================================================================================

None of these files is a pickle that could run code when it is loaded. Of several processes the first reads and writes
them, and the others get what it read.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from pydantic import TypeAdapter, ValidationError
from recbole.config import Config
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from recbole_xfer.collectives import in_first
from recbole_xfer.config.plain import as_json, plain, reason_of
from recbole_xfer.config.schema import check_values
from recbole_xfer.config.values import read_yaml_file, text_of, write_yaml
from recbole_xfer.errors import XferError
from recbole_xfer.files import explaining, remove_leftovers, replacing
from recbole_xfer.log import logger, logging_to
from recbole_xfer.trainer.run_identity import ORIGIN, UNIMPORTANT, digest, short_name
from recbole_xfer.trainer.run_records import KINDS, Epoch, Pretrained
from recbole_xfer.version import __version__

SHOWN = 5
"""Number of differing keys that a message lists."""

EARLIER: Mapping[str, Any] = {"vector_scaling": "none", "train_share": 1.0, "repeat_bias": False}
"""Values of keys with which runs were trained before these keys existed."""

REQUIRED = ("model", "dataset", "seed", "eval_args", "valid_metric")
"""Keys that every ``config.yaml`` has."""


class RunFolder:
    """The folder of a run or of a pre-training. It is created when the first file is written.

    Args:
        path: the folder.
    """

    WEIGHTS, CONFIG, RESULT = "model.safetensors", "config.yaml", "result.json"
    EPOCHS, STATE, LOCK = "epochs.json", "state.pt", "lock"
    OPTIMIZER, DATA, OVERLAP = "optimizer.pt", "data", "overlap.tsv"

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @classmethod
    def of(cls, config: Config, stage: str = "run") -> RunFolder:
        """The folder of a configuration: ``run_dir``, or a folder in ``checkpoint_dir`` with a name of its own.

        The name is such as ``ANT-CJ-Nutrition-relearn-1a2b3c4d``. Its digest is identical for identical configurations,
        pre-trained models and data.

        Args:
            config: with ``data_digest`` and ``pretrained_digest`` filled in.
            stage: ``run`` or ``pretrain``.
        """
        if config["run_dir"]:
            return cls(config["run_dir"])
        origin = {"from": config["pretrained_digest"], "data": config["data_digest"], "version": __version__}
        kind = "pretrained" if stage == "pretrain" else config["adaptation"]
        identity = digest({**config.final_config_dict, **origin})
        parts = [config["model"], short_name(config["dataset"]), config["single_domain"], kind, identity]
        return cls(Path(config["checkpoint_dir"]) / "-".join(filter(None, parts)))

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The folder's name, which its log has too."""
        return self.path.name

    @contextmanager
    def lock(self) -> Iterator[bool]:
        """Lets one process at a time into the block, and removes what a killed one left over.

        Yields:
            whether this process waited for another one.

        Raises:
            XferError: if the folder cannot be written.
        """
        lock = FileLock(self.path / self.LOCK)
        try:
            yield self._acquire(lock)
        finally:
            lock.release()

    @in_first
    def _acquire(self, lock: FileLock) -> bool:
        """Waits for the lock, and removes what a killed process left over; returns whether it waited."""
        waited = False
        with explaining(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(blocking=False)
            except Timeout:
                waited = True
                logger.info(f"Waiting for another process that uses {self}.")
                lock.acquire()
        remove_leftovers(self.path)
        if (self.path / self.RESULT).is_file():  # killed before it removed the state
            self.remove_state()
        return waited

    def logging(self) -> AbstractContextManager[None]:
        """Appends everything that is logged in the block to the run's log."""
        return logging_to(self.path)

    # --- configuration and result ------------------------------------------------------------------------------------

    @in_first
    def begin(self, settings: Mapping[str, Any], resumed: bool = False) -> None:
        """Writes ``config.yaml`` and removes the files of an earlier run, ``result.json`` first.

        A resumed run keeps its epochs, its parameters and its state.
        """
        content = write_yaml(plain(settings), sort_keys=True)
        with replacing(self.path / self.CONFIG) as temporary:
            temporary.write_text(content, encoding="utf-8")
            obsolete = (self.RESULT, self.STATE, self.WEIGHTS, self.EPOCHS, self.OPTIMIZER)
            self._remove(*obsolete[: 1 if resumed else None])

    @property
    def config_file(self) -> Path:
        """The path of ``config.yaml``.

        Raises:
            XferError: if it is missing.
        """
        path = self.path / self.CONFIG
        if not path.is_file():
            raise XferError(
                f"{self} is not the folder of a run: {self.CONFIG} is missing. `recbole-xfer runs` lists runs."
            )
        return path

    @in_first
    def config(self) -> dict[str, Any]:
        """The keys and values of ``config.yaml``.

        Raises:
            XferError: if the file is not yaml, lacks a key or has an invalid value. Unknown keys are kept.
        """
        content = read_yaml_file(self.config_file)
        missing = [key for key in REQUIRED if key not in content]
        if missing:
            raise XferError(f"{self.config_file} has no key '{missing[0]}'. Copy the folder again, or train again.")
        check_values(content, str(content["model"]))
        return {**EARLIER, **content}

    @in_first
    def check_same_run(self, settings: Mapping[str, Any], option: str = "--run_dir") -> None:
        """Raises XferError if the folder has a run with other settings.

        Args:
            settings: of this run.
            option: that names another folder.
        """
        if not (self.path / self.CONFIG).is_file() and not (self.path / self.STATE).is_file():
            return
        theirs, ours = self.config(), plain(settings)
        compared = ours.keys() - (UNIMPORTANT - ORIGIN)
        differing = [key for key in sorted(compared) if theirs.get(key) != ours[key]]
        if differing:
            shown = text_of({key: theirs.get(key) for key in differing[:SHOWN]})
            others = len(differing) - SHOWN
            raise XferError(
                f"{self} has a run with {shown}{f' and {others} other values' if others > 0 else ''}. "
                f"Set another folder with {option}, or replace the run with --resume=False."
            )

    @in_first
    def finish(self, result: Mapping[str, Any]) -> None:
        """Writes ``result.json`` and removes ``state.pt``: the run is finished."""
        with replacing(self.path / self.RESULT) as temporary:
            temporary.write_text(as_json(result), encoding="utf-8")
        self.remove_state()

    @in_first
    def result(self) -> dict[str, Any] | None:
        """The content of ``result.json``, without unknown keys; None if the run is not finished."""
        content = self._bytes(self.RESULT)
        if content is None:
            return None
        keys = self._validated(self.RESULT, content, dict[str, Any])
        kind = next((kind for key, kind in KINDS.items() if key in keys), Pretrained)
        return self._validated(self.RESULT, content, kind)

    def test_result(self) -> dict[str, Any] | None:
        """The content of ``result.json`` of a run that was evaluated on a test split; None without such a result."""
        result = self.result()
        return result if result and "test" in result else None

    @in_first
    def check_finished_pretraining(self) -> None:
        """Raises XferError if the folder has an unfinished pre-trained model."""
        if (self.path / self.WEIGHTS).is_file() and not self.result():
            raise XferError(
                f"pretrained={self} is not finished ({self.RESULT} is missing). Resume it with the same command."
            )

    # --- training ----------------------------------------------------------------------------------------------------

    @in_first
    def save_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Writes ``model.safetensors``; parameters that share memory are each written."""
        copies = {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format) for name, value in weights.items()
        }
        path = self.path / self.WEIGHTS
        with replacing(path) as temporary:
            try:
                save_file(copies, temporary)
            except SafetensorError as error:  # how safetensors reports a full disk
                raise XferError(f"{path} was not written: {error}. Free some space and run again.") from error

    @in_first
    def weights(self) -> dict[str, Tensor]:
        """The content of ``model.safetensors``.

        Raises:
            XferError: if the file is missing, truncated or invalid.
        """
        path = self.path / self.WEIGHTS
        if not path.is_file():
            raise XferError(f"{self} has no trained model: {self.WEIGHTS} is missing.")
        try:
            return load_file(path)
        except (SafetensorError, ValueError, OSError) as error:
            raise XferError(f"{path} is damaged or incomplete ({error}). Train it again, or copy it again.") from error

    @in_first
    def save_epochs(self, epochs: Sequence[Mapping[str, Any]]) -> None:
        """Writes ``epochs.json``, one line per epoch."""
        lines = ",\n".join(json.dumps(plain(epoch)) for epoch in epochs)
        with replacing(self.path / self.EPOCHS) as temporary:
            temporary.write_text(f"[\n{lines}\n]\n", encoding="utf-8")

    @in_first
    def epochs(self) -> list[dict[str, Any]]:
        """The content of ``epochs.json``, without unknown keys; empty if the file is missing."""
        content = self._bytes(self.EPOCHS)
        return [] if content is None else self._validated(self.EPOCHS, content, list[Epoch])

    @in_first
    def save_state(self, state: Mapping[str, Any]) -> None:
        """Writes ``state.pt``: tensors and plain values only, which ``torch.load(weights_only=True)`` accepts."""
        self._save_plain(self.STATE, state)

    @in_first
    def state(self) -> dict[str, Any] | None:
        """The content of ``state.pt``, in main memory; None if the file is missing.

        Raises:
            XferError: if the file is damaged.
        """
        return self._plain(self.STATE)

    @property
    @in_first
    def is_interrupted(self) -> bool:
        """Whether there is a state to resume."""
        return (self.path / self.STATE).is_file()

    @in_first
    def remove_state(self) -> None:
        """Removes ``state.pt``; the run cannot be resumed any more."""
        self._remove(self.STATE)

    @in_first
    def save_optimizer(self, state: Mapping[str, Any]) -> None:
        """Writes ``optimizer.pt``, as :meth:`save_state`."""
        self._save_plain(self.OPTIMIZER, state)

    @in_first
    def optimizer(self) -> dict[str, Any] | None:
        """The content of ``optimizer.pt``, as :meth:`state`."""
        return self._plain(self.OPTIMIZER)

    def _save_plain(self, name: str, content: Mapping[str, Any]) -> None:
        path = self.path / name
        with replacing(path) as temporary:
            try:
                torch.save(dict(content), temporary)
            except RuntimeError as error:  # how torch reports a full disk
                raise XferError(f"{path} was not written: {error}. Free some space and run again.") from error

    def _plain(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        if not path.is_file():
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise self.damaged(name, error) from error
        if not isinstance(content, dict):
            raise self.damaged(name, "it has no values by name")
        return content

    # --- data --------------------------------------------------------------------------------------------------------

    @in_first
    def save_data(self, files: Iterable[Path], overlap_file: Path | None) -> None:
        """Copies the files of domains, each from a folder of the domain's name, in place of earlier ones.

        Also ends an earlier run in the folder, which had other data.
        """
        data = self.path / self.DATA
        with replacing(data) as temporary:
            for file in files:
                (temporary / file.parent.name).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, temporary / file.parent.name / file.name)
            if overlap_file is not None:
                shutil.copyfile(overlap_file, temporary / self.OVERLAP)
            self._remove(self.RESULT, self.STATE)
            if data.is_dir():
                shutil.rmtree(data)

    @in_first
    def data(self) -> dict[str, str]:
        """The keys with which the folder's own data is read; empty if it has none."""
        data = self.path / self.DATA
        own = {"data_path": data, "overlap_file": data / self.OVERLAP}
        return {key: str(path) for key, path in own.items() if path.exists()}

    # --- reading and removing ----------------------------------------------------------------------------------------

    def _remove(self, *names: str) -> None:
        for name in names:
            (self.path / name).unlink(missing_ok=True)

    def damaged(self, name: str, reason: Exception | str) -> XferError:
        """The error for a file that cannot be used."""
        remedy = "Remove it to start the run again, or copy the folder again"
        return XferError(f"{self.path / name} is damaged: {' '.join(str(reason).split())}. {remedy}.")

    def _bytes(self, name: str) -> bytes | None:
        """The content of a file; None if it is missing."""
        try:
            return (self.path / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self.damaged(name, error) from error

    def _validated(self, name: str, content: bytes, kind: Any) -> Any:
        """The content of a json file as plain values, without keys that ``kind`` does not have.

        Raises:
            XferError: if it is not json, lacks a value or has one of another type.
        """
        adapter = TypeAdapter(kind)
        try:
            return adapter.dump_python(adapter.validate_json(content, strict=True), exclude_unset=True)
        except ValidationError as error:
            raise self.damaged(name, reason_of(error)) from error
