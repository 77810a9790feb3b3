"""The stages of a run: pre-training on the sources, then training or adaptation on the target, and evaluation."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recbole_xfer.config.config import XferConfig, settings, stages
from recbole_xfer.config.joined import is_joined, member_configs
from recbole_xfer.config.plain import plain
from recbole_xfer.config.properties import STAGE_PREFIX
from recbole_xfer.config.values import in_order, read_yaml_files, split_domains
from recbole_xfer.data.domain_folder import command
from recbole_xfer.data.splits import holds_nothing_out
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import Result
from recbole_xfer.experiment import Experiment, build, caution, describe, fit, label, target
from recbole_xfer.hooks import hooks_of, is_adapted
from recbole_xfer.log import logger
from recbole_xfer.measure import groups_of, measure
from recbole_xfer.processes import count
from recbole_xfer.trainer.run_folder import RunFolder


def starting_point(
    config: XferConfig, config_files: Iterable[str | Path], overrides: Mapping[str, Any] | None
) -> RunFolder | None:
    """The pre-trained model that a run adapts, pre-trained now if ``source`` is given; None from scratch."""
    if is_adapted(config["adaptation"]):
        if config["pretrained"]:
            pretrained = RunFolder(config["pretrained"])
        elif config["source"]:
            pretrained = pretrain_for(config, config_files, overrides)
        else:
            raise XferError(f"adaptation={config['adaptation']} needs --source=DOMAINS or --pretrained=FOLDER.")
        pretrained.check_finished_pretraining()
        return pretrained
    if config["source"] or config["pretrained"]:
        ways = " or ".join(f"--adaptation={way}" for way in hooks_of(config.model_class).kept)
        raise XferError(f"--source and --pretrained need {ways or 'a model that can be adapted, such as ANT'}.")
    return None


def pretrain_for(
    config: XferConfig, config_files: Iterable[str | Path], overrides: Mapping[str, Any] | None
) -> RunFolder:
    """Pre-trains the model of a target's configuration on its ``source``."""
    common = set(split_domains(str(config["source"]))) & set(split_domains(config["dataset"]))
    if common:
        raise XferError(f"{', '.join(sorted(common))} is both source and target. Leave it out of --source.")
    return pretrain(config["model"], config["source"], config_files, overrides)


def pretrain(
    model: str | None = None,
    source: str | None = None,
    config_files: Iterable[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
) -> RunFolder:
    """Pre-trains a model on source domains, or reuses an identical pre-training.

    Keys with the prefix ``pretrain_`` replace those without it. The last item of each history is not trained on; it
    chooses the epoch.
    """
    config = source_config(model, source, config_files, overrides)
    identity = _identity(config)
    known = _folders.get(identity)
    if known and known.result():
        return _reused(config, known)
    experiment = build(config, stage="pretrain")
    folder = _remembered(identity, experiment)
    with folder.lock():  # of several processes one pre-trains, and the others wait and reuse its result
        if folder.result():
            _reused(config, folder)
        else:
            with folder.logging():
                train_source_model(experiment)
    return folder


def pretraining_folder(config: XferConfig) -> RunFolder:
    """The folder of a pre-training, finished or not, whose configuration is that of :func:`source_config`."""
    identity = _identity(config)
    return _folders.get(identity) or _remembered(identity, build(config, stage="pretrain"))


def _reused(config: XferConfig, folder: RunFolder) -> RunFolder:
    logger.info(f"Pre-training on {config['dataset']}: reusing the identical run {folder}.")
    return folder


_folders: dict[str, RunFolder] = {}
"""The pre-trainings that this process has seen: the cells of a study need not build the data of their sources again."""


def _remembered(identity: str, experiment: Experiment) -> RunFolder:
    if count() == 1:  # several must agree on what they build
        _folders[identity] = experiment.folder
    return experiment.folder


def _identity(config: XferConfig) -> str:
    """What a pre-training depends on: its configuration, and the places, sizes and times of the files that it reads."""
    root = Path(config["data_path"]).parent
    folders = [root / domain for domain in split_domains(config["dataset"])]
    files = [file for folder in folders if folder.is_dir() for file in sorted(folder.iterdir())]
    files += [Path(config["overlap_file"])] if config["overlap_file"] else []
    stats = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.exists()]
    return json.dumps([os.getcwd(), plain(config.final_config_dict), stats], sort_keys=True)


def source_config(
    model: str | None, source: str | None, config_files: Iterable[str | Path], overrides: Mapping[str, Any] | None
) -> XferConfig:
    """The configuration of a pre-training; see :func:`pretrain`."""
    source = source or (overrides or {}).get("source") or read_yaml_files(config_files).get("source")
    if not source:
        raise XferError("No source is given. Add --source=DOMAINS, such as --source=Food+Home.")
    source = in_order(str(source))
    overrides = {key: value for key, value in (overrides or {}).items() if key not in ("source", "dataset")}
    config = XferConfig(model, source, config_files, overrides)
    check_adaptable(config)
    return for_pretraining(config)


def check_adaptable(config: XferConfig) -> None:
    """Raises XferError for a model that cannot be adapted to a target after pre-training on sources."""
    if not hooks_of(config.model_class).kept:
        own = stages(config["model"])
        all_stages = f", which trains its stages {', '.join(own)} one after another" if own else ""
        run = command("run", config["dataset"], Path(config["data_path"]).parent)
        raise XferError(
            f"{config['model']} cannot be adapted to a target, so it is not pre-trained on sources. Use `{run} "
            f"--model={config['model']}`{all_stages}."
        )


def for_pretraining(config: XferConfig) -> XferConfig:
    """The configuration of the pre-training stage, in which all users of the sources are trained by default."""
    keys = [key for key in config.final_config_dict if key.startswith(STAGE_PREFIX)]
    own = {key.removeprefix(STAGE_PREFIX): config[key] for key in keys}
    config = config.replace(**{"train_share": 1.0, **own})  # the target's share is none of the sources
    eval_args = {**config["eval_args"], "split": {"LS": "valid_only"}}
    return config.replace(source=None, adaptation=None, pretrained=None, run_dir=None, eval_args=eval_args)


def train_source_model(experiment: Experiment) -> None:
    """Trains on the sources and finishes the run."""
    config, folder = experiment.config, experiment.folder
    logger.info(f"Pre-training {config['model']} on {config['dataset']} ({describe(experiment)})")
    started = time.time()
    score, valid = fit(experiment)
    seconds = round(time.time() - started, 1)
    folder.finish(
        {
            "model": config["model"],
            "source": config["dataset"],
            "valid": valid,
            "best_epoch": experiment.trainer.best_epoch,
            "seconds": seconds,
            "seed": config["seed"],
        }
    )
    logger.info(f"Pre-trained in {seconds:.0f} s, {config['valid_metric']} {score:.4f}: {folder}")


def train_and_evaluate(
    config: XferConfig, pretrained: RunFolder | None, on_epoch: Any = None, reuse: bool = False
) -> Result:
    """Trains or adapts a model on the target, evaluates it, and finishes the run.

    Args:
        config: of the target.
        pretrained: the model to adapt; None from scratch.
        on_epoch: called with (epoch, validation score) after each evaluation; an exception from it ends the run.
        reuse: only evaluate if an identical run is finished and ``resume`` is not False. A run that another process
            finishes in the meantime is always reused.
    """
    experiment = build(config, pretrained)
    config, folder = experiment.config, experiment.folder
    if holds_nothing_out(config["eval_args"]):
        raise XferError(
            f"eval_args.split={config['eval_args']['split']} holds nothing out to test on. Set another split, and then "
            f"train on everything with `recbole-xfer refit`."
        )
    if is_joined(config) and experiment.valid_data is None:
        raise XferError("adaptation=auto chooses weights on a validation split. Set another eval_args.split.")
    if experiment.test_data is None:
        raise XferError(f"{config['dataset']} has no user with enough interactions to test on. Use more data.")
    groups_of(experiment)  # invalid groups are rejected before training
    with folder.lock() as waited:
        earlier = folder.result() if (reuse or waited) and config["resume"] else None
        if earlier:
            folder.check_same_run(settings(config))
            logger.info(f"{label(config)} on {target(config)}: reusing the identical run {folder}.")
            return measure(experiment, earlier["valid"], earlier["seconds"], earlier["best_epoch"])
        with folder.logging():
            logger.info(f"Training {label(config)} on {target(config)} ({describe(experiment)})")
            warning = caution(experiment)
            if warning:
                logger.warning(warning)
            before = _train_members(experiment, pretrained) if is_joined(config) else 0.0
            started = time.time()
            _, valid = fit(experiment, on_epoch)
            seconds = before + time.time() - started
            result = measure(experiment, valid, seconds, experiment.trainer.best_epoch)
            folder.finish(result.as_dict())
    return result


def _train_members(experiment: Experiment, pretrained: RunFolder | None) -> float:
    """Trains the models that a run joins, or reuses identical runs, and loads their parameters; returns the seconds."""
    model: Any = experiment.model
    seconds = 0.0
    for name, config in member_configs(experiment.config).items():
        start = pretrained if is_adapted(config["adaptation"]) else None
        result = train_and_evaluate(config, start, reuse=True)
        model.members[name].load_state_dict(RunFolder(result.folder).weights())
        seconds += result.seconds
    return seconds
