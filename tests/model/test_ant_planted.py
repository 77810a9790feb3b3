"""On the toy set, where the right answer is known, ANT must find what each part tells."""

from pathlib import Path

import pytest

from recbole_xfer.experiment import Experiment, load
from recbole_xfer.prepare.toy import prepare_toy, toy_truth
from recbole_xfer.quick_start import run

KEYS = {
    "hidden_size": 64, "inner_size": 64, "hidden_dropout_prob": 0.1, "attn_dropout_prob": 0.1, "topk": [10],
    "projection_dropout": 0.0, "train_batch_size": 256, "learning_rate": 0.003, "epochs": 15, "stopping_step": 5,
    "pretrain_epochs": 16, "pretrain_negatives": "full", "show_progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("toy")
    prepare_toy(root)
    return root


def recall(folder: Path, **keys: object) -> tuple[float, str]:
    paths = {"data_path": str(folder), "checkpoint_dir": str(folder / "saved")}
    result = run("ANT", "Toy-Games", overrides={**KEYS, **paths, **keys})
    return result.test["recall@10"], result.folder


@pytest.fixture(scope="module")
def adapted(folder: Path) -> tuple[float, Experiment]:
    """Fine-tuned from both sources: its recall, and the model."""
    value, run_folder = recall(folder, adaptation="finetune", source="Toy-Books+Toy-Music")
    return value, load(run_folder)


def test_what_the_sources_tell_is_found(folder: Path, adapted: tuple[float, Experiment]) -> None:
    """The target alone is too small to teach the rule; with the sources ANT comes near the best possible."""
    best = toy_truth().best()["recall"]
    assert adapted[0] > 0.75 * best
    assert recall(folder)[0] < 0.25 * best


@pytest.mark.parametrize("part", ["text", "image", "price"])
def test_each_modality_tells_its_share(adapted: tuple[float, Experiment], part: str) -> None:
    """With a part switched off, the model loses it: no more is found than the rest can tell."""
    value, experiment = adapted
    known = tuple(name for name in ("text", "image", "price") if name != part)
    present = getattr(experiment.model.features, f"{part}_present")
    before = present.clone()
    present.zero_()
    try:
        without = experiment.trainer.evaluate(experiment.test_data, load_best_model=False)["recall@10"]
    finally:
        present.copy_(before)
    assert without < 0.75 * value
    assert without < toy_truth().best(known)["recall"] + 0.05
