"""``recbole-xfer runs``: what lies in a folder of runs."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from recbole_xfer.cli.main import main
from recbole_xfer.evaluation.result import Protocol, Result

KEYS = {
    "model": "ANT", "dataset": "Toys", "adaptation": "relearn", "seed": 7, "valid_metric": "NDCG@10",
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "group_by": "user", "mode": "full"},
}  # fmt: skip
RESULT = Result(
    label="ANT (relearn)", model="ANT", dataset="Toys", source="Books", adaptation="relearn",
    protocol=Protocol("leave one out by time", "all 9 items", False), seed=7, valid={"ndcg@10": 0.1234},
    test={"ndcg@10": 0.1111, "recall@10": 0.2}, rows=5, best_epoch=1, seconds=1.0, folder="saved/ANT",
    valid_score=0.1234, cutoff=10,
).as_dict()  # fmt: skip
PRETRAINED = {
    "model": "ANT", "source": "Books+Games", "valid": {"ndcg@10": 0.3}, "best_epoch": 1, "seconds": 1.0, "seed": 7,
}  # fmt: skip


def write_run(name: str, time: int, result: dict[str, Any] | None = None, **keys: Any) -> Path:
    folder = Path("saved") / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**KEYS, **keys}))
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))
    for file in folder.iterdir():
        os.utime(file, (time, time))
    return folder


def day(time: int) -> str:
    return f"{datetime.fromtimestamp(time):%Y-%m-%d}"


def clock(time: int) -> str:
    return f"{datetime.fromtimestamp(time):%H:%M}"


@pytest.fixture
def runs(in_tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    write_run("ANT-Toys-relearn-1a2b3c4d", 1_800_000_000, RESULT, train_share=0.1)
    write_run("ANT-Books+Games-pretrained-5e6f7a", 1_700_000_000, PRETRAINED, dataset="Books+Games")
    write_run("killed", 1_900_000_000, model="SASRec", adaptation=None, single_domain="Toys", dataset="Toys+Books")


def test_runs_are_listed_newest_first(runs: None, capsys: pytest.CaptureFixture) -> None:
    assert main(["runs"]) == 0
    output = capsys.readouterr().out
    assert max(map(len, output.splitlines())) <= 80
    lines = [line.split() for line in output.splitlines() if line.strip() and "─" not in line]
    assert lines == [
        ["run", "valid", "test", "seed", "date"],
        ["SASRec", "on", "Toys", "of", "Toys+Books", "unfinished", "7", day(1_900_000_000)],
        ["saved/killed", "ndcg@10", clock(1_900_000_000)],
        [
            *["ANT", "(relearn)", "on", "Toys,", "10%", "of", "the", "users", "0.1234", "0.1111", "7"],
            day(1_800_000_000),
        ],
        ["saved/ANT-Toys-relearn-1a2b3c4d", "ndcg@10", clock(1_800_000_000)],
        ["ANT", "(pre-training)", "on", "Books+Games", "0.3000", "7", day(1_700_000_000)],
        ["saved/ANT-Books+Games-pretrained-5e6f7a", "ndcg@10", clock(1_700_000_000)],
    ]


def test_a_damaged_run_is_reported_and_the_others_are_listed(runs: None, capsys: pytest.CaptureFixture) -> None:
    write_run("cut", 1_600_000_000)
    Path("saved/cut/result.json").write_text('{"valid": ')
    Path("saved/ANT-Toys-relearn-1a2b3c4d/result.json").write_text('{"valid": {"ndcg@10": "high"}, "test": 3}')
    assert main(["runs", "saved"]) == 0
    shown = capsys.readouterr()
    assert "saved/cut/result.json is damaged" in shown.err
    assert "saved/ANT-Toys-relearn-1a2b3c4d/result.json is damaged" in shown.err
    assert "saved/cut" not in shown.out and "SASRec on Toys" in shown.out


def test_a_folder_without_runs(in_tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["runs"]) == 2
    assert "error: The folder saved does not exist. Name the folder that has the runs" in capsys.readouterr().err
    Path("saved/notes").mkdir(parents=True)
    assert main(["runs"]) == 0
    assert capsys.readouterr().out == "No run is in saved.\n"
