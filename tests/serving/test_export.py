"""Exports: what they contain, that they are checked, and that they are served without this package."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from recbole.data.interaction import Interaction
from torch._subclasses.fake_tensor import FakeTensorMode

from recbole_xfer.cli.main import main
from recbole_xfer.data.atomic import AtomicFormat
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, build, load
from recbole_xfer.quick_start import export, run
from recbole_xfer.serving import export as exporting
from recbole_xfer.serving import user_encoder
from recbole_xfer.serving.catalogue import make_catalogue
from recbole_xfer.serving.export import items_table, write_index
from recbole_xfer.serving.user_encoder import (
    NotExportable,
    UserEncoder,
    check,
    item_vectors,
    random_histories,
    write_onnx,
)
from recbole_xfer.testing.data import config, settings, write_joined, write_small

BLOCKED = """
import runpy, sys
for name in ("torch", "recbole", "recbole_xfer"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""

KEYS: dict[str, dict[str, Any]] = {"XLightSANs": {"train_rows": "prefixes"}}


@pytest.fixture
def _onnx() -> None:
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed: pip install recbole-xfer[serving]")


def serve(folder: Path, *options: str) -> tuple[list[tuple[str, float]], list[str]]:
    """The items and scores that an export's example prints, and its comments, without the packages of training."""
    command = [sys.executable, "-c", BLOCKED, str(folder / "serve.py"), *options]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout.splitlines()
    rows = [line.split("\t") for line in lines if "\t" in line]
    return [(item, float(score)) for item, score in rows], [line for line in lines if "\t" not in line]


def ranking(experiment: Experiment, history: list[str], keep_history: bool = False) -> dict[str, float]:
    """The model's own scores of the items that are not in a history, or of all items, best first."""
    dataset = experiment.dataset
    ids = [dataset.field2token_id["item_id"][item] for item in history]
    last = ids[-experiment.config["MAX_ITEM_LIST_LENGTH"] :]
    rows = {"item_id_list": torch.tensor([last]), "item_length": torch.tensor([len(last)])}
    with torch.no_grad():
        scores = experiment.model.full_sort_predict(Interaction(rows))[0].numpy()
    order = [item for item in np.argsort(-scores) if item and (keep_history or item not in ids)]
    return {str(dataset.field2id_token["item_id"][item]): float(scores[item]) for item in order}


def trained(root: Path, model: str, dataset: str = "Small", **keys: Any) -> str:
    return run(model, dataset, overrides={**settings(root, model), "epochs": 1, **keys}).folder


@pytest.mark.usefixtures("_onnx")
@pytest.mark.filterwarnings("error:Converting a tensor")
def test_an_export_is_served_without_the_packages_of_training(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    write_small(tmp_path)
    folder, output = trained(tmp_path, "ANT", n_layers=1, learning_rate=0.01), tmp_path / "out" / "serving"
    assert main(["export", folder, f"--output={output}", "--data_path", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{output}\n"

    experiment = load(folder)
    for history in (["i3"], ["i1", "i2", "i1", "i4"], [f"i{number % 20}" for number in range(23)]):
        found, comments = serve(output, "--k=5", "--history", *history)
        expected = ranking(experiment, history)
        assert [score for _, score in found] == pytest.approx(list(expected.values())[:5], abs=2e-6)
        assert [score for _, score in found] == pytest.approx([expected[item] for item, _ in found], abs=2e-6)
        assert not comments

        kept, _ = serve(output, "--k=30", "--keep_history", "--history", *history)
        assert dict(kept) == pytest.approx(ranking(experiment, history, keep_history=True), abs=2e-6)

    known, comments = serve(output, "--k=5", "--history", "new", "i3", "i99")
    assert (known, comments) == (serve(output, "--k=5", "--history", "i3")[0], ["# unknown items: 2"])
    counts = np.bincount(experiment.dataset.sequences.items)[1:]
    assert [score for _, score in serve(output, "--k=3")[0]] == sorted(counts, reverse=True)[:3]

    manifest = json.loads((output / "manifest.json").read_text())
    assert (manifest["model"], manifest["dataset"], manifest["items"]) == ("ANT (scratch)", "Small", 25)
    assert (manifest["score"], manifest["text_encoder"], manifest["longest_history"]) == ("cosine", "test text", 10)
    assert manifest["repeat_score"] == pytest.approx(experiment.model.repeat_score.item()) != 0
    assert manifest["check"]["histories"] == 40 and manifest["check"]["largest_difference"] < 1e-5
    assert manifest["files"].keys() == {path.name for path in output.iterdir()} - {"manifest.json"}
    for name, described in manifest["files"].items():
        content = (output / name).read_bytes()
        assert described == {"bytes": len(content), "blake2b": hashlib.blake2b(content, digest_size=16).hexdigest()}


@pytest.mark.usefixtures("_onnx")
@pytest.mark.parametrize(
    ("model", "dataset", "sizes"),
    [
        ("SyNCRec", "A+B", {"n_layers": 1, "n_experts": 2, "cross_experts": 1}),
        ("STAMP", "Small", {"embedding_size": 16}),
    ],
)
def test_a_graph_reads_every_batch_as_its_model(
    model: str, dataset: str, sizes: dict[str, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Large tables are in a file of their own, and a graph of other parameters is rejected."""
    monkeypatch.setattr(user_encoder, "EXTERNAL", 1000)
    encoder, groups = untrained(tmp_path, model, dataset, **sizes)
    write_onnx(encoder, tmp_path / "graph.onnx")
    assert (tmp_path / "graph.onnx.data").stat().st_size > 1000
    users, difference = check(encoder, tmp_path / "graph.onnx", groups, shown=False)
    assert users.shape == (40, 16) and difference <= 1e-5
    with torch.no_grad():
        for parameter in encoder.model.parameters():
            parameter.add_(0.001 * torch.randn_like(parameter))
    encoder.eval()
    with pytest.raises(NotExportable, match="other vectors: the largest difference is .* on histories of up to"):
        check(encoder, tmp_path / "graph.onnx", groups, shown=False)


@pytest.mark.parametrize(
    "model", ["ANT", "RETR", "XRETR", "XLightSANs", "SyNCRec", "RecGURU", "ContentKNN", "NOVA", "VQRec"]
)
def test_a_pass_without_loops_over_data_gives_the_same_vectors(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder, groups = untrained(tmp_path, model, "A+B" if model in ("SyNCRec", "RecGURU") else "Small")
    for items, lengths in random_histories(groups, encoder.longest):
        with torch.no_grad(), monkeypatch.context() as patch:
            expected = encoder(items, lengths)
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
            assert torch.allclose(encoder(items, lengths), expected, atol=1e-6)
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as fake:  # raises where data decides on sizes
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert encoder(fake.from_tensor(items), fake.from_tensor(lengths)).shape == expected.shape


def untrained(root: Path, model: str, dataset: str, **keys: Any) -> tuple[UserEncoder, list[np.ndarray]]:
    """The user encoder of an untrained model, and the items of each domain."""
    if "+" in dataset:
        write_joined(root, dataset.split("+"))
    else:
        write_small(root)
    made = build(config(root, model, dataset, **KEYS.get(model, {}), **keys))
    ids, domains = np.arange(1, made.dataset.item_num), made.dataset.item_domain[1:]
    return UserEncoder(made.model, 10, made.dataset.item_num), [
        ids[domains == domain] for domain in range(len(made.dataset.domains))
    ]


def test_a_model_of_users_by_id_exports_their_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path)
    monkeypatch.setattr(exporting, "check_packages", lambda index: None)
    monkeypatch.setattr(exporting, "BATCH", 7)  # users in several batches
    folder = trained(tmp_path, "BPR")
    output = export(folder, tmp_path / "serving", index="none")
    experiment = load(folder)
    user = experiment.dataset.field2token_id["user_id"]["u7"]
    scores = experiment.model.full_sort_predict(Interaction({"user_id": torch.tensor([user])})).detach().numpy()
    found, _ = serve(output, "--user=u7", "--k=4")
    assert [score for _, score in found] == pytest.approx(sorted(scores[1:], reverse=True)[:4], abs=2e-6)
    assert len(pq.read_table(output / "users.parquet")) == 40
    assert serve(output, "--user=unknown", "--k=4") == serve(output, "--k=4")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            "Pop",
            "Pop cannot be exported: its scores are not products of a vector of the user and one of the item. Rank",
        ),
        ("Caser", "Caser cannot be exported: it also reads the column 'user_id'. Rank with `recbole-xfer recommend`"),
        ("DIN", "DIN cannot be exported: it does not score all items at once"),
        ("BERT4Rec", "BERT4Rec cannot be exported: "),
    ],
)
def test_a_model_that_cannot_be_exported_leaves_the_folder_as_it_was(
    model: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small(tmp_path)
    monkeypatch.setattr(exporting, "check_packages", lambda index: None)
    folder, output = trained(tmp_path, model), tmp_path / "out" / "serving"
    earlier = an_export(output)
    with pytest.raises(XferError, match=message):
        export(folder, output)
    assert {path: path.read_text() for path in output.iterdir()} == earlier
    with pytest.raises(XferError, match="cannot be exported"):
        export(folder, tmp_path / "out" / "new")
    assert {path.name for path in (tmp_path / "out").iterdir() if not path.name.startswith(".")} == {"serving"}


def an_export(folder: Path) -> dict[Path, str]:
    folder.mkdir(parents=True)
    for name in ("manifest.json", "items.parquet"):
        (folder / name).write_text(f"earlier {name}")
    return {path: path.read_text() for path in folder.iterdir()}


def test_an_earlier_export_is_replaced_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path)
    monkeypatch.setattr(exporting, "check_packages", lambda index: None)
    folder, output = trained(tmp_path, "BPR"), tmp_path / "serving"
    an_export(output)
    (output / "user_encoder.onnx").write_text("of another model")
    export(folder, output, index="none")
    assert {path.name for path in output.iterdir()} == {"items.parquet", "manifest.json", "serve.py", "users.parquet"}


def test_a_run_without_its_data_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small(tmp_path)
    monkeypatch.setattr(exporting, "check_packages", lambda index: None)
    folder = trained(tmp_path, "BPR")
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "Small", tmp_path / "moved" / "Small")
    with pytest.raises(XferError, match=r"The folder .*Small does not exist"):
        export(folder, tmp_path / "serving")
    export(folder, tmp_path / "serving", {"data_path": str(tmp_path / "moved")}, index="none")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"folder": "none"}, "none is not the folder of a run: config.yaml is missing"),
        ({"index": "exact"}, "index=exact is invalid: it must be flat, hnsw or none"),
        ({"output": "file"}, "file exists and is not an export. Name another folder with --output"),
        ({"output": "folder"}, "folder exists and is not an export"),
    ],
)
def test_invalid_requests_are_explained(
    keys: dict[str, str], message: str, in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: True)
    Path("folder").mkdir()
    Path("file").touch()
    Path("folder/mine.txt").touch()
    with pytest.raises(XferError, match=message):
        export(**{"folder": "folder", "output": "out", **keys})
    assert {path.name for path in Path().iterdir()} == {"folder", "file"}


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(
        XferError, match=r"Export needs onnx and onnxscript and onnxruntime\. Run `pip install recbole-"
    ):
        export("run", tmp_path / "serving")
    with pytest.raises(XferError, match="and faiss"):
        export("run", tmp_path / "serving", index="hnsw")


def test_the_items_of_several_domains_have_their_domain_and_text(tmp_path: Path) -> None:
    write_joined(tmp_path, ["A", "B"])
    (tmp_path / "B" / "B.item").write_text("item_id:token\ttitle:token_seq\ni1\tthe first\ni3\tthe third\n")
    experiment = build(config(tmp_path, "SyNCRec", "A+B"))
    dataset = experiment.dataset
    vectors = np.random.default_rng(0).normal(size=(dataset.item_num - 1, 4)).astype(np.float32)
    table = (
        items_table(make_catalogue(experiment), AtomicFormat.of(experiment.config), vectors)
        .to_pandas()
        .set_index("item_id")
    )
    assert list(table.index) == list(dataset.field2id_token["item_id"][1:])
    count = (dataset.sequences.items == dataset.field2token_id["item_id"]["B/i1"]).sum()
    assert table.loc["B/i1"].drop("vector").to_dict() == {"domain": "B", "title": "the first", "popularity": count}
    assert (table["domain"] == table.index.str[0]).all() and table.loc["A/i1", "title"] == ""
    assert np.array_equal(np.stack(table["vector"]), vectors)


def test_an_approximate_index_says_its_recall(tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss", reason="faiss is not installed: pip install recbole-xfer[serving]")
    rng = np.random.default_rng(0)
    items, users = (rng.normal(size=(count, 8)).astype(np.float32) for count in (3000, 50))
    assert write_index(tmp_path / "flat", "flat", items, users) == {"kind": "flat", "exact": True}
    described = write_index(tmp_path / "hnsw", "hnsw", items, users)
    assert described and not described["exact"] and 0.9 < described["recall@20"] <= 1
    exact, approximate = (faiss.read_index(str(tmp_path / name)).search(users, 20)[1] for name in ("flat", "hnsw"))
    assert np.array_equal(exact, np.argsort(-users @ items.T)[:, :20])
    recall = np.mean([len({*a} & {*b}) / 20 for a, b in zip(exact, approximate, strict=True)])
    assert recall == pytest.approx(described["recall@20"])
    assert write_index(tmp_path / "none", "none", items, users) is None


def test_random_histories_have_every_length_and_items_of_one_group() -> None:
    groups = [np.array([1, 2, 3]), np.array([4, 5])]
    lengths = []
    for items, of_batch in random_histories(groups, 9):
        assert torch.equal((items > 0).sum(dim=1), of_batch)
        assert all(len({int(item) > 3 for item in row if item}) == 1 for row in items)
        lengths += of_batch.tolist()
    assert sorted(lengths) == sorted([*range(1, 10)] * 4)


def test_scores_are_products_or_products_times_a_number() -> None:
    users, items = torch.randn(6, 4), torch.randn(9, 4)
    assert torch.equal(item_vectors(users @ items.T, users, items.T), items)
    assert torch.allclose(item_vectors(users @ items.T / 0.07, users, items.T), items / 0.07)
    with pytest.raises(NotExportable):
        item_vectors(users @ items.T + torch.randn(9), users, items.T)
    with pytest.raises(NotExportable):
        item_vectors(torch.randn(6, 8), users, items.T)
