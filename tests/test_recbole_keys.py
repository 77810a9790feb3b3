"""RecBole's own keys of data and training: each has its effect, or is rejected with a sentence that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recbole_xfer.errors import XferError, explaining_recbole
from recbole_xfer.experiment import build
from recbole_xfer.quick_start import run
from recbole_xfer.testing.data import config, settings, write_small

WITH_PRICE = {"load_col": {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "price"]}}
WITH_TEXT = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id", "text"]}
PREPARE, CHANGE = "RecBole cannot prepare SASRec on Small: ", "Change the keys or the data that this is about"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"threshold": {"rating": 4}}, rf"{PREPARE}Field \[rating\] not in inter_feat\. {CHANGE}"),
        ({"alias_of_user_id": ["friend"]}, f"{PREPARE}'friend' is missing"),
        ({"alias_of_user_id": ["item_id"]}, f"{PREPARE}.*alias_of_user_id"),
        ({"preload_weight": {"item_id": "vector"}}, rf"{PREPARE}Preload value field \[vector\] not exist"),
        ({"normalize_field": ["price"]}, rf"{PREPARE}Field \[price\] does not exist"),
        ({"numerical_features": ["price"]}, rf"{PREPARE}Field \[price\] not defined"),
        ({"numerical_features": ["item_id"]}, "numerical_features=.*: the column 'item_id' of Small has tokens"),
        ({"numerical_features": ["text"], "load_col": WITH_TEXT}, "the column 'text' of Small has tokens, not numbers"),
        ({"discretization": {"price": {"method": "LD"}}}, rf"{PREPARE}Field \[price\] does not exist"),
        ({"transform": "mask_itemseq"}, PREPARE),
        ({"transform": "user_defined"}, f"RecBole cannot train SASRec on Small: .* {CHANGE}"),
        ({"additional_feat_suffix": ["x"]}, r"The file .*Small\.x does not exist"),
        ({"ITEM_LIST_LENGTH_FIELD": "item_id_list"}, "RecBole cannot train SASRec on Small: "),
        ({"learner": "sparse_adam"}, "learner=sparse_adam needs item embeddings with sparse.* SASRec has none"),
        (
            {"loss_type": "BPR", "train_neg_sample_args": None},
            "SASRec learns from negatives, but train_neg_sample_args draws none",
        ),
    ],
)
def test_what_recbole_cannot_do_is_one_sentence(tmp_path: Path, keys: dict[str, Any], message: str) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match=message):
        run("SASRec", "Small", overrides={**settings(tmp_path, "SASRec"), "epochs": 1, **keys})


@pytest.mark.parametrize(
    "keys",
    [
        {"NEG_PREFIX": "not_"},
        {"LIST_SUFFIX": "_history"},
        {"ITEM_LIST_LENGTH_FIELD": "length"},
        {"transform": "inverse_itemseq"},
        {"alias_of_user_id": ["user_id"]},
    ],
)
def test_names_of_columns_can_be_set(tmp_path: Path, keys: dict[str, Any]) -> None:
    write_small(tmp_path)
    given = {
        **settings(tmp_path, "SASRec"),
        "epochs": 1,
        "loss_type": "BPR",
        "train_neg_sample_args": {"sample_num": 1},
    }
    given["train_neg_sample_args"]["distribution"] = "uniform"
    assert run("SASRec", "Small", overrides={**given, **keys}).rows > 0


def test_repeated_interactions_are_removed(tmp_path: Path) -> None:
    write_small(tmp_path)
    rows = {
        which: len(build(config(tmp_path, "SASRec", rm_dup_inter=which)).dataset) for which in (None, "first", "last")
    }
    assert rows["first"] == rows["last"] < rows[None]


def test_columns_are_normalised_and_made_discrete(tmp_path: Path) -> None:
    write_small(tmp_path)
    price = build(config(tmp_path, "SASRec", normalize_field=["price"], **WITH_PRICE)).dataset.item_feat["price"]
    assert np.isclose(price[1:].min(), 0) and np.isclose(price[1:].max(), 1)
    buckets = {"price": {"method": "ED", "bucket": 3}}
    made = build(config(tmp_path, "SASRec", discretization=buckets, numerical_features=["price"], **WITH_PRICE))
    assert made.dataset.num("price") <= 5


def test_a_threshold_makes_labels(tmp_path: Path) -> None:
    write_small(tmp_path)
    dataset = build(config(tmp_path, "SASRec", threshold={"timestamp": 1.4e9 + 100})).dataset
    assert set(np.unique(dataset.inter_feat["label"])) == {0, 1}


@pytest.mark.parametrize(
    ("raised", "expected"), [(ValueError, ValueError), (KeyError, KeyError), (XferError, XferError)]
)
def test_errors_of_other_code_stay_as_they_are(raised: type[Exception], expected: type[Exception]) -> None:
    error = raised("mine")
    with pytest.raises(expected) as caught, explaining_recbole("train a model"):
        raise error
    assert caught.value is error
