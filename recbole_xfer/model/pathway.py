"""RETR's pathway attention in RecBole's own transformers (section 3.1, "Model-agnostic pathway mechanism").

Each model is RecBole's, with a router before the query projection of every attention layer. With the same seed, the
parameters that both have start equal.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from recbole.data.dataset import SequentialDataset
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import BERT4Rec, LightSANs, S3Rec
from torch import Tensor, nn

from recbole_xfer.collectives import total
from recbole_xfer.errors import XferError
from recbole_xfer.hooks import Hooks
from recbole_xfer.layers.pathway import PathwayRouter, kept_fractions


class Pathway:
    """The route of the current pass; the routers of all blocks share it."""

    real: Tensor
    routes: list[Tensor]

    def start(self, items: Tensor) -> None:
        """Begins a pass over windows [B, L]; 0 is padding."""
        self.real = (items > 0).float()
        self.routes = [self.real]  # R^0


class RoutedQuery(nn.Module):
    """A router followed by a query projection (Eq. 7): the query of a behaviour off the pathway, or its input, is zero.

    Args:
        query: the projection.
        router: gives the route.
        pathway: has the route of the previous block.
        input_only: whether the input is zero, so that the bias of the projection stays.
    """

    def __init__(self, query: nn.Linear, router: PathwayRouter, pathway: Pathway, input_only: bool) -> None:
        super().__init__()
        self.query, self.router, self.pathway, self.input_only = query, router, pathway, input_only

    def forward(self, z: Tensor) -> Tensor:
        """The block's tokens [B, L, d] to queries [B, L, d]."""
        route = self.router(z, self.pathway.routes[-1], self.pathway.real)
        self.pathway.routes.append(route)
        queried = torch.where(self.pathway.real > 0, route, 1.0)  # padding as in RecBole, since LightSANs attends to it
        return self.query(z * queried[..., None]) if self.input_only else self.query(z) * queried[..., None]


class PathwayMixin(Hooks, nn.Module):
    """Adds routers to a sequential model of RecBole that has a ``trm_encoder``."""

    trm_encoder: Any
    pathway: Pathway
    _init_weights: Callable[[nn.Module], None]

    def __init__(self, config: Any, dataset: SequentialDataset) -> None:
        self._config = config
        super().__init__(config, dataset)
        self._add_routers()

    def _add_routers(self) -> None:
        if hasattr(self, "pathway"):
            return
        acts_on = self._config["pathway_acts_on"]
        if acts_on == "key":
            raise XferError(f"{type(self).__name__} routes queries only. Set --pathway_acts_on to query or input.")
        self.pathway = Pathway()
        for layer in self.trm_encoder.layer:
            router, attention = PathwayRouter(self._config), layer.multi_head_attention
            router.apply(self._init_weights)
            attention.query = RoutedQuery(attention.query, router, self.pathway, acts_on == "input")

    def epoch_scalars(self) -> dict[str, float]:
        """The fraction of behaviours that each block kept."""
        return kept_fractions(self)

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        """Adds the routers first: S3Rec loads its pre-trained parameters, also those of routers, while it is built."""
        self._add_routers()
        return super().load_state_dict(state_dict, *args, **kwargs)

    def forward(self, item_seq: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """RecBole's forward with a new route."""
        self.pathway.start(item_seq)
        return super().forward(item_seq, *args, **kwargs)


class MeanLoss(PathwayMixin):
    """A pathway in a model of RecBole whose loss is a mean over the targets of a batch."""

    shares_batches: ClassVar[bool] = True

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """RecBole's loss; of several processes, this one's summand of the batch's."""
        targets = self.targets(interaction)
        everything = total(targets)
        if not len(interaction):  # a process without rows
            return torch.stack([parameter.sum() for parameter in self.parameters()]).sum() * 0
        loss = super().calculate_loss(interaction)  # type: ignore[misc]  # of RecBole's class
        return loss * (targets / everything)

    def targets(self, interaction: Interaction) -> Tensor:
        """The number of targets in a batch."""
        return torch.tensor(len(interaction))


class PathwayBERT4Rec(MeanLoss, BERT4Rec):
    """BERT4Rec with a pathway. It is bidirectional, so its router pools over the whole window, as in the paper."""

    def targets(self, interaction: Interaction) -> Tensor:
        """Its masked items, as RecBole counts them."""
        return (interaction[self.MASK_INDEX] > 0).sum()


class PathwayLightSANs(MeanLoss, LightSANs):
    """LightSANs with a pathway. It is bidirectional and attends to padding, as in RecBole.

    Deviation: RecBole's softmax runs over the queries, so that a zero query does not attend evenly. Its attention
    between positions has no query of a behaviour and is not routed.
    """


class PathwayS3Rec(PathwayMixin, S3Rec):
    """S3Rec with a pathway. Its fine-tuning is causal, so its router pools over the items up to each position.

    Deviation: it also does so in the bidirectional pre-training, so that both stages share one router.
    """
