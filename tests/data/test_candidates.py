"""Candidates of sampled evaluation are drawn without replacement, in proportion to their weights."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from recbole_xfer.data import candidates
from recbole_xfer.data.candidates import draw_candidates, first_distinct
from recbole_xfer.data.histories import Sequences


def drawn(number: int, mode: str = "uni", rows: int = 20000, masked: bool = False) -> np.ndarray:
    """The candidates of the last item of each history; all histories are 1, 1, 1, 2, 2, 3, 4, 5."""
    history = np.array([1, 1, 1, 2, 2, 3, 4, 5])
    items, users = np.tile(history, rows), np.repeat(np.arange(1, rows + 1), len(history))
    sequences = Sequences.from_interactions(users, items)
    part: Any = SimpleNamespace(
        sequences=sequences, target_ranges=(sequences.ends - 1, sequences.ends), item_num=6, iid_field="item_id",
        item_domain=np.zeros(6, dtype=np.int16), id2token=lambda field, value: str(value), uid_field="user_id",
    )  # fmt: skip
    config = {
        "test_neg_sample_args": {"sample_num": number, "distribution": "popularity" if mode == "pop" else "uniform"},
        "eval_args": {"mode": {"test": f"{mode}{number}"}}, "seed": 0, "rank_within_domain": False,
        "mask_history": masked,
    }  # fmt: skip
    result = draw_candidates(config, part, "test")
    assert result is not None
    return result


def test_pairs_have_the_probability_of_drawing_without_replacement() -> None:
    weights = np.array([0, 3, 2, 1, 1, 0]) / 7  # the target, 5, is never drawn
    expected = np.outer(weights, weights) / (1 - weights)[:, None]
    np.fill_diagonal(expected, 0)
    pairs = drawn(2, "pop")
    found = np.zeros((6, 6))
    np.add.at(found, (pairs[:, 0], pairs[:, 1]), 1 / len(pairs))
    assert expected.sum() == pytest.approx(1)
    assert found == pytest.approx(expected, abs=0.012)


@pytest.mark.parametrize("rounds", [0, 1, 8])
def test_all_possible_items_can_be_drawn_in_any_number_of_rounds(monkeypatch: pytest.MonkeyPatch, rounds: int) -> None:
    monkeypatch.setattr(candidates, "ROUNDS", rounds)
    monkeypatch.setattr(candidates, "CELLS", 40)
    found = drawn(4, "pop", rows=200)
    assert (np.sort(found, axis=1) == [1, 2, 3, 4]).all()
    assert 60 <= (found[:, 0] == 1).sum() <= 115  # of 200, with probability 3/7


def test_first_distinct_keeps_the_order_of_draws() -> None:
    items = np.array([[3, 3, 0, 2, 3, 1], [0, 0, 5, 5, 0, 0]])
    assert first_distinct(items, 3).tolist() == [[3, 2, 1], [5, 0, 0]]
