"""Does transfer to a target pay: a study of one model from scratch and adapted from each set of sources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from recbole_xfer.comparison.matrix import TransferMatrix, name_of
from recbole_xfer.comparison.plan import SHARE, check_seeds
from recbole_xfer.config.config import XferConfig
from recbole_xfer.config.schema import check
from recbole_xfer.config.value_types import choice
from recbole_xfer.config.values import in_order, join_domains, parse_values, read_yaml_files, split_domains
from recbole_xfer.errors import XferError
from recbole_xfer.hooks import AUTO, hooks_of
from recbole_xfer.stages import check_adaptable
from recbole_xfer.study.plan import StudyPlan, make_plan
from recbole_xfer.study.study import Study, run_study

REFERENCE = "ContentKNN"
"""The model without training that is a row of each matrix whose model reads item features."""

OWN: Mapping[str, str] = {
    "source": "Set --sources=NAMES.",
    "adaptation": "Set --adaptations=WAYS.",
    "pretrained": "Each set of sources is pre-trained on.",
    "run_dir": "Set checkpoint_dir, which has a folder for each run.",
}
"""Keys of a run that a transfer study sets for each of its runs, and what to do instead."""


@dataclass(frozen=True)
class TransferPlan:
    """The plan of a matrix.

    Attributes:
        study: its rows: the model from scratch, perhaps a reference, then each set of sources with each adaptation.
        model: that is adapted.
        sources: sets of domains, each joined by ``+``.
        adaptations: of the model.
    """

    study: StudyPlan
    model: str
    sources: Sequence[str]
    adaptations: Sequence[str]

    def run(self, workers: int | None = None) -> Study:
        """Runs all cells; the tables of the study are matrices.

        Args:
            workers: see :func:`recbole_xfer.study.cells.run_cells`.
        """
        study = run_study(self.study, workers)
        of = (self.model, self.sources, self.adaptations)
        return replace(study, tables=[TransferMatrix.of(table, *of) for table in study.tables])


def plan_transfer(
    model: str | None = None,
    target: str | None = None,
    sources: Sequence[str] = (),
    adaptations: Sequence[str] = (),
    seeds: Sequence[int] = (),
    overrides: Mapping[str, Any] | None = None,
    config_files: Iterable[str | Path] = (),
) -> TransferPlan:
    """Plans a matrix and checks every run before any is trained.

    Args:
        model: one that can be adapted.
        target: a dataset.
        sources: domains, or several joined by ``+`` that stay together.
        adaptations: of the model; by default, all that it has.
        seeds: of each row; by default ``seed``.
        overrides: keys of all runs; they win over the files.
        config_files: yaml files of keys; their ``model`` and ``dataset`` count where the arguments are missing, and
            what a transfer study sets itself is ignored.

    Raises:
        XferError: for the first mistake, such as a model that cannot be adapted.
    """
    given = parse_values(overrides)
    for key, advice in OWN.items():
        if given.get(key) is not None:
            raise XferError(f"{key}={given[key]} is invalid: transfer sets this key for each run. {advice}")
    keys = {key: value for key, value in read_yaml_files(config_files).items() if key not in OWN} | given
    of_tables = ("mask_history", SHARE)  # which can be lists
    config = XferConfig(model, target, overrides={key: keys[key] for key in keys if key not in of_tables})
    model, target = str(config["model"]), str(config["dataset"])
    check_adaptable(config)
    ways = tuple(hooks_of(config.model_class).kept)
    for way in adaptations:
        check("adaptations", way, choice((*ways, AUTO)))
    sets = source_sets(sources, target)
    adapted = list(dict.fromkeys(adaptations)) or list(ways)
    seeds = list(seeds) or [config["seed"]]
    check_seeds(seeds)
    scratch = name_of(model, "scratch")
    rows = [{"model": model, "adaptation": "scratch", "name": scratch}]
    if hooks_of(config.model_class).reads_features:
        rows.append({"model": REFERENCE})
    rows += [
        {"model": model, "adaptation": way, "source": source, "name": name_of(model, way, source)}
        for source in sets
        for way in adapted
    ]
    keys = {key: value for key, value in keys.items() if key not in ("model", "seed")}
    shared = {"pretrain_seed": seeds[0], **keys, "dataset": target, "seeds": seeds, "baseline": scratch}
    plan = make_plan({**shared, "rows": rows})
    tables = [replace(table, notes=[*table.notes, _note(shared["pretrain_seed"], seeds)]) for table in plan.tables]
    return TransferPlan(replace(plan, tables=tables), model, sets, adapted)


def _note(seed: int, seeds: Sequence[int]) -> str:
    """What the caption says about pre-training."""
    spread = ", which the spread does not cover" if len(seeds) > 1 else ""
    return f"one pre-training on each set of sources (seed {seed}){spread}"


def source_sets(sources: Sequence[str], target: str) -> list[str]:
    """The sets of sources: each source alone, all together, and, of at least three, all but each one.

    Args:
        sources: domains, or several joined by ``+`` that stay together.
        target: which cannot be a source.

    Raises:
        XferError: if there is no source, or a domain occurs twice or is in the target.
    """
    domains = [domain for source in sources for domain in split_domains(source)]
    if not domains:
        raise XferError("No source is given. Add --sources=NAMES, such as --sources Food Home.")
    twice = next((domain for domain in domains if domains.count(domain) > 1), None)
    if twice is not None:
        raise XferError(f"{twice} occurs twice in --sources. Name each domain once.")
    common = set(domains) & set(split_domains(target))
    if common:
        raise XferError(f"{', '.join(sorted(common))} is both source and target. Leave it out of --sources.")
    sizes = dict.fromkeys([1, len(sources), *([len(sources) - 1] if len(sources) > 2 else [])])
    return [in_order(join_domains(some)) for size in sizes for some in combinations(sources, size)]
