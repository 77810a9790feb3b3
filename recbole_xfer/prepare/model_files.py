"""Finds the files of an encoder: inside a Python package, in a local folder, or on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

from recbole_xfer.errors import XferError

PATTERNS = ["*.json", "*.txt", "*.model", "*.safetensors"]
"""The files of a hub's model that are read."""

PICKLED = "pytorch_model*.bin"
"""Weights that are read if there are no others; transformers and timm load them without running their code."""


@dataclass(frozen=True)
class ModelFiles:
    """An encoder's folder and what identifies its content.

    Attributes:
        path: the folder.
        revision: a commit of the hub, a digest of the local files, or the version of a package.
        hub: the name on the hub; empty if the model is not from there.
    """

    path: Path
    revision: str
    hub: str = ""

    def here(self) -> Path:
        """Returns the folder on this machine, which can be another one than where the model was found.

        Raises:
            XferError: if the model is missing here.
        """
        if self.path.is_dir():
            return self.path
        if self.hub:
            return from_hub(self.hub, self.revision).path
        raise XferError(f"The encoder {self.path} does not exist on this machine. Copy it to each machine.")


def find_model(encoder: str) -> ModelFiles:
    """Finds a local folder, or a model on the hub by its name, or by ``name@revision``.

    Raises:
        XferError: if the hub cannot be reached and has not been read before, or has no model of this name.
    """
    if Path(encoder).is_dir():
        return ModelFiles(Path(encoder).resolve(), digest_of(Path(encoder)))
    name, _, revision = encoder.partition("@")
    return from_hub(name, revision or None)


def find_package(package: str, folder: str) -> ModelFiles | None:
    """Finds a folder inside an installed package; None if the package is missing. The package is not imported."""
    spec = importlib.util.find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    version = importlib.metadata.version(package)
    return ModelFiles(Path(spec.submodule_search_locations[0]) / folder, f"{package} {version}")


def from_hub(name: str, revision: str | None) -> ModelFiles:
    """Downloads a model, or finds it among the models that were downloaded before."""
    from huggingface_hub import snapshot_download  # here, because it takes a second to import

    quiet()
    try:
        path = Path(snapshot_download(name, revision=revision, allow_patterns=PATTERNS))
        if not any(path.glob("*.safetensors")):
            path = Path(snapshot_download(name, revision=revision, allow_patterns=[*PATTERNS, PICKLED]))
    except Exception as error:  # the hub, its validators and the network raise errors of many kinds
        raise unreadable(name, error) from error
    return ModelFiles(path, path.name, name)  # the folder of a snapshot has the name of its commit


def quiet() -> None:
    """Hides the progress bars of the hub and of transformers if standard error is not a terminal."""
    from huggingface_hub.utils import disable_progress_bars

    if not sys.stderr.isatty():
        disable_progress_bars()
        if "transformers" in sys.modules:
            sys.modules["transformers"].utils.logging.disable_progress_bar()


def digest_of(folder: Path) -> str:
    """Returns a digest of the names and contents of a model's files."""
    digest = hashlib.blake2b(digest_size=8)
    for path in sorted(path for pattern in (*PATTERNS, PICKLED) for path in folder.rglob(pattern) if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        with open(path, "rb") as file:
            while block := file.read(2**20):
                digest.update(block)
    return digest.hexdigest()


def unreadable(encoder: str, error: Exception) -> XferError:
    """Explains that an encoder cannot be loaded."""
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return XferError(
        f"The encoder '{encoder}' cannot be loaded: {reason}. Name a model on the Hugging Face hub, or a local folder "
        f"with one (config.json, model.safetensors). The packaged encoders need no network."
    )
