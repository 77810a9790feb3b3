"""What a request may ask for, and the files that hold the answer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recbole_xfer.cli.main import main
from recbole_xfer.data.atomic import read_atomic_file
from recbole_xfer.data.vectors import write_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.quick_start import load, recommend, run
from recbole_xfer.serving import recommend as module
from recbole_xfer.testing.data import settings, write_joined, write_small


def trained(root: Path, model: str = "RETR", dataset: str = "Small", **keys: Any) -> str:
    return run(model, dataset, overrides={**settings(root, model), "epochs": 1, **keys}).folder


@pytest.fixture
def small(tmp_path: Path) -> Path:
    write_small(tmp_path)
    return tmp_path


def history_of(root: Path, user: str, name: str = "Small") -> list[str]:
    log = read_atomic_file(root / name / f"{name}.inter").sort_values("timestamp")
    return log.loc[log["user_id"] == user, "item_id"].tolist()


@pytest.mark.parametrize("model", ["RETR", "ANT", "SASRec", "BERT4Rec", "BPR", "FM"])
def test_everybody_gets_the_best_items_that_are_not_in_the_history(small: Path, model: str) -> None:
    experiment = load(trained(small, model))
    everybody = recommend(experiment, k=4)
    users = set(read_atomic_file(small / "Small/Small.inter")["user_id"])
    assert set(everybody["user_id"]) == users
    for user, rows in everybody.groupby("user_id"):
        assert not set(rows["item_id"]) & set(history_of(small, user))
        assert rows["rank"].tolist() == list(range(1, len(rows) + 1)) and rows["score"].is_monotonic_decreasing
    kept = recommend(experiment, k=4, overrides={"mask_history": False})
    assert (kept.groupby("user_id").size() == 4).all() and len(kept) == 4 * len(users)
    some = recommend(experiment, k=4, users=["u7", "u3", "u7"])
    assert some["user_id"].drop_duplicates().tolist() == ["u7", "u3"]
    pd.testing.assert_frame_equal(
        some[some["user_id"] == "u3"].reset_index(drop=True),
        everybody[everybody["user_id"] == "u3"].reset_index(drop=True),
    )


@pytest.mark.parametrize("model", ["RETR", "ANT", "SASRec", "Caser"])
def test_a_history_ranks_as_that_of_a_user_with_it(small: Path, model: str) -> None:
    experiment = load(trained(small, model))
    known = recommend(experiment, users=["u3", "u5"], k=6)
    given = recommend(experiment, {user: history_of(small, user) for user in ("u3", "u5")}, k=6)
    pd.testing.assert_frame_equal(known, given)


def test_unknown_items_and_empty_histories(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    experiment = load(trained(small))
    whole = recommend(experiment, [["i1", "i2"]], k=3)
    ranked = recommend(experiment, [["i1", "nothing", "i2"], [], ["nothing"]], k=3)
    assert ranked["user_id"].tolist() == ["0"] * 3 + ["1"] * 3 + ["2"] * 3
    assert ranked.loc[:2, "item_id"].tolist() == whole["item_id"].tolist()
    popular = read_atomic_file(small / "Small/Small.inter")["item_id"].value_counts()
    for user in ("1", "2"):
        rows = ranked[ranked["user_id"] == user]
        assert popular[rows["item_id"]].tolist() == popular.head(3).tolist() and rows["score"].isna().all()
    assert "Entries of the histories with items that RETR does not know, which are skipped: 2." in caplog.text
    assert (
        "Users without a known item in their history, who get the most popular items, without a score: 2."
        in caplog.text
    )


def test_a_model_without_histories_ranks_for_users_it_knows(small: Path, caplog: pytest.LogCaptureFixture) -> None:
    experiment = load(trained(small, "BPR"))
    ranked = recommend(experiment, {"u3": history_of(small, "u3"), "stranger": ["i1"]}, k=3)
    own = recommend(experiment, users=["u3"], k=3)
    assert ranked.loc[ranked["user_id"] == "u3", "item_id"].tolist() == own["item_id"].tolist()
    assert ranked.loc[ranked["user_id"] == "stranger", "score"].isna().all()
    assert "BPR reads no histories" in caplog.text and "Users without parameters in the run, who get" in caplog.text


@pytest.mark.parametrize("model", ["RETR", "BPR", "Pop"])
def test_nobody_has_a_history(small: Path, model: str) -> None:
    experiment = load(trained(small, model))
    ranked = recommend(experiment, {"u3": [], "stranger": []}, k=3)
    assert ranked["user_id"].tolist() == ["u3"] * 3 + ["stranger"] * 3
    scored = ranked["score"].notna().to_numpy()
    assert scored[:3].all() == (model != "RETR") and not scored[3:].any()
    assert len(recommend(experiment, [], k=3)) == 0


def test_long_histories_are_masked_whole(small: Path) -> None:
    """The model reads the last ten items only."""
    experiment = load(trained(small))
    items = [f"i{number}" for number in range(25)]
    ranked = recommend(experiment, [(items[:20] * 500)[:10_000]], k=10)
    assert set(ranked["item_id"]) == set(items[20:])


def test_allowed_and_forbidden_items(small: Path) -> None:
    experiment = load(trained(small))
    (small / "allowed.txt").write_text("i1\ni2\ni3\nunknown\n", encoding="utf-8")
    ranked = recommend(experiment, [["i3"]], k=2, allowed=small / "allowed.txt")
    assert set(ranked["item_id"]) == {"i1", "i2"}
    assert recommend(experiment, [["i3"]], k=1, allowed=["i1", "i2"], forbidden=["i2"])["item_id"].tolist() == ["i1"]


@pytest.mark.parametrize(
    ("wish", "message"),
    [
        ({"k": 0}, "k=0 is invalid: it must be an integer of at least 1"),
        ({"k": 26}, "k=26 exceeds the 25 items that may be recommended"),
        ({"k": 1, "forbidden": [f"i{n}" for n in range(25)]}, "No item may be recommended: all 25 are left out"),
        ({"allowed": ["I1"]}, "None of the allowed items is known, such as 'I1'. Did you mean 'i1'"),
        ({"users": ["x"]}, r"None of the users is in Small, such as 'x'\.$"),
        ({"users": ["u1"], "part": "test"}, "histories, users and part exclude one another"),
        ({"domain": "Other"}, "domain=Other is not one of Small"),
        ({"items": "Small"}, "RETR ranks only the items that it was trained on"),
        ({"columns": ["colour"]}, r"Small\.item has no column 'colour'"),
    ],
)
def test_invalid_requests_are_explained(small: Path, wish: dict[str, Any], message: str) -> None:
    experiment = load(trained(small))
    with pytest.raises(XferError, match=message):
        recommend(experiment, **wish)


def test_an_unknown_user_of_a_filtered_run(small: Path) -> None:
    experiment = load(trained(small, "Pop", user_inter_num_interval="[2,inf)"))
    with pytest.raises(XferError, match=r"The run filters by user_inter_num_interval; rank others with --histories"):
        recommend(experiment, users=["x"])


@pytest.mark.parametrize("model", ["ANT", "UniSRec"])
def test_an_inductive_model_ranks_a_larger_catalogue(small: Path, model: str) -> None:
    """Ten times as many items as in training; the score of an item depends on its features alone."""
    folder = trained(small, model)
    before = recommend(folder, [["i1", "i2"]], k=20).set_index("item_id")["score"]
    make_catalogue(small, 250)
    ranked = recommend(folder, [["i1", "i2"]], k=210, items=str(small / "All")).set_index("item_id")["score"]
    assert len(ranked) == 210 and set(ranked.index) <= {f"All/i{number}" for number in range(250)}
    for item, score in before.items():
        assert ranked.get(f"All/{item}", score) == pytest.approx(score, abs=1e-5)
    if model == "UniSRec":  # all described items are ranked
        assert ranked["All/i249"] == pytest.approx(ranked["All/i3"], abs=1e-5)  # the same features
    also = recommend(folder, [["i1", "All/i249"]], k=5, items=f"Small+{small / 'All'}")  # in histories too
    assert len(also) == 5
    with pytest.raises(XferError, match="a folder|does not exist"):
        recommend(folder, items="Nowhere")


def make_catalogue(root: Path, items: int) -> None:
    """Writes the domain All: the items of Small, and others whose features those of Small repeat."""
    folder = root / "All"
    folder.mkdir()
    table = read_atomic_file(root / "Small/Small.item")
    repeated = table.iloc[np.arange(items) % len(table)].assign(item_id=[f"i{number}" for number in range(items)])
    repeated = repeated[repeated["item_id"] != "i249"]
    last = table[table["item_id"] == "i3"].assign(item_id="i249")
    pd.concat([repeated, last]).to_csv(
        folder / "All.item", sep="\t", index=False, header=["item_id:token", "text:token_seq", "price:float"]
    )
    for modality in ("text", "image"):
        vectors = pd.read_parquet(root / f"Small/Small.{modality}.parquet").set_index("item_id")["vector"]
        known = {f"i{n}": f"i{n % len(table)}" for n in range(items)} | {"i249": "i3"}
        ids = [item for item, source in known.items() if source in vectors]
        matrix = np.stack([vectors[known[item]] for item in ids])
        write_vectors(folder / f"All.{modality}.parquet", ids, matrix, encoder=f"test {modality}", source="random")


@pytest.mark.parametrize("model", ["RETR", "BPR"])
def test_approximate_search_says_its_recall(small: Path, model: str, caplog: pytest.LogCaptureFixture) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed: pip install recbole-xfer[serving]")
    experiment = load(trained(small, model))
    exact, found = (recommend(experiment, k=5, approximate=approximate) for approximate in (False, True))
    assert found["item_id"].tolist() == exact["item_id"].tolist()  # of 25 items the graph loses none
    assert np.allclose(found["score"], exact["score"], atol=1e-5)
    assert "The search is approximate: recall@5 is 1.0000 for 40 users." in caplog.text


def test_approximate_search_needs_vectors(small: Path) -> None:
    pytest.importorskip("faiss", reason="faiss is not installed: pip install recbole-xfer[serving]")
    with pytest.raises(XferError, match="NeuMF ranks by no vectors that can be searched approximately"):
        recommend(trained(small, "NeuMF"), k=5, approximate=True)


def test_domains(tmp_path: Path) -> None:
    write_joined(tmp_path)
    keys = {"histories": "per_domain", "topk": [3]}
    folder = trained(tmp_path, "SASRec", "A+B", **keys)
    ranked = recommend(folder, k=4)
    assert set(ranked["item_id"].str[0]) == {"A", "B"}
    some = recommend(folder, {"x": ["A/i1", "B/i2", "A/i3"]}, k=3)  # a history in each domain
    assert some["item_id"].str[0].tolist() == ["A"] * 3 + ["B"] * 3
    only = recommend(trained(tmp_path, "SASRec", "A+B", topk=[3]), {"x": ["A/i1", "B/i2"]}, k=3, domain="B")
    assert only["item_id"].str[0].tolist() == ["B"] * 3


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_files_are_equal_for_every_size_of_shards_and_after_a_kill(
    small: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = trained(small, "BERT4Rec")
    command = ["recommend", folder, "--k=5", "--columns", "text", f"--output={small / f'recs{suffix}'}"]
    assert main(command) == 0
    assert capsys.readouterr().out.startswith(f"200 recommendations for 40 users: {small / f'recs{suffix}'}")
    read = {".parquet": pd.read_parquet, ".csv": pd.read_csv, ".jsonl": lambda path: pd.read_json(path, lines=True)}
    whole = read[suffix](small / f"recs{suffix}")
    assert list(whole) == ["user_id", "rank", "item_id", "score", "text"] and (whole["text"] == "some words").all()

    monkeypatch.setattr(module, "SHARD", 7)
    ranked = module.Asked.frame
    calls: list[int] = []

    def killed(self: Any, first: int, end: int) -> pd.DataFrame:
        calls.append(first)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return ranked(self, first, end)

    monkeypatch.setattr(module.Asked, "frame", killed)
    assert main(command) == 130
    assert main(command) == 0
    assert calls == [0, 7, 14, 14, 21, 28, 35]
    pd.testing.assert_frame_equal(read[suffix](small / f"recs{suffix}"), whole, rtol=1e-5)
    assert not list(small.glob(".recs*shards*"))


def test_an_unknown_format_is_an_error(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recommend", trained(small), "--output=recs.xlsx"]) == 2
    assert "--output=recs.xlsx has an unknown format. Name a file *.parquet, *.csv, *.jsonl." in capsys.readouterr().err


def test_a_run_without_its_data(small: Path) -> None:
    folder = trained(small)
    shutil.rmtree(small / "Small")
    with pytest.raises(XferError, match="Small does not exist"):
        recommend(folder)
