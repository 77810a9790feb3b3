"""Several processes compute what one does: gradients, metrics, files and errors."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recbole_xfer import processes
from recbole_xfer.cli.main import main
from recbole_xfer.collectives import add_gradients, total
from recbole_xfer.data.batches import HISTORIES
from recbole_xfer.errors import Lost, XferError
from recbole_xfer.experiment import Experiment, build
from recbole_xfer.processes import NAMES, is_first, number
from recbole_xfer.testing.data import SIZES, SMALL, config, write_joined, write_small
from recbole_xfer.trainer.recguru import ADVERSARIAL, AUTOENCODER, RecGURUTrainer
from recbole_xfer.trainer.run_folder import RunFolder
from recbole_xfer.trainer.trainer import XferTrainer
from tests.helpers.together import together
from tests.model.test_unisrec import write_word_drop

NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
SAMPLED = {"negatives": "sampled", "n_negatives": 20, "learner": "sparse_adam"}
POPULAR = {"distribution": "popularity", "alpha": 0.75}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "ANT": ("ANT", "Small", {"projection_dropout": 0.0}),
    "ANT, chunked": ("ANT", "Small", {"projection_dropout": 0.0, "catalogue_chunk": 10}),
    "ANT, in batch": ("ANT", "Small", {"projection_dropout": 0.0, "negatives": "in_batch"}),
    "ANT, content start": (
        "ANT",
        "Small",
        {"projection_dropout": 0.0, "content_start": True, "negatives": "in_batch"},
    ),
    "ANT, sampled": ("ANT", "Small", {"projection_dropout": 0.0, "item_embedding": True, **SAMPLED}),
    "UniSRec": ("UniSRec", "Small", {"projection_dropout": 0.0, "negatives": "in_batch", "contrast_weight": 0.5}),
    "UniSRec, words": ("UniSRec", "Words", {"projection_dropout": 0.0, "contrast_weight": 0.5, "word_drop_share": 0.5}),
    "XSASRec": ("XSASRec", "Small", {"projection_dropout": 0.0}),
    "XRETR": ("XRETR", "Small", {"projection_dropout": 0.0}),
    "XLightSANs": ("XLightSANs", "Small", {"projection_dropout": 0.0, "train_rows": "prefixes", "k_interests": 3}),
    "CARCA": ("CARCA", "Small", {}),
    "CARCA, sampled": ("CARCA", "Small", {"loss_type": "CE", **SAMPLED, "learner": "adam"}),
    "NOVA": ("NOVA", "Small", {}),
    "VQRec": ("VQRec", "Small", {"negatives": "in_batch", "random_codes": 0.5}),
    "RETR": ("RETR", "Small", {"loss_type": "BPR"}),
    "RETR, all items": ("RETR", "Small", {"loss_type": "CE", "pathway_route": "random"}),
    "RETR, sampled": ("RETR", "Small", {"loss_type": "CE", **SAMPLED}),
    "PathwayBERT4Rec": ("PathwayBERT4Rec", "Small", {}),
    "PathwayLightSANs": ("PathwayLightSANs", "Small", {"k_interests": 3}),
    "SyNCRec": ("SyNCRec", "A+B+C", {"harmonic_factor": 0.5}),
    "RecGURU": ("RecGURU", "A+B", {"user_batch_size": 8}),
    "RecGURU, popular": ("RecGURU", "A+B", {"user_batch_size": 8, "train_neg_sample_args": POPULAR}),
    "RecGURU, whole windows": ("RecGURU", "A+B", {"representation": "window", "reconstruction_negatives": None}),
    "TPSASRec": ("TPSASRec", "Small", {"paths": 5}),
    "TPGRU4Rec": ("TPGRU4Rec", "Small", {"paths": 5, "dropout_prob": 0.0, "num_layers": 1}),
    "TPCaser": ("TPCaser", "Small", {"paths": 5, "dropout_prob": 0.0}),
    "TPCORE": ("TPCORE", "Small", {"paths": 3, "sess_dropout": 0.0, "item_dropout": 0.0, **NO_DROPOUT}),
}
"""The model, the data and the keys of each case."""

Gradients = dict[str, dict[str, tuple[float, dict[str, torch.Tensor]]]]
"""For each case and step the loss and the gradients of the parameters."""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the data of all cases."""
    root = tmp_path_factory.mktemp("processes")
    write_small(root)
    write_small(root, "Words")
    write_word_drop(root, "Words")
    write_joined(root, "ABC")
    return root


@pytest.fixture(scope="module")
def gradients(root: Path) -> tuple[Gradients, Gradients]:
    """The gradients of all cases by one process, and those that two processes add up."""
    assert together(save_gradients, root, root / "two.pt") == [0, 0]
    return all_gradients(root), torch.load(root / "two.pt")


def save_gradients(root: Path, file: Path) -> None:
    found = all_gradients(root)
    if is_first():
        torch.save(found, file)


def all_gradients(root: Path) -> Gradients:
    torch.set_num_threads(1)
    found: Gradients = {}
    for name, (model, dataset, keys) in CASES.items():
        known = {**(NO_DROPOUT if not model.startswith("TP") or model == "TPSASRec" else {}), **keys}
        found[name], experiment = {}, build(config(root, model, dataset, **known))
        fewest = {"train_batch_size": 1, "user_batch_size": 1, "paths": 1}
        few = experiment.config.replace(**{key: value for key, value in fewest.items() if key in experiment.config})
        for size, made in (("", experiment), (", fewest rows", replace(experiment, config=few))):
            for index, loss in enumerate(losses(made)):
                made.model.zero_grad()
                loss.backward()
                add_gradients(list(made.model.parameters()))
                grads = {n: p.grad.to_dense().clone() for n, p in made.model.named_parameters() if p.grad is not None}
                found[name][f"loss {index}{size}"] = float(total(loss)), grads
    return found


def losses(experiment: Experiment) -> Iterator[torch.Tensor]:
    """The losses of the first step of each phase."""
    model: Any = experiment.model.train()
    trainer = experiment.trainer
    for phase in trainer.phases if isinstance(trainer, RecGURUTrainer) else [None]:
        if isinstance(trainer, RecGURUTrainer):
            trainer._begin(phase)
        random.seed(0)
        np.random.seed(0)
        torch.manual_seed(0)
        batch = next(iter(trainer.train_loader(experiment.train_data)))
        if phase == AUTOENCODER:
            yield sum(model.autoencoder_losses(batch).values())
        elif phase == ADVERSARIAL:
            yield model.critic_losses(*model.guru.represent_domains(batch[HISTORIES]))["critic loss"]
            yield sum(model.encoder_losses(batch).values())
        else:
            loss = model.calculate_loss(batch)
            yield sum(loss) if isinstance(loss, tuple) else loss


@pytest.mark.parametrize("name", CASES)
def test_two_processes_add_up_to_the_gradient_of_one(name: str, gradients: tuple[Gradients, Gradients]) -> None:
    one, two = (made[name] for made in gradients)
    assert one.keys() == two.keys()
    for step, (loss, grads) in one.items():
        assert two[step][0] == pytest.approx(loss, rel=1e-5), step
        assert two[step][1].keys() == grads.keys(), step
        for parameter, gradient in grads.items():
            torch.testing.assert_close(
                two[step][1][parameter], gradient, rtol=1e-3, atol=1e-6, msg=f"{step}: {parameter}"
            )


def sparse_gradients() -> int:
    """Whether gradients of the rows that each process reads are added up, also where a process reads none."""
    tables = [torch.nn.Embedding(5, 2, sparse=True) for _ in range(2)]
    read = torch.tensor([1, 2]) if is_first() else torch.tensor([2, 4, 4])
    tables[0](read).sum().backward()
    if is_first():
        tables[1](torch.tensor([3])).sum().backward()
    add_gradients([table.weight for table in tables])
    found = [table.weight.grad.to_dense()[:, 0].tolist() for table in tables]
    return found != [[0, 1, 2, 0, 2], [0, 0, 0, 1, 0]]


def test_two_processes_add_up_sparse_gradients() -> None:
    assert together(sparse_gradients) == [0, 0]


# --- whole runs ------------------------------------------------------------------------------------------------------


def command(root: Path, model: str, dataset: str, *others: str) -> list[str]:
    """The command line of a small run without dropout."""
    known = config(root, model, dataset)
    keys = {**SMALL, **SIZES, **NO_DROPOUT, "projection_dropout": 0.0, "data_path": root}
    return ["run", f"--model={model}", f"--dataset={dataset}", *others] + [
        f"--{key}={json.dumps(str(value) if isinstance(value, Path) else value)}"
        for key, value in keys.items()
        if key in known and not any(other.startswith(f"--{key}=") for other in others)
    ]


def call(arguments: list[str], killed: bool = False) -> int:
    """Runs a command in this process, whose output goes to files; the second process dies in the third epoch."""
    sys.stdout, sys.stderr = (open(f"{name}{number()}.txt", "w", encoding="utf-8") for name in ("out", "err"))  # noqa: SIM115
    if killed and number() == 1:
        original = XferTrainer._set_learning_rate

        def dies(self: Any, epoch: int) -> None:
            original(self, epoch)
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        XferTrainer._set_learning_rate = dies
    code = main(arguments)
    sys.stderr.flush()
    return code


def results(folder: str) -> dict[str, Any]:
    """What a run measured."""
    result = RunFolder(folder).result()
    assert result is not None
    return {key: value for key, value in result.items() if key not in ("seconds", "folder", "valid_score")}


@pytest.mark.parametrize(
    ("model", "dataset", "others"),
    [
        ("UniSRec", "Small", ["--source=Words", "--adaptation=finetune", "--pretrain_epochs=2"]),
        ("UniSRec", "Small", ["--source=Words", "--adaptation=auto", "--pretrain_epochs=1", "--epochs=1"]),
        ("RecGURU", "A+B", ["--autoencoder_epochs=1", "--adversarial_epochs=1", "--epochs=1", "--user_batch_size=32"]),
    ],
)
def test_two_processes_measure_what_one_does(root: Path, model: str, dataset: str, others: list[str]) -> None:
    arguments = command(root, model, dataset, *others)
    assert main([*arguments, "--run_dir=one", "--checkpoint_dir=saved1"]) == 0
    assert together(call, [*arguments, "--run_dir=two", "--checkpoint_dir=saved2"]) == [0, 0]
    assert results("two") == results("one")
    for one, two in zip(RunFolder("one").epochs(), RunFolder("two").epochs(), strict=True):
        assert two["train"] == pytest.approx(one["train"], rel=1e-4)
    assert "ndcg@10" in Path("out0.txt").read_text()
    assert Path("out1.txt").read_text() == Path("err1.txt").read_text() == ""


def test_a_run_whose_process_died_resumes_with_another_number_of_processes(root: Path) -> None:
    arguments = command(root, "RETR", "Small", "--loss_type=BPR", "--epochs=4")
    assert main([*arguments, "--run_dir=one"]) == 0
    first, second = together(call, [*arguments, "--run_dir=two"], True)
    assert first == 2 and second == -signal.SIGKILL
    [sentence] = [line for line in Path("err0.txt").read_text().splitlines() if line.startswith("error")]
    assert sentence == "error: Another process of this run has ended. Run the same command again to resume."
    assert "Traceback" not in Path("err0.txt").read_text()
    assert RunFolder("two").is_interrupted
    assert main([*arguments, "--run_dir=two"]) == 0
    assert results("two") == results("one")


def test_two_processes_refit_and_update_as_one_does(root: Path) -> None:
    assert main([*command(root, "RETR", "Small", "--loss_type=BPR", "--epochs=1"), "--run_dir=run"]) == 0
    for verb, folder in (("refit", "run"), ("update", "refit1")):
        assert main([verb, folder, f"--output={verb}1", "--epochs=1"]) == 0
        assert together(call, [verb, folder, f"--output={verb}2", "--epochs=1"]) == [0, 0]
        one, two = (RunFolder(f"{verb}{count}").weights() for count in (1, 2))
        assert one.keys() == two.keys()
        assert all(torch.allclose(two[name], value, rtol=1e-3, atol=1e-5) for name, value in one.items())


def test_processes_of_ray_measure_what_one_does(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = command(root, "RETR", "Small", "--loss_type=BPR")
    assert main([*arguments, "--run_dir=one"]) == 0
    capsys.readouterr()
    assert main([*arguments, "--run_dir=two", "--ray_workers=2"]) == 0
    printed = capsys.readouterr()
    assert results("two") == results("one")
    assert "ndcg@10" in printed.out and printed.err.startswith("Training RETR on Small")
    assert not list(Path().glob(".ray*"))


def test_dropout_of_a_resumed_run_is_that_of_an_uninterrupted_one(root: Path) -> None:
    arguments = command(root, "RETR", "Small", "--loss_type=BPR", "--epochs=4", "--hidden_dropout_prob=0.5")
    assert together(call, [*arguments, "--run_dir=one"]) == [0, 0]
    assert together(call, [*arguments, "--run_dir=two"], True)[0] == 2
    assert together(call, [*arguments, "--run_dir=two"]) == [0, 0]
    assert results("two") == results("one")
    weights = RunFolder("one").weights()
    assert all(torch.equal(value, weights[name]) for name, value in RunFolder("two").weights().items())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model=SASRec"], "SASRec is trained in one process. Start it without torchrun, or choose a model"),
        (["--model=RETR", "--topk=[99]"], "topk=[99] exceeds the 25 items of Small."),
    ],
)
def test_an_error_of_all_processes_is_one_sentence(
    root: Path, words: list[str], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE", 0)
    assert together(call, ["run", "--dataset=Small", f"--data_path={root}", *words]) == [2, 2]
    assert Path("err0.txt").read_text().startswith(f"error: {sentence}")


def test_commands_for_one_process_say_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in zip(NAMES, ("0", "2", "localhost", "1"), strict=True):
        monkeypatch.setenv(name, value)
    assert main(["recommend", "saved", "--output=recs.csv"]) == 2
    assert capsys.readouterr().err == "error: recommend runs in one process. Start it without torchrun.\n"


@pytest.mark.parametrize(
    ("gpus", "place", "own"),
    [("0", 0, "0"), ("0", 1, "1"), ("2,3", 1, "3"), ((4, 5), 0, "4"), ("", 1, ""), (-1, 1, "-1")],
)
def test_each_process_has_a_gpu_of_its_own(gpus: Any, place: int, own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", str(place))
    assert processes.own_gpu(gpus) == own


def test_fewer_gpus_than_processes_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(XferError, match="gpu_id=2,3 lists 2 GPUs, fewer than the processes. List one for each."):
        processes.own_gpu("2,3")


@pytest.mark.parametrize(
    ("failures", "sentence"),
    [
        ({0: Lost(), 1: XferError("The file x does not exist.")}, "The file x does not exist."),
        ({1: RuntimeError("The actor died.")}, str(Lost())),
    ],
)
def test_an_error_of_rays_processes_is_a_sentence(failures: dict[int, Exception], sentence: str) -> None:
    from ray.train.v2.api.exceptions import WorkerGroupError

    from recbole_xfer.workers import explained

    assert str(explained(WorkerGroupError("many lines", failures))) == sentence


def test_why_processes_of_ray_cannot_be_connected() -> None:
    from recbole_xfer.workers import explained

    error = RuntimeError("ray::execute()\n  File torch.py\nRuntimeError: Gloo timed out connecting\n")
    assert str(explained(error, started=False)) == (
        "The processes cannot be connected: RuntimeError: Gloo timed out connecting. Can the machines reach each other?"
    )


def test_a_number_of_workers_is_at_least_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--ray_workers=0"]) == 2
    expected = "error: Argument --ray_workers: 0 is invalid: it must be an integer of at least 1."
    assert capsys.readouterr().err.startswith(expected)
