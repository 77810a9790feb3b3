"""Each shim, tested by what fails without it.

Tested with RecBole 1.2.0. This file and test_recbole_models.py also pass with 1.2.1, which requires an old ray and is
therefore installed with ``pip install --no-deps recbole==1.2.1``.
"""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse
import torch
from recbole.config import Config

from recbole_xfer import compat
from tests.conftest import ROOT


@pytest.fixture
def config() -> Config:
    return Config("SASRec", "any", config_dict={"train_neg_sample_args": None, "learning_rate": np.float64(0.5)})


def test_numpy_has_the_names_that_recbole_uses() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, meaning in compat.NUMPY_NAMES.items():
            assert np.dtype(getattr(np, name)).kind == np.dtype(meaning).kind


def test_pop_counts_every_occurrence_of_an_item_in_a_batch() -> None:
    from recbole.model.general_recommender import Pop

    model = SimpleNamespace(ITEM_ID="item", item_cnt=torch.zeros(3, 1, dtype=torch.long))
    Pop.calculate_loss(model, {"item": torch.tensor([2, 1, 2])})
    assert model.item_cnt[:, 0].tolist() == [0, 1, 2]
    assert model.max_cnt.tolist() == [2]


def test_importing_sequential_models_does_not_enable_anomaly_detection() -> None:
    import recbole.model.sequential_recommender  # noqa: F401

    assert not torch.is_anomaly_enabled()


def test_a_second_call_of_apply_changes_nothing() -> None:
    import recbole.quick_start.quick_start as quick_start

    before = [vars(np).get("float_"), Config.__reduce__, quick_start.tune, *sys.meta_path]
    compat.apply()
    assert before == [vars(np).get("float_"), Config.__reduce__, quick_start.tune, *sys.meta_path]


def test_importing_the_package_imports_neither_ray_nor_transformers() -> None:
    program = "import sys, recbole_xfer; print({'ray', 'transformers'} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "set()"


def updated() -> list[list[float]]:
    """A matrix of zeros after RecBole's way to write one value."""
    matrix = scipy.sparse.dok_matrix((2, 3), dtype=np.float32)
    matrix._update({(1, 2): 4})
    return matrix.toarray().tolist()


def test_a_sparse_dictionary_has_its_private_update() -> None:
    assert updated() == [[0, 0, 0], [0, 0, 4]]


@pytest.mark.skipif(not hasattr(scipy.sparse.dok_matrix((1, 1)), "_dict"), reason="this scipy has the method")
def test_the_private_update_does_not_need_the_public_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def update(self: object, values: object) -> None:  # as scipy 1.13 to 1.16 have it
        raise NotImplementedError("Direct update to DOK sparse format is not allowed.")

    monkeypatch.setattr(scipy.sparse.dok_matrix, "update", update)
    monkeypatch.delattr(scipy.sparse.dok_matrix, "_update")
    compat.restore_dok_update()
    assert updated() == [[0, 0, 0], [0, 0, 4]]


def test_torchvision_can_be_imported() -> None:
    assert pytest.importorskip("torchvision").ops


def test_a_trial_is_reported_as_one_dictionary() -> None:
    reported = []

    def report(metrics: dict[str, float], checkpoint: None = None) -> None:
        reported.append(metrics)

    quick_start = SimpleNamespace(tune=SimpleNamespace(report=report))
    compat.report_as_dict(quick_start)  # type: ignore[arg-type]
    quick_start.tune.report(**{"recall@10": 0.5})
    assert reported == [{"recall@10": 0.5}]


class TestCheckpoints:
    def test_a_config_loads_without_running_code(self, config: Config, tmp_path: Path) -> None:
        torch.save({"config": config, "score": np.float64(0.25)}, tmp_path / "a.pth")
        loaded = torch.load(tmp_path / "a.pth", weights_only=True)
        assert loaded["score"] == 0.25
        assert loaded["config"].final_config_dict == config.final_config_dict
        assert loaded["config"].model_class is config.model_class
        assert loaded["config"].yaml_loader is config.yaml_loader

    def test_a_config_can_be_copied_and_pickled(self, config: Config) -> None:
        for twin in (copy.deepcopy(config), pickle.loads(pickle.dumps(config))):
            assert str(twin) == str(config)
            twin["topk"].append(99)
            assert twin["topk"] != config["topk"]

    def test_a_process_that_only_unpickles_a_config_has_the_shims(self, config: Config, tmp_path: Path) -> None:
        path = tmp_path / "config.pickle"
        path.write_bytes(pickle.dumps(config))
        program = f"import pickle, numpy; pickle.load(open({str(path)!r}, 'rb')); print(numpy.float_.__name__)"
        answer = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        assert answer.stdout.strip() == "float64"

    @pytest.mark.parametrize("inside", [False, True])
    def test_code_in_a_checkpoint_is_rejected(self, inside: bool, config: Config, tmp_path: Path) -> None:
        trap = tmp_path / "trap"

        class Evil:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return exec, (f"open({str(trap)!r}, 'w').close()",)

        if inside:
            config["seed"] = Evil()
        torch.save({"config": config if inside else Evil()}, tmp_path / "evil.pth")
        with pytest.raises(pickle.UnpicklingError, match="exec"):
            torch.load(tmp_path / "evil.pth")
        assert not trap.exists()

    def test_a_config_of_a_model_unknown_to_recbole_can_be_pickled(self, config: Config) -> None:
        config.model = "Mine"
        assert pickle.loads(pickle.dumps(config)).model == "Mine"


READ_DATA = """
from pathlib import Path
import recbole_xfer
from recbole_xfer.data.loaders import make_dataset
from recbole_xfer.testing.data import config, write_small
write_small(Path())
print(make_dataset(config(Path(), "Pop")).item_num)
"""


def test_reading_data_shows_no_warning_of_pandas(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", READ_DATA],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "26\n"
    assert "Warning" not in done.stderr
