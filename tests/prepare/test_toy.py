"""The toy data set: the content of its files, and its known answer."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from recbole_xfer.data.atomic import read_atomic_file
from recbole_xfer.data.vectors import find_vectors, read_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.prepare.summary import describe
from recbole_xfer.prepare.toy import COLD, DOMAINS, FOLLOWED, HOLES, ITEMS, NOISE, PARTS, prepare_toy, toy_truth


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("toy")
    assert [folder.name for folder in prepare_toy(output)] == list(DOMAINS)
    return output


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def locks(folder: Path) -> dict[str, bytes]:
    return {path.name: b"" for path in folder.glob(".*.lock")}


def users(output: Path, name: str) -> set[str]:
    return set(read_atomic_file(output / name / f"{name}.inter")["user_id"])


KNOWN_BEST = [[0.645, 0.336], [0.107, 0.054], [0.398, 0.18], [0.388, 0.176], [0.015, 0.008]]
"""Recall@10 and NDCG@10 on Toy-Games: all parts, without text, without picture, without price, popularity only."""


class TestFiles:
    def test_equal_seeds_give_equal_files_also_over_older_files(self, toy: Path, tmp_path: Path) -> None:
        prepare_toy(tmp_path, seed=1)
        other = contents(tmp_path)
        prepare_toy(tmp_path)
        assert contents(tmp_path) == contents(toy) | locks(tmp_path)
        assert other["Toy-Games/Toy-Games.inter"] != contents(toy)["Toy-Games/Toy-Games.inter"]

    def test_pictures_of_the_user_are_kept(self, toy: Path, tmp_path: Path) -> None:
        own = tmp_path / "Toy-Games" / "images" / "holiday.png"
        own.parent.mkdir(parents=True)
        Image.new("RGB", (30, 20)).save(own)
        content = own.read_bytes()
        prepare_toy(tmp_path, seed=1)
        prepare_toy(tmp_path)
        assert contents(tmp_path) == contents(toy) | {"Toy-Games/images/holiday.png": content} | locks(tmp_path)

        named = own.replace(own.with_name("g001.png"))
        with pytest.raises(XferError, match=r"Toy-Games/images/g001.png is not a generated picture. Move it"):
            prepare_toy(tmp_path, seed=1)
        assert named.read_bytes() == content
        assert contents(tmp_path)["Toy-Games/Toy-Games.inter"] == contents(toy)["Toy-Games/Toy-Games.inter"]

    def test_three_at_once_and_one_killed_do_not_mix_seeds(self, toy: Path, tmp_path: Path) -> None:
        command = [sys.executable, "-m", "recbole_xfer", "prepare", "toy", f"--output={tmp_path}", "--seed"]
        prepare_toy(tmp_path)
        running = [subprocess.Popen([*command, seed], stdout=subprocess.DEVNULL) for seed in "111"]
        while not list(tmp_path.glob(".unfinished.*")) and running[0].poll() is None:
            time.sleep(0.01)
        running[0].kill()
        assert running[0].wait() != 1
        assert [process.wait(timeout=200) for process in running[1:]] == [0, 0]
        prepare_toy(tmp_path / "whole", seed=1)
        made = {name: content for name, content in contents(tmp_path).items() if not name.startswith("whole")}
        assert made == contents(tmp_path / "whole") | locks(tmp_path)

    def test_target_is_small_and_shares_two_fifths_of_its_users(self, toy: Path) -> None:
        summaries = [describe(toy / name) for name in DOMAINS]
        assert summaries[-1].interactions * 4 < min(summary.interactions for summary in summaries[:-1])
        games = users(toy, "Toy-Games")
        for source in ("Toy-Books", "Toy-Music"):
            assert len(games & users(toy, source)) == 0.4 * len(games)
        assert len(users(toy, "Toy-Books") & users(toy, "Toy-Music")) == 0.4 * len(users(toy, "Toy-Books"))

    @pytest.mark.parametrize("name", DOMAINS)
    def test_missing_parts_are_those_of_the_truth(self, toy: Path, name: str) -> None:
        truth = toy_truth(name)
        items = read_atomic_file(toy / name / f"{name}.item")
        tokens = np.concatenate([["[PAD]"], truth.item_ids])
        assert items["item_id"].tolist() == truth.item_ids.tolist()
        assert (items["text"].notna() == truth.visible[:, 0]).all()
        assert (items["price"].notna() == truth.visible[:, 2]).all()
        for part, modality in enumerate(("text", "image")):
            path = find_vectors(toy / name, name, modality)
            assert path is not None
            assert (read_vectors(path, tokens).present[1:] == truth.visible[:, part]).all()
        share = 1 - truth.visible.mean(axis=0)
        assert share == pytest.approx(list(HOLES.values()), abs=0.025)

    def test_image_vectors_are_the_pictures(self, toy: Path) -> None:
        folder = toy / "Toy-Games"
        pictures = {path.stem: np.asarray(Image.open(path)) for path in (folder / "images").iterdir()}
        table = read_vectors(folder / "Toy-Games.image.parquet", np.array(["[PAD]", *pictures]))
        assert table.present[1:].all()
        np.testing.assert_allclose(table.values[1:] * 255, [p.ravel() for p in pictures.values()], atol=1e-4)

    def test_some_items_are_cold(self) -> None:
        truth = toy_truth()
        log = truth.interactions
        last = log.groupby("user_id").cumcount(ascending=False) == 0
        cold = set(truth.item_ids[truth.cold])
        assert not cold & set(log["item_id"][~last])
        assert log["item_id"][last].isin(cold).mean() == pytest.approx(COLD, abs=0.04)


class TestTruth:
    def test_histories_follow_the_rule(self) -> None:
        """Fraction of 6,500 steps that follow each part's rule; noise and chance follow it sometimes too."""
        truth = toy_truth("Toy-Books")
        log = truth.interactions.sort_values("user_id", kind="stable")
        item = pd.Index(truth.item_ids).get_indexer(log["item_id"])
        same = (log["user_id"].shift() == log["user_id"]).to_numpy()[1:]
        before, after = truth.classes[item[:-1]][same], truth.classes[item[1:]][same]
        for part, rule in enumerate(truth.rules):
            follows = rule[:-1, :-1].argmax(axis=1)
            expected = (1 - NOISE) * FOLLOWED + (1 - (1 - NOISE) * FOLLOWED) / len(follows)
            assert (follows[before[:, part]] == after[:, part]).mean() == pytest.approx(expected, abs=0.02)

    def test_all_domains_share_the_rule(self) -> None:
        for rules in zip(*(toy_truth(name).rules for name in DOMAINS), strict=True):
            assert (rules[0] == rules[1]).all()
            assert (rules[0] == rules[2]).all()

    @pytest.mark.parametrize("know", [PARTS, ("text",), ()])
    def test_oracle_gives_probabilities(self, know: tuple[str, ...]) -> None:
        truth = toy_truth()
        chances = truth.oracle([truth.item_ids[3], truth.item_ids[5]], know)
        assert chances.shape == (ITEMS,)
        assert chances.min() > 0
        assert chances.sum() == pytest.approx(1)
        np.testing.assert_array_equal(chances, truth.oracle([truth.item_ids[5]], know))

    def test_oracle_without_parts_is_popularity(self) -> None:
        truth = toy_truth()
        np.testing.assert_allclose(truth.oracle([truth.item_ids[0]], ()), truth.popularity)

    def test_known_best(self) -> None:
        """The upper bounds of models; each removed part costs more than a third."""
        truth = toy_truth()
        best = {know: truth.best(know) for know in (PARTS, PARTS[1:], ("text", "price"), ("text", "image"), ())}
        rounded = [[round(value, 3) for value in numbers.values()] for numbers in best.values()]
        assert rounded == KNOWN_BEST
        for know, numbers in best.items():
            if know != PARTS:
                assert numbers["recall"] < 0.66 * best[PARTS]["recall"]
                assert numbers["ndcg"] < 0.66 * best[PARTS]["ndcg"]

    def test_oracle_with_fewer_parts_is_worse(self) -> None:
        recalls = [toy_truth(seed=seed).best(know)["recall"] for seed in range(3) for know in (PARTS, PARTS[:2])]
        assert min(recalls[0::2]) > 0.55
        assert max(recalls[1::2]) < 0.45
