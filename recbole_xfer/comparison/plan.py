"""The plan of a comparison: a yaml file with targets, rows of models, seeds, settings, and keys that all rows share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from recbole_xfer.comparison.joint import check_pairing, references
from recbole_xfer.config import properties
from recbole_xfer.config.config import XferConfig, known_keys, settings
from recbole_xfer.config.model_checks import TP_MODEL, trained_by_tp
from recbole_xfer.config.plain import plain
from recbole_xfer.config.schema import PLAN, check_keys, check_values, kind_of
from recbole_xfer.config.value_types import fits, words
from recbole_xfer.config.values import parse_value, parse_values, read_yaml_files
from recbole_xfer.data.splits import users_text
from recbole_xfer.errors import XferError
from recbole_xfer.hooks import is_adapted

SHARE = "train_share"
"""Key of the fraction of users trained, which can be a list in a plan."""

TABLE_KEYS = frozenset(("name", "baseline", "alone", "alone_keys", "search", "trials"))
"""Keys of a row that are about the table or a search; they are not keys of a run."""

PLAN_KEYS = frozenset(
    ("rows", "only_rows", "seeds", "datasets", "settings", "ensembles", "baseline", "published", "trials")
)
"""Keys of a plan that are about all of its tables; they are not keys of a run."""

OF_ALL_ROWS = frozenset(("dataset", "seed", SHARE))
"""Keys that a file of ``config_files`` may have, but that the plan sets for all rows."""


class TableKeys(NamedTuple):
    """A table of a plan.

    Attributes:
        name: its dataset, setting and fraction of users trained.
        curve: its dataset and setting.
        share: the fraction, where the plan has several.
        keys: that its rows share.
    """

    name: str
    curve: str
    share: float | None
    keys: dict[str, Any]


def load_plan(
    file: Path, config_files: Iterable[str | Path] = (), overrides: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Reads a comparison's yaml file; it wins over ``config_files``, and ``overrides`` win over both.

    Raises:
        XferError: if the file does not exist, is not valid yaml, lacks ``dataset`` or ``rows``, or these are invalid.
    """
    plan: dict[str, Any] = {}
    for source in (*config_files, file):
        _add(plan, read_yaml_files([source]), source)
    _add(plan, parse_values(overrides), "The command line")
    if not plan.get("dataset") and not plan.get("datasets"):
        raise XferError(f"{file} lacks the key 'dataset'. See `recbole-xfer compare --help`.")
    rows = plan.get("rows")
    if not rows:
        raise XferError(f"{file} lacks the key 'rows'. See `recbole-xfer compare --help`.")
    if isinstance(rows, list):
        rows = plan["rows"] = [_with_files(row) if isinstance(row, dict) else row for row in rows]
    if not isinstance(rows, list) or any(not isinstance(row, dict) or "model" not in row for row in rows):
        raise XferError(
            f"{file}: 'rows' must be a list with a 'model' in each entry, such as '- model: SASRec'. "
            f"The key 'only_rows' chooses some of them by name."
        )
    check_values({"settings": plan["settings"]} if "settings" in plan else {})
    for keys in (plan, *plan.get("settings", {}).values(), *rows):
        check_values({key: keys[key] for key in keys if key in {"dataset", *PLAN}})
        if "seed" in keys:
            raise XferError(
                f"seed={keys['seed']} is invalid in a comparison. Set the seeds of all rows: --seeds=[1, 2]."
            )
    for row in rows:
        if SHARE in row:
            raise XferError(
                f"{SHARE}={row[SHARE]} is invalid in a row ({row['model']}): all rows of a table train the same users. "
                f"Set {SHARE} for all rows."
            )
    check_seeds(plan.get("seeds") or [])
    _check_names([row["name"] for row in rows if row.get("name")], file)
    return plan


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises XferError if a seed occurs twice."""
    if len(set(seeds)) < len(seeds):
        raise XferError(f"seeds={seeds} is invalid: each seed must occur once, as equal seeds make equal runs.")


def _add(plan: dict[str, Any], keys: Mapping[str, Any], source: str | Path) -> None:
    """Adds the keys of a file or of the command line to a plan; its ``dataset`` or ``datasets`` replaces both."""
    targets = {"dataset", "datasets"} & {key for key, value in keys.items() if value}
    if len(targets) > 1:
        raise XferError(f"{source} has both 'dataset' and 'datasets'. Leave one of them out.")
    for key in ("dataset", "datasets") if targets else ():
        plan.pop(key, None)
    plan.update(keys)


def _check_names(names: Sequence[str], file: Path) -> None:
    """Raises XferError if two rows have one name."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise XferError(f"{file} has {names.count(twice)} rows with name: {twice}. Give each row a name of its own.")


def histories_of(plan: dict[str, Any]) -> list[bool | None]:
    """Removes a list from the plan's ``mask_history``, and returns its values; ``[None]`` without a list.

    The plan keeps the first value, with which the rows are trained; their runs are measured with each.
    """
    values = plan.get("mask_history")
    if not isinstance(values, list):
        return [None]
    if sorted(map(str, values)) != ["False", "True"] or not all(isinstance(value, bool) for value in values):
        raise XferError(f"mask_history={values} is invalid in a comparison: it must be True, False or [False, True].")
    plan["mask_history"] = values[0]
    return values


def shares_of(plan: dict[str, Any]) -> Sequence[float | None]:
    """Removes a list from the plan's ``train_share``, and returns its values in order; ``[None]`` without a list.

    A list of the command line may lack its brackets: ``--train_share=0.01,0.1``.
    """
    given = plan.get(SHARE)
    values = [parse_value(part) for part in given.split(",")] if isinstance(given, str) else given
    if not isinstance(values, list):
        return [None]
    kind = kind_of(SHARE)
    if not values or not all(fits(value, kind) for value in values) or len(set(values)) < len(values):
        raise XferError(
            f"{SHARE}={given} is invalid in a comparison: it must be {words(kind)}, or a list of different such "
            f"numbers, as [0.01, 0.1, 1]."
        )
    for name, keys in (plan.get("settings") or {}).items():
        if SHARE in keys:
            raise XferError(f"{SHARE} is a list, but also a key of the setting '{name}'. Leave one of them out.")
    del plan[SHARE]
    return sorted(map(float, values))


def tables_of(plan: Mapping[str, Any], shares: Sequence[float | None]) -> list[TableKeys]:
    """The tables of a plan: one for each dataset, setting and fraction of users trained."""
    shared = {key: value for key, value in plan.items() if key not in PLAN_KEYS}
    tables = []
    for dataset in plan.get("datasets") or [plan["dataset"]]:
        for setting, keys in (plan.get("settings") or {"": {}}).items():
            curve = ", ".join(filter(None, (str(dataset), setting)))
            for share in shares:
                name, own = (curve, {}) if share is None else (f"{curve}, {users_text(share)}", {SHARE: share})
                tables.append(TableKeys(name, curve, share, {**shared, **keys, **own, "dataset": dataset}))
    return tables


def _with_files(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with the keys of its ``config_files``, such as the best.yaml of a search; its own keys win over them.

    The files' ``dataset``, ``seed`` and ``train_share`` are ignored, since the plan sets them for all rows.
    """
    check_values({"config_files": row.get("config_files")})
    files = row.get("config_files") or []
    own = {key: value for key, value in row.items() if key != "config_files"}
    read = read_yaml_files([files] if isinstance(files, str) else files)
    return {**{key: value for key, value in read.items() if key not in OF_ALL_ROWS}, **own}


def row_keys(plan: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a row: those keys of all rows that its model knows, overridden by its own.

    ``source`` is only for rows that are adapted.
    """
    left_out = TABLE_KEYS if is_adapted(row.get("adaptation")) else {*TABLE_KEYS, "source"}
    known = known_to(plan, row) if plan else set()
    keys = {key: value for key, value in plan.items() if key in known - left_out}
    return {**keys, **{key: value for key, value in row.items() if key not in TABLE_KEYS}}


def alone_keys(plan: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """The keys that replace those of a row where its model is trained on one domain."""
    return {**plan, **row}.get("alone_keys") or {}


def known_to(plan: Mapping[str, Any], row: Mapping[str, Any]) -> set[str]:
    """The keys that the model of a row knows."""
    model, dataset = str(row["model"]), str({**plan, **row}["dataset"])
    if model != properties.TP:
        return known_keys(model, dataset)
    return {TP_MODEL, *known_keys(trained_by_tp({**plan, **row}.get(TP_MODEL)), dataset)}


def check_rows(plan: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """Validates all rows before any is trained.

    Args:
        plan: keys of all rows.
        rows: keys of each.

    Returns:
        For each row, the row whose single-domain models it is compared with (see :func:`references`).
    """
    against = references([{**plan, **row} for row in rows])
    configurations: list[dict[str, Any]] = []
    for number, (row, reference) in enumerate(zip(rows, against, strict=True)):
        config = XferConfig(overrides=row_keys(plan, row))
        if config["run_dir"]:
            raise XferError(
                "The key 'run_dir' is the folder of one run, and a comparison has many. Set checkpoint_dir."
            )
        searched = {key: row.get(key) for key in ("search", "trials")}
        configurations.append(plain({**settings(config), **searched}))
        equal = configurations.index(configurations[-1]) + 1
        if equal <= number:
            raise XferError(
                f"The rows {equal} and {number + 1} ({config['model']}) are the same run. Remove one of them."
            )
        if reference is not None:
            check_pairing(config, own_model=reference == number)
        if own := alone_keys(plan, row):
            if reference != number:
                raise XferError(f"alone_keys ({config['model']}): it needs 'alone: True' in the same row.")
            check_pairing(XferConfig(overrides={**row_keys(plan, row), **own}), own_model=True)
    check_keys(plan, TABLE_KEYS.union(*(known_to(plan, row) for row in rows)))
    return against
