"""A domain that is split into a source and a target."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.studies import halves
from benchmarks.studies.noise import read
from recbole_xfer.experiment import build
from recbole_xfer.testing.data import config, write_small


def test_clusters_are_those_of_the_vectors() -> None:
    rng = np.random.default_rng(0)
    own = rng.permutation([0] * 30 + [1] * 20)
    vectors = np.eye(2)[own] * 5 + rng.normal(size=(50, 2))
    assert halves.clusters(vectors).tolist() == own.tolist()


def test_parts_have_other_items_and_all_of_their_interactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_small(tmp_path, holes=False)
    monkeypatch.setattr("sys.argv", ["halves", f"--data_path={tmp_path}", "--dataset=Small"])
    halves.main()
    whole = read(folder / "Small.inter")
    source, target = (read(tmp_path / f"Small-{part}" / f"Small-{part}.inter") for part in halves.PARTS)
    assert set(source["item_id"]) | set(target["item_id"]) == set(whole["item_id"])
    assert not set(source["item_id"]) & set(target["item_id"])
    for part in (source, target):
        same = whole[whole["item_id"].isin(part["item_id"])].reset_index(drop=True)
        assert part[["user_id", "item_id"]].equals(same[["user_id", "item_id"]])
    made = build(config(tmp_path, "ANT", dataset="Small-source", modalities=["text", "image"], topk=[2]))
    assert made.dataset.item_num - 1 == len(set(source["item_id"]))
