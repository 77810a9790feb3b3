"""Pre-split files: every model trains, validates and tests on the parts that they give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_xfer.data.loaders import make_dataset
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build
from recbole_xfer.quick_start import run
from recbole_xfer.testing.data import config, settings
from tests.helpers.recbole_models import write

NAMES = ["train", "dev", "test"]
KEYS = {"benchmark_filename": NAMES, "topk": [2], "valid_metric": "NDCG@2", "epochs": 1}
HISTORIES = {f"u{user}": [f"i{(user + step) % 9}" for step in range(3 + user % 4)] for user in range(12)}
PLAIN = ["user_id:token", "item_id:token"]
WITH_HISTORIES = ["user_id:token", "item_id_list:token_seq", "item_id:token"]


def write_parts(root: Path, header: list[str], parts: dict[str, list[Any]], name: str = "Tiny") -> None:
    for part, rows in parts.items():
        write(root, f"{part}.inter", header, rows, name)


def plain_rows() -> dict[str, list[Any]]:
    """The last item of each user is tested, and the second-last validated."""
    pairs = list(HISTORIES.items())
    return {
        "train": [(user, item) for user, items in pairs for item in items[:-2]],
        "dev": [(user, items[-2]) for user, items in pairs],
        "test": [(user, items[-1]) for user, items in pairs],
    }


def rows_with_histories(longest: int = 50) -> dict[str, list[Any]]:
    """The same targets, except that a user's first item is only in histories; training rows are shuffled."""
    rows = [
        (user, " ".join(items[max(end - longest, 0) : end]), items[end], len(items) - end)
        for user, items in HISTORIES.items()
        for end in range(1, len(items))
    ]
    train = [row[:3] for row in rows if row[3] > 2]
    order = np.random.default_rng(0).permutation(len(train)) if longest > 5 else range(len(train))
    parts = {"dev": [row[:3] for row in rows if row[3] == 2], "test": [row[:3] for row in rows if row[3] == 1]}
    return {"train": [train[row] for row in order], **parts}


def targets(part: Any) -> dict[str, str]:
    """The item of each user's row."""
    tokens = (part.id2token(field, part.inter_feat[field]) for field in ("user_id", "item_id"))
    return dict(zip(*tokens, strict=True))


@pytest.mark.parametrize("model", ["SASRec", "RETR", "FEARec", "BPR", "FM", "Pop"])
@pytest.mark.parametrize("rows", [plain_rows(), rows_with_histories(), rows_with_histories(2)])
def test_every_model_has_the_targets_of_the_files(tmp_path: Path, model: str, rows: dict[str, list[Any]]) -> None:
    write_parts(tmp_path, PLAIN if len(rows["dev"][0]) == 2 else WITH_HISTORIES, rows)
    made = build(config(tmp_path, model, "Tiny", **KEYS))
    for loader, place in ((made.valid_data, -2), (made.test_data, -1)):
        known = {user: items for user, items in HISTORIES.items() if len(items) + place > 0}
        assert targets(loader._dataset) == {user: items[place] for user, items in known.items()}
    test = made.test_data._dataset
    for user, number in zip(test.sequences.users, range(len(test.sequences)), strict=True):
        start, end = test.sequences.offsets[number : number + 2]
        items = test.id2token("item_id", test.sequences.items[start:end]).tolist()
        assert items == HISTORIES[test.id2token("user_id", user)]


def test_caption_names_the_files_and_a_changed_split_is_another_run(tmp_path: Path) -> None:
    rows = plain_rows()
    write_parts(tmp_path, PLAIN, rows)
    keys = {**settings(tmp_path, "BPR"), **KEYS}
    first = run("BPR", "Tiny", overrides=keys)
    assert "split given by the files train, dev, test; all 9 items ranked" in first.caption()
    rows["train"].append(rows["dev"].pop())
    write_parts(tmp_path, PLAIN, rows)
    assert run("BPR", "Tiny", overrides=keys).folder != first.folder


def test_rows_of_a_part_are_in_order_of_time_and_parts_follow_each_other(tmp_path: Path) -> None:
    """Also where a training row is later than a test row."""
    header = [*PLAIN, "timestamp:float"]
    times = {"train": [("u", "b", 1600000002), ("u", "a", 1600000001)], "dev": [("u", "c", 5)], "test": [("u", "d", 3)]}
    write_parts(tmp_path, header, times)
    made = make_dataset(config(tmp_path, "SASRec", "Tiny", **KEYS))
    test = made.build()[2]
    assert test.id2token("item_id", test.sequences.items).tolist() == ["a", "b", "c", "d"]


def test_filters_act_on_parts(tmp_path: Path) -> None:
    write_parts(tmp_path, PLAIN, plain_rows())
    made = make_dataset(config(tmp_path, "BPR", "Tiny", **KEYS, user_inter_num_interval="[5,inf)"))
    long = {user: items[-1] for user, items in HISTORIES.items() if len(items) >= 5}
    assert targets(made.build()[2]) == long


def test_one_domain_of_joined_domains_keeps_its_parts(tmp_path: Path) -> None:
    write_parts(tmp_path, PLAIN, plain_rows(), "A")
    write_parts(tmp_path, PLAIN, plain_rows(), "B")
    alone = make_dataset(config(tmp_path, "SASRec", "A+B", **KEYS, single_domain="A")).build()
    assert targets(alone[2]) == {user: items[-1] for user, items in HISTORIES.items()}


@pytest.mark.parametrize("keys", [{}, {"single_domain": "A"}])
def test_a_share_of_the_users_of_the_files_is_trained(tmp_path: Path, keys: dict[str, Any]) -> None:
    for name in "AB":
        write_parts(tmp_path, PLAIN, plain_rows(), name)
    for model in ("SASRec", "BPR"):
        made = make_dataset(config(tmp_path, model, "A+B", **KEYS, **keys, histories="per_domain", train_share=0.3))
        parts = made.build()
        trained, validated, tested = (set(part.id2token("user_id", part.inter_feat["user_id"])) for part in parts)
        assert len(validated) == 4 and trained <= validated and tested == set(HISTORIES)
        assert made.split_text == "split given by the files train, dev, test, 30% of the users trained"


def changed(part: str, rows: list[Any]) -> dict[str, list[Any]]:
    return {**rows_with_histories(), part: rows}


@pytest.mark.parametrize(
    ("rows", "keys", "message"),
    [
        (plain_rows(), {"benchmark_filename": ["train", "test"]}, "must name three parts"),
        (plain_rows(), {"benchmark_filename": ["train", "valid", "test"]}, r"Tiny\.valid\.inter does not exist"),
        (
            changed("test", [("u3", "i3 i4 i4 i6 i7", "i8")]),
            {},
            r"Tiny\.test\.inter, line 2: the history of user u3 before item i8 contradicts",
        ),
    ],
)
def test_invalid_parts(tmp_path: Path, rows: dict[str, list[Any]], keys: dict[str, Any], message: str) -> None:
    write_parts(tmp_path, PLAIN if len(rows["train"][0]) == 2 else WITH_HISTORIES, rows)
    with pytest.raises(XferError, match=message):
        make_dataset(config(tmp_path, "SASRec", "Tiny", **{**KEYS, **keys}))


def test_parts_of_different_forms_and_columns_of_targets_only_are_rejected(tmp_path: Path) -> None:
    write_parts(tmp_path, WITH_HISTORIES, rows_with_histories())
    write_parts(tmp_path, PLAIN, {"test": plain_rows()["test"]})
    with pytest.raises(XferError, match=r"train\.inter has the column 'item_id_list', but other parts lack it"):
        make_dataset(config(tmp_path, "SASRec", "Tiny", **KEYS))
    rated = {part: [(*row, 5) for row in rows] for part, rows in rows_with_histories().items()}
    write_parts(tmp_path, [*WITH_HISTORIES, "rating:float"], rated)
    with pytest.raises(XferError, match="'rating' cannot be read, because only targets have it"):
        make_dataset(config(tmp_path, "SASRec", "Tiny", **KEYS, load_col={"inter": ["user_id", "item_id", "rating"]}))


def test_histories_without_times_cannot_be_joined_across_domains(tmp_path: Path) -> None:
    for name in "AB":
        write_parts(tmp_path, WITH_HISTORIES, rows_with_histories(), name)
    with pytest.raises(XferError, match="cannot be joined with other domains. Set --histories=per_domain"):
        make_dataset(config(tmp_path, "SASRec", "A+B", **KEYS))
    joined = make_dataset(config(tmp_path, "SASRec", "A+B", **KEYS, histories="per_domain")).build()
    assert len(joined[2]) == 2 * len(HISTORIES)


def test_published_files_of_unisrec_have_their_targets(tmp_path: Path, real_data: Path) -> None:
    (tmp_path / "Scientific").mkdir()
    for part in ("train", "valid", "test"):
        name = f"Scientific.{part}.inter"
        (tmp_path / "Scientific" / name).write_bytes((real_data / "scientific-mm" / name).read_bytes())
    parts = make_dataset(
        config(tmp_path, "SASRec", "Scientific", benchmark_filename=["train", "valid", "test"])
    ).build()
    for name, part in zip(("train", "valid", "test"), parts, strict=True):
        rows = (tmp_path / "Scientific" / f"Scientific.{name}.inter").read_text().splitlines()[1:]
        expected = sorted((row.split("\t")[0], row.split("\t")[2]) for row in rows)
        users, items = (part.id2token(field, part.inter_feat[field]) for field in ("user_id", "item_id"))
        assert sorted(zip(users, items, strict=True)) == expected
