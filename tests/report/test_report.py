"""Reports on studies and runs: pictures and sentences; a resumed run has the history of an uninterrupted one."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from recbole_xfer.cli.main import main
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build, fit
from recbole_xfer.report.history import over_runs
from recbole_xfer.report.looks import CALM, WARNING, Look, spread_out
from recbole_xfer.report.paper import draw
from recbole_xfer.report.picture import Line, Lines, Picture
from recbole_xfer.report.report import Report, report
from recbole_xfer.testing.data import config, write_joined, write_small
from recbole_xfer.trainer.run_folder import RunFolder
from tests.helpers.studies import MODELS, SEEDS, STRANGE, epochs, made_matrix, made_result, made_study, write_run

SYNCREC = {"n_experts": 2, "cross_experts": 1}
RECGURU = {"autoencoder_epochs": 2, "adversarial_epochs": 3, "epochs": 2, "user_batch_size": 32, "warmup_steps": 4}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study with curves, and a matrix of transfer and separability in the same folder."""
    root = tmp_path_factory.mktemp("study")
    folder = made_study(root)
    shutil.copy(made_matrix(root) / "transfer.json", folder)
    accuracy = {"vectors": "text", "pair": ["Food", "Home"], "mean": 0.8, "spread": 0.01, "rows": 500}
    accuracies = [{**accuracy, "probe": probe} for probe in ("linear", "MLP")]
    content = {"groups": ["Food", "Home"], "accuracies": accuracies, "limit": 2000, "seed": 1}
    (folder / "separability.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def drawn(study: Path) -> Report:
    return report([study])


@pytest.fixture(scope="module")
def page(study: Path) -> Path:
    assert main(["report", str(study)]) == 0
    return study / "report.html"


def picture_of(made: Report, name: str) -> Picture:
    return next(picture for picture in made.pictures() if picture.name == name)


# --- history ----------------------------------------------------------------------------------------------------


class Interrupted(Exception):
    """Represents a kill in the middle of a run."""


@pytest.mark.parametrize(
    ("model", "keys", "kill_at"),
    [("SyNCRec", {**SYNCREC, "epochs": 3}, 1), ("RecGURU", {**RECGURU, "epochs": 1}, 3)],
)
def test_resumed_run_has_the_history_of_an_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, keys: dict, kill_at: int
) -> None:
    """Killed when its history is one epoch ahead of its state; RecGURU in its second phase."""
    write_joined(tmp_path, "AB")

    def made(name: str) -> Any:
        return build(config(tmp_path, model, "A+B", **keys, run_dir=str(tmp_path / name)))

    fit(made("whole"))
    broken = made("broken")
    train_epoch = broken.trainer._save_state

    def dies(epoch: int) -> None:
        if len(broken.trainer.history) > kill_at:
            raise Interrupted
        train_epoch(epoch)

    monkeypatch.setattr(broken.trainer, "_save_state", dies)
    with pytest.raises(Interrupted):
        fit(broken)
    assert len(RunFolder(tmp_path / "broken").epochs()) == kill_at + 1
    fit(made("broken"))
    whole, resumed = (RunFolder(tmp_path / name).epochs() for name in ("whole", "broken"))
    assert resumed == whole
    assert whole[0]["train"].keys() > {"reconstruction/A"} or "gap/B" in whole[0]["train"]
    assert "ndcg@10" in whole[-1]["valid"]


def test_loss_of_an_epoch_is_a_mean_over_its_steps(tmp_path: Path) -> None:
    write_small(tmp_path)
    made = build(config(tmp_path, "SASRec", train_batch_size=32))
    fit(made)
    steps = len(made.trainer._train_data)
    assert steps > 1
    for record, total in zip(made.trainer.history, made.trainer.train_loss_dict.values(), strict=True):
        assert record["train"] == {"loss": pytest.approx(total / steps)}


# --- a study ---------------------------------------------------------------------------------------------------------


def test_a_study_has_a_picture_for_each_table_curve_and_matrix(drawn: Report) -> None:
    shares = ("Shop-10-of-the-users", "Shop-all-users")
    assert [picture.name for picture in drawn.pictures()] == [
        "curve", "matrix",
        *(f"groups-{name}" for name in (*shares, "Shop")), *(f"lengths-{name}" for name in (*shares, "Shop")),
        *(f"training-{name}" for name in shares), "separability",
    ]  # fmt: skip
    titles = ["Test results", "How much target data", "Transfer to the target", "Groups", "Lengths", "Training"]
    assert [chapter.title for chapter in drawn.chapters] == [*titles, "Separability"]
    assert drawn.notes == [
        "The training of 7 of 25 runs is not drawn: saved/x has moved or is gone. The same holds for 6 others.",
        "Broken, seed 1 failed: no vectors",
    ]


def test_a_row_is_one_line_with_the_mean_and_the_spread_of_its_seeds(study: Path, drawn: Report) -> None:
    panel, *losses = picture_of(drawn, "training-Shop-all-users").panels
    assert isinstance(panel, Lines) and panel.title == "validation ndcg@10 (circles: best epochs)"
    assert [line.name for line in panel.lines] == list(MODELS)[1:]  # Pop has no history
    folders = list((study.parent / "saved").glob("SASRec-1-1.0-*"))
    histories = [json.loads((folder / "epochs.json").read_text()) for folder in folders]
    points = panel.lines[0].points.set_index("x")
    for epoch in range(7):
        values = [history[epoch]["valid"]["ndcg@10"] for history in histories if epoch < len(history)]
        assert points.loc[epoch, "mean"] == pytest.approx(np.mean(values))
        spread = np.std(values, ddof=1) if len(values) > 1 else 0
        assert points.loc[epoch, "spread"] == pytest.approx(spread)
    assert len(points) == 7 and panel.circles is not None
    own = panel.circles[panel.circles["line"] == "SASRec"]
    assert sorted(own["x"]) == [seed + 1 for seed in SEEDS]
    assert sorted(own["y"]) == pytest.approx([0.3 * (seed + 1) / 10 + 0.01 * seed for seed in SEEDS])
    assert [loss.title for loss in losses] == ["training loss, SASRec", "training loss, ANT"]


def test_a_row_has_one_look_in_all_pictures(drawn: Report) -> None:
    panels = [panel for picture in drawn.pictures() for panel in picture.panels if isinstance(panel, Lines)]
    looks: dict[str, set[Look]] = {}
    for line in (line for panel in panels for line in panel.lines):
        looks.setdefault(line.name, set()).add(line.look)
    assert set(MODELS) <= set(looks) and all(len(own) == 1 for own in looks.values())
    assert len(set.union(*(looks[row] for row in MODELS))) == len(MODELS)


def test_the_page_needs_no_network_and_escapes_names(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    head, _, body = text.partition("<h1>")
    assert "src=" not in body and 'href="http' not in body and head.count("<script>") >= 1
    assert "<link" not in head[: head.index("<script")] and "<script src" not in head
    strange = "ANT &lt;tuned&gt; &amp; $x_1$"
    assert STRANGE not in text and f"<td>{strange}</td>" in text
    assert "<b>" in text and "<u>" in text and "Holm" in text and "vs SASRec" in text
    assert text.count("Plotly.newPlot") == 11
    for name in ("curve", "matrix", "groups-Shop-all-users", "training-Shop-all-users", "separability"):
        assert (page.parent / f"{name}.pdf").read_bytes().startswith(b"%PDF")
        with Image.open(page.parent / f"{name}.png") as picture:
            assert picture.width > 400 and len(picture.convert("L").getcolors()) > 5


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_a_browser_draws_every_picture(page: Path, tmp_path: Path) -> None:
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    command = [str(CHROMIUM), *options, f"--user-data-dir={tmp_path}", "--virtual-time-budget=8000", "--dump-dom"]
    done = subprocess.run([*command, page.resolve().as_uri()], capture_output=True, text=True, check=True, timeout=300)
    body = done.stdout.rpartition("<h1>")[2]
    assert len(re.findall(r'<div [^>]*class="[^"]*js-plotly-plot', body)) == 11
    assert "ANT &lt;tuned&gt; &amp; $x_1$</text>" in body


def test_a_folder_of_runs_that_moved_with_the_study_is_found(study: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(study.parent, tmp_path / "elsewhere") / "study"
    text = (moved / "study.json").read_text()
    (moved / "study.json").write_text(text.replace(f"{study.parent}/saved", "saved"))
    (moved / "transfer.json").unlink()
    shutil.rmtree(moved.parent / "saved" / "ANT-2-1.0-1")
    (moved.parent / "saved" / "ANT-2-1.0-2" / "epochs.json").write_text("[")
    made = report([moved])
    (panel, *_) = picture_of(made, "training-Shop-all-users").panels
    assert isinstance(panel, Lines) and len(panel.lines) == 3
    assert re.match(
        r"The training of 8 of 24 runs is not drawn: saved/ANT-2-1.0-1 has moved or is gone. ", made.notes[0]
    )


# --- SyNCRec and RecGURU ---------------------------------------------------------------------------------------------


def syncrec(root: Path, best: int = 2, seed: int = 1, shift: float = 0.0) -> Path:
    """A run whose domain B is hurt."""
    scalars = {
        "gap/A": [0.1, 0.2, 0.3, 0.4], "gap/B": [0.1 + shift, 0.0, -0.1 + shift, -0.5], "alpha": [1.0] * 4,
        "weight/A": [0.5, 0.6, 0.7, 0.9], "weight/B": [0.5, 0.4, 0.3, 0.1], "beta": [1.0] * 4,
    }  # fmt: skip
    result = made_result("SyNCRec", "SyNCRec", seed)
    values = {**result.as_dict(), "best_epoch": best, "dataset": "A+B"}
    folder = write_run(root / f"S{seed}", result, epochs(seed, 4, 0.3, **scalars), "SyNCRec", dataset="A+B", seed=seed)
    RunFolder(folder).finish(values)
    return folder


def test_hurt_domain_is_named_and_drawn_in_the_warning_colour(tmp_path: Path) -> None:
    picture = picture_of(report([syncrec(tmp_path)]), "transfer")
    assert picture.sentences == [
        "B is hurt: its mean gap in epoch 2 is -0.100; its weight fell from 0.500 to 0.300.",
        "Not hurt: A (+0.300).",
    ]
    gaps = next(axis for axis in draw(picture).axes if axis.get_title().startswith("gap"))
    lines = {tuple(line.get_ydata()): line.get_color() for line in gaps.lines[:2]}
    assert lines == {(0.1, 0.2, 0.3, 0.4): CALM, (0.1, 0.0, -0.1, -0.5): WARNING}
    assert {text.get_text(): text.get_color() for text in gaps.texts} == {"A": CALM, "B": WARNING}


def test_gaps_are_means_over_seeds(tmp_path: Path) -> None:
    made = report([syncrec(tmp_path), syncrec(tmp_path, seed=2, shift=0.08)])
    gap, *_ = picture_of(made, "transfer").panels
    assert isinstance(gap, Lines) and [line.name for line in gap.lines] == ["A", "B"]
    assert gap.lines[1].points["mean"].tolist() == pytest.approx([0.14, 0.0, -0.06, -0.5])
    assert gap.lines[1].points["spread"].tolist() == pytest.approx([0.08 / 2**0.5, 0, 0.08 / 2**0.5, 0])
    assert (
        picture_of(made, "transfer")
        .sentences[0]
        .startswith("B is hurt: its mean gap over the last epochs of 2 runs is -0.060;")
    )


def test_no_domain_is_hurt(tmp_path: Path) -> None:
    folder = syncrec(tmp_path, best=1)
    assert picture_of(report([folder]), "transfer").sentences == [
        "No domain is hurt: no mean gap in epoch 1 is negative."
    ]


def test_names_of_twenty_domains_do_not_overlap() -> None:
    points = [pd.DataFrame({"x": [0, 1], "mean": [0.01, 0.0101 + n / 1e6], "spread": [0.0, 0.0]}) for n in range(20)]
    lines = [Line(f"Department {number}", own, Look(CALM)) for number, own in enumerate(points)]
    figure = draw(Picture("transfer", "", [Lines("gap", lines, "epoch", named=True)] * 2, 2))
    figure.draw_without_rendering()
    for axis in figure.axes:
        boxes = sorted((Text.get_window_extent(text) for text in axis.texts), key=lambda box: box.y0)
        assert len(boxes) == 20
        assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))
        assert boxes[0].y0 > 0 and boxes[-1].y1 < figure.bbox.height
        assert max(box.x1 for box in boxes) <= figure.bbox.width


def test_names_move_as_little_as_possible() -> None:
    assert spread_out(np.array([0.9, 0.1, 0.5]), 0.2).tolist() == [0.9, 0.1, 0.5]
    assert spread_out(np.array([0.5, 0.5]), 0.2) == pytest.approx([0.4, 0.6])
    assert spread_out(np.array([1.0, 1.0, 0.0, 0.0]), 0.1) == pytest.approx([0.9, 1.0, 0.0, 0.1])


def recguru(root: Path, *distances: float) -> Path:
    """A run with two epochs of autoencoders, one adversarial epoch for each distance, and two of recommendation."""
    game = [{"critic loss": -value, "Wasserstein distance": value} for value in distances]
    phases = [("autoencoder", {})] * 2 + [("adversarial", own) for own in game] + [("recommendation", None)] * 2
    history, count = [], {}
    for number, (phase, own) in enumerate(phases):
        count[phase] = count.get(phase, -1) + 1
        both = {"reconstruction/A": 1 / (1 + number), "reconstruction/B": 2 / (1 + number)}
        train = {"next item": 0.5 / (1 + number)} if own is None else {**both, **own}
        history.append({"epoch": count[phase], "phase": phase, "train": train})
    result = made_result("RecGURU", "RecGURU")
    return write_run(root / "R", result, history, "RecGURU", dataset="A+B")


def test_game_of_recguru_and_its_phases(tmp_path: Path) -> None:
    grown = picture_of(report([recguru(tmp_path, 0.1, 0.2, 0.8)]), "game").sentences[0]
    assert "did not come closer" in grown and "The distance still grew" in grown and "raise adversarial" in grown
    made = report([recguru(tmp_path, 0.1, 0.8, 0.2)])
    game = picture_of(made, "game")
    assert "The domains came closer" in game.sentences[0] and "still grew" not in game.sentences[0]
    assert "in epoch 1 of the adversarial phase, 0.8000, and 0.2000 in the last epoch" in game.sentences[0]
    critic, distance, losses = draw(game).axes
    assert distance.get_title() == "Wasserstein distance, estimated" and critic.get_title() == "critic loss"
    assert distance.lines[0].get_ydata().tolist() == [0.1, 0.8, 0.2]
    assert losses.lines[1].get_ydata().tolist() == [2 / (1 + number) for number in range(5)]
    texts = [text.get_text() for text in losses.texts]
    assert texts == ["autoencoder phase", "adversarial phase", "A", "B"]
    (loss,) = picture_of(made, "training").panels
    assert isinstance(loss, Lines) and loss.lines[0].points["mean"].tolist() == [0.5 / 6, 0.5 / 7]


def test_autoencoders_without_a_critic_have_no_game(tmp_path: Path) -> None:
    folder = recguru(tmp_path)
    (panel,) = picture_of(report([folder]), "game").panels
    assert panel.title == "reconstruction loss"
    RunFolder(folder).save_epochs(
        [record for record in RunFolder(folder).epochs() if record["phase"] == "recommendation"]
    )
    assert [picture.name for picture in report([folder]).pictures()] == ["groups", "lengths", "training"]


def test_routes_of_each_block(tmp_path: Path) -> None:
    folders = []
    for seed, kept in ((1, [0.5, 0.6]), (2, [0.7, 0.6])):
        scalars = {"kept/block 1": kept, "kept/block 2": [0.1, 0.1]}
        result = made_result("RETR", "RETR", seed)
        history = epochs(seed, 2, 0.3, **scalars)
        folders.append(write_run(tmp_path / str(seed), result, history, "RETR", seed=seed))
    first, second = picture_of(report(folders), "routes").panels
    assert (first.title, second.title) == ("block 1", "block 2") and isinstance(first, Lines)
    assert first.lines[0].points["mean"].tolist() == pytest.approx([0.6, 0.6])


def test_the_mean_is_over_the_runs_that_have_an_epoch() -> None:
    found = over_runs([pd.Series([1.0, 2.0]), pd.Series([3.0, None]), pd.Series(dtype=float)])
    assert found["mean"].tolist() == [2, 2] and found["spread"].tolist() == pytest.approx([2**0.5, 0])
    assert over_runs([]).empty


# --- runs ------------------------------------------------------------------------------------------------------------


def test_influence_of_a_key_is_drawn_for_runs_that_differ_only_in_it(tmp_path: Path) -> None:
    folders = []
    for number, (value, other) in enumerate(((0.0, 0.5), (0.5, 0.5), (0.1, 0.5), (0.1, 0.2))):
        keys = {"hidden_dropout_prob": value, "attn_dropout_prob": other}
        result = made_result("SASRec", level=0.3 + 0.1 * number)
        folders.append(write_run(tmp_path / str(number), result, epochs(1, 2, 0.3), **keys))
    made = report(folders)
    assert "influence-attn_dropout_prob" not in [picture.name for picture in made.pictures()]  # two values are too few
    influence = picture_of(made, "influence-hidden_dropout_prob")
    values = [json.loads((folders[i] / "result.json").read_text())["test"]["ndcg@10"] for i in (0, 2, 1)]
    panel = next(panel for panel in influence.panels if panel.title == "ndcg@10, all targets")
    assert isinstance(panel, Lines) and list(panel.ticks.values()) == ["0", "0.1", "0.5"]
    assert panel.lines[0].points["mean"].tolist() == values
    assert f"highest at hidden_dropout_prob = {[0, 0.1, 0.5][int(np.argmax(values))]:g}" in influence.sentences[0]
    assert "SASRec attn_dropout_prob=0.2 hidden_dropout_prob=0.1" in picture_of(made, "groups").legend()


def test_command_writes_a_page_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = syncrec(tmp_path)
    assert main(["report", str(folder), f"--output={tmp_path / 'pictures'}"]) == 0
    printed = capsys.readouterr().out.split("\n")[:-1]
    names = ["groups", "lengths", "training", "transfer"]
    assert [Path(path).name for path in printed[-9:]] == [
        "report.html", *(f"{name}.{kind}" for name in names for kind in ("png", "pdf")),
    ]  # fmt: skip
    assert any("B is hurt" in line for line in printed)


def test_notes_on_missing_files(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", made_result("SASRec"), epochs(1, 2, 0.3))
    (folder / RunFolder.EPOCHS).rename(tmp_path / "kept.json")
    made = report([folder])
    assert [picture.name for picture in made.pictures()] == ["groups", "lengths"]
    assert made.notes == [f"{folder} has no epochs.json, so its training cannot be drawn. Train it again."]
    (folder / RunFolder.RESULT).unlink()
    with pytest.raises(XferError, match=r"nothing to draw. .* is not finished. .* has no epochs.json"):
        report([folder])
    (tmp_path / "kept.json").rename(folder / RunFolder.EPOCHS)
    made = report([folder])  # interrupted
    assert [picture.name for picture in made.pictures()] == ["training"]
    assert made.notes == [f"{folder} is not finished. Run its command again to resume it."]


def test_invalid_folders_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(XferError, match="nowhere does not exist. Name the folder of a study or of a run"):
        report([tmp_path / "nowhere"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(XferError, match=r"empty is neither the folder of a study \(study.json or transfer.json is"):
        report([tmp_path / "empty"])
    results = [made_result("SASRec"), made_result("SASRec", share=0.1)]
    folders = [write_run(tmp_path / str(n), result, epochs(1, 2, 0.3)) for n, result in enumerate(results)]
    with pytest.raises(XferError, match="cannot be compared"):
        report(folders)
    (folders[0] / RunFolder.EPOCHS).write_text('[{"epoch": 0', encoding="utf-8")
    with pytest.raises(XferError, match=r"epochs.json is damaged"):
        report(folders[:1])


@pytest.mark.parametrize(
    ("content", "reason"), [("{", "Invalid JSON"), ('{"tables": [{"table": "Shop"}]}', r"tables.0.dataset: Field req")]
)
def test_a_broken_study_is_one_sentence(tmp_path: Path, content: str, reason: str) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(XferError, match=rf"study.json cannot be read \(.*{reason}.*\). Write it again") as error:
        report([tmp_path])
    assert "\n" not in str(error.value)
