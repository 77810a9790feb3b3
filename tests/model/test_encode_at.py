"""The state at one position is computed without the others of the last block, and is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from recbole_xfer.experiment import build
from recbole_xfer.testing.data import config, write_small

MODELS: list[tuple[str, dict[str, Any]]] = [
    ("RETR", {"pathway": False}), ("RETR", {}), ("RETR", {"pathway_context": "window", "n_layers": 3}),
    ("RETR", {"pathway_route": "random", "pathway_hierarchical": False}), ("RETR", {"pathway_acts_on": "input"}),
    ("RETR", {"pathway_acts_on": "key"}), ("ANT", {}), ("UniSRec", {}), ("XRETR", {}),
    ("XLightSANs", {}), ("VQRec", {}), ("NOVA", {"n_layers": 1}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "keys"), MODELS)
def test_a_state_is_that_of_all_positions(tmp_path: Path, name: str, keys: dict[str, Any]) -> None:
    write_small(tmp_path)
    model = build(config(tmp_path, name, **keys)).model
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    model = model.double().eval()
    lengths = torch.tensor([8, 1, 3, 7, 5, 8, 2])
    items = torch.randint(1, model.n_items, (len(lengths), 8))
    items[torch.arange(8) >= lengths[:, None]] = 0
    every, one = model.encode(items), model.encode_at(lengths - 1, items)
    torch.testing.assert_close(one, every[torch.arange(len(lengths)), lengths - 1], rtol=0, atol=1e-10)


@pytest.mark.parametrize("keys", [{"pathway": False}, {}], ids=["SASRec", "RETR"])
def test_the_last_block_computes_one_position(tmp_path: Path, keys: dict[str, Any]) -> None:
    write_small(tmp_path)
    model = build(config(tmp_path, "RETR", **keys)).model.eval()
    shapes: list[torch.Size] = []
    for layer in model.encoder.layers[1::2]:
        layer.register_forward_hook(lambda layer, inputs, output: shapes.append(output.shape))
    model.forward(torch.randint(1, model.n_items, (4, 6)), torch.tensor([6, 5, 4, 1]))
    assert [tuple(shape[:2]) for shape in shapes] == [(4, 6), (4, 1)]
