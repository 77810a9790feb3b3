"""Values as yaml and json can hold them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from pydantic import ValidationError


def plain(value: Any) -> Any:
    """A value as yaml and json can hold it: mappings, lists and plain values; anything else as text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def reason_of(error: ValidationError) -> str:
    """Where the first mistake of a json file is, and what is wrong there."""
    first = error.errors()[0]
    return ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), first["msg"]])


def as_json(value: Mapping[str, Any]) -> str:
    """The text of a json file."""
    return json.dumps(plain(value), indent=2) + "\n"
