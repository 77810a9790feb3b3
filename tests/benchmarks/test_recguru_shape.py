"""The small target beside a large source."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.studies import recguru_shape as study
from benchmarks.studies.noise import read
from recbole_xfer.data.atomic_writer import write_domain


def test_the_target_has_a_tenth_of_the_users_and_some_are_common() -> None:
    source, larger = [f"u{number}" for number in range(1000)], [f"u{number}" for number in range(900, 1200)]
    users = study.target_users(larger, source, np.random.default_rng(0))
    assert len(set(users)) == len(users) == 100
    assert len(set(users) & set(source)) == 12
    assert set(users) <= set(larger)


def test_rows_are_compared_on_the_target(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for name, users in ((study.LARGER, range(350, 500)), (study.SOURCE, range(400))):
        rows = [(f"u{user}", f"{name}{item}") for user in users for item in rng.choice(20, 5, replace=False)]
        frame = pd.DataFrame(rows, columns=["user_id", "item_id"])
        write_domain(tmp_path, name, frame.assign(timestamp=range(len(frame))), None)
    short = {"autoencoder_epochs": 1, "epochs": 1, "hidden_size": 8, "inner_size": 8, "n_layers": 1}
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(study, "AUTOREC", {**study.AUTOREC, **short})
    monkeypatch.setattr(study, "ROWS", {name: {**study.ROWS[name], **short} for name in ("AutoRec", study.HIDDEN)})
    options = [f"--data_path={tmp_path}", f"--checkpoint_dir={tmp_path / 'saved'}", "--seeds", "1"]
    monkeypatch.setattr("sys.argv", ["recguru_shape", *options])
    study.main()
    assert read(tmp_path / study.TARGET / f"{study.TARGET}.inter")["user_id"].nunique() == 40
    printed = " ".join(capsys.readouterr().out.split())
    assert "AutoRec (alone: AutoRec of the target alone)" in printed
    assert "NDCG@10 of the target, valid" in printed and study.HIDDEN in printed
