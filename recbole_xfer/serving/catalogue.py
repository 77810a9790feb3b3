"""The items that may be recommended: all of a run, some of them, or others that a model ranks by their features."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_xfer.data.atomic import AtomicFormat, read_item_column
from recbole_xfer.data.atomic_writer import check_domain_name
from recbole_xfer.data.features import ItemFeatures, listed_items, load_item_features, with_items
from recbole_xfer.errors import XferError, did_you_mean
from recbole_xfer.experiment import Experiment, label
from recbole_xfer.hooks import hooks_of


@dataclass(frozen=True)
class Catalogue:
    """Items by id: those of the run first, then others.

    Attributes:
        tokens: by id; 0 is the padding.
        candidates: ids of the items that may be recommended, ascending, [C].
        domain: index of each item's domain in ``domains``, [n_items].
        domains: of the run, then those of other items.
        popularity: the number of interactions of each item in the data, [n_items].
        folders: of each domain's files.
        ids: of each item in the files of its domain, [n_items].
    """

    tokens: pd.Index
    candidates: np.ndarray
    domain: np.ndarray
    domains: tuple[str, ...]
    popularity: np.ndarray
    folders: tuple[Path, ...]
    ids: np.ndarray

    def columns(self, names: Sequence[str], form: AtomicFormat) -> dict[str, np.ndarray]:
        """Columns of the .item files, by item id; empty where an item has no value.

        Raises:
            XferError: if no domain has a column.
        """
        found = {}
        for name in names:
            values = self.column(name, form)
            if values is None:
                paths = ", ".join(map(str, self.files))
                raise XferError(f"{paths} has no column '{name}'. Name another one with --columns.")
            found[name] = values
        return found

    def column(self, name: str, form: AtomicFormat) -> np.ndarray | None:
        """A column of the .item files, by item id; empty where an item has no value; None if no domain has it."""
        values, found = np.full(len(self.tokens), "", dtype=object), False
        for number, path in enumerate(self.files):
            own, column = np.flatnonzero(self.domain == number), read_item_column(path, name, form)
            if column is not None:
                values[own], found = column.reindex(self.ids[own]).fillna("").to_numpy(), True
        return values if found else None

    @property
    def files(self) -> list[Path]:
        """The .item file of each domain, which need not exist."""
        return [folder / f"{domain}.item" for domain, folder in zip(self.domains, self.folders, strict=True)]


def make_catalogue(
    experiment: Experiment,
    items: str | None = None,
    domain: str | None = None,
    allowed: Collection[str] | None = None,
    forbidden: Collection[str] | None = None,
) -> Catalogue:
    """Chooses the items; the model of the experiment then knows those of other domains too.

    Args:
        experiment: a loaded run.
        items: domains, joined by ``+``, whose items alone are ranked, by their features; a domain beside those of the
            run is named by its folder, such as ``dataset/Shop``, and its items are called ``Shop/<id>``.
        domain: rank the items of this domain of the run only.
        allowed, forbidden: ids of items that alone, or that never, are recommended.

    Raises:
        XferError: if a domain or all ids of items are unknown, the model ranks only the items of training, or no item
            is left.
    """
    dataset = experiment.dataset
    catalogue = Catalogue(
        tokens=pd.Index(dataset.field2id_token[dataset.iid_field], dtype=object),
        candidates=np.arange(1, dataset.item_num),
        domain=dataset.item_domain,
        domains=tuple(dataset.domains),
        popularity=np.bincount(dataset.sequences.items, minlength=dataset.item_num),
        folders=tuple(dataset.root / name for name in dataset.domains),
        ids=np.asarray(dataset.item_tokens, dtype=object),
    )
    if items is not None:
        catalogue = _with_others(experiment, catalogue, items)
    kept = np.ones(len(catalogue.candidates), dtype=bool)
    if domain is not None:
        if domain not in catalogue.domains:
            raise XferError(f"domain={domain} is not one of {', '.join(catalogue.domains)}. Name one of them.")
        kept &= catalogue.domain[catalogue.candidates] == catalogue.domains.index(domain)
    for ids, wanted in ((allowed, True), (forbidden, False)):
        if ids is not None:
            kept &= (
                np.isin(catalogue.candidates, _known(catalogue, ids, "allowed" if wanted else "forbidden")) == wanted
            )
    if not kept.any():
        raise XferError(f"No item may be recommended: all {len(kept):,} are left out. Allow some, or forbid fewer.")
    return replace(catalogue, candidates=catalogue.candidates[kept])


def _known(catalogue: Catalogue, ids: Collection[str], word: str) -> np.ndarray:
    found = catalogue.tokens.get_indexer(pd.Index(list(ids), dtype=object))
    if len(found) and not (found > 0).any():
        unknown = next(iter(ids))
        raise XferError(
            f"None of the {word} items is known, such as '{unknown}'{did_you_mean(unknown, catalogue.tokens[1:])}"
        )
    return found[found > 0]


def _with_others(experiment: Experiment, catalogue: Catalogue, items: str) -> Catalogue:
    """The catalogue with the items of domains, which the model ranks by their features from now on."""
    model: Any = experiment.model
    if not hooks_of(model).inductive:
        raise XferError(
            f"{label(experiment.config)} ranks only the items that it was trained on. --items needs a model that knows "
            f"items by their features alone, such as ANT or UniSRec without item_embedding."
        )
    features: ItemFeatures = experiment.train_data._dataset.features
    form, ranked = AtomicFormat.of(experiment.config), []
    for name in items.split("+"):
        folder = _folder(experiment, name)
        domain = folder.name
        own = domain in experiment.dataset.domains
        listed = listed_items(folder.parent, domain, form)
        names = listed if own and len(experiment.dataset.domains) == 1 else f"{domain}/" + listed
        new = catalogue.tokens.get_indexer(names) < 1
        if new.any():
            ids = np.r_[np.array(["[PAD]"], dtype=object), listed[new].to_numpy(dtype=object)]
            nowhere = np.zeros(len(ids), dtype=np.int16)
            added = load_item_features(folder.parent, [domain], nowhere, ids, features.modalities, form)
            features = with_items(features, added)
            domains = catalogue.domains if own else (*catalogue.domains, domain)
            number = np.full(new.sum(), domains.index(domain), dtype=np.int16)
            catalogue = replace(
                catalogue,
                tokens=catalogue.tokens.append(names[new]),
                domain=np.r_[catalogue.domain, number],
                domains=domains,
                popularity=np.r_[catalogue.popularity, np.zeros(new.sum(), dtype=np.int64)],
                folders=catalogue.folders if own else (*catalogue.folders, folder),
                ids=np.r_[catalogue.ids, listed[new].to_numpy(dtype=object)],
            )
        ranked.append(catalogue.tokens.get_indexer(names))
    model.use_items(features)
    described = np.any([features.present(name) for name in features.modalities], axis=0)
    candidates = np.unique(np.concatenate(ranked))
    return replace(catalogue, candidates=candidates[described[candidates]])


def _folder(experiment: Experiment, name: str) -> Path:
    """The folder of a domain, which its name or its path names."""
    folder = Path(name) if len(Path(name).parts) > 1 else experiment.dataset.root / name
    check_domain_name(folder.name)
    if not folder.is_dir():
        raise XferError(f"The folder {folder} does not exist. Name a domain, or the folder of one.")
    return folder
