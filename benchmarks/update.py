"""Compares updating a model with training it anew and with keeping it, period by period, on a log cut by time.

    OMP_NUM_THREADS=1 python -m benchmarks.update --data_path=dataset --dataset=CJ-Deli --first=2017-08-06 --cuts=6

A model is trained and refitted on the interactions before ``--first``. At each of the following cuts, which are
``--days`` apart, it is kept (``kept``), updated from the cut before (``updated``), and trained from scratch on
everything before the cut, for the epochs that validation chose at the first cut (``anew``). Each then ranks all items
that it knows for the first interaction of each user in the week after the cut, given the user's interactions before the
cut. An item that a model does not know is a miss. Targets that nobody had interacted with before the cut are left out,
and users without history too.

Prints one line of json for each cut and way, with NDCG@10 and seconds of processor time, which on one thread and an
idle machine equal wall-clock time.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction

from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.atomic_writer import write_domain
from recbole_xfer.experiment import Experiment, build, load
from recbole_xfer.quick_start import refit, run, update
from recbole_xfer.serving.whole import train

WEEK = pd.Timedelta(days=7)
KEYS: dict[str, Any] = {
    "MAX_ITEM_LIST_LENGTH": 20, "train_batch_size": 256, "epochs": 60, "stopping_step": 5, "show_progress": False,
    "hidden_size": 64, "inner_size": 64, "n_layers": 2, "n_heads": 2, "topk": [10], "valid_metric": "NDCG@10",
    "state": "WARNING",
}  # fmt: skip
OF_MODEL: dict[str, dict[str, Any]] = {
    "RETR": {"pathway": False, "train_rows": "windows", "loss_type": "CE"},
    "ANT": {"item_embedding": True, "hidden_size": 256, "inner_size": 256, "train_batch_size": 512},
}
"""RETR without its pathway is SASRec."""


def read_log(folder: Path) -> pd.DataFrame:
    """The interactions of a domain in order of time: user, item, time."""
    table = pd.read_csv(folder / f"{folder.name}.inter", sep="\t", dtype=str).iloc[:, :3]
    table = table.set_axis(["user_id", "item_id", "timestamp"], axis=1)
    return table.assign(timestamp=table["timestamp"].astype(float)).sort_values("timestamp", kind="stable")


def cut(folder: Path, log: pd.DataFrame, until: pd.Timestamp, output: Path) -> Path:
    """Writes a domain with what was known at a time: earlier interactions and their items."""
    past = log[log["timestamp"] < until.timestamp()]
    items = pd.DataFrame({"item_id": past["item_id"].unique()})
    if (folder / f"{folder.name}.item").is_file():
        described = pd.read_csv(folder / f"{folder.name}.item", sep="\t", dtype={"item_id:token": str})
        described.columns = [name.partition(":")[0] for name in described.columns]
        items = items.merge(described, "left", "item_id")
    write_domain(output, folder.name, past, items)
    for path in folder.glob(f"{folder.name}.*.parquet"):
        shutil.copy(path, output / folder.name)
    return output


def targets(log: pd.DataFrame, until: pd.Timestamp) -> tuple[list[list[str]], list[str]]:
    """The histories before a cut and the first item after it of the users who return within a week."""
    past = log[log["timestamp"] < until.timestamp()]
    later = log[(log["timestamp"] >= until.timestamp()) & (log["timestamp"] < (until + WEEK).timestamp())]
    first = later.drop_duplicates("user_id")
    first = first[first["user_id"].isin(past["user_id"]) & first["item_id"].isin(past["item_id"])]
    histories = past.groupby("user_id")["item_id"].agg(list)
    return histories.loc[first["user_id"]].tolist(), first["item_id"].tolist()


@torch.no_grad()
def ndcg(experiment: Experiment, histories: Sequence[list[str]], items: Sequence[str]) -> float:
    """NDCG@10 of one target for each history; an unknown target, or a history without a known item, is a miss."""
    dataset, model, length = experiment.dataset, experiment.model.eval(), experiment.config["MAX_ITEM_LIST_LENGTH"]
    ids = dataset.field2token_id[dataset.iid_field]
    known = [[ids[item] for item in history if item in ids][-length:] for history in histories]
    gains = np.zeros(len(items))
    rows = [row for row, item in enumerate(items) if known[row] and item in ids]
    for first in range(0, len(rows), 256):
        some = rows[first : first + 256]
        batch = [torch.tensor([*known[row], *[0] * (length - len(known[row]))]) for row in some]
        lengths = torch.tensor([len(known[row]) for row in some])
        interaction = Interaction(
            {
                dataset.uid_field: torch.zeros(len(some), dtype=torch.long),
                f"{dataset.iid_field}_list": torch.stack(batch),
                "item_length": lengths,
            }
        )
        scores = model.full_sort_predict(interaction.to(experiment.config["device"]))[:, 1:].cpu()
        own = scores[torch.arange(len(some)), torch.tensor([ids[items[row]] for row in some]) - 1]
        rank = (scores > own[:, None]).sum(dim=1).numpy() + 1
        gains[some] = np.where(rank <= 10, 1 / np.log2(rank + 1), 0)
    return float(gains.mean())


def compare(folder: Path, model: str, cuts: Sequence[pd.Timestamp], work: Path, **keys: Any) -> Iterator[dict]:
    """Yields the measurements of each way at each cut; at the first cut all ways are one.

    Args:
        folder: of the domain.
        model: its name.
        cuts: times, ascending.
        work: a folder for runs and data.
        keys: of the configuration, in place of ``KEYS``.
    """
    log = read_log(folder)
    common = {**KEYS, **OF_MODEL.get(model, {}), "checkpoint_dir": str(work / "saved"), **keys}
    made: dict[str, Path] = {}
    for number, until in enumerate(cuts):
        data = {"data_path": str(cut(folder, log, until, work / f"data{number}"))}
        histories, items = targets(log, until)
        if not number:
            first = run(model, folder.name, overrides={**common, **data}).folder
            made = dict.fromkeys(("kept", "updated"), refit(first, work / "first"))
        for way in ("kept", "updated", "anew") if number else ("kept",):
            start = time.process_time()
            if way == "updated":
                made[way] = update(made[way], work / f"{way}{number}", data)
            elif way == "anew":
                made[way] = anew(made["kept"], work / f"{way}{number}", {**common, **data})
            seconds = time.process_time() - start
            result = json.loads((made[way] / "result.json").read_text())
            yield {
                "dataset": folder.name,
                "model": model,
                "seed": result["seed"],
                "cut": f"{until:%Y-%m-%d}",
                "way": way,
                "ndcg@10": round(ndcg(load(made[way]), histories, items), 4),
                "targets": len(items),
                "epochs": result["epochs"],
                "seconds": round(seconds, 1),
                "new interactions": result.get("new_interactions"),
                "new items": result.get("tokens", {}).get("item_id", {}).get("new"),
            }


def anew(first: Path, output: Path, keys: dict[str, Any]) -> Path:
    """Trains the model of the first cut from scratch on other data."""
    theirs = json.loads((first / "result.json").read_text())
    whole = {"eval_args": {"split": {"LS": "none"}}, "epochs": theirs["epochs"], "run_dir": str(output)}
    experiment = build(XferConfig(theirs["model"], theirs["dataset"], overrides={**keys, **whole}))
    return train(experiment, "refit", theirs["origins"], epochs_anew=theirs["epochs"]).path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_path", type=Path, default=Path("dataset"))
    parser.add_argument("--dataset", default="CJ-Deli")
    parser.add_argument("--model", default="RETR")
    parser.add_argument("--first", type=pd.Timestamp, required=True, metavar="DATE")
    parser.add_argument("--days", type=int, default=7, help="between two cuts")
    parser.add_argument("--cuts", type=int, default=5, help="after the first")
    parser.add_argument("--seeds", type=int, nargs="+", default=[2020])
    options = parser.parse_args()
    times = [options.first + number * pd.Timedelta(days=options.days) for number in range(options.cuts + 1)]
    domain = options.data_path / options.dataset
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as place, redirect_stdout(sys.stderr):
            for line in compare(domain, options.model, times, Path(place), seed=seed):
                print(json.dumps(line), file=sys.__stdout__, flush=True)
