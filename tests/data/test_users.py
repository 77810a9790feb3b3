"""Users of several domains: joined by a file if each domain has its own ids, and mistakes in this file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.batches import DomainPairDataLoader
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, build
from recbole_xfer.testing.data import config

IDS = {"Books": "b", "Films": "f"}


def write(root: Path) -> None:
    """Two domains of ten users; person 0 is b0 and f9, person 1 b1 and f8, ...; both domains have a user called x."""
    for number, (domain, letter) in enumerate(IDS.items()):
        users = [f"{letter}{user}" for user in range(10)] + ["x"]
        rows = [
            (user, f"i{(place + item) % 7}", 10.0 * item + number)
            for place, user in enumerate(users)
            for item in range(5)
        ]
        write_domain(root, domain, pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"]), None)
        (root / domain / f"{domain}.user").write_text("\n".join(["user_id:token", *users]), encoding="utf-8")


def made(root: Path, table: str, model: str = "RETR", **keys: Any) -> Experiment:
    write(root)
    file = root / "people.tsv"
    file.write_text(table, encoding="utf-8")
    columns = {"inter": ["user_id", "item_id", "timestamp"], "user": ["user_id"]}
    return build(config(root, model, "Books+Films", topk=[5], overlap_file=str(file), load_col=columns, **keys))


@pytest.mark.parametrize("header", ["Books\tFilms", "Films\tBooks"])
def test_users_on_a_line_are_one_user_and_all_others_differ(tmp_path: Path, header: str) -> None:
    pairs = [("b0", "f9"), ("b1", "f8"), ("b2", "")]  # a person in Books only may be listed too
    lines = ["\t".join(pair if header.startswith("Books") else pair[::-1]) for pair in pairs]
    data = made(tmp_path, "\n".join([header, *lines]) + "\n").dataset
    token = data.field2id_token["user_id"]
    assert data.user_num - 1 == 11 + 11 - 2  # x of Books is not x of Films
    assert {"Books/x", "Films/x", "Books/b0", "Books/b2", "Books/b3", "Films/f7"} <= set(token)
    assert not {"Films/f9", "Films/f8", "b0"} & set(token)
    lengths = dict(zip(token[data.sequences.users], np.diff(data.sequences.offsets), strict=True))
    assert lengths["Books/b0"] == lengths["Books/b1"] == 10 and lengths["Books/b2"] == lengths["Films/x"] == 5


def test_recguru_shares_the_users_of_the_file(tmp_path: Path) -> None:
    data = made(tmp_path, "Books\tFilms\nb0\tf9\nb1\tf8\n", "RecGURU").train_data._dataset
    loader = DomainPairDataLoader(data, 8, 1, seed=0)
    shared = data.field2id_token["user_id"][data.sequences.users[loader.shared[0]]]
    assert set(shared) == {"Books/b0", "Books/b1"}
    hidden = made(tmp_path, "Books\tFilms\nb0\tf9\nb1\tf8\n", "RecGURU", overlap=0).train_data._dataset
    assert DomainPairDataLoader(hidden, 8, 1, seed=0).shared.shape[1] == 0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("Books\tFilms\nb0\tf9\n\nb1\tf77\n", r"people.tsv, line 4: the user 'f77' of Films does not exist. Correct"),
        ("Books\tFilms\nb0\tf9\nb0\tf8\n", r"people.tsv, line 3: the user 'b0' of Books is repeated"),
        ("Books\tMusic\nb0\tf9\n", r"people.tsv has no column 'Films' \(columns: Books, Music\). Add one per domain"),
        ("", "people.tsv cannot be read"),
        ("Books\tFilms\nb0\tf9\nb1\0\tf8\n", "people.tsv, line 3: there is a NUL character"),
    ],
)
def test_invalid_file(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(XferError, match=message):
        made(tmp_path, table)


def test_missing_file_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    with pytest.raises(XferError, match="overlap_file=nowhere.tsv does not exist"):
        build(config(tmp_path, "RETR", "Books+Films", topk=[5], overlap_file="nowhere.tsv"))


def test_row_without_a_user_is_left_out(tmp_path: Path) -> None:
    write(tmp_path)
    for name in IDS:
        with open(tmp_path / name / f"{name}.inter", "a", encoding="utf-8") as file:
            file.write("\ti1\t99\n")
    rows = [build(config(tmp_path, "RETR", "Books+Films", topk=[5], overlap=share)).dataset for share in (1, 0.5)]
    assert [len(data.sequences.items) for data in rows] == [2 * 11 * 5] * 2
