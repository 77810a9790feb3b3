"""TP: learning transferrable parameters for long-tailed sequential user behaviour modelling (Yin et al., KDD 2020).

A way to train any sequential recommender: :class:`TPAllPositions` at all positions of a user's window,
:class:`TPOverRows` over RecBole's own rows. The trained models are in :mod:`recbole_xfer.model.tp_models`.

Symbols in comments: P paths, L positions, d width; phi is the sequence embedding, [L, d].
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from recbole_xfer.collectives import alone, mean, total
from recbole_xfer.data.batches import HEAD, UserDataLoader
from recbole_xfer.data.dataset import NEGATIVES, TARGETS, TransferDataset
from recbole_xfer.errors import XferError
from recbole_xfer.hooks import Hooks
from recbole_xfer.layers.alignment import AllPaths, Weights, WithGradient, descend, number_ids, sum_of_paths

NUMBERS = {"cpu": 2**22, "cuda": 2**28}
"""Largest total of the parameters that the paths of a group do not share, by kind of device: on a CPU they stay in its
cache. More paths run as several groups, one after another."""

OF_USERS = ("user_embedding", "user_lambda")
"""Names of RecBole's embeddings of users."""

Batch = Mapping[str, Tensor]


class TP(Hooks, SequentialRecommender):
    """Added to a sequential model by inheritance: k inner steps of one user each, and an adversary for head users.

    A training step's loss has the outer update's direction as its gradient, so that RecBole's trainer and optimiser
    make the outer update (Adam in the paper). ``paths`` walks of k steps start at the same parameters and their
    directions are averaged; ``paths: 1`` is a single walk, as in the paper's Algorithm 1, over users drawn without
    replacement. The discriminator descends lambda L_d by the same inner and outer steps, as Eq. 10 is written; with
    lambda 0 it is not trained. The paper's sub-sequences all have one length; here they have many, and the length alone
    tells head users, unless ``adversary_positions`` is ``common``.

    Deviation: the inner steps descend and the outer one follows them, where Eq. 6 with Eq. 7 ascends and Algorithm 1
    descends and then moves away. Deviation: L_d is the cross-entropy of the discriminator; Eq. 9 lacks its minus sign,
    without which Eq. 10 would train the discriminator to be wrong. Deviation: a user's loss is the mean over their
    sub-sequences, not the sum of Eq. 2, so that alpha does not depend on their number. Deviation: a negative may be an
    item that the user interacted with elsewhere, as RecBole's sampler for sequences draws it. Deviation: a model's
    parameters of a user without training interactions are zero, since nothing is known of a new user. Deviation:
    filters are RecBole's, which drop items and users in turn until both intervals hold; the paper filters items, then
    users, once.

    Args:
        config: reads ``inner_steps``, ``inner_rate``, ``adversary_weight``, ``adversary_rate`` and
            ``adversary_positions``.
    """

    loader: ClassVar = UserDataLoader
    shares_batches: ClassVar[bool] = True
    in_parallel: ClassVar[bool]
    """Whether paths share one forward pass (``vmap``) or run one after another."""
    tables: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Embeddings of which a path holds only the rows that it looks up, with the fields of their ids."""

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        if config["train_rows"] != "windows":
            raise XferError(
                f"{config['model']} needs --train_rows=windows: a user's mini-batch is one of their windows."
            )
        self.inner_rate = float(config["inner_rate"])
        self.adversary_weight = float(config["adversary_weight"])
        self.adversary_rate = float(config["adversary_rate"])
        self.judged = self.max_seq_length  # length of the longest sub-sequence that the discriminator sees
        if config["adversary_positions"] == "common":
            first, end = dataset.target_ranges
            self.judged = min(self.judged, int((end - first)[end > first].min()))
        self.discriminator = Discriminator(self.item_embedding.embedding_dim)
        untrained = np.setdiff1d(np.arange(dataset.user_num), dataset.inter_feat[self.USER_ID].numpy())
        for name, table in self.named_children():
            if name in OF_USERS:
                with torch.no_grad():
                    table.weight[untrained] = 0

    # --- a user's loss -----------------------------------------------------------------------------------------------

    def user_loss(self, batch: Batch) -> Tensor:
        """Eq. 10 on a user's sub-sequences: fields [L], and one number for ``user_id`` and for ``HEAD``."""
        raise NotImplementedError

    def adversary_loss(self, phi: Tensor, head: Tensor, lengths: Tensor) -> Tensor:
        """lambda L_d, a mean over sub-sequences; phi ascends it and the discriminator descends it (Eq. 9 and 10).

        Args:
            phi: of each sub-sequence, [L, d].
            head: whether they are a head user's, [].
            lengths: of the sub-sequences, 0 for padding, [L].
        """
        reversed_phi = 2 * phi.detach() - phi
        logits = self.discriminator(reversed_phi)  # f_d, [L]
        labels = head.to(logits.dtype).expand(logits.shape)  # R
        loss = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
        seen = (lengths > 0) & (lengths <= self.judged)
        return self.adversary_weight * torch.where(seen, loss, 0).sum() / seen.sum().clamp(min=1)

    # --- the outer step ----------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The mean loss along all paths, with the direction of Eq. 7 as its gradient.

        Args:
            interaction: a batch of :class:`~recbole_xfer.data.batches.UserDataLoader`, [k, P, ...].
        """
        trained = {name: value for name, value in self.named_parameters() if value.requires_grad}
        added = {name: torch.zeros_like(value) for name, value in trained.items()}
        with alone():  # each process has groups of its own
            losses = [self._walk(trained, batches, added).flatten() for batches in self._groups(interaction, trained)]
        steps = total(torch.tensor(interaction[HEAD].numel()))  # k steps on P paths
        gradients = [value.div_(steps) for value in added.values()]
        loss = mean(torch.cat([interaction[HEAD].new_empty(0), *losses]))  # a process may have no path
        return WithGradient.apply(loss, gradients, *trained.values())

    def _groups(self, interaction: Interaction, trained: Weights) -> Iterator[list[dict[str, Tensor]]]:
        """For each group of paths of similar lengths, the batch of each inner step, cut to its longest window."""
        shared = {*self.tables, *self._linear_weights(trained)}
        numbers = sum(value.numel() for name, value in trained.items() if name not in shared)
        limit = NUMBERS.get(interaction[HEAD].device.type, NUMBERS["cuda"])
        size = max(1, limit // numbers) if self.in_parallel else 1
        order = interaction[self.ITEM_SEQ_LEN].amax(dim=0).argsort()
        parts = {field: value[:, order].split(size, dim=1) for field, value in interaction.interaction.items()}
        for group in range(-(-len(order) // size)):
            lengths = parts[self.ITEM_SEQ_LEN][group].amax(dim=1).tolist()
            yield [
                {
                    field: part[group][step, :, :length] if part[group].dim() > 2 else part[group][step]
                    for field, part in parts.items()
                }
                for step, length in enumerate(lengths)
            ]

    def _walk(self, trained: Weights, batches: list[dict[str, Tensor]], total: dict[str, Tensor]) -> Tensor:
        """Takes the steps of a group of paths and adds their gradients to ``total``; returns the losses, [k, P]."""
        paths = len(batches[0][HEAD])
        rows, batches = self._look_up(batches)
        rates = {
            name: self.adversary_rate if name.startswith("discriminator.") else self.inner_rate for name in trained
        }
        linear = self._linear_weights(trained) if paths > 1 else ()
        together = AllPaths({name: rates[name] for name in linear})
        start = {name: value.detach() for name, value in trained.items()}
        for name, value in start.items():
            if name in rows:
                start[name] = value[rows[name]]
            elif name not in together.moves:
                start[name] = value.expand(paths, *value.shape)
        padded = {f"{n}.weight" for n, m in self.named_modules() if isinstance(m, nn.Embedding) and m.padding_idx == 0}
        losses = []
        losses_of = partial(self._losses, together=together)
        for gradients, loss in descend(losses_of, start, batches, rates, together.moves):
            losses.append(loss)
            for name, gradient in gradients.items():
                if self.in_parallel and name in padded:
                    gradient[:, 0] = 0  # as nn.Embedding does; vmap ignores its padding_idx
                if name in rows:
                    total[name].index_add_(0, rows[name].flatten(), gradient.flatten(0, 1))
                elif name in together.moves:
                    total[name] += gradient
                else:
                    total[name] += sum_of_paths(gradient)
        return torch.stack(losses)

    def _look_up(self, batches: list[dict[str, Tensor]]) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """The rows of each table that a path looks up, [P, m], and the batches with places in them instead of ids."""
        rows = {}
        batches = [dict(batch) for batch in batches]
        for table, fields in self.tables.items():
            keys = [(batch, field) for batch in batches for field in fields if field in batch]
            columns = [batch[field].reshape(len(batch[field]), -1) for batch, field in keys]
            rows[table], places = number_ids(torch.cat(columns, dim=1))
            parts = places.split([column.shape[1] for column in columns], dim=1)
            for (batch, field), place in zip(keys, parts, strict=True):
                batch[field] = place.reshape(batch[field].shape)
        return rows, batches

    def _linear_weights(self, trained: Weights) -> set[str]:
        """Names of the trained weights of linear layers."""
        linear = (name for name, module in self.named_modules() if isinstance(module, nn.Linear))
        return {f"{name}.weight" for name in linear} & set(trained)

    def _losses(self, theta: Weights, batch: Batch, together: AllPaths) -> Tensor:
        """The loss of each path's user under the path's own parameters, [P]; ``together`` holds some of these."""
        user_loss = _UserLoss(self)

        def one(theta: Weights, batch: Batch) -> Tensor:
            return functional_call(user_loss, {f"model.{name}": value for name, value in theta.items()}, (batch,))

        if len(batch[HEAD]) > 1:
            stacked = {name: None if name in together.moves else 0 for name in theta}
            with together.under(theta):
                return vmap(one, in_dims=(stacked, 0), randomness="different")(theta, batch)
        first = ({name: value[0] for name, value in part.items()} for part in (theta, batch))
        return one(*first)[None]


class _UserLoss(nn.Module):
    """A model whose forward is its loss, for ``functional_call``."""

    def __init__(self, model: TP) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model.user_loss(batch)


class Discriminator(nn.Module):
    """f_d: scores [L] that are high for sequence embeddings [L, d] of head users; one hidden layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, 1)

    def forward(self, phi: Tensor) -> Tensor:
        """[L, d] to logits [L]"""
        return self.out(F.relu(self.hidden(phi))).squeeze(-1)


class TPAllPositions(TP):
    """Every position of a user's window is a sub-sequence; one pass computes all states, and paths run in parallel.

    Of the item embeddings, a path holds the rows of its own items and of their negatives; no other row has a gradient.
    With ``loss_type: CE`` all rows have one, and every path holds the whole table.
    """

    input_type = InputType.PAIRWISE
    loss_types = ("BCE", "BPR", "CE")
    in_parallel = True

    item_embedding: nn.Embedding

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        # RecBole's constructors reject BCE, and the loss that they make is not used; paths hold rows, not gradients
        super().__init__(ChainMap({"loss_type": "CE", "learner": "adam"}, config), dataset)
        self.loss_type = config["loss_type"]
        if self.loss_type != "CE":
            self.tables = {**self.tables, "item_embedding.weight": (self.ITEM_SEQ, TARGETS, NEGATIVES)}

    def states(self, batch: Batch) -> Tensor:
        """phi at every position of a user's window, [L, d]."""
        raise NotImplementedError

    def user_loss(self, batch: Batch) -> Tensor:
        """See :meth:`TP.user_loss`; a mean over the user's sub-sequences, so that all users have equal weight."""
        real = batch[TARGETS] > 0
        phi = self.states(batch)
        loss = torch.where(real, self.next_item_loss(phi, batch), 0).sum() / real.sum()
        if self.adversary_weight:
            items = batch[self.ITEM_SEQ] > 0
            loss = loss + self.adversary_loss(phi, batch[HEAD], items.cumsum(dim=0) * items)
        return loss

    def next_item_loss(self, phi: Tensor, batch: Batch) -> Tensor:
        """Eq. 2 with one sampled negative for each target, or another loss, [L]."""
        positive = (phi * self.item_embedding(batch[TARGETS])).sum(dim=-1)
        if self.loss_type == "CE":
            return torch.logsumexp(phi @ self.item_embedding.weight[1:].T, dim=-1) - positive
        negative = (phi * self.item_embedding(batch[NEGATIVES])).sum(dim=-1)
        if self.loss_type == "BPR":
            return -F.logsigmoid(positive - negative)
        return -F.logsigmoid(positive) - F.logsigmoid(-negative)


class TPOverRows(TP):
    """A model of RecBole whose ``forward`` returns the sequence embedding, on RecBole's rows.

    Each sub-sequence is a row of its own, paths run one after another, and the loss is the model's own.
    """

    in_parallel = False
    phi: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """RecBole's forward; its result is kept for the discriminator."""
        self.phi = super().forward(*args, **kwargs)
        return self.phi

    def user_loss(self, batch: Batch) -> Tensor:
        """See :meth:`TP.user_loss`."""
        items, targets = batch[self.ITEM_SEQ], batch[TARGETS]
        ends = targets.nonzero()[:, 0] + 1
        width = self.max_seq_length
        rows = {
            self.USER_ID: batch[self.USER_ID].expand(len(ends)),
            self.ITEM_SEQ: last_items(items.expand(len(ends), -1), ends, width),
            self.ITEM_SEQ_LEN: ends.clamp(max=width),
            self.POS_ITEM_ID: targets[ends - 1],
        }
        if NEGATIVES in batch:
            rows[self.NEG_ITEM_ID] = batch[NEGATIVES][ends - 1]
        losses = super(TP, self).calculate_loss(Interaction(rows))
        loss = torch.stack(losses).sum() if isinstance(losses, tuple) else losses
        if self.adversary_weight:
            loss = loss + self.adversary_loss(self.phi, batch[HEAD], ends)
        return loss


def last_items(items: Tensor, ends: Tensor, width: int) -> Tensor:
    """The last ``width`` items of the first ``ends`` [B] of each row [B, L], padded on the right, [B, width]."""
    columns = torch.arange(width, device=items.device)
    place = (ends - width).clamp(min=0)[:, None] + columns
    inside = place < ends[:, None]
    return torch.where(inside, items.gather(1, torch.where(inside, place, 0)), 0)
