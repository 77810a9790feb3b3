"""Fixtures that all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import recbole_xfer  # noqa: F401  tests import RecBole, which needs compat first
from recbole_xfer.log import logger
from recbole_xfer.testing.isolation import in_tmp_path  # noqa: F401  an autouse fixture

ROOT = Path(__file__).resolve().parents[1]


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Names a parameter of bytes by its argument: gzip, for one, writes the time, and xdist wants equal names."""
    return argname if isinstance(val, bytes) else None


@pytest.fixture(autouse=True)
def no_handler_outlives_its_test() -> Iterator[None]:
    """Removes handlers of messages, such as one that writes to a test's captured standard error."""
    yield
    logger.handlers = []


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data: RECBOLE_XFER_DATA, or shared/data next to the repository; skips where it is absent."""
    path = Path(os.environ.get("RECBOLE_XFER_DATA") or ROOT.parent / "shared" / "data")
    if not path.is_dir():
        pytest.skip("the real data is not here; RECBOLE_XFER_DATA names its folder")
    return path
