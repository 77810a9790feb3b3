"""What a configuration makes, data, model and trainer, and what is done with it: training, loading, measuring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import get_model, init_seed
from torch import Tensor

from recbole_xfer.config import properties
from recbole_xfer.config.config import XferConfig, cutoff, settings
from recbole_xfer.config.values import parse_values, read_yaml_file
from recbole_xfer.data.dataset import DOMAIN_SEPARATOR, features_digest, tables_digest
from recbole_xfer.data.loaders import make_dataset, make_loaders
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.groups import measure_groups, row_users, user_groups
from recbole_xfer.evaluation.result import Result, ndcg_by_row, protocol
from recbole_xfer.hooks import hooks_of
from recbole_xfer.log import logger
from recbole_xfer.trainer import run_folder as artifacts
from recbole_xfer.trainer.trainer import RunFolder, trainer_class
from recbole_xfer.version import __version__

MEASURING = {
    "eval_args", "eval_batch_size", "eval_groups", "head_share", "held_out_targets", "mask_history",
    "metric_decimal_place", "metrics", "rank_within_domain", "topk", "valid_metric",
}  # fmt: skip
"""Keys that say how a finished run is measured; others tell what its model and data are."""

LONGEST_NAME = 120
"""Characters of joined domains in the name of a folder, which file systems allow 255 bytes."""


@dataclass
class Experiment:
    """A configuration with all that it made: data, model and trainer."""

    config: XferConfig
    dataset: Any
    train_data: Any
    valid_data: Any
    test_data: Any
    model: AbstractRecommender

    @cached_property
    def trainer(self) -> RunFolder:
        """Made when first needed: RecBole names its TensorBoard folder after the log file that is open then."""
        return trainer_class(self.config["MODEL_TYPE"], self.config["model"])(self.config, self.model)

    @property
    def folder(self) -> Path:
        """Where the run leaves its artifacts."""
        return Path(self.config["run_dir"])


def build(config: XferConfig, pretrained: Path | None = None, stage: str = "run") -> Experiment:
    """Data, model and trainer of a configuration; the run's folder is named after both and the data."""
    init_seed(config["seed"], config["reproducibility"])
    dataset = make_dataset(config)
    tables = tables_digest(dataset)
    train_data, valid_data, test_data = make_loaders(config, dataset)
    init_seed(config["seed"], config["reproducibility"])
    model = make_model(config, train_data._dataset)
    if pretrained is not None:
        adapt(config, model, pretrained)
    config["data_digest"] = f"{tables}/{features_digest(train_data._dataset)}"  # yaml takes it for no number
    config["run_dir"] = config["run_dir"] or str(Path(config["checkpoint_dir"]) / run_name(config, pretrained, stage))
    return Experiment(config, dataset, train_data, valid_data, test_data, model)


def adapt(config: XferConfig, model: Any, pretrained: Path) -> None:
    """Hands what a folder's pre-trained model has learned over to a new model.

    Raises:
        XferError: if the new model would compute something else with it.
    """
    model.adapt(artifacts.load_weights(pretrained), config["adaptation"])
    theirs = read_yaml_file(artifacts.config_file(pretrained))
    for key in model.encoder_keys:
        if theirs.get(key) != config[key]:
            raise XferError(
                f"{pretrained} was pre-trained with {key}={theirs.get(key)}, and its encoder would compute something "
                f"else with {config[key]}. Set --{key}={theirs.get(key)}."
            )
    config["pretrained"] = str(pretrained)


def make_model(config: XferConfig, dataset: Any) -> Any:
    """The model, new.

    Raises:
        XferError: for values that the model refuses.
    """
    made = get_model(config["model"])
    try:
        return made(config, dataset).to(config["device"])
    except (ValueError, TypeError, KeyError, NotImplementedError, RuntimeError, AttributeError) as error:
        if config["model"] in properties.models():
            raise  # ours say themselves what they refuse
        raise XferError(f"RecBole's {config['model']} cannot be made with these keys: {error}") from error


def run_name(config: XferConfig, pretrained: Path | None, stage: str) -> str:
    """Such as ``ANT-CJ-Nutrition-relearn-1a2b3c4d``; equal for equal configurations on equal data."""
    origin = {"from": str(pretrained), "data": config["data_digest"], "version": __version__}
    digest = artifacts.run_digest({**config.final_config_dict, **origin})
    kind = "pretrained" if stage == "pretrain" else config["adaptation"]
    first, *others = config["dataset"].split(DOMAIN_SEPARATOR)
    joined = f"{first}+{len(others)}-more" if len(config["dataset"]) > LONGEST_NAME else config["dataset"]
    return "-".join(filter(None, [config["model"], joined, config["single_domain"], kind, digest]))


def fit(experiment: Experiment, on_epoch: Any = None) -> tuple[float, dict[str, float]]:
    """Trains, going on with an interrupted run of the same folder; returns validation score and metrics."""
    trainer, config = experiment.trainer, experiment.config
    if config["resume"] and trainer.resume(experiment.train_data):
        logger.info(f"Going on with epoch {trainer.start_epoch} of the interrupted run {trainer.run_dir}")
    return trainer.fit(
        experiment.train_data,
        experiment.valid_data,
        show_progress=config["show_progress"],
        callback_fn=on_epoch,
    )


def load(folder: str | Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """A finished run with its data and its trained model, ready to rank.

    Args:
        folder: what the run left.
        overrides: keys that differ now, such as ``data_path`` or ``topk``.

    Raises:
        XferError: for a key of the model or the data that differs, or if the data is not what the run was trained on
            and the model is not inductive.
    """
    folder = Path(folder)
    file, keys = artifacts.config_file(folder), parse_values(overrides)
    trained = read_yaml_file(file)
    if isinstance(keys.get("eval_args"), dict):
        keys["eval_args"] = {**trained["eval_args"], **keys["eval_args"]}  # such as another mode alone
    config = XferConfig(config_files=[file], overrides={**keys, "run_dir": str(folder)})
    now = artifacts.plain(settings(config))
    for key in keys.keys() - MEASURING - artifacts.UNIMPORTANT:
        was = trained.get(key)
        if now.get(key) != was:
            raise XferError(f"{folder} was trained with {key}={was}, not {keys[key]}. Leave it out, or train anew.")
    trained_on, weights = config["data_digest"], artifacts.load_weights(folder)
    experiment = build(config)
    if trained_on not in (None, config["data_digest"]):
        _other_data(experiment, weights)
    experiment.trainer._load_weights(weights)
    experiment.model.eval()
    return experiment


def _other_data(experiment: Experiment, weights: Mapping[str, Tensor]) -> None:
    """Raises XferError unless the model is inductive: to all others an item is an id, which changes with the data."""
    changed = f"{experiment.folder} was trained on other data of {target(experiment.config)}"
    needed, there = ({name: value.shape for name, value in w.items()} for w in (experiment.model.state_dict(), weights))
    if not hooks_of(experiment.model).inductive or needed != there:  # the features have other sizes
        raise XferError(f"{changed}: files or filters have changed since. Train it again.")
    logger.warning(f"{changed}; {label(experiment.config)} ranks the items that are there now by their features.")


def measure(experiment: Experiment, valid: Mapping[str, float] | None, seconds: float, best_epoch: int) -> Result:
    """Evaluates the best epoch, whose validation is given, on the test split."""
    config, trainer = experiment.config, experiment.trainer
    trainer.eval_collector.data_collect(experiment.train_data)  # what ItemCoverage and its like read
    test = trainer.evaluate(experiment.test_data, show_progress=config["show_progress"])
    ranking = trainer.evaluator.ranking
    groups = groups_of(experiment)
    if ranking:
        groups = {name: rows[ranking.sources] for name, rows in groups.items()}
    return Result(
        model=config["model"],
        dataset=target(config),
        source=config["source"],
        adaptation=adaptation_of(config),
        label=label(config),
        protocol=protocol(config, experiment.dataset.item_num - 1),
        seed=config["seed"],
        valid={name: float(value) for name, value in (valid or {}).items()},
        test={name: float(value) for name, value in test.items()},
        rows=len(experiment.test_data._dataset),
        rows_by_domain=ranking.counts() if ranking else None,
        best_epoch=best_epoch,
        seconds=round(seconds, 1),
        folder=str(experiment.folder),
        valid_score=float((valid or {}).get(trainer.valid_metric, 0.0)),
        cutoff=cutoff(config["topk"]),
        by_row=ndcg_by_row(trainer.evaluator.topk, cutoff(config["topk"])),
        row_targets=ranking.targets(row_user_tokens(experiment.test_data)) if ranking else None,
        groups=measure_groups(trainer.evaluator, groups),
    )


def groups_of(experiment: Experiment) -> dict[str, np.ndarray]:
    """Which rows of the test split are in each group of ``eval_groups``, bool [rows]."""
    names, share = experiment.config["eval_groups"] or [], experiment.config["head_share"]
    names = [names] if isinstance(names, str) else names
    return user_groups(names, experiment.test_data, experiment.train_data, share) if names else {}


def row_user_tokens(eval_data: Any) -> np.ndarray:
    """The token of the user of each row of an evaluation loader, [rows]."""
    dataset = eval_data._dataset
    return dataset.field2id_token[dataset.uid_field][row_users(eval_data)]


def adaptation_of(config: XferConfig) -> str | None:
    """How the model was adapted; ``scratch`` where it could have been and was not, None where it cannot be."""
    return config["adaptation"] or ("scratch" if hooks_of(get_model(config["model"])).kept else None)


def label(config: XferConfig) -> str:
    """Such as ``ANT (relearn)``."""
    adaptation = adaptation_of(config)
    return f"{config['model']} ({adaptation})" if adaptation else config["model"]


def target(config: XferConfig) -> str:
    """What is ranked: the dataset, or such as ``Books of Books+Toys``."""
    return " of ".join(filter(None, [config["single_domain"], config["dataset"]]))


def describe(experiment: Experiment) -> str:
    """Counts of the data, and how many items have each feature."""
    dataset = experiment.dataset
    text = f"{dataset.user_num - 1:,} users, {dataset.item_num - 1:,} items"
    if hooks_of(experiment.model).reads_features:
        text += f"; {experiment.train_data._dataset.features.coverage()}"
    trained = sum(parameter.numel() for parameter in experiment.model.parameters() if parameter.requires_grad)
    return f"{text}; {trained:,} trained parameters on {experiment.config['device']}"
