"""Every kind of model, and every use of a run, on a device other than the CPU: finds what would fail on a GPU."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils import backend_registration

from recbole_xfer.experiment import load
from recbole_xfer.quick_start import recommend, run
from recbole_xfer.report.explain import explain
from recbole_xfer.testing.data import settings, whole_and_interrupted, write_joined, write_small

Call = Callable[..., Any]

PRETRAINING = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "text"]},
    "item_attribute": "text", "train_stage": "pretrain", "pretrain_epochs": 1, "save_step": 1,
}  # fmt: skip

pytestmark = pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this PyTorch has no support for a device written in Python",
)


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


@pytest.fixture
def there(process: ProcessPoolExecutor, in_tmp_path: Path) -> Call:
    """Calls a function on the other device, in this test's folder."""
    return lambda function, *args, **keys: process.submit(call, in_tmp_path, function, *args, **keys).result()


def call(*args: Any, **keys: Any) -> Any:
    from tests.helpers.other_device import call_there  # only the other process registers the device

    return call_there(*args, **keys)


def add(device: str) -> None:
    torch.ones(2, device="other") + torch.ones(2, device=device)


def view() -> None:
    torch.ones(2, device="other").numpy()


def test_the_device_rejects_tensors_of_the_cpu(there: Call) -> None:
    there(add, "other")
    with pytest.raises(RuntimeError, match="expected all tensors to be on one device"):
        there(add, "cpu")
    with pytest.raises(TypeError, match="numpy"):
        there(view)


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("ANT", {}),
        ("RETR", {"loss_type": "BPR", "mask_history": True}),
        ("RETR", {"pathway_route": "random", "eval_args": {"split": {"NU": 0.2}}, "eval_groups": ["head", "new"]}),
        ("PathwayBERT4Rec", {}),
        ("PathwayLightSANs", {}),
        ("PathwayS3Rec", PRETRAINING),
        ("UniSRec", {"item_embedding": True}),
        ("XRETR", {}),
        ("XLightSANs", {}),
        ("CARCA", {}),
        ("VQRec", {}),
        ("TPSASRec", {}),
        ("TPCaser", {}),
        ("SASRec", {"eval_args": {"mode": "uni10"}}),
        ("BPR", {}),
        ("Pop", {}),
    ],
)
def test_a_model_trains_and_ranks(tmp_path: Path, there: Call, model: str, keys: dict[str, Any]) -> None:
    write_small(tmp_path)
    result = there(run, model, "Small", overrides={**settings(tmp_path, model), **keys})
    assert 0 < result.test["recall@10"] <= 1


@pytest.mark.parametrize(
    ("model", "dataset", "keys"),
    [("SyNCRec", "A+B+C", {}), ("RecGURU", "A+B", {"autoencoder_epochs": 1, "adversarial_epochs": 1})],
)
def test_a_model_of_joined_domains(tmp_path: Path, there: Call, model: str, dataset: str, keys: dict[str, int]) -> None:
    write_joined(tmp_path)
    result = there(run, model, dataset, overrides={**settings(tmp_path, model), **keys})
    assert 0 < result.test["recall@10"] <= 1


def test_transfer(tmp_path: Path, there: Call) -> None:
    write_small(tmp_path)
    write_small(tmp_path, "Source", seed=1)
    keys = {"source": "Source", "adaptation": "relearn", "pretrain_epochs": 1}
    result = there(run, "ANT", "Small", overrides={**settings(tmp_path), **keys})
    assert result.adaptation == "relearn" and math.isfinite(result.valid_score)


def test_the_result_is_the_same_as_on_the_cpu(tmp_path: Path, there: Call) -> None:
    """Without dropout, whose random numbers differ between devices."""
    write_small(tmp_path)
    keys = {**settings(tmp_path, "RETR"), "hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0, "resume": False}
    assert there(run, "RETR", "Small", overrides=keys).test == pytest.approx(run("RETR", "Small", overrides=keys).test)


def test_an_interrupted_run_resumes(tmp_path: Path, there: Call) -> None:
    write_small(tmp_path)
    whole, interrupted = there(whole_and_interrupted, tmp_path, "RETR")
    assert interrupted.test == whole.test and interrupted.valid == whole.valid


def best_items_and_route(root: Path) -> tuple[list[tuple[str, float]], list[Any]]:
    folder = run("RETR", "Small", overrides=settings(root, "RETR")).folder
    experiment = load(folder)
    user = experiment.test_data._dataset.inter_feat["user_id"][0]
    return recommend(experiment, [["i1", "i2"]], k=3), explain(folder, experiment.dataset.id2token("user_id", user))


def test_a_finished_run_recommends_and_explains(tmp_path: Path, there: Call) -> None:
    write_small(tmp_path)
    best, explanations = there(best_items_and_route, tmp_path)
    assert len(best) == 3 and len(explanations) == 1
