"""A complete configuration is fixed."""

from pathlib import Path

import pytest

from recbole_xfer.testing.data import config


def test_a_complete_configuration_is_fixed(tmp_path: Path) -> None:
    first = config(tmp_path, "Pop", seed=1)
    with pytest.raises(TypeError, match="use replace"):
        first["seed"] = 2
    first["A_NAME_OF_RECBOLE"] = "noted"
    second = first.replace(seed=2)
    assert (first["seed"], second["seed"], first["A_NAME_OF_RECBOLE"]) == (1, 2, "noted")
