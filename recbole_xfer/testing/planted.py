"""A truth planted in the toy domains, which a transfer model must find."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recbole_xfer.experiment import Experiment, load
from recbole_xfer.prepare.toy import prepare_toy, toy_truth
from recbole_xfer.quick_start import run
from recbole_xfer.testing.data import paths
from recbole_xfer.testing.isolation import isolate


class PlantedTruth:
    """Adapts a model from Toy-Books and Toy-Music to Toy-Games, where the best possible recall is known.

    All domains follow one rule, which the target has too little data to teach. Inherit, and set ``model``, ``keys``
    and, where they differ, the other attributes.

    Attributes:
        model: name of the model.
        keys: sizes and learning rates with which the model learns the rule in short time.
        adaptation: how the pre-trained model is adapted.
        parts: the modalities that the model reads.
        found: fraction of the best possible recall that the adapted model must exceed.
        found_alone: fraction of it that the model must stay below without the sources.
        found_without: fraction of its own recall that the model must stay below without one of ``parts``.
    """

    model: str
    keys: dict[str, Any] = {}
    adaptation = "finetune"
    parts: tuple[str, ...] = ("text", "image", "price")
    found, found_alone, found_without = 0.75, 0.25, 0.75

    def test_finds_the_rule_with_the_sources_and_by_every_part(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        isolate(tmp_path, monkeypatch)
        prepare_toy(tmp_path)
        best = toy_truth().best(self.parts)["recall"]
        recall, folder = self.recall(tmp_path, adaptation=self.adaptation, source="Toy-Books+Toy-Music")
        alone, _ = self.recall(tmp_path)
        assert recall > self.found * best
        assert alone < self.found_alone * best
        experiment = load(folder)
        for part in self.parts:
            without = self.recall_without(experiment, part)
            others = [name for name in self.parts if name != part]
            assert without < self.found_without * recall, part
            assert without < toy_truth().best(others)["recall"] + 0.05, part  # no more than the other parts reveal

    def recall(self, root: Path, **keys: Any) -> tuple[float, str]:
        """Recall@10 of a run on the target, and the folder of the run."""
        keys = {"topk": [10], "show_progress": False, **self.keys, **paths(root), **keys}
        result = run(self.model, "Toy-Games", overrides=keys)
        return result.test["recall@10"], result.folder

    def recall_without(self, experiment: Experiment, part: str) -> float:
        """Recall@10 of a trained model when all items lack a part."""
        present = getattr(experiment.model.features, f"{part}_present")
        before = present.clone()
        present.zero_()
        try:
            return float(experiment.trainer.evaluate(experiment.test_data, load_best_model=False)["recall@10"])
        finally:
            present.copy_(before)
