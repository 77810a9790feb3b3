"""The verbs of the command line as functions."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from recbole_xfer import ensemble as joining
from recbole_xfer import stages
from recbole_xfer.comparison.table import Comparison, with_distinct_labels
from recbole_xfer.config.config import XferConfig, settings
from recbole_xfer.config.values import read_yaml_files
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import Result
from recbole_xfer.experiment import Experiment, load
from recbole_xfer.log import logger
from recbole_xfer.measure import measure
from recbole_xfer.probing.separability import separability
from recbole_xfer.processes import check_one_process
from recbole_xfer.serving import refit as refitting
from recbole_xfer.serving import update as updating
from recbole_xfer.serving import whole
from recbole_xfer.serving.export import export
from recbole_xfer.serving.recommend import Wish, recommendations
from recbole_xfer.study.plan import read_plan
from recbole_xfer.study.study import Study, run_study
from recbole_xfer.study.transfer import plan_transfer
from recbole_xfer.trainer.run_folder import RunFolder
from recbole_xfer.trainer.run_identity import UNIMPORTANT

__all__ = [
    "compare", "ensemble", "evaluate", "export", "load", "pretrain", "recommend", "refit", "run", "separability",
    "study", "transfer", "update",
]  # fmt: skip


def run(
    model: str | None = None,
    dataset: str | None = None,
    config_files: Iterable[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
    on_epoch: Any = None,
    reuse: bool = False,
) -> Result:
    """Trains a model on a dataset and evaluates it; pre-trains it first if ``source`` is given.

    Args:
        model: any model of RecBole or of this package.
        dataset: a domain, or several joined by ``+``.
        config_files: yaml files of keys.
        overrides: keys that win over all files.
        on_epoch: called with (epoch, validation score) after each evaluation; an exception from it ends the run.
        reuse: only evaluate if an identical run is finished and ``resume`` is not False.

    Raises:
        XferError: for mistakes in the configuration or the data.
    """
    config = XferConfig(model, dataset, config_files, overrides)
    pretrained = stages.starting_point(config, config_files, overrides)
    return stages.train_and_evaluate(config, pretrained, on_epoch, reuse)


def pretrain(
    model: str | None = None,
    source: str | None = None,
    config_files: Iterable[str | Path] = (),
    overrides: Mapping[str, Any] | None = None,
) -> Path:
    """Pre-trains a model on source domains, or reuses an identical pre-training; returns its folder."""
    return stages.pretrain(model, source, config_files, overrides).path


def refit(folder: str | Path, output: str | Path, overrides: Mapping[str, Any] | None = None) -> Path:
    """Trains the configuration of a finished run on all interactions; see :mod:`recbole_xfer.serving.refit`.

    Args:
        folder: of the run.
        output: the folder of the new model, which also carries the data.
        overrides: keys that change no result, such as ``gpu_id``, and ``epochs``.
    """
    return refitting.refit(folder, output, overrides).path


def update(folder: str | Path, output: str | Path, overrides: Mapping[str, Any] | None = None) -> Path:
    """Trains a finished model further on all interactions of new data; see :mod:`recbole_xfer.serving.update`.

    Args:
        folder: of a finished run, refit or update.
        output: the folder of the new model, which also carries the new data.
        overrides: ``data_path`` and ``dataset`` of the new data, by default those of the run, ``epochs``, and keys that
            change no result, such as ``gpu_id``.
    """
    return updating.update(folder, output, overrides).path


def evaluate(
    folders: Iterable[str | Path], overrides: Mapping[str, Any] | None = None, config_files: Iterable[str | Path] = ()
) -> Comparison:
    """Evaluates finished runs of one target again under another protocol; skips unfinished runs and writes nothing.

    Args:
        folders: of the runs.
        overrides: keys of evaluation, such as ``mask_history``, ``topk``, ``metrics`` or ``eval_args``.
        config_files: yaml files of such keys.

    Raises:
        XferError: if no folder has a finished run, or the runs differ in target or protocol.
    """
    overrides = {**read_yaml_files(config_files), **(overrides or {})}
    results, keys = [], []
    for folder, earlier in _finished(folders):
        experiment = load(folder, overrides)
        results.append(measure(experiment, earlier["valid"], earlier["seconds"], earlier["best_epoch"]))
        Comparison(results)  # stops at the first that cannot be compared with the others
        values = settings(experiment.config)
        keys.append({key: value for key, value in values.items() if key not in UNIMPORTANT})
    return Comparison(with_distinct_labels(results, keys))


def ensemble(
    folders: Iterable[str | Path], overrides: Mapping[str, Any] | None = None, config_files: Iterable[str | Path] = ()
) -> joining.EnsembleComparison:
    """Joins the scores of finished runs of one target, and measures them and their ensemble; writes nothing.

    Args:
        folders: of at least two runs, of any models.
        overrides: keys of evaluation, such as ``mask_history``, ``topk`` or ``metrics``, for all runs.
        config_files: yaml files of such keys.

    Raises:
        XferError: if a run is not finished, or the runs differ in data, split, candidates or masking.
    """
    return joining.ensemble(list(folders), {**read_yaml_files(config_files), **(overrides or {})})


def _finished(folders: Iterable[str | Path]) -> list[tuple[str | Path, dict[str, Any]]]:
    """The folders with a finished run, and its result; reports the others.

    Raises:
        XferError: if no folder has a finished run.
    """
    found, missing = [], []
    for folder in folders:
        run = RunFolder(folder)
        if "origins" in (run.result() or {}):
            raise XferError(
                f"{folder} was trained on all interactions. {whole.estimated_by(folder)} Evaluate that run."
            )
        result = run.test_result()
        if result is None:
            missing.append(str(folder))
        else:
            found.append((folder, result))
    if not found:
        raise XferError(
            f"No finished run is in {', '.join(missing) or 'an empty list'}. Name the folders of finished runs."
        )
    for folder in missing:
        logger.warning(f"{folder} is skipped: it has no finished run.")
    return found


def recommend(
    run: Experiment | str | Path,
    histories: Any = None,
    k: int = 10,
    *,
    users: Collection[str] | Path | None = None,
    part: str | None = None,
    items: str | None = None,
    domain: str | None = None,
    allowed: Collection[str] | Path | None = None,
    forbidden: Collection[str] | Path | None = None,
    columns: Sequence[str] = (),
    approximate: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> pd.DataFrame:
    """The best items for users of the run's data, or for anybody with a history.

    Args:
        run: a loaded run, or its folder.
        histories: item ids of each user, oldest first: a list of lists, a dictionary of lists by user, a frame or a
            file (see :meth:`recbole_xfer.serving.histories.Histories.of`); None for all users of the data.
        k: number of items.
        users: ids of users of the data.
        part: ``valid`` or ``test``: the histories before the targets of this split, as evaluation ranks them.
        items, domain, allowed, forbidden: what may be recommended (see
            :func:`recbole_xfer.serving.catalogue.make_catalogue`); a path is a file of ids.
        columns: columns of the .item file that are added, such as ``text``.
        approximate: search approximately with faiss; a message has the measured recall.
        overrides: keys such as ``mask_history: False``, which also recommends items of the history.

    Returns:
        A table with a row for each user and rank. Its columns are the user, ``rank`` from 1, the item and ``score``,
        which is missing where the most popular items stand in for a user without a known history.

    Raises:
        XferError: if an argument is invalid, or all of its ids are unknown.
    """
    check_one_process("recommend")
    wish = Wish(k, histories, users, part, items, domain, allowed, forbidden, columns, approximate)
    return recommendations(run, wish, overrides)


def compare(
    file: str | Path, overrides: Mapping[str, Any] | None = None, config_files: Iterable[str | Path] = ()
) -> Comparison:
    """Runs a plan of one table in this process, and returns the table; see :func:`study`.

    Raises:
        XferError: if the plan has several tables, or a run fails. The other runs are finished nevertheless.
    """
    plan = read_plan(file, overrides, config_files)
    if len(plan.tables) * len(plan.histories) > 1:
        raise XferError(f"{file} has several tables. Use study() in place of compare().")
    made = run_study(plan)
    made.check()
    return made.tables[0]


def study(
    file: str | Path,
    overrides: Mapping[str, Any] | None = None,
    config_files: Iterable[str | Path] = (),
    workers: int | None = None,
) -> Study:
    """Runs every row of a plan for each dataset, setting, fraction of users and seed, with identical test targets.

    An interrupted study resumes where it stopped; finished runs are only evaluated again. A run that fails does not
    stop the others. The labels of rows with the same model have the keys in which they differ.

    Args:
        file: yaml with ``dataset`` or ``datasets``, ``rows`` (each with ``model`` and keys of its own), ``seeds``, and
            keys for all rows whose models know them; only adapted rows use ``source``. ``docs/studies.md`` has all.
        overrides: keys for all rows; they win over the file.
        config_files: yaml files of keys for all rows; the file wins over them.
        workers: number of processes; see :func:`recbole_xfer.study.cells.run_cells`.
    """
    return run_study(read_plan(file, overrides, config_files), workers)


def transfer(
    model: str | None = None,
    target: str | None = None,
    sources: Sequence[str] = (),
    adaptations: Sequence[str] = (),
    seeds: Sequence[int] = (),
    overrides: Mapping[str, Any] | None = None,
    config_files: Iterable[str | Path] = (),
    workers: int | None = None,
) -> Study:
    """Runs a model from scratch, and adapted from each source alone, all sources, and all but each one.

    Its tables are matrices (:class:`recbole_xfer.comparison.matrix.TransferMatrix`); ``verdict()`` says what to use.

    Args:
        model, target, sources, adaptations, seeds, overrides, config_files: see
            :func:`recbole_xfer.study.transfer.plan_transfer`.
        workers: number of processes; see :func:`recbole_xfer.study.cells.run_cells`.
    """
    plan = plan_transfer(model, target, sources, adaptations, seeds, overrides, config_files)
    return plan.run(workers)
