"""Summarizes a prepared domain: the line that ``recbole-xfer prepare`` prints for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from recbole_xfer.data.atomic import read_atomic_file


@dataclass(frozen=True)
class Summary:
    """Counts of a prepared domain; ``items`` are those with an interaction.

    Attributes:
        folder: of the domain.
        unlisted: items of the interactions that the item file does not list.
    """

    folder: Path
    users: int
    items: int
    interactions: int
    with_text: int
    with_price: int
    unlisted: int

    def __str__(self) -> str:
        line = (
            f"{self.folder.name}: {self.users:,} users, {self.items:,} items ({self.with_text:,} with text, "
            f"{self.with_price:,} with a price), {self.interactions:,} interactions"
        )
        return line + (f"; items missing in the item file: {self.unlisted:,}" if self.unlisted else "")


def describe(folder: Path) -> Summary:
    """Counts the contents of a domain's atomic files.

    Raises:
        XferError: if the folder has no interaction file, or a file in it cannot be read.
    """
    folder = Path(folder)
    interactions = read_atomic_file(folder / f"{folder.name}.inter", ["user_id", "item_id"])
    known = pd.Index(interactions["item_id"].unique())
    item_path = folder / f"{folder.name}.item"
    items = read_atomic_file(item_path) if item_path.exists() else pd.DataFrame({"item_id": known})
    listed = items[items["item_id"].isin(known)]
    return Summary(
        folder=folder,
        users=interactions["user_id"].nunique(),
        items=len(known),
        interactions=len(interactions),
        with_text=int(listed["text"].notna().sum()) if "text" in listed else 0,
        with_price=int(listed["price"].notna().sum()) if "price" in listed else 0,
        unlisted=len(known) - len(listed),
    )
