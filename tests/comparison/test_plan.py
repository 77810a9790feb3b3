"""The plan of a comparison: which shared keys each row gets."""

from __future__ import annotations

import pytest

from recbole_xfer.comparison.plan import check_rows, load_plan, row_keys, shares_of, tables_of
from recbole_xfer.config import properties
from recbole_xfer.demo import PLAN as DEMO
from recbole_xfer.errors import XferError

PLAN = {
    "dataset": "Small", "source": "A", "epochs": 3, "hidden_size": 8, "fusion_weight": 0.5, "pretrain_epochs": 2,
    "inner_steps": 1,
}  # fmt: skip
ROWS = [
    {"model": "Pop", "name": "popular"},
    {"model": "SASRec", "hidden_size": 16},
    {"model": "ANT", "adaptation": "relearn"},
    {"model": "TP", "tp_model": "SASRec"},
]


def test_a_row_gets_the_shared_keys_that_its_model_knows() -> None:
    shared = {"dataset": "Small", "epochs": 3}
    assert [row_keys(PLAN, row) for row in ROWS] == [
        {"model": "Pop", **shared},
        {"model": "SASRec", **shared, "hidden_size": 16},
        {"model": "ANT", "adaptation": "relearn", **{key: PLAN[key] for key in PLAN if key != "inner_steps"}},
        {"model": "TP", "tp_model": "SASRec", **shared, "hidden_size": 8, "pretrain_epochs": 2, "inner_steps": 1},
    ]
    assert check_rows(PLAN, ROWS) == [None] * 4


def test_every_adaptation_gets_the_source() -> None:
    rows = [{"model": "VQRec", "adaptation": adaptation} for adaptation in ("scratch", "finetune", "align")]
    assert [row_keys(PLAN, row).get("source") for row in rows] == [None, "A", "A"]


@pytest.mark.parametrize("key", ["lerning_rate", "nproc"])
def test_a_shared_key_that_no_row_knows_is_an_error(key: str) -> None:
    with pytest.raises(XferError, match=f"Unknown key '{key}'"):
        check_rows({**PLAN, key: 1}, ROWS)
    with pytest.raises(XferError, match="Unknown key 'fusion_weight'"):
        check_rows(PLAN, ROWS[:2])


def test_a_key_of_a_row_is_never_left_out() -> None:
    with pytest.raises(XferError, match="Unknown key 'hidden_size'"):
        check_rows({"dataset": "Small"}, [{"model": "Pop", "hidden_size": 8}])


def test_the_demo_has_little_and_much_data() -> None:
    plan = load_plan(properties.folder() / DEMO)
    tables = tables_of(plan, shares_of(plan))
    assert [table.share for table in tables] == [0.1, 1.0]
    assert [check_rows(table.keys, plan["rows"]) for table in tables] == [[None] * 6] * 2
