"""What the json files of a run's folder contain."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Literal, get_type_hints

from pydantic import BaseModel, Field, create_model

from recbole_xfer.evaluation.result import Result

HINTS = get_type_hints(Result)
Measured = create_model(
    "Measured",
    **{
        field.name: (HINTS[field.name], ... if field.default is field.default_factory is MISSING else None)
        for field in fields(Result)
        if field.repr
    },
)  # type: ignore[call-overload]
"""``result.json`` of a run that was evaluated on a test split: what :meth:`Result.as_dict` returns."""


class Pretrained(BaseModel):
    """``result.json`` of a pre-training."""

    model: str
    source: str
    valid: dict[str, float]
    best_epoch: int
    seconds: float
    seed: int


class Unmeasured(BaseModel):
    """``result.json`` of a training on all interactions, of which nothing can be tested.

    Attributes:
        verb: what made it.
        origins: the folders from which it was made, the latest first; test results of the last one estimate it.
        best_epoch: the last one, whose parameters are kept.
        steps: of all epochs.
        epochs_anew: that training anew takes, as validation chose.
        interactions: that were trained on.
        new_interactions: in an update, how many of them the earlier data lacks.
        tokens: in an update, how many tokens of each field are known, new and dropped.
        neighbours: in an update, how many new items start from their nearest known ones.
    """

    verb: Literal["refit", "update"]
    model: str
    dataset: str
    origins: list[str] = Field(min_length=1)
    epochs: int
    best_epoch: int
    steps: int
    epochs_anew: int
    interactions: int
    seed: int
    seconds: float
    new_interactions: int | None = None
    tokens: dict[str, dict[str, int]] = {}
    neighbours: int = 0


KINDS = {"test": Measured, "origins": Unmeasured}
"""Kinds of ``result.json`` by a key that only they have."""


class Epoch(BaseModel):
    """A record of ``epochs.json``."""

    epoch: int
    phase: str | None
    train: dict[str, float | None] = Field(min_length=1)
    valid: dict[str, float | None] = {}
