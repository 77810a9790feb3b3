"""Searches for the best configuration with Ray Tune.

Each trial reports its validation score after every epoch, so that ASHA (Li et al., "A System for Massively Parallel
Hyperparameter Tuning", 2020) can stop weak trials. No trial reads the test split: the saved model of the trial with the
best validation score reads it once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_xfer.config import properties
from recbole_xfer.config.config import XferConfig, known_keys
from recbole_xfer.config.properties import STAGE_PREFIX
from recbole_xfer.config.schema import check_keys, check_values
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import Result
from recbole_xfer.experiment import build, load
from recbole_xfer.files import remove_leftovers
from recbole_xfer.hooks import is_adapted
from recbole_xfer.log import logger
from recbole_xfer.measure import measure
from recbole_xfer.search.record import Search
from recbole_xfer.search.space import Space, draw, read_space
from recbole_xfer.search.trials import run_trials
from recbole_xfer.stages import starting_point
from recbole_xfer.trainer.run_folder import RunFolder
from recbole_xfer.trainer.run_identity import UNIMPORTANT

NOT_SEARCHED = {
    "model", "dataset", "source", "pretrained", "adaptation", "data_path", "checkpoint_dir", "run_dir", "epochs",
    "eval_step", "eval_args", "metrics", "topk", "valid_metric", "mask_history", "rank_within_domain",
}  # fmt: skip
"""Keys that all trials share."""


def tune(
    space_file: str | Path | None = None,
    trials: int | None = None,
    config_files: Iterable[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
    cpus_per_trial: float = 1,
    gpus_per_trial: float | None = None,
) -> Search:
    """Searches for the best configuration on the validation split, and measures it once on the test split.

    An identical call resumes an interrupted search; one with more ``trials`` extends a finished one.

    Args:
        space_file: see :func:`recbole_xfer.search.space.read_space`; None for the model's file in properties/space.
        trials: number of configurations to draw; None for all of a space without intervals.
        config_files: yaml files of keys that all trials share.
        overrides: keys that all trials share, ``model`` and ``dataset`` among them; they win over the files.
        cpus_per_trial: CPU cores, and threads, of each trial.
        gpus_per_trial: GPUs of each trial, or a fraction of one; None for 1 where there is a GPU.

    Raises:
        XferError: if the space, the configuration or the data is invalid, or if all trials fail.
    """
    search = set_up_search(space_file, trials, list(config_files), overrides or {}, cpus_per_trial, gpus_per_trial)
    with RunFolder(search.folder).lock():
        run_search(search)
    return search


def run_search(search: Search) -> None:
    """Runs the trials that have not ended, and measures the best one.

    Raises:
        XferError: if all trials fail.
    """
    if search.config["resume"]:
        search.read()
    configurations = search.missing()
    if len(configurations) < len(search.configurations):
        ended = len(search.configurations) - len(configurations)
        logger.info(f"Resuming {search.folder}: {ended} of {len(search.configurations)} trials have ended.")
    if configurations:
        run_trials(search, configurations)
    if not search.trials:
        log = search.folder / f"{search.folder.name}.log"
        raise XferError(f"All trials failed, see {log}. First message: {search.failures[0]}")
    for folder in search.folder.glob("*/"):
        RunFolder(folder).remove_state()
        remove_leftovers(folder)
    search.result = measure_best(search)


def set_up_search(
    space_file: str | Path | None,
    trials: int | None,
    config_files: Sequence[str | Path],
    overrides: Mapping[str, Any],
    cpus: float,
    gpus: float | None,
) -> Search:
    """Validates space, configuration, data and model before any trial; pre-trains if all trials can share the model."""
    config = XferConfig(config_files=config_files, overrides=overrides)
    space = read_space(Path(space_file) if space_file else default_space(config["model"]))
    check_space(space, config, overrides)
    if config["run_dir"]:
        raise XferError("The key 'run_dir' is the folder of one run, and a search has many. Set checkpoint_dir.")
    configurations = draw(space, trials, config["seed"])
    own = [key for key in space if changes_pretraining(config, key)]
    if own and config["source"] and not config["pretrained"] and is_adapted(config["adaptation"]):
        pretrained = None
        logger.info(
            f"Each trial pre-trains, because {', '.join(own)} acts there too. To share one: --pretrained=FOLDER."
        )
    else:
        pretrained = starting_point(config, config_files, overrides)
    experiment = build(config, pretrained)
    if experiment.valid_data is None or not 1 <= config["eval_step"] <= config["epochs"]:
        raise XferError("A search needs validation during training. Change eval_args, eval_step or epochs.")
    folder = experiment.folder.path.with_name(f"tune-{experiment.folder.name}")
    shared = {**overrides, **({"pretrained": str(pretrained)} if pretrained else {})}
    gpus = float(config["device"].type == "cuda") if gpus is None else gpus
    return Search(config, config_files, shared, configurations, folder, cpus, gpus)


def default_space(model: str) -> Path:
    """This package's space of a model; raises XferError if it has none."""
    path = properties.folder() / "space" / f"{model}.yaml"
    if not path.is_file():
        raise XferError(f"This package has no search space for {model}. Name your own file: --space=FILE.")
    return path


def check_space(space: Space, config: XferConfig, overrides: Mapping[str, Any]) -> None:
    """Raises XferError for keys that are unknown, that all trials must share, or that also have a fixed value."""
    check_keys(space, known_keys(config["model"], config["dataset"]))
    for key, domain in space.items():
        for value in domain.examples():
            check_values({key: value}, config["model"], config.final_config_dict)
        if key in NOT_SEARCHED:
            raise XferError(
                f"The key '{key}' cannot be searched, because all trials share it. Run one search for each value."
            )
        if key in overrides:
            raise XferError(f"The key '{key}' is both in the space and fixed by --{key}. Remove it from one of them.")


def changes_pretraining(config: XferConfig, key: str) -> bool:
    """Whether a searched key also acts on pre-training, where no ``pretrain_<key>`` replaces it."""
    return key not in UNIMPORTANT and (key.startswith(STAGE_PREFIX) or STAGE_PREFIX + key not in config)


def measure_best(search: Search) -> Result:
    """Measures the saved model of the best trial on the test split."""
    best, config = search.best, search.config
    experiment = load(best.folder, {key: config[key] for key in ("show_progress", "gpu_id")})
    with experiment.folder.logging():
        result = measure(experiment, best.valid, best.seconds, best.best_epoch)
    experiment.folder.finish(result.as_dict())
    return result
