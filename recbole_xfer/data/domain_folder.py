"""Whether the folder of a domain is there, and the commands that make what it lacks."""

from __future__ import annotations

import shlex
from pathlib import Path

from recbole_xfer.errors import XferError, did_you_mean
from recbole_xfer.files import check_complete

DATA_PATH = Path("dataset")
"""Folder of the domains where ``data_path`` is not set."""


def command(verb: str, dataset: str, root: Path) -> str:
    """A command about domains in a folder, such as ``recbole-xfer encode --dataset=Shop``."""
    place = "" if root == DATA_PATH else f" --data_path={shlex.quote(str(root))}"
    return f"recbole-xfer {verb} --dataset={dataset}{place}"


def check_domain(folder: Path) -> None:
    """Raises XferError if the folder of a domain does not exist, or its preparation was interrupted."""
    check_complete(folder)
    if not folder.is_dir():
        others = [path.name for path in folder.parent.glob("[!.]*") if path.is_dir()]
        raise XferError(
            f"The folder {folder} does not exist{did_you_mean(folder.name, others)} {_preparation_hint(folder.name)}"
        )


def _preparation_hint(domain: str) -> str:
    """Names the command that makes a dataset of this name."""
    family = domain.split("-")[0]
    source = {"CJ": "completejourney", "Toy": "toy"}.get(family)
    if source:
        return f"Make it with `recbole-xfer prepare {source}`, or set --data_path."
    return (
        f"Make it from your own data with `recbole-xfer prepare table --name {domain} ...` (docs/data.md), or set "
        f"--data_path."
    )
