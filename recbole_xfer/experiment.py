"""An experiment: the data, model and trainer of a configuration; how it is built, trained and loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import get_model, init_seed
from torch import Tensor

from recbole_xfer.config import properties
from recbole_xfer.config.config import XferConfig, known_keys, settings, stages_of
from recbole_xfer.config.joined import is_joined, member_configs
from recbole_xfer.config.plain import plain
from recbole_xfer.config.recbole_keys import STAGES
from recbole_xfer.config.values import parse_values
from recbole_xfer.data.digest import features_digest, tables_digest
from recbole_xfer.data.loaders import make_dataset, make_loaders
from recbole_xfer.data.splits import holds_nothing_out
from recbole_xfer.errors import XferError, explaining_recbole
from recbole_xfer.hooks import hooks_of
from recbole_xfer.log import logger
from recbole_xfer.model.joined import JoinedRecommender
from recbole_xfer.processes import count
from recbole_xfer.trainer.phases import trainer_class
from recbole_xfer.trainer.run_folder import EARLIER, RunFolder
from recbole_xfer.trainer.run_identity import UNIMPORTANT, weights_digest
from recbole_xfer.trainer.trainer import XferTrainer
from recbole_xfer.trainer.untrained import JoinedTrainer

INDISTINCT = 0.1
"""Share of the items with the vectors of another item above which training warns."""

MEASURING = {
    "eval_args", "eval_batch_size", "eval_groups", "head_share", "held_out_targets", "mask_history",
    "metric_decimal_place", "metrics", "rank_within_domain", "topk", "valid_metric",
}  # fmt: skip
"""Keys that say how a finished run is evaluated; they can change after training."""

UNREAD: Mapping[str, Mapping[str, Any]] = {
    "ConvNCF": {"train_method": "no_pretrain"},
    "KD_DAGFM": {"phase": "teacher_training"},
    "NAIS": {"pretrain_path": None},
    "NeuMF": {"use_pretrain": False},
    **{model: {"train_stage": stages[0]} for model, stages in STAGES.items()},
}
"""Values with which RecBole's models begin with random parameters, not with those of a file that a key names."""


@dataclass
class Experiment:
    """A configuration with its data, model and trainer."""

    config: XferConfig
    dataset: Any
    train_data: Any
    valid_data: Any
    test_data: Any
    model: AbstractRecommender

    @cached_property
    def trainer(self) -> XferTrainer:
        """The run's trainer, created on first use."""
        if is_joined(self.config):
            return JoinedTrainer(self.config, self.model)
        return trainer_class(self.config["MODEL_TYPE"], self.config["model"])(self.config, self.model)

    @property
    def folder(self) -> RunFolder:
        """The files of the run."""
        return RunFolder(self.config["run_dir"])


def build(
    config: XferConfig, pretrained: RunFolder | None = None, stage: str = "run", trained: bool = False
) -> Experiment:
    """Builds the data and the model of a configuration.

    The experiment's configuration also has what identifies the run: ``data_digest``, ``pretrained``,
    ``pretrained_digest`` and ``run_dir``.

    Args:
        config: of the run.
        pretrained: the model to adapt.
        stage: ``run`` or ``pretrain``.
        trained: whether the parameters of a finished run follow, so that no file of parameters is read.
    """
    check_processes(config)
    init_seed(config["seed"], config["reproducibility"])
    own = config.replace()  # some loaders and models of RecBole write to theirs
    with explaining_recbole(f"prepare {config['model']} on {config['dataset']}"):
        dataset = make_dataset(own)
        tables = tables_digest(dataset)
        train_data, valid_data, test_data = make_loaders(own, dataset)
        init_seed(config["seed"], config["reproducibility"])
        model = make_model(own, train_data._dataset, trained)
    if pretrained is not None:
        adapt(config, model, pretrained)
    data = f"{tables}/{features_digest(train_data._dataset)}"  # never read as a number
    config = identified(config, data, pretrained, stage)
    return Experiment(config, dataset, train_data, valid_data, test_data, model)


def identified(
    config: XferConfig, data_digest: str, pretrained: RunFolder | None = None, stage: str = "run"
) -> XferConfig:
    """The configuration with everything that identifies the run, and with the folder that follows from it."""
    if pretrained is not None:
        digest = f"weights/{weights_digest(pretrained.weights())}"
        config = config.replace(pretrained=str(pretrained), pretrained_digest=digest)
    config = config.replace(data_digest=data_digest)
    return config.replace(run_dir=str(RunFolder.of(config, stage)))


def check_processes(config: XferConfig) -> None:
    """Raises XferError if several processes were started for a model that is trained in one."""
    if count() > 1 and not hooks_of(config.model_class).shares_batches:
        raise XferError(
            f"{config['model']} is trained in one process. Start it without torchrun, or choose a model whose losses "
            f"several processes can share, such as RETR."
        )
    if count() > 1 and config["enable_scaler"]:
        raise XferError("enable_scaler=True is for one process. Leave it out: bf16 needs no scaling.")


def make_model(config: XferConfig, dataset: Any, trained: bool = False) -> Any:
    """A new model, in the first of its stages, or in the last one if it is ``trained``; joined ones if it is several.

    Args:
        config: of the model.
        dataset: of training.
        trained: whether the parameters of a finished run follow, so that no file of parameters is read.

    Raises:
        XferError: for values that the model rejects.
    """
    if is_joined(config):
        members = {name: make_model(own, dataset, trained) for name, own in member_configs(config).items()}
        return JoinedRecommender(config, dataset, members).to(config["device"])
    name, stages = config["model"], stages_of(config)
    if stages:
        config = config.replace(train_stage=stages[-1 if trained else 0])
    instead = UNREAD.get(properties.recbole_model(name) or name, {}) if trained else {}
    try:
        model = get_model(name)(config.replace(**instead), dataset).to(config["device"])
    except (ValueError, TypeError, KeyError, NotImplementedError, RuntimeError, AttributeError) as error:
        if name in properties.models():
            raise  # our models explain what they reject
        raise XferError(f"RecBole's {name} rejects this configuration: {error}") from error
    for key in instead.keys() & vars(model).keys():
        setattr(model, key, config[key])
    return model


def adapt(config: XferConfig, model: Any, pretrained: RunFolder) -> None:
    """Copies the parameters that an adaptation keeps from a pre-trained model to a new one.

    Raises:
        XferError: if a key of the encoder has another value than in pre-training.
    """
    model.adapt(pretrained.weights(), config["adaptation"])
    theirs = pretrained.config()
    for key in model.encoder_keys:
        if theirs.get(key) != config[key]:
            raise XferError(
                f"{pretrained} was pre-trained with {key}={theirs.get(key)}, and its encoder computes something else "
                f"with {config[key]}. Set --{key}={theirs.get(key)}."
            )


def fit(experiment: Experiment, on_epoch: Any = None) -> tuple[float, dict[str, float]]:
    """Trains, or resumes an interrupted training in the same folder.

    Returns:
        validation score and metrics of the best epoch.

    Raises:
        XferError: if the folder has another run and ``resume`` is not False.
    """
    trainer, config = experiment.trainer, experiment.config
    if config["resume"]:
        trainer.folder.check_same_run(settings(config))
    if config["resume"] and trainer.resume(experiment.train_data):
        logger.info(f"Resuming the interrupted run {trainer.folder} at epoch {trainer.start_epoch}")
    with explaining_recbole(f"train {config['model']} on {config['dataset']}"):
        measured = trainer.fit(
            experiment.train_data,
            experiment.valid_data,
            show_progress=config["show_progress"],
            callback_fn=on_epoch,
        )
    experiment.model = trainer.model  # each stage of training has its own
    last = max((epoch["epoch"] for epoch in trainer.history if "valid" in epoch), default=0)
    if trainer.best_epoch == last > 0:
        logger.warning(
            f"The best epoch of {label(config)} on {target(config)} was the last one, {last}: training may not be at "
            f"its end. Raise the number of epochs, now {trainer.epochs}."
        )
    return measured


def load(folder: str | Path, overrides: Mapping[str, Any] | None = None) -> Experiment:
    """Loads a finished run with its data and its trained model.

    A folder that carries its data (see :mod:`recbole_xfer.serving.refit`) is loaded with it, unless ``data_path`` is
    given.

    Args:
        folder: of the run.
        overrides: keys with new values, such as ``data_path`` or ``topk``.

    Raises:
        XferError: if a key of the model or the data has a new value, or if the data has changed since training and the
            model is not inductive.
    """
    run, keys = RunFolder(folder), parse_values(overrides)
    trained = run.config()
    if isinstance(keys.get("eval_args"), dict):
        keys["eval_args"] = {**trained["eval_args"], **keys["eval_args"]}  # such as another mode alone
    own = {} if "data_path" in keys else run.data()
    config = config_of(run, {**own, **keys, "run_dir": str(folder)})
    if holds_nothing_out(trained["eval_args"]) and not holds_nothing_out(config["eval_args"]):
        raise XferError(f"{folder} was trained on all interactions, so it cannot be tested on some of them.")
    now = plain(settings(config))
    for key in keys.keys() - MEASURING - UNIMPORTANT:
        if now.get(key) != trained.get(key):
            raise XferError(
                f"{folder} was trained with {key}={trained.get(key)}, not {keys[key]}. Remove the key, or train again."
            )
    weights = run.weights()
    experiment = build(config, trained=True)
    if config["data_digest"] not in (None, experiment.config["data_digest"]):
        _check_other_data(experiment, weights)
    experiment.trainer.load_weights(weights)
    experiment.model.eval()
    return experiment


def config_of(run: RunFolder, overrides: Mapping[str, Any]) -> XferConfig:
    """The configuration of a finished run, with some values replaced."""
    trained = run.config()
    known = known_keys(trained["model"], trained["dataset"])
    given = {key: trained[key] for key in EARLIER if key in known} | dict(overrides)
    return XferConfig(config_files=[run.config_file], overrides=given)


def _check_other_data(experiment: Experiment, weights: Mapping[str, Tensor]) -> None:
    """Raises XferError unless the model is inductive: to others an item is an id, which depends on the data."""
    changed = f"{experiment.folder} was trained on other data of {target(experiment.config)}"
    shapes, saved = ({name: value.shape for name, value in w.items()} for w in (experiment.model.state_dict(), weights))
    if not hooks_of(experiment.model).inductive or shapes != saved:  # the features have other sizes
        raise XferError(f"{changed}: its files or filters have changed. Train it again.")
    logger.warning(f"{changed}; {label(experiment.config)} ranks the current items by their features.")


def adaptation_of(config: XferConfig) -> str | None:
    """The adaptation; ``scratch`` for a model that could have been adapted, None for one that cannot be adapted."""
    return config["adaptation"] or ("scratch" if hooks_of(get_model(config["model"])).kept else None)


def label(config: XferConfig) -> str:
    """The model and its adaptation, such as ``ANT (relearn)``."""
    adaptation = adaptation_of(config)
    return f"{config['model']} ({adaptation})" if adaptation else config["model"]


def target(config: XferConfig) -> str:
    """The dataset on which targets are ranked, such as ``CJ-Nutrition`` or ``Books of Books+Toys``."""
    return " of ".join(filter(None, [config["single_domain"], config["dataset"]]))


def describe(experiment: Experiment) -> str:
    """Numbers of users, items and parameters, and how many items have each feature."""
    dataset = experiment.dataset
    shared = f" ({dataset.shared_users:,} in several domains)" if len(getattr(dataset, "domains", ())) > 1 else ""
    text = f"{dataset.user_num - 1:,} users{shared}, {dataset.item_num - 1:,} items"
    if hooks_of(experiment.model).reads_features:
        text += f"; {experiment.train_data._dataset.features.coverage()}"
    trained = sum(parameter.numel() for parameter in experiment.model.parameters() if parameter.requires_grad)
    text += f"; {trained:,} trained parameters on {experiment.config['device']}"
    return "; ".join(filter(None, [text, approximations(experiment)]))


def caution(experiment: Experiment) -> str | None:
    """What a model cannot learn about these items by their features alone, as a sentence; None for nothing."""
    config = experiment.config
    if not hooks_of(experiment.model).reads_features or config["item_embedding"] is not False:
        return None
    alike, items = experiment.train_data._dataset.features.indistinct(), experiment.dataset.item_num - 1
    if alike <= INDISTINCT * items:
        return None
    return (
        f"{alike:,} of the {items:,} items have the vectors of another item, or none, so that {config['model']} cannot "
        f"distinguish them by these. Set --item_embedding=True to learn what is special about each."
    )


def approximations(experiment: Experiment) -> str | None:
    """What training approximates, in words; None if nothing."""
    config, parts = experiment.config, []
    if config["negatives"] == "sampled":
        parts.append(f"sampled softmax (the batch's targets and {config['n_negatives']:,} uniform draws)")
    if any(getattr(module, "sparse", False) for module in experiment.model.modules()):
        parts.append("sparse Adam")
    return f"trained by {' and '.join(parts)}" if parts else None
