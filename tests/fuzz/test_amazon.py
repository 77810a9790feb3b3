"""Random reviews and metadata: each is prepared or rejected with a sentence."""

from __future__ import annotations

from benchmarks.fuzz import Kind, run
from tests.fuzz.amazon import amazon_files, check_amazon


def test_random_amazon_files() -> None:
    counts = run(Kind("amazon", amazon_files(), check_amazon), inputs=100)
    assert counts.total() >= 100 and counts[True] >= 20
