"""Finds which parameters of a model have a row for each token of a field, and moves rows between two data sets.

Sizes alone do not tell: a model may have as many items as hidden units. So the model is built once more for each
field, on data that has one more token of it, and the dimensions that grow are the field's.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.utils import FeatureType
from torch import Tensor, nn

from recbole_xfer.config.config import XferConfig
from recbole_xfer.data.domain_files import AtomicFilesMixin
from recbole_xfer.errors import XferError
from recbole_xfer.experiment import make_model

Axes = dict[int, str]
"""The dimensions of a tensor that have an entry for each token of a field."""


def tables(config: XferConfig, dataset: Any, model: nn.Module) -> dict[str, Axes]:
    """The parameters and buffers of a model with a dimension of tokens, by name.

    Args:
        config: of the model.
        dataset: on which the model was built.
        model: of any values.

    Raises:
        XferError: if a dimension has the tokens of several fields.
    """
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    found: dict[str, Axes] = {}
    for field in token_fields(dataset):
        grown = make_model(config.replace(), with_one_more(dataset, field), trained=True).state_dict()
        for name, shape in shapes.items():
            for dim in (dim for dim, size in enumerate(shape) if grown[name].shape[dim] != size):
                if dim in found.get(name, {}) or grown[name].shape[dim] != shape[dim] + 1:
                    raise XferError(
                        f"{config['model']} keeps the tokens of several fields in one table, {name}, whose rows cannot "
                        f"be moved to other data. Train a new run, and use `recbole-xfer refit`."
                    )
                found.setdefault(name, {})[dim] = field
    return found


def token_fields(dataset: Any) -> list[str]:
    """The fields whose tokens have ids."""
    tokens = (FeatureType.TOKEN, FeatureType.TOKEN_SEQ)
    return [field for field in dataset.field2id_token if dataset.field2type.get(field) in tokens]


def with_one_more(dataset: Any, field: str) -> Any:
    """A copy of a dataset, for building a model, whose field has one more token."""
    other = copy.copy(dataset)
    tokens = dataset.field2id_token[field]
    more = f"{tokens[-1]}\N{NULL}"  # in the domain of the last one
    other.field2id_token = {**dataset.field2id_token, field: np.append(tokens, more)}
    other.field2token_id = {**dataset.field2token_id, field: {**dataset.field2token_id[field], more: len(tokens)}}
    for name, value in vars(AtomicFilesMixin).items():
        if isinstance(value, cached_property):
            vars(other).pop(name, None)
    return other


@dataclass(frozen=True)
class Moves:
    """Where the tokens of one data set are in another.

    Attributes:
        sizes: for each field, the numbers of tokens before and now; the padding counts.
        source: for each field and token, its id before, or -1 for a new one, [tokens now].
    """

    sizes: Mapping[str, tuple[int, int]]
    source: Mapping[str, np.ndarray]

    @classmethod
    def between(cls, before: Any, now: Any) -> Moves:
        """The moves from the tokens of a dataset to those of another with the same fields."""
        sizes, source = {}, {}
        for field in token_fields(now):
            theirs, ours = tokens_of(before, field, now.domains), tokens_of(now, field, now.domains)
            source[field] = theirs.get_indexer(ours)
            sizes[field] = len(theirs), len(ours)
        return cls(sizes, source)

    def counts(self, field: str) -> dict[str, int]:
        """How many tokens of a field are known, new and dropped."""
        known = int((self.source[field] >= 0).sum())
        before, now = self.sizes[field]
        return {"known": known - 1, "new": now - known, "dropped": before - known}  # without the padding

    def moved(self, value: Tensor, into: Tensor, axes: Axes) -> Tensor:
        """A tensor of the earlier data with its rows at their places now; new rows are those of ``into``.

        A dimension may have further entries after those of the tokens, such as one for a mask.

        Raises:
            ValueError: if another dimension has another size, or one has fewer entries than there are tokens.
        """
        sizes = [_sizes_without_tokens(value, self.sizes, axes, 0), _sizes_without_tokens(into, self.sizes, axes, 1)]
        if sizes[0] != sizes[1] or min(sizes[0], default=0) < 0:
            raise ValueError(f"the shape {tuple(value.shape)} does not become {tuple(into.shape)}")
        places = []
        for dim, field in axes.items():
            rows, (before, now) = np.flatnonzero(self.source[field] >= 0), self.sizes[field]
            further = np.arange(into.shape[dim] - now)
            source = np.r_[self.source[field][rows], before + further]
            places.append((dim, torch.from_numpy(source), torch.from_numpy(np.r_[rows, now + further])))
        for dim, source, _ in places:
            value = value.index_select(dim, source)
        return _placed(value, into, places)


def _sizes_without_tokens(value: Tensor, sizes: Mapping[str, tuple[int, int]], axes: Axes, which: int) -> list[int]:
    return [size - sizes[axes[dim]][which] if dim in axes else size for dim, size in enumerate(value.shape)]


def _placed(value: Tensor, into: Tensor, places: list[tuple[int, Tensor, Tensor]]) -> Tensor:
    """A copy of ``into`` with the entries of ``value`` at their places in each of the dimensions."""
    if not places:
        return value.clone()
    (dim, _, now), *others = places
    return into.index_copy(dim, now, _placed(value, into.index_select(dim, now), others))


def tokens_of(dataset: Any, field: str, domains: Sequence[str]) -> pd.Index:
    """The tokens of a field by id, with the names of other domains in place of the dataset's own.

    Items have the name of their domain also where it is the only one. The token of the padding is empty.
    """
    tokens = pd.Series(dataset.field2id_token[field][1:]).astype(str)
    several = len(dataset.domains) > 1
    if field == dataset.iid_field and not several:
        tokens = f"{dataset.domains[0]}/" + tokens
    in_domain = field == dataset.iid_field or (field == dataset.uid_field and several)
    if in_domain and len(domains) == len(dataset.domains):
        name = tokens.str.partition("/")
        renamed = name[0].map(dict(zip(dataset.domains, domains, strict=True))).fillna(name[0])
        tokens = renamed + name[1] + name[2]
    return pd.Index(["", *tokens])
