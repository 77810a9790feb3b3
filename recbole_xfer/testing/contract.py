"""The contract of a model: training, saving, resuming and ranking behave as in every other model.

A model's test inherits :class:`ModelContract`, :class:`CausalContract` or, for a model that is not trained,
:class:`RankingContract`, and names the model::

    class TestMyModel(CausalContract):
        model = "MyModel"
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_xfer.config.config import XferConfig
from recbole_xfer.config.values import split_domains
from recbole_xfer.experiment import Experiment, build, fit, load
from recbole_xfer.quick_start import recommend
from recbole_xfer.stages import train_and_evaluate
from recbole_xfer.testing.data import config, write_joined, write_small
from recbole_xfer.testing.isolation import isolate


class Interrupted(Exception):
    """Simulates a kill during a run."""


class RankingContract:
    """For every model, also one that is not trained: tests on a small random dataset; each takes seconds.

    Attributes:
        model: name of the model.
        keys: its configuration, where it differs from the defaults.
        dataset: one domain, or several joined by ``+``.
        history: tokens of items of the dataset.
    """

    model: str
    keys: dict[str, Any] = {}
    dataset = "Small"
    history = ["i1", "i2"]

    @pytest.fixture(autouse=True)
    def _isolated(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        isolate(tmp_path, monkeypatch)

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        """The folder of the data; a test of other data overrides this fixture."""
        domains = split_domains(self.dataset)
        if len(domains) > 1:
            write_joined(tmp_path, domains)
        else:
            write_small(tmp_path)
        return tmp_path

    def config(self, root: Path, **keys: Any) -> XferConfig:
        """The configuration of the class, with other keys on top."""
        return config(root, self.model, self.dataset, **{**self.keys, **keys})

    def experiment(self, root: Path, **keys: Any) -> Experiment:
        """Data and an untrained model."""
        return build(self.config(root, **keys))

    def scores(self, experiment: Experiment, rows: np.ndarray | None = None) -> torch.Tensor:
        """Scores of all items for test rows, all rows by default, [N, n_items]."""
        data = experiment.test_data._dataset
        experiment.model.eval()
        return experiment.model.full_sort_predict(data[np.arange(len(data)) if rows is None else rows])

    def test_a_loaded_run_has_the_same_results(self, root: Path) -> None:
        result = train_and_evaluate(self.config(root), None)
        experiment = load(result.folder)
        again = experiment.trainer.evaluate(experiment.test_data, load_best_model=False)
        assert {name: float(value) for name, value in again.items()} == result.test
        assert json.loads((Path(result.folder) / "result.json").read_text())["test"] == result.test
        assert not (Path(result.folder) / "state.pt").exists()
        recommended, part = recommend(experiment, k=10, part="test"), experiment.test_data._dataset
        row = (recommended["rank"] == 1).cumsum().to_numpy() - 1
        target = part.field2id_token[part.iid_field][part.inter_feat[part.iid_field].numpy()]
        hits = recommended["item_id"].to_numpy() == target[row]
        assert hits.sum() / len(target) == pytest.approx(result.test["recall@10"], abs=6e-5)

    def test_a_batch_equals_its_rows_one_at_a_time(self, root: Path) -> None:
        experiment = self.experiment(root)
        together = self.scores(experiment)
        alone = torch.cat([self.scores(experiment, np.array([row])) for row in range(len(together))])
        assert torch.allclose(together, alone, atol=1e-5)

    def test_predict_equals_full_sort(self, root: Path) -> None:
        experiment = self.experiment(root)
        data = experiment.test_data._dataset
        rows = data[np.arange(len(data))]
        full = self.scores(experiment)
        own = full[torch.arange(len(full)), rows["item_id"]]
        assert torch.allclose(experiment.model.predict(rows), own, atol=1e-5)

    def test_padding_changes_nothing(self, root: Path) -> None:
        """A longer window, and so more padding, gives equal scores."""
        experiment = self.experiment(root)
        data = experiment.test_data._dataset
        rows = data[np.arange(len(data))]
        before = experiment.model.eval().full_sort_predict(rows)
        rows["item_id_list"] = torch.nn.functional.pad(rows["item_id_list"], (0, 7))
        assert torch.allclose(experiment.model.full_sort_predict(rows), before, atol=1e-5)

    def test_recommendations_skip_unknown_items(self, root: Path, caplog: pytest.LogCaptureFixture) -> None:
        histories = [self.history, [*self.history, "nothing"], []]
        ranked = recommend(self.experiment(root), histories, k=5)
        known, same, popular = (rows.drop(columns="user_id") for _, rows in ranked.groupby("user_id"))
        assert known.to_numpy().tolist() == same.to_numpy().tolist()
        assert not {*self.history} & {*known["item_id"]} and len(known) % 5 == 0
        assert (known.groupby((known["rank"] == 1).cumsum())["score"].diff().dropna() <= 0).all()
        assert len(popular) == 5 and popular["score"].isna().all()
        assert "which are skipped: 1." in caplog.text


class ModelContract(RankingContract):
    """For every model that is trained, in addition."""

    def test_trains_and_improves(self, root: Path) -> None:
        experiment = self.experiment(root, epochs=8, stopping_step=8)
        fit(experiment)
        losses = list(experiment.trainer.train_loss_dict.values())
        assert np.isfinite(losses).all()
        assert np.mean(losses[-2:]) < losses[0]

    def test_a_seed_decides_the_result(self, root: Path) -> None:
        results = []
        for run, seed in enumerate((1, 1, 2)):
            experiment = self.experiment(root, seed=seed, run_dir=str(root / f"run{run}"))
            fit(experiment)
            results.append(self.scores(experiment))
        assert torch.equal(results[0], results[1])
        assert not torch.equal(results[0], results[2])

    def test_a_resumed_run_equals_an_uninterrupted_one(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Killed in the second of three epochs."""
        whole = self.experiment(root, epochs=3, run_dir=str(root / "whole"))
        expected = fit(whole)
        broken = self.experiment(root, epochs=3, run_dir=str(root / "broken"))
        original = broken.model.calculate_loss

        def dies(interaction: Any) -> Any:
            if broken.trainer.train_loss_dict:
                raise Interrupted
            return original(interaction)

        monkeypatch.setattr(broken.model, "calculate_loss", dies)
        with pytest.raises(Interrupted):
            fit(broken)
        resumed = self.experiment(root, epochs=3, run_dir=str(root / "broken"))
        assert fit(resumed) == expected
        assert resumed.trainer.start_epoch == 1
        assert torch.equal(self.scores(whole), self.scores(resumed))
        weights = [(root / name / "model.safetensors").read_bytes() for name in ("whole", "broken")]
        assert weights[0] == weights[1]


class CausalContract(ModelContract):
    """For models that are trained at all positions: later items must not change earlier states."""

    def states(self, experiment: Experiment, items: torch.Tensor) -> torch.Tensor:
        """States [B, L, d] of windows [B, L]; a model's test overrides this where the model has no ``encode``."""
        return experiment.model.encode(items)

    def test_later_items_change_nothing_earlier(self, root: Path) -> None:
        experiment = self.experiment(root)
        experiment.model.eval()
        items = torch.randint(1, experiment.model.n_items, (3, 8))
        states = self.states(experiment, items)
        for position in range(1, 8):
            changed = items.clone()
            changed[:, position:] = torch.randint(1, experiment.model.n_items, changed[:, position:].shape)
            assert torch.allclose(self.states(experiment, changed)[:, :position], states[:, :position], atol=1e-5)
