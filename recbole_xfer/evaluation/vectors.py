"""The vectors by whose products a model ranks: those of its users and of all items."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import AbstractRecommender
from torch import Tensor
from torch.overrides import TorchFunctionMode

from recbole_xfer.evaluation.tiles import Repeated
from recbole_xfer.model.base import VectorRecommender

PRODUCTS = {torch.matmul, torch.mm, Tensor.matmul, Tensor.mm, Tensor.__matmul__}


@dataclass(frozen=True)
class Vectors:
    """A score is the product of the vectors of a user and an item.

    Attributes:
        items: by item id, [n_items, d].
        users: those of the users of rows, [B, d].
        repeat_score: what is added to the scores of the items of a history, [], or None.
        history: the column of histories.
    """

    items: Tensor
    users: Callable[[Interaction], Tensor]
    repeat_score: Tensor | None = None
    history: str = ""

    @cached_property
    def longest(self) -> Tensor:
        """The largest norm of an item but the padding; found once, because it reads all items."""
        return self.items[1:].float().norm(dim=1).max()

    def repeated(self, rows: Interaction) -> Repeated | None:
        """The items of the histories of rows, by item id, if something is added to their scores."""
        if self.repeat_score is None:
            return None
        row, column = (rows[self.history] > 0).nonzero(as_tuple=True)
        return Repeated(row, rows[self.history][row, column], self.repeat_score.float())

    def bounded(self, users: Tensor) -> bool:
        """Whether no product with the vectors of users, [B, d], can overflow."""
        largest = users.norm(dim=1).max() * self.longest
        return bool(largest < torch.finfo(largest.dtype).max)


@torch.no_grad()
def vectors_of(model: Any, rows: Interaction) -> Vectors | None:
    """The vectors by which a model ranks; None if its scores are not such products.

    Of RecBole's models it is found out whether ``full_sort_predict`` ends in a product with one matrix for all items.

    Args:
        model: in the mode of evaluation.
        rows: two rows of different users, on the model's device.
    """
    if getattr(type(model), "full_sort_predict", None) is VectorRecommender.full_sort_predict:
        return Vectors(model.item_vectors(), model.user_vectors, model.repeat_score, model.ITEM_SEQ)
    if type(model).full_sort_predict is AbstractRecommender.full_sort_predict:
        return None
    matrices = []
    for row in (rows[:1], rows[1:]):
        with Products(model.n_items) as products:
            scores = model.full_sort_predict(row).view(1, -1)
        if len(products.found) != 1:
            return None
        users, items = products.found[0]
        if users.shape[0] != 1 or not torch.equal(users @ items, scores):
            return None
        matrices.append(items.T.clone())
    if not torch.equal(*matrices):
        return None
    return Vectors(matrices[0], lambda batch: _left_factor(model, batch))


def _left_factor(model: Any, rows: Interaction) -> Tensor:
    """The vectors of users [B, d], which ``full_sort_predict`` multiplies last; the product is not computed."""
    try:
        with Products(model.n_items, stop=True):
            model.full_sort_predict(rows)
    except _Stopped as stopped:
        return stopped.users
    raise AssertionError("the model ended in a product before, see vectors_of")


class _Stopped(Exception):
    """Carries the vectors of users out of a model."""

    def __init__(self, users: Tensor) -> None:
        super().__init__()
        self.users = users


class Products(TorchFunctionMode):
    """Records the factors of products of matrices with a column for each item.

    Args:
        n_items: the number of columns.
        stop: whether the first such product is not computed, but raises its first factor.
    """

    def __init__(self, n_items: int, stop: bool = False) -> None:
        super().__init__()
        self.n_items, self.stop = n_items, stop
        self.found: list[tuple[Tensor, Tensor]] = []

    def __torch_function__(
        self, function: Any, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        factors = args[:2] if function in PRODUCTS else ()
        if factors and all(factor.dim() == 2 for factor in factors) and factors[1].shape[1] == self.n_items:
            if self.stop:
                raise _Stopped(factors[0])
            self.found.append(factors)
        return function(*args, **(kwargs or {}))
