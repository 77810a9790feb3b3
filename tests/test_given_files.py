"""Files that somebody else made run no code: data, runs and what RecBole would unpickle or evaluate."""

from __future__ import annotations

import builtins
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from recbole.data import create_dataset

from recbole_xfer.config.config import settings as all_settings
from recbole_xfer.data.loaders import make_dataset
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import load
from recbole_xfer.quick_start import evaluate, run
from recbole_xfer.testing.data import config, settings, write_small
from recbole_xfer.trainer.run_folder import RunFolder

TEXT = {"item_attribute": "text"}
INTER = ["user_id", "item_id", "timestamp"]
LINK = ["item_id", "entity_id"]
STAGE = {"pretrain_epochs": 1, "save_step": 1}
MODELS: dict[str, dict[str, Any]] = {
    "ANT": {},
    "BPR": {},
    "CFKG": {
        "load_col": {"inter": INTER, "kg": ["head_id", "relation_id", "tail_id"], "link": ["item_id", "entity_id"]}
    },
    "FEARec": {},
    "FM": {},
    "KD_DAGFM": {},
    "LDiffRec": {},
    "MultiVAE": {},
    "NeuMF": {},
    "Pop": {},
    "S3Rec": {**TEXT, **STAGE},
    "SASRec": {},
}
"""Models of each type, and those whose code in RecBole evaluates text or reads a pickle."""


class Malicious:
    def __reduce__(self) -> tuple:
        return (Path.touch, (Path("touched"),))


@pytest.fixture
def no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets pickles and evaluated text raise."""

    def forbidden(name: str) -> Callable[..., Any]:
        def stop(*_: Any, **__: Any) -> None:
            raise AssertionError(f"{name} was called")

        return stop

    def guarded(name: str) -> Callable[..., Any]:
        original = getattr(builtins, name)

        def stop(*args: Any, **kwargs: Any) -> Any:
            module = sys._getframe(1).f_globals.get("__name__", "")
            assert module.split(".")[0] not in ("recbole", "recbole_xfer"), f"{module} calls {name}"
            return original(*args, **kwargs)

        return stop

    def safe_load(*args: Any, weights_only: bool = True, **kwargs: Any) -> Any:
        assert weights_only, "torch.load would unpickle anything"
        return torch_load(*args, weights_only=True, **kwargs)

    torch_load = torch.load
    monkeypatch.setattr(torch, "load", safe_load)
    for name in ("load", "loads"):
        monkeypatch.setattr(pickle, name, forbidden(f"pickle.{name}"))
    for name in ("eval", "exec"):
        monkeypatch.setattr(builtins, name, guarded(name))


def plant(root: Path, model: str) -> None:
    """Writes data with a knowledge graph, and the pickles that RecBole would read."""
    folder = write_small(root)
    links = [f"i{item}\te{item}" for item in range(25)]
    (folder / "Small.link").write_text("\n".join(["item_id:token\tentity_id:token", *links]))
    triples = [f"e{item}\tr\te{(item + 1) % 25}" for item in range(25)]
    (folder / "Small.kg").write_text("\n".join(["head_id:token\trelation_id:token\ttail_id:token", *triples]))
    saved = root / "saved"
    saved.mkdir()
    kinds = ("Dataset", "SequentialDataset", "KnowledgeBasedDataset", "TransferDataset", "InteractionDataset")
    for name in [*(f"Small-{kind}.pth" for kind in kinds), f"Small-for-{model}-dataloader.pth"]:
        (saved / name).write_bytes(pickle.dumps(Malicious()))


@pytest.mark.usefixtures("no_code")
@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("model", MODELS)
def test_a_run_evaluates_and_unpickles_nothing(model: str, tmp_path: Path) -> None:
    plant(tmp_path, model)
    result = run(model, "Small", overrides={**settings(tmp_path, model), "epochs": 1, **MODELS[model]})
    assert evaluate([result.folder]).results[0].test == result.test
    assert not Path("touched").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("model", ["CFKG", "FEARec", "FM"])
def test_datasets_equal_those_of_recbole(model: str, tmp_path: Path) -> None:
    """For times that float32 distinguishes, by which RecBole sorts, and histories with all parts."""
    plant(tmp_path, model)
    path = tmp_path / "Small" / "Small.inter"
    rows = pd.read_csv(path, sep="\t")
    rows = rows[rows.groupby("user_id:token")["user_id:token"].transform("size") > 3]
    rows.assign(**{"timestamp:float": rows["timestamp:float"] - 1.4e9}).to_csv(path, sep="\t", index=False)
    made = config(tmp_path, model, **{**MODELS[model], "checkpoint_dir": str(tmp_path / "empty")})
    pairs = []
    for dataset_of in (make_dataset, create_dataset):
        parts = dataset_of(made).build()
        pairs.append([sorted(zip(*(part.inter_feat[f].tolist() for f in FIELDS), strict=True)) for part in parts])
    assert pairs[0] == pairs[1]
    assert len(pairs[0][2]) > 30


FIELDS = ("user_id", "item_id")


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        ("KD_DAGFM", {"teacher": "__import__('pathlib').Path('touched').touch"}, "must be CrossNet, CIN or CINComp"),
        ("FM", {"dataset_save_path": "given.pth"}, "must be None, because RecBole .* pickle"),
        ("FM", {"dataloaders_save_path": "given.pth"}, "must be None, because RecBole .* pickle"),
        ("FM", {"save_dataset": True}, "must be False, because RecBole .* pickle"),
        ("FM", {"save_dataloaders": True}, "must be False, because RecBole .* pickle"),
    ],
)
def test_a_given_run_cannot_name_code_or_pickles(
    model: str, keys: dict[str, Any], message: str, tmp_path: Path
) -> None:
    write_small(tmp_path)
    Path("given.pth").write_bytes(pickle.dumps(Malicious()))
    folder = RunFolder(tmp_path / "given")
    folder.begin({**all_settings(config(tmp_path, model)), **keys})
    with pytest.raises(XferError, match=message):
        load(folder.path)
    assert not Path("touched").exists()


def test_a_dataset_named_as_a_path_leads_to_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "given.yaml").write_text("teacher: __import__('os').abort()\nembedding_size: 7\n")
    made = config(tmp_path, "KD_DAGFM", str(tmp_path / "given"))
    assert (made["teacher"], made["embedding_size"]) == ("CrossNet", 16)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_recboles_own_configuration_cannot_evaluate_a_teacher(tmp_path: Path) -> None:
    from recbole.model.context_aware_recommender import kd_dagfm

    assert kd_dagfm.eval("CIN") is kd_dagfm.CIN
    with pytest.raises(KeyError):
        kd_dagfm.eval("__import__('pathlib').Path('touched').touch()")
    assert not Path("touched").exists()


@pytest.mark.parametrize("model", ["BPR", "FM", "SASRec"])
def test_more_candidates_than_items_are_rejected(model: str, tmp_path: Path) -> None:
    write_small(tmp_path)
    keys = {**settings(tmp_path, model), "eval_args": {"mode": "uni100000000"}}
    with pytest.raises(XferError, match=r"uni100000000 needs 100,000,000 negatives, but Small has 25 items"):
        run(model, "Small", overrides=keys)


def test_pickled_vectors_of_ldiffrec_are_rejected(tmp_path: Path) -> None:
    folder = write_small(tmp_path)
    keys = {**settings(tmp_path, "LDiffRec"), "n_cate": 2, "epochs": 1}
    np.save(folder / "item_emb.npy", np.array([Malicious()], dtype=object))
    with pytest.raises(XferError, match="LDiffRec rejects this configuration"):
        run("LDiffRec", "Small", overrides=keys)
    assert not Path("touched").exists()


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_finished_run_is_loaded_without_the_file_it_was_pretrained_from(tmp_path: Path) -> None:
    write_small(tmp_path)
    keys = {**settings(tmp_path, "S3Rec"), **TEXT, **STAGE, "epochs": 1}
    run("S3Rec", "Small", overrides={**keys, "train_stage": "pretrain"})
    (file,) = (tmp_path / "saved").glob("S3Rec-Small-*.pth")
    stage = {"train_stage": "finetune", "pre_model_path": str(file)}
    result = run("S3Rec", "Small", overrides={**keys, **stage})
    file.unlink()
    assert evaluate([result.folder]).results[0].test == result.test
    loaded = load(result.folder)
    assert loaded.model.train_stage == "finetune"
    assert yaml.safe_load((Path(result.folder) / RunFolder.CONFIG).read_text())["train_stage"] == "finetune"
