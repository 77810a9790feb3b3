"""The vectors that probes read: item features as models read them, and a run's vectors of items and users.

Symbols in comments: n vectors, d width.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recbole_xfer.config.config import XferConfig
from recbole_xfer.config.values import join_domains
from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.data.histories import Sequences, head_ids, ranges
from recbole_xfer.data.loaders import make_dataset
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.vectors import vectors_of
from recbole_xfer.experiment import Experiment, label
from recbole_xfer.hooks import hooks_of
from recbole_xfer.layers.items import FeatureTables
from recbole_xfer.layers.projection import PriceEmbedding
from recbole_xfer.model.base import FeatureRecommender
from recbole_xfer.probing.probes import FEWEST

READER = "ContentKNN"
"""The model whose configuration reads domains and their features."""

BATCH = 256
"""Users that are encoded at a time."""

HEAD, TAIL = "head users", "tail users"


@dataclass(frozen=True)
class Kind:
    """Vectors of one kind, such as texts of items: for each domain or group of users, [n, d] in random order."""

    name: str
    vectors: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Sampler:
    """Draws rows, at most as many as asked for; equal seeds draw the same rows."""

    limit: int
    seed: int

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Some of the rows, in random order."""
        return self.shuffled(rows)[: self.limit]

    def shuffled(self, rows: np.ndarray) -> np.ndarray:
        """All rows in random order."""
        return np.random.default_rng(self.seed).permutation(rows)


def read_domains(domains: Sequence[str], keys: Mapping[str, Any]) -> TransferDataset:
    """Reads the interactions of domains; their features are read on demand.

    Args:
        domains: their names.
        keys: of the configuration, such as ``modalities``.
    """
    config = XferConfig(READER, join_domains(domains), overrides=dict(keys))
    return make_dataset(config).build()[0]


# --- item features ---------------------------------------------------------------------------------------------------


def feature_kinds(dataset: TransferDataset, domains: Sequence[str], sample: Sampler) -> Iterator[Kind]:
    """Texts, pictures and prices of the items of domains, where they have them, as models read them."""
    config = dataset.config
    tables = FeatureTables(dataset.features, config["vector_scaling"])
    waves = PriceEmbedding(config["price_size"], config["price_frequency"])
    for name in tables.modalities:
        present = dataset.features.present(name)
        vectors = {}
        for domain, items in items_of(dataset, domains).items():
            rows = tables.rows(name, torch.from_numpy(sample(items[present[items]])))
            vectors[domain] = (waves(rows) if name == "price" else rows).numpy()
        yield Kind(name, vectors)


def items_of(dataset: TransferDataset, domains: Sequence[str]) -> dict[str, np.ndarray]:
    """The ids of each domain's items."""
    ids = np.arange(1, dataset.item_num)
    return {domain: ids[dataset.item_domain[1:] == dataset.domains.index(domain)] for domain in domains}


# --- a run -----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def run_kinds(run: Experiment, dataset: TransferDataset, domains: Sequence[str], sample: Sampler) -> Iterator[Kind]:
    """The vectors by which a run's model ranks items and users.

    Of several domains, these are compared; of one domain, its head and its tail users. A model with an adversary also
    has the vectors of users that the adversary compares, and ANT has the transformed embedding of each modality.

    Args:
        run: a loaded run of a sequential model.
        dataset: the data that the model ranks: the run's own, or that of an inductive model's new items.
        domains: of the dataset.
        sample: draws items and users.

    Raises:
        XferError: if the model reads no histories, or its scores are not products of vectors.
    """
    model, name = run.model, run.config["model"]
    if not isinstance(model, SequentialRecommender):
        raise XferError(
            f"{run.folder} is a run of {name}, which reads no histories. Choose a run of a sequential model."
        )
    model.eval()
    chosen = draw_histories(dataset, domains, run.config["head_share"], sample)
    batches = {group: list(_rows(dataset, some, run.config["device"])) for group, some in chosen.items()}
    largest = max(chosen, key=lambda group: len(chosen[group]))
    if len(chosen[largest]) < FEWEST:
        raise XferError(f"{run.folder} has fewer than {FEWEST} users of each of {', '.join(chosen)}. Use more data.")
    first = batches[largest][0]
    vectors = vectors_of(model, first[:2])
    if vectors is None:
        raise XferError(f"{label(run.config)} ranks by no vectors of items and users. Choose a run of another model.")
    items = {domain: sample(ids) for domain, ids in items_of(dataset, domains).items()}
    if len(domains) > 1:
        yield Kind(f"{name} items", {domain: _numpy(vectors.items[ids]) for domain, ids in items.items()})
        for part in _parts(model, next(iter(items.values()))[:1]):
            yield Kind(f"{name} {part}", {d: _numpy(_parts(model, ids)[part]) for d, ids in items.items()})
    yield Kind(f"{name} users", {group: _joined(vectors.users(r) for r in rows) for group, rows in batches.items()})
    if hooks_of(model).compared_users(first[model.ITEM_SEQ]) is not None:
        seen = {group: (model.compared_users(r[model.ITEM_SEQ]) for r in rows) for group, rows in batches.items()}
        yield Kind(f"{name} representations", {group: _joined(parts) for group, parts in seen.items()})


def _parts(model: Any, ids: np.ndarray) -> dict[str, Tensor]:
    """The vectors of each modality of items [N], where the model has several."""
    if not isinstance(model, FeatureRecommender):
        return {}
    return model.encode_items(torch.from_numpy(ids).to(model.feature_device))[1]


def _joined(parts: Iterator[Tensor]) -> np.ndarray:
    return np.concatenate([_numpy(part) for part in parts] or [np.empty((0, 1))])


def _numpy(vectors: Tensor) -> np.ndarray:
    return vectors.float().cpu().numpy()


def draw_histories(
    dataset: TransferDataset, domains: Sequence[str], share: float, sample: Sampler
) -> dict[str, Sequences]:
    """Some histories of each group: of each domain or, of a single one, of its head and its tail users.

    All are cut to equally many last items, since a state would also tell their length: the smallest of the groups'
    medians. Shorter histories are left out. A user of several domains is drawn for one of them: similar states in two
    groups would mislead a probe.

    Args:
        dataset: with the histories.
        domains: of the dataset.
        share: fraction of users that are head users.
        sample: draws histories.
    """
    histories, groups = _histories(dataset, domains, share)
    lengths = np.diff(histories.offsets)
    medians = [int(np.median(lengths[which])) for which in groups.values() if len(which)]
    length = max(1, min([dataset.max_item_list_len, *medians]))
    drawn = sample.shuffled(np.flatnonzero(lengths >= length))
    drawn = drawn[np.sort(np.unique(histories.users[drawn], return_index=True)[1])]
    return {
        group: _last(histories, drawn[np.isin(drawn, which)][: sample.limit], length) for group, which in groups.items()
    }


def _histories(
    dataset: TransferDataset, domains: Sequence[str], share: float
) -> tuple[Sequences, dict[str, np.ndarray]]:
    """The histories of users within each domain, and which of them are in each group.

    The groups are the domains; of a single one, its head users, who have the longest histories, and its tail users.
    """
    all_of = dataset.sequences
    users = np.repeat(all_of.users, np.diff(all_of.offsets))
    found = Sequences.from_interactions(users, all_of.items, dataset.item_domain[all_of.items])
    domain = dataset.item_domain[found.items[found.starts]]
    groups = {name: np.flatnonzero(domain == dataset.domains.index(name)) for name in domains}
    if len(domains) > 1:
        return found, groups
    own = groups[domains[0]]
    head = head_ids(found.users[own], np.diff(found.offsets)[own], share)[found.users[own]]
    return found, {HEAD: own[head], TAIL: own[~head]}


def _last(histories: Sequences, which: np.ndarray, length: int) -> Sequences:
    """The last items of some histories that are long enough."""
    places = ranges(histories.ends[which] - length, histories.ends[which])
    return Sequences(
        items=histories.items[places],
        offsets=np.arange(len(which) + 1) * length,
        users=histories.users[which],
        order=histories.order[places],
    )


def _rows(dataset: TransferDataset, histories: Sequences, device: torch.device) -> Iterator[Any]:
    """Rows with histories, as a model reads them."""
    part = dataset.following(histories)
    for first in range(0, len(histories), BATCH):
        yield part[np.arange(first, min(first + BATCH, len(histories)))].to(device)
