"""How well domains can be distinguished (ANT, Figure 2), or head and tail users: every pair, every kind of vectors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from recbole_xfer.comparison.layout import Entry, Layout, Line
from recbole_xfer.config.plain import reason_of
from recbole_xfer.config.values import join_domains, parse_values, read_yaml_files
from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import Experiment, load
from recbole_xfer.hooks import hooks_of
from recbole_xfer.log import logger
from recbole_xfer.probing.probes import FEWEST, FOLDS, PROBES, Accuracy, accuracy
from recbole_xfer.probing.vectors import Kind, Sampler, feature_kinds, read_domains, run_kinds

Pair = tuple[str, str]

ITEMS = 2000
"""The default number of items, and of users, of each domain."""


@dataclass(frozen=True)
class Separability:
    """The accuracy of probes.

    Attributes:
        groups: domains, or head and tail users.
        accuracies: by kind of vectors, pair of groups and probe; pairs with too few vectors are missing.
        limit: the largest number of vectors of a group.
        seed: of the draws, the folds and the probes.
    """

    groups: Sequence[str]
    accuracies: Mapping[str, Mapping[Pair, Mapping[str, Accuracy]]]
    limit: int
    seed: int

    def title(self) -> str:
        """Such as ``Separability of Food, Home and Office``."""
        *first, last = self.groups
        return f"Separability of {', '.join(first)} and {last}"

    def caption(self) -> str:
        """How the accuracies were measured."""
        return (
            f"accuracy on held-out vectors, mean and standard deviation over {FOLDS} folds; 0.5 is guessing; as many "
            f"vectors of both sides, at most {self.limit:,}; seed {self.seed}"
        )

    def layout(self) -> Layout:
        """A line for each kind of vectors and each pair, and a column for each probe."""
        lines = [
            Line([kind if not number else "", " and ".join(pair)], _entries(found))
            for kind, pairs in self.accuracies.items()
            for number, (pair, found) in enumerate(pairs.items())
        ]
        heads = [*PROBES, "of each"]
        return Layout(self.title(), self.title(), self.caption(), ["vectors", "pair"], heads, lines)

    def matrix(self, kind: str, probe: str) -> np.ndarray:
        """The accuracies of a probe on all pairs, symmetric, [groups, groups]; NaN where there is none."""
        values = np.full((len(self.groups), len(self.groups)), np.nan)
        for (first, second), found in self.accuracies[kind].items():
            row, column = self.groups.index(first), self.groups.index(second)
            values[row, column] = values[column, row] = found[probe].mean
        return values

    def sentences(self) -> list[str]:
        """Says for each kind which pairs the better probe distinguishes."""
        return [self.sentence(kind) for kind, pairs in self.accuracies.items() if pairs]

    def sentence(self, kind: str) -> str:
        """Names the pairs that no probe distinguishes by vectors of a kind, else the most similar pair."""
        best = {pair: max(found.values(), key=lambda one: one.mean) for pair, found in self.accuracies[kind].items()}
        alike = [pair for pair, found in best.items() if found.guessing]
        shown = alike or [min(best, key=lambda pair: best[pair].mean)]
        named = ", ".join(f"{first} and {second} ({best[first, second].text()})" for first, second in shown)
        if len(best) == 1:
            return f"{kind}: {named} {'cannot' if alike else 'can'} be distinguished."
        if not alike:
            return f"{kind}: all pairs can be distinguished; the most similar are {named}."
        rest = "" if len(alike) == len(best) else "; the other pairs can"
        return f"{kind}: {named} cannot be distinguished{rest}."

    def as_dict(self) -> dict[str, Any]:
        """The content of the file of ``--json``."""
        found = [
            {"vectors": kind, "pair": list(pair), "probe": probe, **asdict(value)}
            for kind, pairs in self.accuracies.items()
            for pair, probes in pairs.items()
            for probe, value in probes.items()
        ]
        settings = {"limit": self.limit, "seed": self.seed}
        return {"groups": list(self.groups), "measured": self.caption(), "accuracies": found, **settings}


class Written(BaseModel):
    """An accuracy in the file of ``--json``."""

    vectors: str
    pair: tuple[str, str]
    probe: str
    mean: float
    spread: float
    rows: int


class File(BaseModel):
    """The content of the file of ``--json``."""

    groups: list[str] = Field(min_length=2)
    accuracies: list[Written]
    limit: int
    seed: int


def read_separability(path: Path) -> Separability:
    """Reads the file of ``--json``.

    Raises:
        XferError: if it is not json, or lacks a value or has one of another type.
    """
    try:
        content = File.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = reason_of(error) if isinstance(error, ValidationError) else error
        raise XferError(f"{path} cannot be read ({reason}). Write it again with separability --json.") from error
    accuracies: dict[str, dict[Pair, dict[str, Accuracy]]] = {}
    for one in content.accuracies:
        of_pair = accuracies.setdefault(one.vectors, {}).setdefault(one.pair, {})
        of_pair[one.probe] = Accuracy(one.mean, one.spread, one.rows)
    return Separability(content.groups, accuracies, content.limit, content.seed)


def separability(
    domains: Sequence[str] = (),
    features: Sequence[str] = (),
    run: str | Path | None = None,
    items: int = ITEMS,
    overrides: Mapping[str, Any] | None = None,
    config_files: Iterable[str | Path] = (),
) -> Separability:
    """Trains probes that distinguish domains, pair by pair; of a run on one domain, its head and its tail users.

    Args:
        domains: at least two; by default, those of the run.
        features: among ``text``, ``image`` and ``price``; by default, those that the domains have, or that the run's
            model reads.
        run: folder of a run or of a pre-training, whose vectors of items and users are also probed.
        items: largest number of items, and of users, of each domain.
        overrides: keys such as ``data_path`` and ``seed``; they win over the files.
        config_files: yaml files of keys.

    Raises:
        XferError: if the domains or the run lack what is asked for, or everything is too small.
    """
    keys = {**read_yaml_files(config_files), **parse_values(overrides)}
    if run is None and len(domains) < 2:
        raise XferError("Separability needs at least two domains, such as Food Home, or a run: --run=FOLDER.")
    if len(set(domains)) < len(domains):
        raise XferError(f"A domain occurs twice in {' '.join(domains)}. Name each once.")
    if features:
        keys["modalities"] = list(features)
    sample = Sampler(items, keys.get("seed", 2020))
    made = _of_domains(domains, keys, sample) if run is None else _of_run(run, domains, keys, sample)
    groups, kinds = made
    accuracies = {kind.name: _pairs(kind, sample.seed) for kind in kinds}
    if not any(accuracies.values()):
        raise XferError(f"No two of {', '.join(groups)} have {FEWEST} vectors of one kind each. Use more data.")
    return Separability(groups, accuracies, items, sample.seed)


def _of_domains(domains: Sequence[str], keys: Mapping[str, Any], sample: Sampler) -> tuple[list[str], Iterable[Kind]]:
    """The groups and the vectors of domains alone."""
    return list(domains), feature_kinds(read_domains(domains, keys), domains, sample)


def _of_run(
    folder: str | Path, domains: Sequence[str], keys: Mapping[str, Any], sample: Sampler
) -> tuple[list[str], list[Kind]]:
    """The groups and the vectors of a run: of its own domains, or of any that an inductive model can read."""
    machine = {key: value for key, value in keys.items() if key not in ("modalities", "seed")}
    experiment = load(folder, {**machine, "show_progress": False})
    own = experiment.dataset.domains
    named = list(domains) or list(own)
    dataset = _data_of(experiment, named, machine)
    kinds = list(run_kinds(experiment, dataset, named, sample))
    if len(named) > 1 and ("modalities" in keys or hooks_of(experiment.model).reads_features):
        mine = {"modalities": experiment.config["modalities"], "data_path": _root(experiment), **keys}
        kinds = [*feature_kinds(read_domains(named, mine), named, sample), *kinds]
    return (named if len(named) > 1 else list(kinds[0].vectors)), kinds


def _data_of(experiment: Experiment, domains: Sequence[str], keys: Mapping[str, Any]) -> TransferDataset:
    """The data whose items and histories a run's model reads; an inductive model then ranks its items."""
    own, model = experiment.train_data._dataset, experiment.model
    if set(domains) <= set(own.domains):
        return own
    if not hooks_of(model).inductive:
        unknown = ", ".join(domain for domain in domains if domain not in own.domains)
        raise XferError(
            f"{experiment.folder} was trained on {join_domains(own.domains)} and knows no item of {unknown}. Name "
            f"domains of the run, or a run of a model that knows items by their features alone, such as ANT."
        )
    read = {
        "data_path": _root(experiment),
        **keys,
        "modalities": list(model.features.modalities),
        "MAX_ITEM_LIST_LENGTH": experiment.config["MAX_ITEM_LIST_LENGTH"],
    }
    dataset = read_domains(domains, read)
    _check_vectors(experiment, dataset)
    model.use_items(dataset.features)
    return dataset


def _root(experiment: Experiment) -> str:
    """The folder of the run's domains."""
    return str(experiment.dataset.root)


def _check_vectors(experiment: Experiment, dataset: TransferDataset) -> None:
    """Raises XferError if vectors have another encoder or another length than those of training."""
    trained = experiment.train_data._dataset.features
    for name in ("text", "image"):
        mine, theirs = getattr(trained, name), getattr(dataset.features, name)
        if mine is not None and (mine.encoder, mine.values.shape[1]) != (theirs.encoder, theirs.values.shape[1]):
            raise XferError(
                f"The {name} vectors of {join_domains(dataset.domains)} ({theirs.encoder}) are not those of the run "
                f"({mine.encoder}). Encode the domains with the encoder of the run."
            )


def _pairs(kind: Kind, seed: int) -> dict[Pair, dict[str, Accuracy]]:
    """The accuracy of each probe on each pair with enough vectors."""
    logger.info(f"Probing {kind.name}")
    found: dict[Pair, dict[str, Accuracy]] = {}
    for first, second in combinations(kind.vectors, 2):
        measured = {probe: accuracy(kind.vectors[first], kind.vectors[second], probe, seed) for probe in PROBES}
        values = {probe: value for probe, value in measured.items() if value is not None}
        if values:
            found[first, second] = values
    return found


def _entries(found: Mapping[str, Accuracy]) -> list[Entry]:
    """The accuracies of both probes, and the number of vectors."""
    return [*(Entry(found[probe].text()) for probe in PROBES), Entry(f"{next(iter(found.values())).rows:,}")]
