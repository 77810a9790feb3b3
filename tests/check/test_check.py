"""A check counts what is in the files, finds planted mistakes, and names the models that can use the data."""

import base64
import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from recbole_xfer.check import show
from recbole_xfer.check.check import check
from recbole_xfer.check.domain import Domain, Facts, likeness
from recbole_xfer.check.suspicions import suspicions
from recbole_xfer.cli.main import main
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.vectors import write_vectors
from recbole_xfer.testing.data import write_small

NOW = 1_600_000_000


def log(**columns: list[Any]) -> pd.DataFrame:
    """Ten users with four of twenty items each, one second apart, with some columns replaced."""
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "user_id": np.repeat([f"user {number}" for number in range(10)], 4),
            "item_id": np.concatenate([rng.choice(20, 4, replace=False) for _ in range(10)]).astype(str),
            "timestamp": NOW - 1000.0 + np.arange(40),
        }
    )
    frame["item_id"] = "i" + frame["item_id"]
    return frame.assign(**columns)


def catalogue(**columns: list[Any]) -> pd.DataFrame:
    frame = pd.DataFrame({"item_id": [f"i{number}" for number in range(20)]})
    return frame.assign(text=[f"title {number}" for number in range(20)], price=np.arange(1.0, 21.0)).assign(**columns)


def found(root: Path, interactions: pd.DataFrame, items: pd.DataFrame | None = None) -> list[str]:
    write_domain(root, "Shop", interactions, items)
    return suspicions(Domain.read("Shop", {"data_path": str(root)}), now=NOW)


def test_sound_data_is_not_suspicious(tmp_path: Path) -> None:
    assert found(tmp_path, log(), catalogue()) == []


def swapped() -> pd.DataFrame:
    return log().rename(columns={"user_id": "item_id", "item_id": "user_id"})[["user_id", "item_id", "timestamp"]]


@pytest.mark.parametrize(
    ("interactions", "items", "words"),
    [
        (swapped(), catalogue(), "user_id and item_id are probably swapped"),
        (
            log(user_id=["a", "A", "b b", "b  b"] * 10),
            None,
            "Ids of users that differ from another one only in case or blanks: 4,",
        ),
        (log(user_id=[f"u{n}" for n in range(40)]), None, "Each user has one interaction, so no model can be trained"),
        (log(item_id=["x", "X "] * 20), None, "Ids of items that differ from another one only in case or blanks: 2,"),
        (log(item_id=["other"] * 40), catalogue(), "Items with interactions that are not in the .item file: 1 of 1,"),
        (pd.concat([log(), log()[:3]]), None, "Interactions that repeat a row with the same user, item and time: 3."),
        (log(timestamp=[1000.0 * NOW + n for n in range(40)]), None, "The times are probably milliseconds"),
        (
            log(timestamp=[NOW + 5.0 - 2 * n for n in range(40)]),
            None,
            "Interactions in the future: 3, up to 2020-09",
        ),
        (log(timestamp=[2e8 + n for n in range(40)]), None, "Interactions before 1990: 40."),
        (log(timestamp=[20241201.0 + n % 30 for n in range(40)]), None, "The times are probably days, such as 2024"),
        (log(timestamp=[NOW - 9.0] * 40), None, "100% of the interactions have the time of another one"),
        (
            log(),
            catalogue(text=["Gift card"] * 5 + [f"t{n}" for n in range(15)]),
            "Texts that another item has, too: ",
        ),
        (log(), catalogue(text=[f"A <b>bold</b> title {n}" for n in range(20)]), "Texts with HTML: "),
        (log(), catalogue(price=[0.0] + [2.0] * 19), "Prices that are 0: "),
        (log(), catalogue(price=[900.0] + [2.0] * 19), "more than 100 times the median of 2"),
    ],
)
def test_a_planted_mistake_is_found(
    tmp_path: Path, interactions: pd.DataFrame, items: pd.DataFrame | None, words: str
) -> None:
    [sentence] = [sentence for sentence in found(tmp_path, interactions, items) if words in sentence]
    assert sentence.endswith(".")


def test_a_negative_price_is_found(tmp_path: Path) -> None:
    folder = write_domain(tmp_path, "Shop", log(), catalogue())
    file = folder / "Shop.item"
    file.write_text(re.sub(r"\t3(\.0)?\n", "\t-3\n", file.read_text()))
    [sentence] = suspicions(Domain.read("Shop", {"data_path": str(tmp_path)}), now=NOW)
    assert sentence.startswith("Prices that are negative: 1 of 18, such as -3 of item 'i2'")


def test_a_program_among_the_users_is_found(tmp_path: Path) -> None:
    bot = pd.DataFrame({"user_id": "bot", "item_id": "i1", "timestamp": NOW - 5000.0 + np.arange(500)})
    assert any("The user 'bot' has 500 interactions" in line for line in found(tmp_path, pd.concat([log(), bot])))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.ones((20, 8), np.float32), "All text vectors are equal"),
        (np.eye(20, 8, dtype=np.float32), "Zero text vectors: "),
        (
            np.c_[np.random.default_rng(0).random((20, 4)), np.ones((20, 4))].astype(np.float32),
            "Entries that are the same in all text vectors: 4 of 8",
        ),
    ],
)
def test_constant_vectors_are_found(tmp_path: Path, values: np.ndarray, words: str) -> None:
    folder = tmp_path / "Shop"
    folder.mkdir()
    write_vectors(folder / "Shop.text.parquet", catalogue()["item_id"].tolist(), values, encoder="e", source="s")
    assert any(words in sentence for sentence in found(tmp_path, log(), catalogue()))


def test_facts_equal_a_count_by_pandas(tmp_path: Path) -> None:
    write_small(tmp_path, users=60)
    frame = pd.read_csv(tmp_path / "Small" / "Small.inter", sep="\t").set_axis(["user", "item", "time"], axis=1)
    frame = frame.sort_values("time")
    facts = Facts.of(Domain.read("Small", {"data_path": str(tmp_path)}))
    lengths = frame["user"].value_counts()
    assert (facts.users, facts.items, facts.interactions) == (len(lengths), frame["item"].nunique(), len(frame))
    assert facts.density == len(frame) / (facts.users * facts.items)
    assert (facts.history_median, facts.history_longest) == (lengths.median(), lengths.max())
    assert facts.repeats == pytest.approx(frame.duplicated(["user", "item"]).mean())
    place, length = frame.groupby("user").cumcount(), frame["user"].map(lengths)
    tested = (place == length - 1) & (length >= 3)
    trained = (length < 3) | (place < length - 2)
    trained |= (length == 3) & (place == 1)  # a history's first target is always trained
    tested_cold = ~frame["item"][tested].isin(set(frame["item"][(place < length - 2) | (length < 3)]))
    assert facts.test_targets == tested.sum()
    assert facts.cold_targets == tested_cold.sum()
    items = pd.read_csv(tmp_path / "Small" / "Small.item", sep="\t").set_axis(["item", "text", "price"], axis=1)
    items = items[items["item"].isin(frame["item"])]
    assert facts.prices == items["price"].notna().sum()
    assert facts.price == tuple(items["price"].agg(["min", "median", "max"]))
    assert (facts.first, facts.last) == ("2014-05-13", "2014-05-13")


def test_the_likeness_of_successive_items_is_that_of_all_pairs_above_chance(tmp_path: Path) -> None:
    write_small(tmp_path, users=60)
    domain = Domain.read("Small", {"data_path": str(tmp_path)})
    table = domain.vectors["text"]
    known = [code for code in range(len(domain.counts)) if table.present[code + 1]]
    values = table.values[[code + 1 for code in known]].astype(float)
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    vectors = dict(zip(known, values / np.linalg.norm(values, axis=1, keepdims=True), strict=True))
    first, second = [], []
    for start, end in zip(domain.sequences.starts, domain.sequences.ends, strict=True):
        codes = domain.sequences.items[start:end]
        for a, b in pairwise(codes):
            if a in vectors and b in vectors:
                first.append(vectors[a])
                second.append(vectors[b])
    cosines = np.array(first) @ np.array(second).T
    assert likeness(domain, "text") == pytest.approx(np.diag(cosines).mean() - cosines.mean(), abs=1e-6)


def test_likeness_is_unknown_without_vectors_of_two_successive_items(tmp_path: Path) -> None:
    folder = write_small(tmp_path)
    (folder / "Small.text.parquet").unlink()
    write_vectors(folder / "Small.image.parquet", ["i1"], np.ones((1, 3), dtype=np.float32), encoder="e", source="s")
    domain = Domain.read("Small", {"data_path": str(tmp_path)})
    assert likeness(domain, "text") is None
    assert likeness(domain, "image") in (None, pytest.approx(0.0))


def test_a_check_names_shared_users_and_what_models_can_do(tmp_path: Path) -> None:
    write_small(tmp_path, "Books", users=30)
    write_small(tmp_path, "Toys", users=40, seed=1)
    write_domain(tmp_path, "Bare", log(), None)
    checked = check(["Books", "Toys", "Bare"], {"data_path": str(tmp_path)})
    assert [pair.users for pair in checked.shared] == [30, 0, 0]
    assert checked.common_users == 30
    uses = {use.model: use for use in checked.uses}
    assert (uses["ANT"].domains, uses["ANT"].words.split(",")[0]) == (["Books", "Toys"], "reads text")
    assert uses["RETR"].domains == ["Books", "Toys", "Bare"]
    assert "30 users are in several" in uses["SyNCRec"].words
    [alone] = [use for use in check(["Bare"], {"data_path": str(tmp_path)}).uses if use.model == "SyNCRec"]
    assert (alone.domains, alone.words) == ([], "needs several domains: check them together")


def test_the_page_shows_pictures_and_the_command_prints_everything(
    tmp_path: Path, in_tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_domain(in_tmp_path, "Shop", log(), catalogue())
    (in_tmp_path / "Shop" / "images").mkdir()
    for number in range(20):
        Image.new("RGB", (300, 200), "red").save(in_tmp_path / "Shop" / "images" / f"i{number}.png")
    (in_tmp_path / "Shop" / "images" / "i0.png").write_bytes(b"broken")
    keys = [f"--data_path={in_tmp_path}", "--page=check.html", "--json=check.json"]
    assert main(["check", "Shop", *keys]) == 0
    output = capsys.readouterr().out
    assert "Nothing is suspicious." in output
    assert {"users", "10", "40", "2020-09-13"} <= set(output.split())
    page = Path("check.html").read_text(encoding="utf-8")
    picture = base64.b64decode(re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)[0])
    assert picture.startswith(b"\xff\xd8")
    content = json.loads(Path("check.json").read_text(encoding="utf-8"))["domains"]["Shop"]
    assert (content["users"], content["pictures"], len(content["examples"])) == (10, content["items"], 6)


def test_text_of_a_file_is_escaped_in_the_page(tmp_path: Path) -> None:
    write_domain(tmp_path, "Shop", log(), catalogue(text=["<script>alert(1)</script>"] * 20))
    checked = check(["Shop"], {"data_path": str(tmp_path)})
    [page] = show.write(checked, tmp_path / "check.html")
    assert "<script>alert" not in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["Shop", "Shop"], "has a domain twice"),
        (["shop"], r"The folder .*shop does not exist. Did you mean 'Shop'\? Make it from"),
        (["None"], r"The folder .*None does not exist. Make it from your own data"),
        (["Empty"], r"Empty.inter does not exist"),
    ],
)
def test_invalid_names_are_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture, names: list[str], words: str
) -> None:
    write_domain(tmp_path, "Shop", log(), None)
    (tmp_path / "Empty").mkdir()
    assert main(["check", *names, f"--data_path={tmp_path}"]) == 2
    assert re.search(words, capsys.readouterr().err)
