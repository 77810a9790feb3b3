"""Several models of one target domain that rank together, by a weighted sum of their scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.data.features import ItemFeatures
from recbole_xfer.layers.items import FeatureTables
from recbole_xfer.model.base import VectorRecommender


class JoinedRecommender(VectorRecommender):
    """Ranks by a weighted sum of the scores of models that rank by vectors.

    Such a sum is one product again: of the models' vectors of an item side by side, and those of a user times the
    weights; what they add to the scores of a history's items is one sum. A model without weight is not computed.

    Args:
        members: the models by name.

    Attributes:
        weights: of the members' scores; ones until they are chosen (see :mod:`recbole_xfer.trainer.selection`).
        shares: the weights of scores of equal spread, whose sum is 1.
    """

    reads_features = True

    def __init__(self, config: Any, dataset: TransferDataset, members: Mapping[str, VectorRecommender]) -> None:
        super().__init__(config, dataset)
        self.repeat_bias = None  # each member may have its own
        self.members = nn.ModuleDict(members)
        self.weights = [1.0] * len(members)
        self.shares = [1 / len(members)] * len(members)

    def get_extra_state(self) -> Tensor:
        """What is saved beside the parameters of the members: weights and shares, [2, M]."""
        return torch.tensor([self.weights, self.shares], dtype=torch.float64)

    def set_extra_state(self, state: Tensor) -> None:
        """Sets what :meth:`get_extra_state` returned."""
        self.weights, self.shares = state.tolist()

    @property
    def _models(self) -> dict[str, Any]:
        """The members by name, with the methods of their classes."""
        return dict(self.members.items())

    @property
    def _weighted(self) -> Iterator[tuple[float, Any]]:
        """The members that have a weight, with it."""
        pairs = zip(self.weights, self._models.values(), strict=True)
        return ((weight, member) for weight, member in pairs if weight)

    def item_vectors(self, ids: Tensor | None = None) -> Tensor:
        """See :meth:`~recbole_xfer.model.base.VectorRecommender.item_vectors`."""
        return torch.cat([member.item_vectors(ids) for _, member in self._weighted], dim=-1)

    @torch.no_grad()
    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Histories [B, L] of given lengths [B] to the vectors of their users, [B, sum of the widths]."""
        vectors = [weight * member(item_seq, item_seq_len) for weight, member in self._weighted]
        return torch.cat(vectors, dim=-1)

    @property
    def repeat_score(self) -> Tensor | None:
        """See :class:`~recbole_xfer.model.base.VectorRecommender`."""
        weighted = [
            weight * member.repeat_score for weight, member in self._weighted if member.repeat_score is not None
        ]
        return torch.stack(weighted).sum() if weighted else None

    def member_scores(self, rows: Interaction) -> Iterator[Tensor]:
        """The scores of all items by each member, [B, n_items] each."""
        return (member.full_sort_predict(rows) for member in self._models.values())

    def adapt(self, pretrained: Mapping[str, Tensor], adaptation: str) -> None:
        """Loads what each adapted member keeps of a pre-trained model."""
        for way, member in self._models.items():
            if way in member.kept:
                member.adapt(pretrained, way)

    @property
    def encoder_keys(self) -> tuple[str, ...]:  # type: ignore[override]
        """See :class:`~recbole_xfer.hooks.Hooks`."""
        return tuple({key: None for member in self._models.values() for key in member.encoder_keys})

    def weight_of(self) -> dict[str, float]:
        """The share of each member by its name."""
        return dict(zip(self.members, self.shares, strict=True))

    # --- features ----------------------------------------------------------------------------------------------------

    @property
    def inductive(self) -> bool:
        """Whether every member is."""
        return all(member.inductive for member in self._models.values())

    @property
    def features(self) -> FeatureTables:
        """The features of the first member; all read the same items."""
        return next(iter(self._models.values())).features

    def use_items(self, features: ItemFeatures) -> None:
        """Ranks these items from now on; for inductive models."""
        for member in self._models.values():
            member.use_items(features)
            self.n_items = member.n_items
