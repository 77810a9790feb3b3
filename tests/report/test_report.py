"""Reports: pictures and sentences; a resumed run has the history of an uninterrupted one."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
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
from recbole_xfer.quick_start import run
from recbole_xfer.report.pictures import CALM, WARNING, draw_transfer, spread_out
from recbole_xfer.report.report import report
from recbole_xfer.testing.data import config, settings, write_joined, write_small
from recbole_xfer.trainer.run_folder import RunFolder

SYNCREC = {"n_experts": 2, "cross_experts": 1}
RECGURU = {"autoencoder_epochs": 2, "adversarial_epochs": 3, "epochs": 2, "user_batch_size": 32, "warmup_steps": 4}
NEW_USERS = {"split": {"NU": 0.3}, "order": "TO", "group_by": "user", "mode": "full"}
GROUPS = {"eval_groups": ["existing", "new", "existing-tail"], "eval_args": NEW_USERS, "topk": [1, 5, 10]}


def trained(root: Path, model: str = "SASRec", dataset: str = "Small", **keys: Any) -> Path:
    if not (root / dataset.split("+")[0]).exists():
        write_joined(root, dataset.split("+")) if "+" in dataset else write_small(root, dataset, users=80)
    return Path(run(model, dataset, overrides={**settings(root, model), **keys}).folder)


def rewrite(folder: Path, **scalars: list[float]) -> None:
    """Replaces scalars in the history of a run, to get a known answer."""
    history = RunFolder(folder).epochs()
    for number, record in enumerate(history):
        record["train"] |= {name: values[number] for name, values in scalars.items()}
    RunFolder(folder).save_epochs(history)


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


# --- one run ---------------------------------------------------------------------------------------------------------


def test_hurt_domain_is_named_and_drawn_in_the_warning_colour(tmp_path: Path) -> None:
    folder = trained(tmp_path, "SyNCRec", "A+B", **SYNCREC, epochs=4, rank_within_domain=True)
    rewrite(folder, **{"gap/A": [0.1, 0.2, 0.3, 0.4], "gap/B": [0.1, 0.0, -0.1, -0.5]})
    rewrite(folder, **{"weight/A": [0.5, 0.6, 0.7, 0.9], "weight/B": [0.5, 0.4, 0.3, 0.1]})
    best = json.loads((folder / "result.json").read_text()) | {"best_epoch": 2}
    (folder / "result.json").write_text(json.dumps(best))
    drawn = report([folder])
    assert [picture.name for picture in drawn.pictures] == ["transfer", "training", "results"]
    transfer, training, results = drawn.pictures
    assert transfer.sentences == [
        "B is hurt: its mean gap in epoch 2 is -0.100; its weight fell from 0.500 to 0.300.",
        "Not hurt: A (+0.300).",
    ]
    (gaps,) = [axis for axis in transfer.figure.axes if axis.get_title().startswith("gap over")]
    lines = {tuple(line.get_ydata()): line.get_color() for line in gaps.lines}
    assert lines[0.1, 0.2, 0.3, 0.4] == CALM and lines[0.1, 0.0, -0.1, -0.5] == WARNING
    assert {text.get_text(): text.get_color() for text in gaps.texts} == {"A": CALM, "B": WARNING}
    valid = RunFolder(folder).epochs()[2]["valid"]["ndcg@10 [mean]"]
    assert f"best in epoch 2: {valid:.4f}." in training.sentences[0]
    assert "in total) ranked; history kept" in results.sentences[0] and "seed" in results.sentences[0]
    labels = [label.get_text() for label in results.figure.axes[0].get_yticklabels()]
    assert labels == ["all targets", "mean of domains", "A", "B"]


def test_no_domain_is_hurt(tmp_path: Path) -> None:
    folder = trained(tmp_path, "SyNCRec", "A+B", **SYNCREC, loss_correction=False)
    rewrite(folder, **{"gap/A": [-0.1, 0.2], "gap/B": [0.1, 0.0]})
    result = json.loads((folder / "result.json").read_text()) | {"best_epoch": 1}
    (folder / "result.json").write_text(json.dumps(result))
    assert report([folder]).pictures[0].sentences == ["No domain is hurt: no mean gap in epoch 1 is negative."]


def test_names_of_twenty_domains_do_not_overlap() -> None:
    domains = [f"Department {number}" for number in range(20)]
    gaps = pd.DataFrame(np.linspace(0.010, 0.011, 40).reshape(2, 20), columns=domains)
    rest = pd.DataFrame({"alpha": [1.0, 1.1], "beta": [1.0, 1.0]})
    figure = draw_transfer(gaps, gaps, rest, gaps.iloc[-1].rename("gap"))
    figure.draw_without_rendering()
    for axis in figure.axes:
        if "over training" in axis.get_title():
            boxes = sorted((Text.get_window_extent(text) for text in axis.texts), key=lambda box: box.y0)
            assert len(boxes) == 20
            assert all(below.y1 <= above.y0 + 1 for below, above in pairwise(boxes))
            assert boxes[0].y0 > 0 and boxes[-1].y1 < figure.bbox.height
            assert max(box.x1 for box in boxes) <= figure.bbox.width


def test_names_move_as_little_as_possible() -> None:
    assert spread_out(np.array([0.9, 0.1, 0.5]), 0.2).tolist() == [0.9, 0.1, 0.5]
    assert spread_out(np.array([0.5, 0.5]), 0.2) == pytest.approx([0.4, 0.6])
    assert spread_out(np.array([1.0, 1.0, 0.0, 0.0]), 0.1) == pytest.approx([0.9, 1.0, 0.0, 0.1])


def with_distances(folder: Path, *distances: float) -> list[dict]:
    """Replaces the critic's distances in the run's history."""
    history = RunFolder(folder).epochs()
    for record, distance in zip([r for r in history if r["phase"] == "adversarial"], distances, strict=True):
        record["train"]["Wasserstein distance"] = distance
    RunFolder(folder).save_epochs(history)
    return history


def test_game_of_recguru_and_its_phases(tmp_path: Path) -> None:
    folder = trained(tmp_path, "RecGURU", "A+B", **RECGURU)
    with_distances(folder, 0.1, 0.2, 0.8)
    assert "did not come closer" in (grown := report([folder]).pictures[0].sentences[0])
    assert "The distance still grew" in grown and "raise adversarial_epochs" in grown
    history = with_distances(folder, 0.1, 0.8, 0.2)
    game, training, _ = report([folder]).pictures
    assert "The domains came closer" in game.sentences[0] and "still grew" not in game.sentences[0]
    assert "in epoch 1 of the adversarial phase, 0.8000, and 0.2000 in the last epoch" in game.sentences[0]
    axes = {axis.get_title() or axis.get_ylabel(): axis for axis in game.figure.axes}
    assert axes["Wasserstein distance, estimated"].lines[0].get_ydata().tolist() == [0.1, 0.8, 0.2]
    expected = [record["train"]["reconstruction/A"] for record in history[:5]]
    drawn = {line.get_label(): line.get_ydata() for line in axes["reconstruction loss"].lines}
    assert drawn["A"].tolist() == expected and len(drawn["B"]) == 5
    assert [text.get_text() for text in axes["reconstruction loss"].texts] == ["autoencoder phase", "adversarial phase"]
    loss, _ = training.figure.axes
    assert loss.lines[0].get_ydata().tolist() == [record["train"]["next item"] for record in history[5:]]


def test_pictures_of_the_variants_of_recguru(tmp_path: Path) -> None:
    auto = trained(tmp_path, "RecGURU", "A+B", **RECGURU, variant="AutoRec")
    (game, *_) = report([auto]).pictures
    assert [axis.get_ylabel() for axis in game.figure.axes] == ["reconstruction loss"]
    seq = trained(tmp_path, "RecGURU", "A+B", **RECGURU, variant="SeqRec")
    assert [picture.name for picture in report([seq]).pictures] == ["training", "results"]


# --- several runs ----------------------------------------------------------------------------------------------------


def test_groups_cutoffs_and_seeds_of_several_models(tmp_path: Path) -> None:
    folders = [trained(tmp_path, seed=seed, **GROUPS) for seed in (1, 2)] + [trained(tmp_path, "Pop", **GROUPS)]
    drawn = report(folders)
    assert [picture.name for picture in drawn.pictures] == ["training", "results", "lengths"]
    training, results, lengths = drawn.pictures
    assert [axis.get_title() for axis in training.figure.axes] == ["validation ndcg@10 (circle: best epoch)"]
    measured = [json.loads((folder / "result.json").read_text()) for folder in folders]
    recall = next(axis for axis in results.figure.axes if axis.get_title() == "recall@10")
    assert [label.get_text() for label in recall.get_yticklabels()] == ["all targets", *GROUPS["eval_groups"]]
    sasrec = next(bars for bars in recall.containers if bars.get_label() == "SASRec" and len(bars) == 4)
    new = [result["groups"]["new"]["test"]["recall@10"] for result in measured[:2]]
    assert sasrec[2].get_width() == pytest.approx(np.mean(new))
    assert "mean and standard deviation over seeds 1, 2" in results.sentences[0]
    panels = {axis.get_title(): axis for axis in lengths.figure.axes}
    assert len(panels) == 4 * 2
    assert "seeds 1, 2" in lengths.figure.get_supxlabel().replace("\n", " ")
    line = next(bar.lines[0] for bar in panels["ndcg, new"].containers if bar.get_label() == "Pop")
    assert line.get_ydata().tolist() == [measured[2]["groups"]["new"]["test"][f"ndcg@{k}"] for k in (1, 5, 10)]
    assert {text.get_text() for text in lengths.figure.legends[0].texts} == {"SASRec", "Pop"}


def test_influence_of_a_key_is_drawn_for_runs_that_differ_only_in_it(tmp_path: Path) -> None:
    folders = [
        trained(tmp_path, hidden_dropout_prob=value, attn_dropout_prob=other, epochs=1)
        for value, other in ((0.0, 0.5), (0.5, 0.5), (0.1, 0.5), (0.1, 0.2))
    ]
    pictures = {picture.name: picture for picture in report(folders).pictures}
    assert "influence-attn_dropout_prob" not in pictures  # two values are too few for a curve
    influence = pictures["influence-hidden_dropout_prob"]
    values = [json.loads((folders[i] / "result.json").read_text())["test"]["ndcg@10"] for i in (0, 2, 1)]
    (axis,) = (axis for axis in influence.figure.axes if axis.get_title() == "ndcg@10, all targets")
    (line,) = axis.containers
    assert line.lines[0].get_ydata().tolist() == values
    assert [label.get_text() for label in axis.get_xticklabels()] == ["0", "0.1", "0.5"]
    assert f"highest at hidden_dropout_prob = {[0, 0.1, 0.5][int(np.argmax(values))]:g}" in influence.sentences[0]
    labels = {text.get_text() for text in pictures["results"].figure.legends[0].texts}
    assert "SASRec attn_dropout_prob=0.2 hidden_dropout_prob=0.1" in labels


def test_dollars_in_names_are_drawn_as_they_are(tmp_path: Path) -> None:
    folders = []
    for name in ("a$", "b$\\frac$"):
        folders.append(trained(tmp_path, "Pop", run_dir=str(tmp_path / name)))
        result = json.loads((folders[-1] / "result.json").read_text())
        (folders[-1] / "result.json").write_text(json.dumps(result | {"label": name, "seed": len(folders)}))
    for picture in report(folders).pictures:
        picture.figure.savefig(tmp_path / "picture.svg")
        assert not any(text.get_parse_math() for text in picture.figure.findobj(Text))


# --- files and mistakes ----------------------------------------------------------------------------------------------


def test_command_writes_a_page_and_pictures(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    folder = trained(tmp_path, "SyNCRec", "A+B", **SYNCREC)
    capsys.readouterr()
    assert main(["report", str(folder), f"--output={tmp_path / 'pictures'}"]) == 0
    *_, page, transfer, training, results = capsys.readouterr().out.split("\n")[:-1]
    assert [Path(path).name for path in (page, transfer, training, results)] == [
        "report.html", "transfer.png", "training.png", "results.png",
    ]  # fmt: skip
    text = Path(page).read_text()
    assert text.count("<svg") == 3 and "hurt" in text
    for part in text.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + part[: part.index("</svg>") + 6])
    for path in (transfer, training, results):
        with Image.open(path) as picture:
            assert picture.width > 400 and len(picture.convert("L").getcolors()) > 5


def test_notes_on_missing_files(tmp_path: Path) -> None:
    folder = trained(tmp_path)
    (folder / RunFolder.EPOCHS).rename(tmp_path / "kept.json")
    drawn = report([folder])
    assert [picture.name for picture in drawn.pictures] == ["results"]
    assert drawn.notes == [f"{folder} has no epochs.json, so its training cannot be drawn. Train it again."]
    (folder / RunFolder.RESULT).unlink()
    with pytest.raises(XferError, match=r"nothing to draw. .* is not finished. .* has no epochs.json"):
        report([folder])
    (tmp_path / "kept.json").rename(folder / RunFolder.EPOCHS)
    drawn = report([folder])  # interrupted
    assert [picture.name for picture in drawn.pictures] == ["training"]
    assert drawn.notes == [f"{folder} is not finished. Run its command again to resume it."]


def test_invalid_folders_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(XferError, match="nowhere is not the folder of a run"):
        report([tmp_path / "nowhere"])
    folders = [trained(tmp_path), trained(tmp_path, mask_history=True)]
    with pytest.raises(XferError, match="cannot be compared"):
        report(folders)
    (folders[0] / RunFolder.EPOCHS).write_text('[{"epoch": 0', encoding="utf-8")
    with pytest.raises(XferError, match=r"epochs.json is damaged"):
        report(folders[:1])
