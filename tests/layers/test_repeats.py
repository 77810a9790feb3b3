"""The learned bias of repeats, against its definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import Result
from recbole_xfer.experiment import build, load
from recbole_xfer.layers import losses
from recbole_xfer.layers.losses import Correction, chunked_cross_entropy, item_cross_entropy
from recbole_xfer.layers.repeats import RATE, RepeatBias
from recbole_xfer.quick_start import evaluate, recommend, run
from recbole_xfer.testing.data import config, paths, settings, write_small

ITEMS, WIDTH = 30, 8
"""Items beside the padding, 0, and the width of vectors."""


@pytest.fixture
def windows() -> tuple[Tensor, Tensor]:
    """Windows with repeats and padding, [B, L], and the next item at each position."""
    rng = np.random.default_rng(0)
    histories = rng.integers(1, ITEMS + 1, (40, 9)) % 12 + 1
    histories[::3, 6:] = 0
    histories = torch.from_numpy(histories)
    return histories[:, :-1], histories[:, 1:]


def expected(windows: tuple[Tensor, Tensor], bias: float, ids: Tensor) -> Tensor:
    """What is added to each target's logits, [T, C], by a loop."""
    rows = []
    for items, targets in zip(*windows, strict=True):
        for position in range(len(targets)):
            if targets[position] > 0:
                before = set(items[: position + 1].tolist())
                rows.append([bias * (item in before) for item in ids.tolist()])
    return torch.tensor(rows, dtype=torch.float64)


def data(windows: tuple[Tensor, Tensor], ids: Tensor) -> tuple[RepeatBias, Tensor, Tensor]:
    torch.manual_seed(0)
    module = RepeatBias().double()
    torch.nn.init.constant_(module.weight, -0.05)
    users = torch.randn(int((windows[1] > 0).sum()), WIDTH, dtype=torch.float64).requires_grad_()
    return module, users, torch.randn(len(ids), WIDTH, dtype=torch.float64).requires_grad_()


@pytest.mark.parametrize("tile", [1, 2**20], ids=["tiles of the fewest rows", "one tile"])
@pytest.mark.parametrize(("sampled", "chunks"), [(False, None), (False, 7), (True, None)])
def test_loss_and_gradients_are_those_of_the_definition(
    windows: tuple[Tensor, Tensor], tile: int, sampled: bool, chunks: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(losses.TILE, "cpu", tile)
    target = windows[1][windows[1] > 0]
    ids = torch.cat([target, torch.tensor([25, 28])]).unique() if sampled else torch.arange(1, ITEMS + 1)
    place, log_q = torch.searchsorted(ids, target), torch.linspace(-2, 0, len(ids), dtype=torch.float64)
    correction = Correction(log_q, place[:, None]) if sampled else None
    found = []
    for ours in (True, False):
        module, users, items = data(windows, ids)
        if ours and chunks:
            of_ids = lambda some: items[torch.searchsorted(ids, some)]  # noqa: B023, E731
            repeats = lambda some: module.of_targets(*windows, some)  # noqa: B023, E731
            loss = chunked_cross_entropy(users, target, of_ids, ids.split(chunks), 1.0, repeats=repeats)
        elif ours:
            repeated = module.of_targets(*windows, ids)
            loss = item_cross_entropy(users, items, place, correction=correction, repeats=repeated)
        else:
            logits = users @ items.T + module.bias * expected(windows, 1.0, ids)
            if sampled:
                logits = logits - log_q.expand_as(logits).scatter(1, place[:, None], 0)
            loss = F.cross_entropy(logits, place)
        (3 * loss).backward()
        found.append([loss, users.grad, items.grad, module.weight.grad])
    for own, theirs in zip(*found, strict=True):
        assert torch.allclose(own, theirs, rtol=0, atol=1e-12)
    assert found[0][3] != 0


@pytest.mark.parametrize("model", ["ANT", "RETR", "NOVA", "VQRec"])
def test_scores_have_the_bias_at_the_items_of_the_history(tmp_path: Path, model: str) -> None:
    write_small(tmp_path, holes=False)
    made = build(config(tmp_path, model, repeat_bias=True))
    data = made.test_data._dataset
    rows = data[np.arange(len(data))]
    made.model.eval()
    plain = made.model.full_sort_predict(rows)
    torch.nn.init.constant_(made.model.repeat_bias.weight, -0.1)
    added = (made.model.full_sort_predict(rows) - plain)[:, 1:]
    inside = torch.zeros_like(plain, dtype=torch.bool).scatter_(1, rows[made.model.ITEM_SEQ], True)[:, 1:]
    assert torch.allclose(added, -0.1 * RATE * made.model.temperature * inside, atol=1e-5)
    own = made.model.full_sort_predict(rows)[torch.arange(len(rows)), rows["item_id"]]
    assert torch.allclose(made.model.predict(rows), own, atol=1e-5)


def write_users(root: Path, repeats: bool) -> None:
    """Writes users of one of four tastes, who take ten of its items once, or two of them again and again."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(200):
        items = rng.permutation(20)[:10] + 20 * rng.integers(4)
        taken = rng.choice(items[:2], 10) if repeats else items
        rows += [(f"u{user}", f"i{item}", float(time)) for time, item in enumerate(taken)]
    log = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp"])
    write_domain(root, "Tastes", log, None)


def trained(root: Path, **keys: Any) -> Result:
    sizes = {"hidden_size": 16, "inner_size": 16, "n_heads": 1, "n_layers": 1, "train_batch_size": 256}
    shared = {**sizes, "pathway": False, "learning_rate": 0.01, "epochs": 10, "topk": [10], "show_progress": False}
    return run("RETR", "Tastes", overrides={**shared, **paths(root), **keys})


def test_it_learns_that_nothing_is_repeated_or_everything(tmp_path: Path) -> None:
    bias = {}
    for repeats in (False, True):
        root = tmp_path / str(repeats)
        write_users(root, repeats)
        result = trained(root)
        bias[repeats] = load(result.folder).model.repeat_bias.bias
        if not repeats:  # ranking own items costs nothing any more
            masked = evaluate([result.folder], {"mask_history": True}).results[0]
            assert result.test["ndcg@10"] > 1.2 * trained(root, repeat_bias=False).test["ndcg@10"]
            assert result.test["ndcg@10"] > 0.95 * masked.test["ndcg@10"]
    assert bias[False] < -2 and bias[True] > 1


def test_items_of_the_history_are_recommended_by_the_bias(tmp_path: Path) -> None:
    write_users(tmp_path, repeats=False)
    experiment = load(trained(tmp_path).folder)
    learned = float(experiment.model.repeat_bias.weight.detach())
    for bias, again in ((learned, False), (0.2, True)):
        torch.nn.init.constant_(experiment.model.repeat_bias.weight, bias)
        shown = recommend(experiment, [["i1", "i2"]], k=5, overrides={"mask_history": False})
        assert ({"i1", "i2"} <= set(shown["item_id"])) == again
        assert bool({"i1", "i2"} & set(shown["item_id"])) == again


@pytest.mark.parametrize(
    ("model", "keys", "learned"),
    [
        ("RETR", {}, True), ("RETR", {"loss_type": "BPR"}, False), ("RETR", {"negatives": "sampled"}, True),
        ("ANT", {}, True), ("ANT", {"repeat_bias": None}, True), ("ANT", {"repeat_bias": False}, False),
        ("ANT", {"content_start": True}, False), ("UniSRec", {"negatives": "in_batch"}, False), ("XRETR", {}, True),
        ("TPRETR", {}, False), ("TPRETR", {"loss_type": "CE"}, False), ("NOVA", {}, True), ("VQRec", {}, True),
    ],
)  # fmt: skip
def test_it_is_learned_where_the_loss_can(tmp_path: Path, model: str, keys: dict[str, Any], learned: bool) -> None:
    write_small(tmp_path)
    assert config(tmp_path, model, **keys)["repeat_bias"] is learned


@pytest.mark.parametrize(
    ("model", "keys", "sentence"),
    [
        ("RETR", {"loss_type": "BPR"}, "repeat_bias is learned by cross-entropy, not BPR. Set --loss_type=CE"),
        ("ANT", {"content_start": True}, "learned from the items that content_start spares. Leave one of them out"),
        ("TPRETR", {}, "repeat_bias=True is invalid"),
        ("SyNCRec", {}, "Unknown key 'repeat_bias'"),
    ],
)
def test_where_it_cannot_be_learned_it_is_an_error(tmp_path: Path, model: str, keys: dict, sentence: str) -> None:
    write_small(tmp_path)
    with pytest.raises(XferError, match=sentence):
        run(model, "Small", overrides={**settings(tmp_path, model), **keys, "repeat_bias": True})
