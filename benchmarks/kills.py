"""Kills runs at random moments, resumes them, and compares them with runs that were not killed.

    python -m benchmarks.kills --kills=300
    python -m benchmarks.kills --verbs study --kills=10 --times=10

Each kill ends a command (run, pretrain, adapt, compare, a study with workers, tune, encode texts, encode pictures,
prepare, refit, update, recommend, export) without warning, with all of its processes or alone; after --times kills the
same command runs to its end. It must leave the same files as a command that was never killed, with the same content
except times and paths, and no process.
Prints a line for each end and for each verb; exits with 1 after a difference. Needs Linux.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file

import recbole_xfer.quick_start  # noqa: F401  imported before commands are forked
from recbole_xfer.cli.main import main
from recbole_xfer.data.atomic import read_atomic_file
from recbole_xfer.log import logger

SIZES = ["--use_gpu=False", "--MAX_ITEM_LIST_LENGTH=10", "--hidden_size=16", "--inner_size=16", "--show_progress=False"]
ANT = ["--model=ANT", "--n_heads=2", "--n_layers=1", "--projection_heads=2", "--price_size=8", *SIZES]
SOURCE = "--source=Toy-Books+Toy-Music"
PLAN = "dataset: Toy-Games\nseeds: [1, 2]\nepochs: 2\nrows: [{model: Pop}, {model: SASRec, inner_size: 16}]\n"
STUDY = "datasets: [Toy-Games, Toy-Music]\nseeds: [1, 2]\nepochs: 2\nmask_history: [False, True]\nbaseline: Pop\n"
STUDY += "rows: [{model: Pop}, {model: SASRec, inner_size: 16}]\n"
ADAPTED = ["--dataset=Toy-Games", "--epochs=3"]

VERBS = {
    "run": ["run", "--model=RETR", "--dataset=Toy-Games", "--epochs=4", "--n_heads=2", *SIZES],
    "pretrain": ["pretrain", SOURCE, "--pretrain_epochs=3", *ANT],
    "adapt": ["run", SOURCE, "--adaptation=relearn", "--pretrain_epochs=2", *ADAPTED, *ANT],
    "compare": ["compare", "plan.yaml", "--use_gpu=False", "--MAX_ITEM_LIST_LENGTH=10", "--show_progress=False"],
    "study": ["compare", "study.yaml", "--workers=2", "--output=study", "--use_gpu=False", "--MAX_ITEM_LIST_LENGTH=10"],
    "tune": ["tune", "--model=RETR", "--dataset=Toy-Games", "--epochs=3", "--n_heads=2", "--space=space.yaml", *SIZES],
    "encode": ["encode", "--dataset=Toy-Games", "--modalities", "text", "--encoder=encoder", "--drop_words=0.2"],
    "pictures": ["encode", "--dataset=Toy-Games", "--modalities", "image", "--image_encoder=image_encoder"],
    "prepare": ["prepare", "toy"],
    "refit": ["refit", "finished", "--output=again"],
    "update": ["update", "live", "--output=updated", "--epochs=3"],
    "recommend": ["recommend", "finished", "--k=5", "--output=recs.csv"],
    "export": ["export", "live", "--output=serving"],
}
"""The command of each verb."""

TIMES = {"seconds", "folder", "file", "path"}
"""Keys of json files that differ between identical runs."""

NOT_COMPARED = re.compile(r"\.log$|(^|/)log_tensorboard(/|$)|^log(/|$)|(^|/)lock$")
"""Files that depend on the moments at which a command was killed."""

PATIENCE = 20
"""Seconds in which the processes of a killed command must end."""


@dataclass
class Report:
    """What the kills of one verb showed."""

    kills: int = 0
    ends: int = 0
    equal: int = 0
    left_over: list[str] = field(default_factory=list)
    processes: int = 0

    def line(self, verb: str) -> str:
        """A line of the table."""
        text = f"{verb:10} {self.kills:5} kills, {self.equal:5} of {self.ends} ends equal, "
        text += f"{len(self.left_over)} files left over, {self.processes} processes left over"
        return text + "".join(f"\n    {name}" for name in sorted(set(self.left_over))[:5])

    @property
    def good(self) -> bool:
        """Whether every end was equal and nothing was left over."""
        return self.equal == self.ends and not self.left_over and not self.processes


def set_up(folder: Path) -> None:
    """Writes the data, the plan, the space and the encoder that the commands read."""
    call(["prepare", "toy"], folder)
    (folder / "plan.yaml").write_text(PLAN, encoding="utf-8")
    (folder / "study.yaml").write_text(STUDY, encoding="utf-8")
    (folder / "space.yaml").write_text("learning_rate: [0.001, 0.01]\n", encoding="utf-8")
    write_encoder(folder / "encoder")
    write_image_encoder(folder / "image_encoder")
    write_pictures(folder / "dataset" / "Toy-Games")
    call([*VERBS["run"], "--run_dir=finished"], folder)
    call(["refit", "finished", "--output=live"], folder)


def write_image_encoder(folder: Path) -> None:
    """Writes a small model of timm with random weights."""
    import timm

    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model("test_efficientnet", num_classes=10), folder, safe_serialization=True)


def write_pictures(folder: Path) -> None:
    """Writes two random pictures for each item of a domain, and a damaged one for every tenth item."""
    from PIL import Image

    rng = np.random.default_rng(0)
    items = read_atomic_file(folder / f"{folder.name}.item", ["item_id"])["item_id"]
    for number, item in enumerate(items):
        (folder / "images" / item).mkdir(parents=True)
        for name in ("1.jpg", "2.png"):
            pixels = rng.integers(0, 256, (200, 150, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "images" / item / name)
        if number % 10 == 0:
            (folder / "images" / item / "3.jpg").write_bytes(b"no picture")


def write_encoder(folder: Path) -> None:
    """Writes a BERT of random weights for the words of Toy-Games, large enough that encoding lasts some seconds."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = (folder.parent / "dataset" / "Toy-Games" / "Toy-Games.item").read_text(encoding="utf-8").split()
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(["[PAD]", "[UNK]", *words]))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=16, **names).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128}
    config = BertConfig(vocab_size=len(vocabulary), max_position_embeddings=16, **sizes)
    BertModel(config).save_pretrained(folder)


def call(arguments: list[str], folder: Path) -> int:
    """Runs a command in a folder, in a process of its own; returns its status."""
    process = start(arguments, folder)
    process.join()
    return process.exitcode or 0


def start(arguments: list[str], folder: Path) -> Any:
    """Starts a command in a folder; a fork has imported everything already, so that kills meet its work."""
    process = multiprocessing.get_context("fork").Process(target=_command, args=(arguments, folder))
    process.start()
    return process


def _command(arguments: list[str], folder: Path) -> None:
    os.setsid()
    os.chdir(folder)
    torch.set_num_threads(1)
    with open("output.log", "a", encoding="utf-8") as output, redirect_stdout(output), redirect_stderr(output):
        logger.handlers.clear()
        sys.exit(main(arguments))


def contents(folder: Path) -> dict[str, str]:
    """A digest of each file below a folder, by its path; without times and paths."""
    return {
        name: digest_of(path)
        for path in sorted(folder.rglob("*"))
        if (path.is_file() or not any(path.iterdir()))
        and not NOT_COMPARED.search(name := path.relative_to(folder).as_posix())
    }


def digest_of(path: Path) -> str:
    """The digest of one file."""
    if path.is_dir():
        return "a folder"
    if path.suffix == ".safetensors":
        content = b"".join(name.encode() + value.numpy().tobytes() for name, value in sorted(load_file(path).items()))
    elif path.suffix == ".json":
        content = json.dumps(without_times(json.loads(path.read_text(encoding="utf-8")))).encode()
    else:
        content = path.read_bytes()
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def without_times(value: Any) -> Any:
    """A nested value without the keys that differ between identical runs."""
    if isinstance(value, Mapping):
        return {key: without_times(item) for key, item in value.items() if key not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def processes_in(folder: Path) -> Iterator[int]:
    """Yields the processes whose working directory is a folder."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if os.readlink(process / "cwd") == str(folder):
                yield int(process.name)


def end_processes(folder: Path) -> int:
    """Waits until no process works in a folder; kills and counts those that do not end."""
    deadline = time.time() + PATIENCE
    while (found := list(processes_in(folder))) and time.time() < deadline:
        time.sleep(0.2)
    for number in found:
        with suppress(OSError):
            os.kill(number, signal.SIGKILL)
    return len(found)


def kill_once(arguments: list[str], folder: Path, after: float, whole_group: bool) -> tuple[bool, int]:
    """Starts a command and kills it after some seconds.

    Returns:
        Whether it was still running, and the number of processes that outlived it.
    """
    process = start(arguments, folder)
    process.join(after)
    running = process.exitcode is None
    if running:
        with suppress(OSError):
            (os.killpg if whole_group else os.kill)(process.pid, signal.SIGKILL)
    process.join()
    return running, end_processes(folder)


def campaign(verbs: list[str], kills: int, seed: int, root: Path, times: int = 1) -> dict[str, Report]:
    """Kills and resumes commands of all verbs, one verb after another; each command ``times`` times before its end."""
    original, chance = root / "original", random.Random(seed)
    original.mkdir()
    set_up(original)
    expected, seconds = {}, {}
    reports = {verb: Report() for verb in verbs}
    for number in range(kills // times):
        verb = verbs[number % len(verbs)]
        if verb not in expected:
            folder = fresh(original, root / "work")
            started = time.time()
            if call(VERBS[verb], folder):
                raise SystemExit(f"{verb} failed:\n{(folder / 'output.log').read_text(encoding='utf-8')}")
            expected[verb], seconds[verb] = contents(folder), time.time() - started
        folder, report = fresh(original, root / "work"), reports[verb]
        moments = []
        for _ in range(times):
            after = chance.uniform(0, 2 * seconds[verb] / (times + 1))  # together, about as long as the command lasts
            running, left = kill_once(VERBS[verb], folder, after, chance.random() < 0.5)
            report.kills += running
            report.processes += left
            moments.append(f"{after:.1f}" if running else "its end")
        status = call(VERBS[verb], folder)
        report.processes += end_processes(folder)
        found = contents(folder)
        report.ends += 1
        left_over = [name for name in found if name not in expected[verb]]
        other = [name for name, digest in expected[verb].items() if found.get(name) != digest]
        report.left_over += left_over
        report.equal += status == 0 and not other
        problems = f"other files: {other}, left over: {left_over}" if other or left_over else "equal"
        killed = f"killed after {', '.join(moments)} of {seconds[verb]:.1f} s"
        print(f"{verb}, {killed}: status {status}, {problems}", flush=True)
    return reports


def fresh(original: Path, folder: Path) -> Path:
    """A copy of the original folder, in which a command can work; always at the same path."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(original, folder)
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=70, metavar="N", help="kills of all verbs together (default 70)")
    parser.add_argument(
        "--times", type=int, default=1, metavar="N", help="kills of one command before its end (default 1)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the moments (default 0)")
    parser.add_argument("--verbs", nargs="+", choices=VERBS, default=list(VERBS), metavar="VERB", help="default: all")
    options = parser.parse_args()
    torch.set_num_threads(1)  # a fork must not inherit threads
    with tempfile.TemporaryDirectory() as made:
        reports = campaign(options.verbs, options.kills, options.seed, Path(made).resolve(), options.times)
    for verb, report in reports.items():
        print(report.line(verb))
    raise SystemExit(not all(report.good for report in reports.values()))
