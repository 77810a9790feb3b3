"""The verbs as functions: run, pretrain, load (from :mod:`recbole_xfer.experiment`), evaluate, recommend, compare."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from recbole.data.interaction import Interaction
from recbole.utils import ModelType
from torch.nn import functional as F

from recbole_xfer.comparison.joint import check_pairing, joint_against_alone, references
from recbole_xfer.comparison.table import Comparison, told_apart
from recbole_xfer.config import properties
from recbole_xfer.config.config import XferConfig, settings
from recbole_xfer.config.schema import check_values, is_count, nearest
from recbole_xfer.config.values import parse_values, read_yaml_files
from recbole_xfer.data.dataset import DOMAIN_SEPARATOR
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import Result
from recbole_xfer.experiment import Experiment, build, describe, fit, groups_of, label, load, measure, target
from recbole_xfer.hooks import hooks_of
from recbole_xfer.log import logger, logging_to
from recbole_xfer.trainer import run_folder as artifacts

TABLE_KEYS = frozenset(("name", "alone"))
"""Keys of a comparison's row that say how its table is made, and are none of a run."""


def run(
    model: str | None = None,
    dataset: str | None = None,
    config_files: Iterable[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
    on_epoch: Any = None,
    reuse: bool = False,
) -> Result:
    """Trains a model on a dataset, after pre-training on ``source`` where that is given, and evaluates it.

    Args:
        model: any model of RecBole or of this package.
        dataset: a domain, or several joined by ``+``.
        config_files: yaml files of keys.
        overrides: keys that win over all files.
        on_epoch: called with (epoch, validation score) after each evaluation; an exception from it ends the run.
        reuse: take the model that an equal run left, unless ``resume`` is False, and only evaluate it.

    Raises:
        XferError: for mistakes in the configuration or the data.
    """
    config = XferConfig(model, dataset, config_files, overrides)
    return train_and_evaluate(config, starting_point(config, config_files, overrides), on_epoch, reuse)


def starting_point(
    config: XferConfig, config_files: Iterable[str | Path], overrides: Mapping[str, Any] | None
) -> Path | None:
    """The folder of the model that a run adapts, pre-trained now where ``source`` asks for it; None from scratch."""
    if config["adaptation"] not in (None, "scratch"):
        pretrained = config["pretrained"] or (config["source"] and pretrain_for(config, config_files, overrides))
        if not pretrained:
            raise XferError(f"adaptation={config['adaptation']} needs --source=DOMAINS or --pretrained=FOLDER.")
        artifacts.check_finished_pretraining(Path(pretrained))
        return Path(pretrained)
    if config["source"] or config["pretrained"]:
        ways = " or ".join(f"--adaptation={way}" for way in hooks_of(config.model_class).kept)
        raise XferError(f"--source and --pretrained need {ways or 'a model that can be adapted, such as ANT'}.")
    return None


def pretrain_for(config: XferConfig, config_files: Iterable[str | Path], overrides: Mapping[str, Any] | None) -> Path:
    """Pre-trains a target's model on its ``source``; returns the folder of the pre-trained model."""
    shared = set(str(config["source"]).split(DOMAIN_SEPARATOR)) & set(config["dataset"].split(DOMAIN_SEPARATOR))
    if shared:
        raise XferError(f"{', '.join(sorted(shared))} is both source and target. Leave it out of --source.")
    return pretrain(config["model"], config["source"], config_files, overrides)


def pretrain(
    model: str | None = None,
    source: str | None = None,
    config_files: Iterable[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Pre-trains on source domains, or takes what an equal pre-training left; returns its folder.

    Keys with the prefix ``pretrain_`` replace those without it. The last item of each history chooses the epoch and
    is not trained.
    """
    source = source or (overrides or {}).get("source") or read_yaml_files(config_files).get("source")
    if not source:
        raise XferError("No source was named. Add --source=DOMAINS, such as --source=Food+Home.")
    overrides = {key: value for key, value in (overrides or {}).items() if key not in ("source", "dataset")}
    config = XferConfig(model, source, config_files, overrides)
    for key in [key for key in config.final_config_dict if key.startswith(properties.STAGE_PREFIX)]:
        config[key.removeprefix(properties.STAGE_PREFIX)] = config[key]
    for key in ("source", "adaptation", "pretrained", "run_dir"):
        config[key] = None
    config["eval_args"] = {**config["eval_args"], "split": {"LS": "valid_only"}}

    experiment = build(config, stage="pretrain")
    folder = experiment.folder
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):  # of several runs at a time one pre-trains, and the others take what it leaves
        if artifacts.load_result(folder):
            logger.info(f"Pre-training on {source}: taken from {folder}, which an equal run left.")
            return folder
        with logging_to(folder):
            train_source_model(experiment)
    return folder


def train_source_model(experiment: Experiment) -> None:
    """The source's stage: trains, and leaves the artifact."""
    config, folder = experiment.config, experiment.folder
    logger.info(f"Pre-training {config['model']} on {config['dataset']} ({describe(experiment)})")
    started = time.time()
    score, result = fit(experiment)
    seconds = round(time.time() - started, 1)
    artifacts.save_result(
        folder,
        {
            "model": config["model"],
            "source": config["dataset"],
            "valid": result,
            "best_epoch": experiment.trainer.best_epoch,
            "seconds": seconds,
            "seed": config["seed"],
        },
    )
    logger.info(f"Pre-trained in {seconds:.0f} s, {config['valid_metric']} {score:.4f}: {folder}")


def train_and_evaluate(
    config: XferConfig, pretrained: Path | None, on_epoch: Any = None, reuse: bool = False
) -> Result:
    """The target's stage: adapts or trains, evaluates, and leaves the artifact."""
    experiment = build(config, pretrained=pretrained, stage="run")
    folder = experiment.folder
    if experiment.test_data is None:
        raise XferError(f"{config['dataset']} has no user with enough interactions to test on. Use more data.")
    groups_of(experiment)  # what cannot be measured is refused before it is trained
    earlier = artifacts.load_result(folder) if reuse and config["resume"] else None
    if earlier:
        artifacts.check_same_run(folder, settings(config))
        logger.info(f"{label(config)} on {target(config)}: taken from {folder}, which an equal run left.")
        return measure(experiment, earlier["valid"], earlier["seconds"], earlier["best_epoch"])
    with logging_to(folder):
        logger.info(f"Training {label(config)} on {target(config)} ({describe(experiment)})")
        started = time.time()
        _, valid = fit(experiment, on_epoch)
        result = measure(experiment, valid, time.time() - started, experiment.trainer.best_epoch)
        artifacts.save_result(folder, result.as_dict())
    return result


def evaluate(
    folders: Iterable[str | Path], overrides: Mapping[str, Any] | None = None, config_files: Iterable[str | Path] = ()
) -> Comparison:
    """Finished runs of one target on its test split once more, under other keys of evaluation; nothing is written.

    Args:
        folders: what the runs left.
        overrides: such as ``mask_history``, ``topk``, ``metrics`` or ``eval_args``.
        config_files: yaml files of such keys.

    Raises:
        XferError: if a folder holds no finished run, or the runs are not of one target and protocol.
    """
    overrides = {**read_yaml_files(config_files), **(overrides or {})}
    finished = [(folder, artifacts.finished_result(Path(folder))) for folder in folders]
    results, keys = [], []
    for folder, earlier in finished:
        experiment = load(folder, overrides)
        results.append(measure(experiment, earlier["valid"], earlier["seconds"], earlier["best_epoch"]))
        Comparison(results)  # stops at the first that cannot stand beside the others
        values = settings(experiment.config)
        keys.append({key: value for key, value in values.items() if key not in artifacts.UNIMPORTANT})
    return Comparison(told_apart(results, keys))


def recommend(experiment: Experiment, history: Sequence[str], k: int = 10) -> list[tuple[str, float]]:
    """The best items for a history that the model need not have seen.

    Args:
        experiment: a trained model with its data, from :func:`load`; one that reads histories, or Pop.
        history: item tokens, oldest first; the last ``MAX_ITEM_LIST_LENGTH`` are read.
        k: how many items.

    Returns:
        (token, score) of items that are not in the history, best first.

    Raises:
        XferError: if the model ranks for users that it knows and reads no history, the history is empty or has an item
            that the data does not, or k is no length.
    """
    dataset, config, model = experiment.dataset, experiment.config, experiment.model
    if config["MODEL_TYPE"] != ModelType.SEQUENTIAL and config["model"] != "Pop":
        raise XferError(f"{config['model']} reads no history. Recommend with a sequential model, such as SASRec.")
    if not is_count(k):
        raise XferError(f"k={k} must be a whole number from 1 on.")
    ids = torch.tensor(_item_ids(dataset, history), device=config["device"])
    length = min(len(ids), config["MAX_ITEM_LIST_LENGTH"])
    padded = F.pad(ids[-length:], (0, config["MAX_ITEM_LIST_LENGTH"] - length))
    row = Interaction(
        {
            dataset.uid_field: torch.zeros(1, dtype=torch.long, device=ids.device),
            dataset.iid_field + config["LIST_SUFFIX"]: padded[None],
            config["ITEM_LIST_LENGTH_FIELD"]: torch.tensor([length], device=ids.device),
        }
    )
    model.eval()
    with torch.no_grad():
        scores = model.full_sort_predict(row).view(-1)
    scores[0] = -torch.inf
    scores[ids] = -torch.inf
    best = scores.topk(min(k, len(scores) - 1 - len(ids.unique())))
    tokens = dataset.field2id_token[dataset.iid_field][best.indices.cpu().numpy()]
    return list(zip(tokens.tolist(), best.values.tolist(), strict=True))


def _item_ids(dataset: Any, history: Sequence[str]) -> list[int]:
    """The ids of some items, at least one.

    Raises:
        XferError: if there is none, or one is no text or not in the data.
    """
    if not history:
        raise XferError("The history is empty. Name at least one item; for a new user take the most popular ones.")
    known = dataset.field2token_id[dataset.iid_field]
    for token in history:
        if not isinstance(token, str):
            raise XferError(f"Items are named by text: write '{token}' instead of {token!r}.")
        if not known.get(token):  # the padding, whose id is 0, is no item
            items = dataset.field2id_token[dataset.iid_field][1:]
            raise XferError(f"The item '{token}' is not in {dataset.dataset_name}{nearest(token, items)}")
    return [known[token] for token in history]


def compare(
    file: str | Path, overrides: Mapping[str, Any] | None = None, config_files: Iterable[str | Path] = ()
) -> Comparison:
    """Runs every row of a comparison on one target, with equal data, split and candidates, for each seed.

    An interrupted comparison goes on where it stopped; what it trained before is only evaluated again. Rows of one
    model are told apart by the keys in which they differ.

    Args:
        file: yaml with ``dataset``, ``rows`` (each with ``model`` and keys of its own), ``seeds``, and keys for all
            rows; ``source`` is used by the rows that are adapted. A row may have a ``name``, and ``alone`` sets it
            against models of each joined domain alone (see :func:`recbole_xfer.comparison.joint.references`).
        overrides: keys for all rows, which win over those of the file.
        config_files: yaml files of keys for all rows, over which the file wins.
    """
    plan = load_plan(Path(file), config_files, overrides)
    rows, seeds = plan.pop("rows"), plan.pop("seeds", None) or [2020]
    against = check_rows(plan, rows)
    results = []
    for number, row in enumerate(rows, start=1):
        results += run_row(row_keys(plan, row), seeds, f"{number}/{len(rows)}", row.get("name"))
    results = told_apart(results, [row_keys({}, row) for row in rows for _ in seeds])
    by_row = [results[first : first + len(seeds)] for first in range(0, len(results), len(seeds))]

    def alone(row: int, domain: str) -> list[Result]:
        name = by_row[row][0].label
        return run_row({**row_keys(plan, rows[row]), "single_domain": domain}, seeds, f"{name}, {domain} alone", name)

    domains = str(plan["dataset"]).split(DOMAIN_SEPARATOR)
    return Comparison(results, joint_against_alone(by_row, against, domains, alone))


def check_rows(plan: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """Finds a mistake in any row before the first is trained; returns for each row what :func:`references` does.

    Args:
        plan: keys for all rows.
        rows: keys of each.
    """
    against = references([{**plan, **row} for row in rows])
    for number, (row, reference) in enumerate(zip(rows, against, strict=True)):
        config = XferConfig(overrides=row_keys(plan, row))
        if config["run_dir"]:
            raise XferError("The key 'run_dir' names one run, and a comparison has many. Use checkpoint_dir.")
        if reference is not None:
            check_pairing(config, by_itself=reference == number)
    return against


def row_keys(plan: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a comparison's row: the keys for all rows, and its own."""
    left_out = TABLE_KEYS if row.get("adaptation") in ("relearn", "finetune") else {*TABLE_KEYS, "source"}
    keys = {key: value for key, value in plan.items() if key not in left_out}
    return {**keys, **{key: value for key, value in row.items() if key not in TABLE_KEYS}}


def run_row(keys: Mapping[str, Any], seeds: Sequence[int], number: str, name: str | None = None) -> list[Result]:
    """The results of one configuration for each seed, under a name of their own where one is given."""
    results = []
    for seed in seeds:
        logger.info(f"[{number}] seed {seed}")
        result = run(overrides={**keys, "seed": seed}, reuse=True)
        results.append(replace(result, label=name or result.label))
    return results


def load_plan(
    file: Path, config_files: Iterable[str | Path] = (), overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """A comparison's yaml, over keys of other files and below those that win over all.

    Raises:
        XferError: if it is missing, no yaml, or lacks ``dataset`` or ``rows``, or these are not what they must be.
    """
    plan = {**read_yaml_files([*config_files, file]), **parse_values(overrides)}
    for key in ("dataset", "rows"):
        if not plan.get(key):
            raise XferError(f"{file} lacks the key '{key}'. See `recbole-xfer compare --help`.")
    check_values({key: plan[key] for key in ("dataset", "seeds") if key in plan}, {})
    rows = plan["rows"]
    if not isinstance(rows, list) or any(not isinstance(row, dict) or "model" not in row for row in rows):
        raise XferError(f"{file}: 'rows' must be a list with a 'model' in each entry, such as '- model: SASRec'.")
    for keys in (plan, *rows):
        if "seed" in keys:
            raise XferError(f"seed={keys['seed']} is no key of a comparison. Write seeds for all rows: --seeds=[1, 2].")
    return plan
