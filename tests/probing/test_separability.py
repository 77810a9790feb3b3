"""Separability: planted distributions, vectors of runs, and the files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recbole_xfer.cli.main import main
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.data.vectors import write_vectors
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import build, fit
from recbole_xfer.probing.probes import PROBES, accuracy
from recbole_xfer.probing.separability import Separability, read_separability, separability
from recbole_xfer.probing.vectors import Sampler, draw_histories, read_domains
from recbole_xfer.quick_start import pretrain, run
from recbole_xfer.report.separability import heat_map
from recbole_xfer.testing.data import config, paths, settings
from recbole_xfer.testing.isolation import isolate


def write_planted(root: Path, name: str, shift: float, seed: int) -> None:
    """Writes a domain whose texts are drawn about a shift; prices have one distribution in all domains."""
    rng = np.random.default_rng(seed)
    users, items = 60, 80
    user = np.repeat(np.arange(users), 8)
    ids = np.array([f"i{number}" for number in range(items)])
    table = pd.DataFrame({"user_id": [f"u{number}" for number in user], "item_id": rng.permutation(np.tile(ids, 6))})
    table["timestamp"] = rng.permutation(len(table)).astype(float)
    write_domain(root, name, table, pd.DataFrame({"item_id": ids, "text": "words", "price": rng.uniform(1, 9, items)}))
    path = root / name / f"{name}.text.parquet"
    write_vectors(
        path, ids, rng.normal(size=(items, 8)).astype(np.float32) + np.float32(shift), encoder="test", source="random"
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with two domains of one distribution, and one with other texts."""
    folder = tmp_path_factory.mktemp("separability")
    for seed, (name, shift) in enumerate({"A": 0, "B": 0, "C": 4}.items()):
        write_planted(folder, name, shift, seed)
    with pytest.MonkeyPatch.context() as monkeypatch:
        isolate(folder, monkeypatch)
        yield folder


@pytest.fixture(scope="module")
def measured(root: Path) -> Separability:
    return separability(["A", "B", "C"], overrides=paths(root))


@pytest.fixture
def only_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the slower probe."""
    monkeypatch.setattr("recbole_xfer.probing.separability.PROBES", {"linear": PROBES["linear"]})


@pytest.mark.parametrize("probe", PROBES)
def test_equal_distributions_are_guessed_and_shifted_ones_are_not(probe: str) -> None:
    rng = np.random.default_rng(0)
    a, b, c = rng.normal(size=(200, 4)), rng.normal(size=(300, 4)), rng.normal(size=(300, 4)) + 4
    same, other = accuracy(a, b, probe, 0), accuracy(a, c, probe, 0)
    assert same and same.rows == 200 and abs(same.mean - 0.5) < 0.1 and same.guessing
    assert other and other.mean > 0.98 and not other.guessing
    assert accuracy(a[:19], b, probe, 0) is None


def test_only_the_probe_with_a_hidden_layer_finds_a_circle() -> None:
    rng = np.random.default_rng(0)
    inside = rng.normal(size=(800, 2))
    around = 4 * inside / np.linalg.norm(inside, axis=1, keepdims=True)
    linear, hidden = (accuracy(0.3 * inside, around, probe, 0) for probe in PROBES)
    assert linear and hidden and linear.mean < 0.65 and hidden.mean > 0.95


def test_planted_domains(measured: Separability) -> None:
    assert list(measured.accuracies) == ["text", "price"]
    text, price = measured.accuracies.values()
    for probe in PROBES:
        assert text["A", "C"][probe].mean > 0.95 and text["B", "C"][probe].mean > 0.95
        assert all(abs(one[probe].mean - 0.5) < 0.15 for one in (text["A", "B"], *price.values()))
    assert measured.sentence("text").startswith("text: A and B (0.")
    assert measured.sentence("text").endswith(") cannot be distinguished; the other pairs can.")
    assert measured.sentence("price").endswith("cannot be distinguished.") and "other" not in measured.sentence("price")
    assert measured.title() == "Separability of A, B and C"
    assert "at most 2,000; seed 2020" in measured.caption()


def test_the_table_and_the_heat_maps_have_the_accuracies(measured: Separability) -> None:
    layout = measured.layout()
    assert layout.columns == ["linear", "MLP", "of each"]
    pairs = ["A and B", "A and C", "B and C"]
    assert [line.names for line in layout.lines] == [
        [kind if number == 0 else "", pair] for kind in ("text", "price") for number, pair in enumerate(pairs)
    ]
    found = measured.accuracies["text"]["A", "C"]
    assert [entry.text for entry in layout.lines[1].entries] == [found["linear"].text(), found["MLP"].text(), "80"]
    drawn = heat_map(measured, "text", "linear")
    assert np.isnan(np.diag(drawn.values)).all() and drawn.bounds == (0.5, 1)
    assert drawn.values[0, 2] == drawn.values[2, 0] == measured.accuracies["text"]["A", "C"]["linear"].mean


def test_the_command_repeats_the_numbers_and_writes_files(
    root: Path, measured: Separability, capsys: pytest.CaptureFixture, tmp_path: Path
) -> None:
    own = [f"{key}={value}" for key, value in paths(root).items()]
    options = ["--features", "text", f"--json={tmp_path / 'found.json'}", f"--output={tmp_path}", "--items=50"]
    assert main(["separability", "A", "C", *options, *(f"--{key}" for key in own)]) == 0
    printed = capsys.readouterr().out
    assert "Separability of A and C" in printed and "text: A and C (1.000 ±.000) can be distinguished." in printed
    (first, _) = json.loads((tmp_path / "found.json").read_text())["accuracies"]
    assert (first["vectors"], first["pair"], first["probe"], first["rows"]) == ("text", ["A", "C"], "linear", 50)
    assert {path.name for path in tmp_path.glob("separability.*")} == {
        f"separability.{s}" for s in ("html", "png", "pdf")
    }
    read = read_separability(tmp_path / "found.json")
    assert read.as_dict() == json.loads((tmp_path / "found.json").read_text())
    (tmp_path / "found.json").write_text('{"groups": ["A", "C"]}')
    with pytest.raises(XferError, match=r"found.json cannot be read \(.*accuracies.*\). Write it again"):
        read_separability(tmp_path / "found.json")
    again = separability(["A", "C"], ["text"], overrides=paths(root))
    assert again.accuracies["text"]["A", "C"] == measured.accuracies["text"]["A", "C"]


def test_histories_have_one_length_and_each_user_is_in_one_group(root: Path) -> None:
    dataset = read_domains(["A", "C"], paths(root))
    drawn = draw_histories(dataset, ["A", "C"], 0.2, Sampler(limit=25, seed=0))
    users = [set(part.users.tolist()) for part in drawn.values()]
    assert [len(part) for part in users] == [25, 25] and not users[0] & users[1]
    for number, part in enumerate(drawn.values()):
        assert set(np.diff(part.offsets)) == {8}
        assert (dataset.item_domain[part.items] == number).all()
    whole = {
        int(user): items for user, items in zip(dataset.sequences.users, np.split(*split_of(dataset)), strict=True)
    }
    for user, items in zip(drawn["A"].users, drawn["A"].items.reshape(-1, 8), strict=True):
        assert [item for item in whole[int(user)] if dataset.item_domain[item] == 0][-8:] == items.tolist()


def split_of(dataset: TransferDataset) -> tuple[np.ndarray, np.ndarray]:
    return dataset.sequences.items, dataset.sequences.offsets[1:-1]


def test_an_inductive_run_is_probed_on_any_domains(root: Path, only_linear: None) -> None:
    """Its items and users, and ANT's embedding of each modality, as in Figure 2 of the paper."""
    keys = {**settings(root, "ANT"), "modalities": ["text"], "epochs": 1, "pretrain_epochs": 1}
    folder = pretrain("ANT", "A+B", overrides=keys)
    found = separability(["A", "C"], run=folder)
    assert list(found.accuracies) == ["text", "ANT items", "ANT text", "ANT users"]
    assert found.accuracies["ANT items"]["A", "C"]["linear"].mean > 0.9
    assert found.accuracies["ANT users"]["A", "C"]["linear"].mean > 0.9


def test_recguru_is_asked_what_its_critic_is_asked(root: Path, only_linear: None) -> None:
    experiment = build(config(root, "RecGURU", "A+C", autoencoder_epochs=1, adversarial_epochs=1, epochs=1))
    fit(experiment)
    experiment.folder.finish({"model": "RecGURU"})
    found = separability(run=experiment.folder.path)
    assert list(found.accuracies) == ["RecGURU items", "RecGURU users", "RecGURU representations"]
    assert set(found.accuracies["RecGURU representations"]) == {("A", "C")}
    with pytest.raises(XferError, match=r"was trained on A\+C and knows no item of B. Name domains of the run"):
        separability(["A", "B"], run=experiment.folder.path)


def test_head_and_tail_users_of_a_run_on_one_domain(root: Path, only_linear: None) -> None:
    """Histories are cut to one length, so that positions do not tell head users."""
    write_long_tail(root)
    result = run("SASRec", "Tail", overrides={**settings(root, "SASRec"), "epochs": 1, "head_share": 0.5})
    found = separability(run=result.folder)
    assert list(found.groups) == ["head users", "tail users"] and list(found.accuracies) == ["SASRec users"]
    (probes,) = found.accuracies["SASRec users"].values()
    assert all(abs(one.mean - 0.5) < 0.2 for one in probes.values())


def test_a_run_of_few_users_is_not_probed(root: Path) -> None:
    write_long_tail(root, users=20)
    result = run("SASRec", "Tail", overrides={**settings(root, "SASRec"), "epochs": 1})
    with pytest.raises(XferError, match="has fewer than 20 users of each of head users, tail users. Use more data."):
        separability(run=result.folder)


def write_long_tail(root: Path, users: int = 100) -> None:
    """Writes a domain of users with 4 or 8 random items."""
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(users), np.tile([4, 8], users // 2))
    table = pd.DataFrame(
        {"user_id": [f"u{n}" for n in user], "item_id": [f"i{n}" for n in rng.integers(0, 20, len(user))]}
    )
    items = pd.DataFrame({"item_id": [f"i{number}" for number in range(20)]})
    write_domain(root, "Tail", table.assign(timestamp=np.arange(len(user), dtype=float)), items)


@pytest.mark.parametrize(
    ("domains", "keys", "message"),
    [
        (["A"], {}, "Separability needs at least two domains, such as Food Home, or a run"),
        (["A", "A"], {}, "A domain occurs twice in A A. Name each once."),
        (["A", "Nowhere"], {}, "Nowhere"),
        (["A", "B"], {"modalities": ["image"]}, "no image"),
        (["A", "B"], {"modalities": ["text"], "item_inter_num_interval": "[900,inf)"}, "removes all|no interactions"),
    ],
)
def test_mistakes(root: Path, domains: list[str], keys: dict, message: str) -> None:
    with pytest.raises(XferError, match=message):
        separability(domains, overrides={**paths(root), **keys})


def test_a_model_without_histories_has_no_states(root: Path) -> None:
    result = run("Pop", "A+B", overrides={**settings(root, "Pop"), "epochs": 1})
    with pytest.raises(
        XferError, match="is a run of Pop, which reads no histories. Choose a run of a sequential model."
    ):
        separability(run=result.folder)
