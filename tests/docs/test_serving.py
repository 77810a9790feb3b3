"""The walk of docs/serving.md: every command runs, in order, on a small log."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_xfer.cli.main import main
from tests.conftest import ROOT

BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SMALL = ["--epochs=2", "--hidden_size=16", "--inner_size=16", "--MAX_ITEM_LIST_LENGTH=10", "--show_progress=False"]


def write_logs(folder: Path) -> None:
    """Writes log.csv, today.csv with more users and items, products.csv and visitors.csv."""
    random = np.random.default_rng(0)
    log = pd.DataFrame({"customer": [f"c{number}" for number in random.integers(1, 50, 700)]})
    log["product"] = [f"p{number}" for number in np.r_[random.integers(1, 61, 500), random.integers(1, 71, 200)]]
    log["bought_at"] = 1_700_000_000 + np.arange(700) * 60
    log[:500].to_csv(folder / "log.csv", index=False)
    log.to_csv(folder / "today.csv", index=False)
    products = pd.DataFrame({"id": [f"p{number}" for number in range(1, 71)]})
    products.assign(title="Product " + products["id"]).to_csv(folder / "products.csv", index=False)
    visitors = pd.DataFrame({"user_id": ["v1", "v1", "v2"], "item_id": ["p1", "p2", "p9"]})
    visitors.to_csv(folder / "visitors.csv", index=False)


def test_every_command_runs(in_tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime", reason="export needs pip install recbole-xfer[serving]")
    write_logs(in_tmp_path)
    page = (ROOT / "docs/serving.md").read_text(encoding="utf-8")
    walk = page.split("## The walk")[1].split("\n## ")[0]
    blocks = BLOCK.findall(walk) + [
        block for block in BLOCK.findall(page) if "from recbole_xfer.quick_start import load" in block[1]
    ]
    assert len(blocks) == 7
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, "docs/serving.md", "exec"), {})
            continue
        for line in text.splitlines():
            words = shlex.split(line)
            if words[0] == "recbole-xfer":
                assert main([*words[1:], *(SMALL if words[1] == "run" else [])]) == 0, capsys.readouterr().err
            else:
                subprocess.run([sys.executable, *words[1:]], check=True)
    printed = capsys.readouterr().out
    assert "Product p" in printed  # of the query
    assert len(pd.read_csv("visitors_recs.csv")) == 20
    assert len(pd.read_parquet("recs.parquet")["user_id"].unique()) == pd.read_csv("log.csv")["customer"].nunique()
    assert len((in_tmp_path / "bulk.jsonl").read_text(encoding="utf-8").splitlines()) == 2 * 70
