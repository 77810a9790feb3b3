"""The registry of sources, and the summary of a prepared domain."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.errors import XferError
from recbole_xfer.prepare.summary import describe
from tests.helpers.preparing import interactions

ADD_ALL_OPTIONS = """
import sys
from argparse import ArgumentParser
from recbole_xfer.prepare import SOURCES
from recbole_xfer.prepare.options import add_encode_options
for add in (add_encode_options, *(source.add_arguments for source in SOURCES.values())):
    add(ArgumentParser())
assert not {"numpy", "pandas", "pyarrow", "torch", "recbole", "transformers"} & set(sys.modules)
"""


def test_options_import_nothing_slow() -> None:
    done = subprocess.run([sys.executable, "-c", ADD_ALL_OPTIONS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_summary_of_a_domain(tmp_path: Path) -> None:
    items = pd.DataFrame({"item_id": ["a", "c"], "text": ["x", "y"], "price": [np.nan, 1]})
    summary = describe(write_domain(tmp_path, "D", interactions(), items))
    assert (summary.users, summary.items, summary.interactions) == (2, 2, 2)
    assert (summary.with_text, summary.with_price, summary.unlisted) == (1, 0, 1)
    assert str(summary) == (
        "D: 2 users, 2 items (1 with text, 0 with a price), 2 interactions; items missing in the item file: 1"
    )
    assert "missing in the item file" not in str(describe(write_domain(tmp_path, "E", interactions(), None)))
    with pytest.raises(XferError, match=r"missing\.inter does not exist"):
        describe(tmp_path / "missing")
