"""Random files, tables, pictures and keys: each is read right or rejected with a sentence."""

from __future__ import annotations

import pytest

from benchmarks import fuzz


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("kind", fuzz.KINDS, ids=lambda kind: kind.name)
def test_random_inputs(kind: fuzz.Kind) -> None:
    counts = fuzz.run(kind, inputs=200)
    assert counts.total() >= 200
    assert counts[True] > (50 if kind.name == "keys" else 10)  # which are drawn depends on the modules loaded before
