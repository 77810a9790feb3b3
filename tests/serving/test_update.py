"""An update keeps what belongs to known tokens, whatever their order, and continues training exactly."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from recbole_xfer.cli.main import main
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.vectors import write_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, build, load
from recbole_xfer.quick_start import evaluate, recommend, refit, run, update
from recbole_xfer.report.runs import list_runs
from recbole_xfer.serving.neighbours import nearest
from recbole_xfer.serving.tables import tables
from recbole_xfer.testing.data import config, settings, write_joined, write_small
from recbole_xfer.trainer.run_folder import RunFolder
from tests.helpers.interrupting import interrupted_in_epoch
from tests.helpers.recbole_models import keys as tiny_keys
from tests.helpers.recbole_models import write_tiny

JOINED = {"SyNCRec": {}, "RecGURU": {"autoencoder_epochs": 1, "adversarial_epochs": 1, "user_batch_size": 16}}
"""Keys of models of two domains."""


def grow(
    root: Path, domain: str = "Small", name: str | None = None, today: str = "today", vectors: bool = True
) -> Path:
    """Writes a domain again with new users and items, without some, and in another order of ids; returns its root."""
    log = pd.read_csv(root / domain / f"{domain}.inter", sep="\t").set_axis(["user_id", "item_id", "timestamp"], axis=1)
    log = log[(log["item_id"] != "i3") & (log["user_id"] != "u5")]
    items = sorted(set(log["item_id"]), reverse=True)
    new = [f"{today}1", f"{today}2"]
    early = [(f"{today}{time % 2}", item, float(time)) for time, item in enumerate([new[0], *items, new[1]])]
    late = [(user, new[0], 2e9) for user in sorted(set(log["user_id"]))[:9]]
    table = pd.concat([log, pd.DataFrame(early + late, columns=log.columns)])
    name, items = name or domain, [*items, *new]
    described = pd.read_csv(root / domain / f"{domain}.item", sep="\t")
    prices = (
        described.set_index("item_id:token").get("price:float", pd.Series(dtype=float)).reindex(items, fill_value=99)
    )
    write_domain(
        root / today, name, table, pd.DataFrame({"item_id": items, "text": "words", "price": prices.to_numpy()})
    )
    for modality in ("text", "image") if vectors else ():
        old = pd.read_parquet(root / domain / f"{domain}.{modality}.parquet").set_index("item_id")["vector"]
        rows = {item: old[item] for item in items if item in old}
        rows[new[0]] = rows["i7" if modality == "image" else "i1"] * np.float32(1.01)
        path = root / today / name / f"{name}.{modality}.parquet"
        write_vectors(path, list(rows), np.stack(list(rows.values())), encoder=f"test {modality}", source="random")
    return root / today


def finished(root: Path, model: str = "SASRec", dataset: str = "Small", **keys: Any) -> Path:
    """The folder of a short run on the data of :func:`write_small` or of :func:`write_joined`."""
    if model in JOINED:
        dataset, keys = "A+B", {**JOINED[model], **keys}
    if dataset == "A+B":
        write_joined(root, "AB", users=30)
    else:
        write_small(root, dataset)
    return Path(run(model, dataset, overrides={**settings(root, model), "epochs": 1, **keys}).folder)


def grown(root: Path, model: str = "SASRec") -> dict[str, Any]:
    """The keys of an update with the grown data."""
    for domain in "AB" if model in JOINED else ["Small"]:
        grow(root, domain, vectors=model not in JOINED)
    return {"data_path": str(root / "today")}


def result(folder: Path) -> dict[str, Any]:
    return json.loads((folder / RunFolder.RESULT).read_text())


def rows(experiment: Experiment, field: str, tokens: list[str]) -> torch.Tensor:
    return torch.tensor([experiment.dataset.field2token_id[field][token] for token in tokens])


def common_tokens(before: Experiment, after: Experiment, field: str) -> list[str]:
    known = before.dataset.field2token_id[field].keys() & after.dataset.field2token_id[field].keys()
    assert len(known) > 10
    return sorted(known)


# --- which parameters are moved --------------------------------------------------------------------------------------

ITEM, USER = "item_id", "user_id"
TABLES: list[tuple[str, dict[str, Any], dict[str, dict[int, str]]]] = [
    ("ANT", {}, {}),
    ("ANT", {"item_embedding": True}, {"item_embedding.weight": {0: ITEM}}),
    ("UniSRec", {}, {}),
    ("RETR", {}, {"item_embedding.weight": {0: ITEM}}),
    ("SyNCRec", {}, {"item_embedding.weight": {0: ITEM}}),
    ("RecGURU", {}, {f"{part}.embed.items.weight": {0: ITEM} for part in ("guru", "cdsrec")}),
    ("TPSASRec", {}, {"item_embedding.weight": {0: ITEM}}),
    ("SASRec", {}, {"item_embedding.weight": {0: ITEM}}),
    ("GRU4Rec", {}, {"item_embedding.weight": {0: ITEM}}),
    ("BERT4Rec", {}, {"item_embedding.weight": {0: ITEM}, "output_bias": {0: ITEM}}),
    ("Caser", {"reg_weight": 0.0}, {"item_embedding.weight": {0: ITEM}, "user_embedding.weight": {0: USER}}),
    ("BPR", {}, {"item_embedding.weight": {0: ITEM}, "user_embedding.weight": {0: USER}}),
    ("LightGCN", {}, {"item_embedding.weight": {0: ITEM}, "user_embedding.weight": {0: USER}}),
    ("MultiVAE", {}, {}),
]


@pytest.mark.parametrize(
    ("model", "keys", "expected"), TABLES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_known_tokens_keep_their_rows(
    tmp_path: Path, model: str, keys: dict[str, Any], expected: dict[str, dict[int, str]]
) -> None:
    folder = finished(tmp_path, model, **keys)
    live = update(folder, tmp_path / "live", {**grown(tmp_path, model), "epochs": 0})
    before, after = load(folder), load(live)
    found = tables(after.config, after.train_data._dataset, after.model)
    if expected or model in ("ANT", "UniSRec"):
        assert found == expected
    old, new = before.model.state_dict(), after.model.state_dict()
    changed = [
        name for name, value in old.items() if value.shape != new[name].shape or not torch.equal(value, new[name])
    ]
    assert set(changed) == set(found)
    for name, axes in found.items():
        values = [old[name], new[name]]
        for dim, field in axes.items():
            tokens = common_tokens(before, after, field)
            values = [
                value.index_select(dim, rows(experiment, field, tokens))
                for value, experiment in zip(values, (before, after), strict=True)
            ]
        assert torch.equal(*values), name
    assert result(live)["tokens"][ITEM]["known"] > 10 and result(live)["tokens"][ITEM]["new"] >= 2
    assert result(live)["tokens"][USER]["dropped"] >= 1


@pytest.mark.parametrize(("model", "keys"), [("ANT", {"item_embedding": True}), ("RETR", {}), ("SASRec", {})])
def test_known_items_are_scored_as_before(tmp_path: Path, model: str, keys: dict[str, Any]) -> None:
    folder = finished(tmp_path, model, **keys)
    live = update(folder, tmp_path / "live", {**grown(tmp_path), "epochs": 0})
    before, after = (
        recommend(path, [["i1", "i2", "i4"]], k=k).set_index("item_id")["score"].to_dict()
        for path, k in ((folder, 22), (live, 23))
    )
    assert after.keys() - before.keys() == {"today1", "today2"}
    assert {token: after[token] for token in before if token != "i3"} == pytest.approx(
        {token: score for token, score in before.items() if token != "i3"}, abs=1e-5
    )


@pytest.mark.parametrize("model", ["SASRec", "BPR"])
def test_tables_are_found_where_sizes_coincide(tmp_path: Path, model: str) -> None:
    """As many items as users, positions and hidden units."""
    write_small(tmp_path, users=15, items=15, holes=False)
    size = {"hidden_size": 16, "MAX_ITEM_LIST_LENGTH": 16} if model == "SASRec" else {"embedding_size": 16}
    experiment = build(config(tmp_path, model, **size))
    assert experiment.dataset.item_num == experiment.dataset.user_num == 16
    found = tables(experiment.config, experiment.train_data._dataset, experiment.model)
    own = {"item_embedding.weight": {0: ITEM}, "user_embedding.weight": {0: USER}}
    assert found == {name: axes for name, axes in own.items() if model == "BPR" or USER not in axes.values()}


def test_other_tokens_keep_their_rows(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    keys = {**settings(tmp_path, "SASRecF"), **tiny_keys("sequential", "SASRecF"), "epochs": 1}
    folder = Path(run("SASRecF", "Tiny", overrides=keys).folder)
    shutil.copytree(tmp_path / "Tiny", tmp_path / "today/Tiny")
    path = tmp_path / "today/Tiny/Tiny.item"
    header, *lines = path.read_text().splitlines()
    path.write_text("\n".join([header, lines[-1].replace("k", "new all k"), *lines[::-1][1:]]) + "\n")
    live = update(folder, tmp_path / "live", {"data_path": str(tmp_path / "today"), "epochs": 0})
    assert result(live)["tokens"]["kinds"] == {"known": 4, "new": 1, "dropped": 0}
    before, after = load(folder), load(live)
    [name] = [name for name in before.model.state_dict() if "token_seq_embedding_table" in name]
    table = [experiment.model.state_dict()[name] for experiment in (before, after)]
    for token in ("k0", "k1", "k2", "all"):
        assert torch.equal(*(t[rows(e, "kinds", [token])] for t, e in zip(table, (before, after), strict=True)))


# --- the optimizer ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["SASRec", "BPR", "RecGURU"])
def test_known_tokens_keep_the_state_of_the_optimizer(tmp_path: Path, model: str) -> None:
    folder = refit(finished(tmp_path, model), tmp_path / "live")
    live = update(folder, tmp_path / "live2", {**grown(tmp_path, model), "epochs": 0})
    before, after = load(folder), load(live)
    old, new = RunFolder(folder).optimizer(), RunFolder(live).optimizer()
    assert old and new and old.keys() == new.keys()
    name = "cdsrec.embed.items.weight" if model == "RecGURU" else "item_embedding.weight"
    tokens = common_tokens(before, after, ITEM)
    assert torch.equal(old[name]["step"], new[name]["step"])
    for key in ("exp_avg", "exp_avg_sq"):
        assert torch.equal(old[name][key][rows(before, ITEM, tokens)], new[name][key][rows(after, ITEM, tokens)])
        others = set(range(1, after.dataset.item_num)) - set(rows(after, ITEM, tokens).tolist())
        assert old[name][key].any() and not new[name][key][sorted(others)].any()


def test_a_run_without_the_state_of_the_optimizer_is_updated_with_a_new_one(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    live = update(finished(tmp_path), tmp_path / "live", grown(tmp_path))
    assert "has no optimizer.pt, so the optimizer starts anew" in caplog.text
    assert result(live)["epochs"] == 1


def test_data_with_new_interactions_only_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder, today = finished(tmp_path), tmp_path / "today" / "Small"
    update(folder, tmp_path / "live", grown(tmp_path))
    assert "forgets" not in caplog.text
    log = pd.read_csv(today / "Small.inter", sep="\t")
    log[log["timestamp:float"] >= log["timestamp:float"].quantile(0.7)].to_csv(
        today / "Small.inter", sep="\t", index=False
    )
    update(folder, tmp_path / "later", {"data_path": str(tmp_path / "today")})
    warned = re.search(r"has ([\d,]+) of the ([\d,]+) interactions .* An update forgets users and items", caplog.text)
    assert warned and int(warned[1].replace(",", "")) < int(warned[2].replace(",", "")) / 2


def test_frozen_parameters_stay_frozen(tmp_path: Path) -> None:
    write_small(tmp_path, "A", seed=1)
    folder = finished(tmp_path, "ANT", source="A", adaptation="relearn", pretrain_epochs=1)
    weights = RunFolder(folder).weights()
    shutil.rmtree(RunFolder(folder).config()["pretrained"])  # not needed any more
    live = update(folder, tmp_path / "live", {**grown(tmp_path), "epochs": 2})
    updated = RunFolder(live).weights()
    frozen = [name for name in weights if name.startswith("user_model.")]
    assert frozen and all(torch.equal(weights[name], updated[name]) for name in frozen)
    assert not torch.equal(weights["position_embedding.weight"], updated["position_embedding.weight"])


# --- new items -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["SASRec", "BPR", "ANT"])
def test_new_items_start_from_similar_known_ones(tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_xfer.serving.neighbours.COUNT", 1)
    folder = finished(tmp_path, model, **({"item_embedding": True} if model == "ANT" else {}))
    live = update(folder, tmp_path / "live", {**grown(tmp_path), "epochs": 0})
    after = load(live)
    table, item = after.model.item_embedding.weight, after.dataset.field2token_id[ITEM]
    assert torch.equal(table[item["today1"]], table[item["i1"]])  # by text, not by image
    others = torch.tensor([number for token, number in item.items() if token != "today2"])
    assert not (table[others] == table[item["today2"]]).all(dim=1).any()  # without vectors, as in a new model
    assert result(live)["neighbours"] == 1


def test_the_nearest_candidates_are_those_of_a_plain_computation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recbole_xfer.serving.neighbours.NEW", 3)
    monkeypatch.setattr("recbole_xfer.serving.neighbours.KNOWN", 4)
    values = np.random.default_rng(0).normal(3, 1, (30, 6)).astype(np.float16)
    queries, candidates = np.arange(0, 30, 3), np.setdiff1d(np.arange(30), np.arange(0, 30, 3))
    found = nearest(values, queries, candidates)
    unit = values.astype(np.float64) - values[candidates].astype(np.float64).mean(axis=0)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    assert (found == np.argsort(-(unit[queries] @ unit[candidates].T), axis=1)[:, :5]).all()
    assert nearest(values, queries, candidates[:2]).shape == (10, 2)


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["SASRec", "ANT", "RecGURU"])
def test_a_resumed_update_equals_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    folder = refit(finished(tmp_path, model), tmp_path / "live")
    keys = {**grown(tmp_path, model), "epochs": 3}
    whole = update(folder, tmp_path / "whole", keys)
    with interrupted_in_epoch(2, monkeypatch):
        update(folder, tmp_path / "broken", keys)
    broken = update(folder, tmp_path / "broken", keys)
    assert (broken / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    assert {**result(whole), "seconds": 0} == {**result(broken), "seconds": 0}
    assert [record["epoch"] for record in RunFolder(broken).epochs()] == [0, 1, 2]
    if model == "RecGURU":
        assert {record["phase"] for record in RunFolder(broken).epochs()} == {"recommendation"}


def test_training_continues_with_the_learning_rate_and_for_the_new_interactions(tmp_path: Path) -> None:
    folder = finished(tmp_path, epochs=4, learning_rate_decay=0.5)
    values = result(folder) | {"best_epoch": 9}
    (folder / RunFolder.RESULT).write_text(json.dumps(values))
    live = update(folder, tmp_path / "live", grown(tmp_path))
    made, settings_of = result(live), RunFolder(live).config()
    log = pd.read_csv(tmp_path / "today/Small/Small.inter", sep="\t").iloc[:, :2]
    before = pd.read_csv(tmp_path / "Small/Small.inter", sep="\t").iloc[:, :2]
    new = len(log) - sum(min(count, (before == pair).all(axis=1).sum()) for pair, count in log.value_counts().items())
    assert made["new_interactions"] == new
    assert made["epochs"] == round(10 * new / len(log)) and made["epochs_anew"] == 10
    assert settings_of["learning_rate"] == pytest.approx(0.001 * 0.5**10)


def test_updates_follow_one_another_and_need_no_other_data(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = finished(tmp_path)
    assert main(["refit", str(folder), "--output=saved/live", "--show_progress=False"]) == 0
    today = grow(tmp_path)
    command = ["update", "saved/live", f"--data_path={today}", "--output=saved/live2", "--show_progress=False"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "user_id 39 known, 2 new, 1 dropped; item_id 24 known, 2 new, 1 dropped; 1 of the new" in said
    assert said.endswith(f"No test result belongs to saved/live2; those of {folder} estimate it.\n")
    shutil.rmtree(tmp_path / "Small")
    later = grow(tmp_path / "today", today="later")
    shutil.rmtree(today / "Small")
    moved = Path(shutil.move("saved/live2", tmp_path / "moved"))
    live = update(moved, "saved/live3", {"data_path": str(later)})
    assert result(live)["origins"] == [str(moved), "saved/live", str(folder)]
    shutil.rmtree(later)
    assert len(recommend(live, [["today1", "i2"]], k=5)) == 5
    assert {listed.name for listed in list_runs(Path("saved"))} >= {
        "SASRec (update) on Small",
        "SASRec (refit) on Small",
    }
    with pytest.raises(XferError, match="live3 was trained on all interactions"):
        evaluate([live])
    with pytest.raises(XferError, match="was already trained on all interactions"):
        refit(live, "saved/live4")


# --- data ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("domains", "names"), [(["Small"], ["Large"]), (["A", "B"], ["A", "C"])])
def test_domains_can_have_other_names(tmp_path: Path, domains: list[str], names: list[str]) -> None:
    folder = finished(tmp_path, dataset="+".join(domains))
    for domain, name in zip(domains, names, strict=True):
        grow(tmp_path, domain, name, vectors=len(domains) == 1)
    live = update(folder, tmp_path / "live", {"data_path": str(tmp_path / "today"), "dataset": "+".join(names)})
    made = result(live)
    assert made["tokens"][ITEM]["new"] == 2 * len(domains)
    assert made["dataset"] == "+".join(names)


def test_the_scaling_of_features_stays(tmp_path: Path) -> None:
    folder = finished(tmp_path, "ANT")
    live = update(folder, tmp_path / "live", grown(tmp_path))
    old, new = RunFolder(folder).weights(), RunFolder(live).weights()
    for name in ("text_center", "text_scale", "image_center", "price_bounds"):
        assert torch.equal(old[f"features.{name}"], new[f"features.{name}"])


def test_data_that_does_not_fit_is_rejected(tmp_path: Path) -> None:
    folder, today = finished(tmp_path, "ANT"), grow(tmp_path)
    keys = {"data_path": str(today)}
    write_small(tmp_path / "other")
    other = tmp_path / "other/Small"
    for path in other.iterdir():
        if path.suffix in (".inter", ".item"):
            path.write_text(re.sub(r"(?<=[\t\n])i(?=\d)", "x", path.read_text()))
    for modality, width in (("text", 12), ("image", 9)):
        vectors = np.ones((25, width), np.float32)
        ids = [f"x{number}" for number in range(25)]
        write_vectors(other / f"Small.{modality}.parquet", ids, vectors, encoder=f"test {modality}", source="")
    with pytest.raises(XferError, match=r"Small in .*other has no item of .*Name data with the same ids"):
        update(folder, tmp_path / "live", {"data_path": str(tmp_path / "other")})
    path = today / "Small/Small.text.parquet"
    table = pd.read_parquet(path)
    write_vectors(path, table["item_id"], np.stack(table["vector"]), encoder="another", source="")
    with pytest.raises(XferError, match=r"The text vectors of Small .*another, 12 values.* are not of the encoder"):
        update(folder, tmp_path / "live", keys)
    path.unlink()
    with pytest.raises(XferError, match="Small has no text"):
        update(folder, tmp_path / "live", keys)
    header, *lines = (today / "Small/Small.inter").read_text().splitlines()
    (today / "Small/Small.inter").write_text("\n".join([header.replace("timestamp", "time"), *lines]))
    with pytest.raises(XferError, match="has no column 'timestamp'"):
        update(folder, tmp_path / "live", keys)
    with pytest.raises(XferError, match="The run's own hidden_size is kept"):
        update(folder, tmp_path / "live", {"hidden_size": 8})
    assert not (tmp_path / "live").exists()


def test_the_data_of_the_run_is_needed_unless_it_is_carried(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    live = refit(folder, tmp_path / "live")
    grow(tmp_path)
    shutil.rmtree(tmp_path / "Small")
    shutil.move(tmp_path / "today/Small", tmp_path / "Small")  # the log grew in its place
    with pytest.raises(XferError, match=r"trained on other data of Small: .* which a refit keeps: run `recbole-xfer"):
        update(folder, tmp_path / "live2")
    assert result(update(live, tmp_path / "live2"))["tokens"][ITEM]["new"] == 2


def test_another_update_is_not_replaced(tmp_path: Path) -> None:
    folder = finished(tmp_path)
    keys = grown(tmp_path)
    live = update(folder, tmp_path / "live", keys)
    before = (live / RunFolder.WEIGHTS).stat().st_mtime_ns
    update(folder, live, keys)
    assert (live / RunFolder.WEIGHTS).stat().st_mtime_ns == before
    other = finished(tmp_path, seed=1)
    with pytest.raises(XferError, match=r"live has a run with pretrained_digest=.* Set another folder with --output"):
        update(other, live, keys)


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("Pop", "Pop is computed from all interactions at once"),
        ("ItemKNN", "ItemKNN is computed from all interactions at once"),
        ("CFKG", "CFKG reads a knowledge graph"),
        ("GRU4RecKG", "GRU4RecKG reads a knowledge graph"),
        ("FM", "FM keeps the tokens of several fields in one table"),
        ("S3Rec", r"its parameter feature_embedding.weight has another form, the shape \(4, \d+\) does not become"),
    ],
)
def test_models_whose_parameters_cannot_be_moved_are_refused(tmp_path: Path, model: str, reason: str) -> None:
    write_tiny(tmp_path)
    kind = {"FM": "context_aware", "CFKG": "knowledge_aware", "GRU4RecKG": "sequential", "S3Rec": "sequential"}.get(
        model, "general"
    )
    keys = {**settings(tmp_path, model), **tiny_keys(kind, model), "epochs": 1}
    folder = run(model, "Tiny", overrides=keys).folder
    with pytest.raises(XferError, match=reason):
        update(folder, tmp_path / "live")
