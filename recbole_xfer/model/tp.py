"""TP: learning transferrable parameters for long-tailed sequential user behaviour modelling (Yin et al., KDD 2020).

A way of training any sequential recommender: ``TPSASRec``, ``TPGRU4Rec``, ``TPCaser`` and ``TPRETR`` at all positions
of a user's window, ``TPLightSANs`` and the like (:data:`OVER_ROWS`) over RecBole's own rows.

Symbols in comments: P paths, L positions, d width; phi is the sequence embedding, [L, d].
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model import sequential_recommender
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.model.sequential_recommender import Caser, GRU4Rec
from recbole.utils import InputType
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional as F

from recbole_xfer.config.properties import TP as PREFIX
from recbole_xfer.data.batches import HEAD, UserDataLoader
from recbole_xfer.data.dataset import NEGATIVES, TARGETS, TransferDataset
from recbole_xfer.errors import XferError
from recbole_xfer.layers.alignment import AllPaths, Weights, WithGradient, descend, number_ids, sum_of_paths
from recbole_xfer.model.retr import RETR

NUMBERS = {"cpu": 2**22, "cuda": 2**28}
"""Parameters that the paths of a group have each for itself, all together, by kind of device: on a CPU they stay in its
cache. More paths go one group behind the other."""

OVER_ROWS = (
    "CORE", "FDSA", "FOSSIL", "GCSAN", "HGN", "LightSANs", "NARM", "NextItNet", "NPE", "SASRecF", "SINE",
    "SRGNN", "STAMP",
)  # fmt: skip
"""RecBole's models whose ``forward`` gives the sequence embedding."""

OF_USERS = ("user_embedding", "user_lambda")
"""Names of RecBole's embeddings of users."""

Batch = Mapping[str, Tensor]


class TP(SequentialRecommender):
    """Over a sequential model, by inheritance: k inner steps of one user each, and an adversary that tells head users.

    A training step's loss has the outer update's direction as its gradient, so that RecBole's trainer and optimiser
    make the outer update (Adam in the paper). ``paths`` such ways of k steps start at the same parameters and their
    directions are averaged; ``paths: 1`` is one, as in the paper's Algorithm 1, over users drawn without replacement.

    Deviation: the inner steps descend and the outer one follows them, where Eq. 6 with Eq. 7 ascends and Algorithm 1
    descends and then moves away. Deviation: L_d is the cross-entropy of the discriminator; Eq. 9 lacks its minus sign,
    without which Eq. 10 would have the discriminator be wrong. Deviation: a user's loss is the mean over their
    sub-sequences, not the sum of Eq. 2, so that alpha does not depend on their number. Deviation: a negative may be an
    item that the user took elsewhere, as RecBole's sampler for sequences draws it. Deviation: what a model holds for a
    user without training interactions is zero, as nothing is known of a new user.

    Args:
        config: reads ``inner_steps``, ``inner_rate`` and ``adversary_weight``.
    """

    loader: ClassVar = UserDataLoader
    side_by_side: ClassVar[bool]
    """Whether paths go through one forward pass (``vmap``) or one behind the other."""
    tables: Mapping[str, tuple[str, ...]] = MappingProxyType({})
    """Embeddings of which a path holds only the rows that it looks up, and the fields with their ids."""

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        if config["train_rows"] != "windows":
            raise XferError(f"{config['model']} needs train_rows=windows: a user's mini-batch is one of their windows.")
        self.inner_rate = float(config["inner_rate"])
        self.adversary_weight = float(config["adversary_weight"])
        self.discriminator = Discriminator(self.item_embedding.embedding_dim)
        untrained = np.setdiff1d(np.arange(dataset.user_num), dataset.inter_feat[self.USER_ID].numpy())
        for name, table in self.named_children():
            if name in OF_USERS:
                with torch.no_grad():
                    table.weight[untrained] = 0

    # --- a user's loss -----------------------------------------------------------------------------------------------

    def user_loss(self, batch: Batch) -> Tensor:
        """Eq. 10 on a user's sub-sequences: fields [L] with one number for ``user_id`` and for :data:`HEAD`."""
        raise NotImplementedError

    def adversary_loss(self, phi: Tensor, head: Tensor) -> Tensor:
        """lambda L_d of each sub-sequence, [L]; phi climbs what the discriminator descends (Eq. 9 and 10)."""
        reversed_phi = 2 * phi.detach() - phi
        logits = self.discriminator(reversed_phi)  # f_d, [L]
        labels = head.to(logits.dtype).expand(logits.shape)  # R
        return self.adversary_weight * F.binary_cross_entropy_with_logits(logits, labels, reduction="none")

    # --- the outer step ----------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """The mean loss along all paths, with the direction of Eq. 7 as its gradient.

        Args:
            interaction: of a :class:`~recbole_xfer.data.batches.UserDataLoader`, [k, P, ...].
        """
        trained = {name: value for name, value in self.named_parameters() if value.requires_grad}
        total = {name: torch.zeros_like(value) for name, value in trained.items()}
        losses = [self._walk(trained, batches, total) for batches in self._groups(interaction, trained)]
        gradients = [value.div_(interaction[HEAD].numel()) for value in total.values()]  # of k steps on P paths
        return WithGradient.apply(torch.cat(losses, dim=1).mean(), gradients, *trained.values())

    def _groups(self, interaction: Interaction, trained: Weights) -> Iterator[list[dict[str, Tensor]]]:
        """For each group of paths, of like lengths, the batch of each inner step, cut to its longest window."""
        shared = {*self.tables, *self._linear_weights(trained)}
        numbers = sum(value.numel() for name, value in trained.items() if name not in shared)
        limit = NUMBERS.get(interaction[HEAD].device.type, NUMBERS["cuda"])
        size = max(1, limit // numbers) if self.side_by_side else 1
        order = interaction[self.ITEM_SEQ_LEN].amax(dim=0).argsort()
        parts = {field: value[:, order].split(size, dim=1) for field, value in interaction.interaction.items()}
        for group in range(len(parts[HEAD])):
            lengths = parts[self.ITEM_SEQ_LEN][group].amax(dim=1).tolist()
            yield [
                {
                    field: part[group][step, :, :length] if part[group].dim() > 2 else part[group][step]
                    for field, part in parts.items()
                }
                for step, length in enumerate(lengths)
            ]

    def _walk(self, trained: Weights, batches: list[dict[str, Tensor]], total: dict[str, Tensor]) -> Tensor:
        """Walks a group of paths and adds the gradients on the way to ``total``; returns the losses, [k, P]."""
        paths = len(batches[0][HEAD])
        rows, batches = self._look_up(batches)
        together = AllPaths(self._linear_weights(trained) if paths > 1 else (), self.inner_rate)
        start = {name: value.detach() for name, value in trained.items()}
        for name, value in start.items():
            if name in rows:
                start[name] = value[rows[name]]
            elif name not in together.moves:
                start[name] = value.expand(paths, *value.shape)
        padded = {f"{n}.weight" for n, m in self.named_modules() if isinstance(m, nn.Embedding) and m.padding_idx == 0}
        losses = []
        losses_of = partial(self._losses, together=together)
        for gradients, loss in descend(losses_of, start, batches, self.inner_rate, together.moves):
            losses.append(loss)
            for name, gradient in gradients.items():
                if self.side_by_side and name in padded:
                    gradient[:, 0] = 0  # as nn.Embedding does alone; vmap forgets its padding_idx
                if name in rows:
                    total[name].index_add_(0, rows[name].flatten(), gradient.flatten(0, 1))
                elif name in together.moves:
                    total[name] += gradient
                else:
                    total[name] += sum_of_paths(gradient)
        return torch.stack(losses)

    def _look_up(self, batches: list[dict[str, Tensor]]) -> tuple[dict[str, Tensor], list[dict[str, Tensor]]]:
        """Of each table the rows that a path looks up, [P, m], and the batches with places in them for ids."""
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
        """Of linear layers, those that are trained."""
        linear = (name for name, module in self.named_modules() if isinstance(module, nn.Linear))
        return {f"{name}.weight" for name in linear} & set(trained)

    def _losses(self, theta: Weights, batch: Batch, together: AllPaths) -> Tensor:
        """The loss of each path's user under the path's own parameters, [P]; ``together`` has some of theirs."""
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
    """A model whose forward is its loss, as ``functional_call`` wants it."""

    def __init__(self, model: TP) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model.user_loss(batch)


class Discriminator(nn.Module):
    """f_d: a score [L] that is high where a sequence embedding [L, d] is a head user's; one hidden layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, 1)

    def forward(self, phi: Tensor) -> Tensor:
        """[L, d] to logits [L]"""
        return self.out(F.relu(self.hidden(phi))).squeeze(-1)


class TPAllPositions(TP):
    """Every position of a user's window is a sub-sequence, whose states one pass gives, and paths go side by side.

    Of the item embeddings a path holds the rows of its own items and of their negatives; no other row has a gradient.
    With ``loss_type: CE`` all have, and every path holds the whole table.
    """

    input_type = InputType.PAIRWISE
    loss_types = ("BCE", "BPR", "CE")
    side_by_side = True

    item_embedding: nn.Embedding

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        # RecBole's constructors know no BCE, and the loss that they make is not used
        super().__init__(ChainMap({"loss_type": "CE"}, config), dataset)
        self.loss_type = config["loss_type"]
        if self.loss_type != "CE":
            self.tables = {**self.tables, "item_embedding.weight": (self.ITEM_SEQ, TARGETS, NEGATIVES)}

    def states(self, batch: Batch) -> Tensor:
        """phi at every position of a user's window, [L, d]."""
        raise NotImplementedError

    def user_loss(self, batch: Batch) -> Tensor:
        """See :meth:`TP.user_loss`; the mean over the user's sub-sequences, so that every user weighs the same."""
        real = batch[TARGETS] > 0
        phi = self.states(batch)
        loss = self.next_item_loss(phi, batch)
        if self.adversary_weight:
            loss = loss + self.adversary_loss(phi, batch[HEAD])
        return torch.where(real, loss, 0).sum() / real.sum()

    def next_item_loss(self, phi: Tensor, batch: Batch) -> Tensor:
        """Eq. 2 with one sampled negative for each target, or another loss, [L]."""
        positive = (phi * self.item_embedding(batch[TARGETS])).sum(dim=-1)
        if self.loss_type == "CE":
            return torch.logsumexp(phi @ self.item_embedding.weight[1:].T, dim=-1) - positive
        negative = (phi * self.item_embedding(batch[NEGATIVES])).sum(dim=-1)
        if self.loss_type == "BPR":
            return -F.logsigmoid(positive - negative)
        return -F.logsigmoid(positive) - F.logsigmoid(-negative)


class TPRETR(TPAllPositions, RETR):
    """RETR, trained by TP."""

    def states(self, batch: Batch) -> Tensor:
        """The encoder's states, [L, d]."""
        return self.encoder(self.embed(batch[self.ITEM_SEQ][None]))[0]


class TPSASRec(TPRETR):
    """SASRec, which is RETR without its pathway, trained by TP."""


class TPGRU4Rec(TPAllPositions, GRU4Rec):
    """RecBole's GRU4Rec, trained by TP."""

    def states(self, batch: Batch) -> Tensor:
        """What RecBole's forward gives for every prefix, [L, d]; written out, for ``vmap`` does not know nn.GRU."""
        states = self.emb_dropout(self.item_embedding(batch[self.ITEM_SEQ]))  # [L, d]
        for layer in range(self.num_layers):
            weights = (getattr(self.gru_layers, f"weight_{part}_l{layer}") for part in ("ih", "hh"))
            states = gru(states, *weights)
        return self.dense(states)


class TPCaser(TPAllPositions, Caser):
    """RecBole's Caser over the last ``caser_length`` items, trained by TP."""

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        self.order = config["caser_length"]
        super().__init__(ChainMap({"MAX_ITEM_LIST_LENGTH": self.order}, config), dataset)
        self.tables = {**self.tables, "user_embedding.weight": (self.USER_ID,)}

    def states(self, batch: Batch) -> Tensor:
        """RecBole's forward for every prefix, [L, d]."""
        items = batch[self.ITEM_SEQ]
        ends = torch.arange(1, len(items) + 1, device=items.device)
        rows = last_items(items.expand(len(items), -1), ends, self.order)
        return super().forward(batch[self.USER_ID].expand(len(items)), rows)

    def forward(self, user: Tensor, item_seq: Tensor) -> Tensor:
        """RecBole's forward on the last items of histories, [B, d]."""
        return super().forward(user, last_items(item_seq, (item_seq > 0).sum(dim=1), self.order))


class TPOverRows(TP):
    """A model of RecBole's on RecBole's rows: each sub-sequence is a row of its own, and paths go one by one.

    Its loss is the model's own.
    """

    side_by_side = False
    phi: Tensor

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """RecBole's forward; what it gives is kept for the discriminator."""
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
            loss = loss + self.adversary_loss(self.phi, batch[HEAD]).mean()
        return loss


def gru(x: Tensor, input_weight: Tensor, hidden_weight: Tensor) -> Tensor:
    """A layer of ``nn.GRU`` without biases: inputs [L, d] to states [L, h]."""
    from_inputs = x @ input_weight.T  # [L, 3h]
    hidden_weight = (
        hidden_weight.T.contiguous()
    )  # so laid, a row times a matrix for each path takes a fourth of the time
    state = from_inputs.new_zeros(1, len(hidden_weight))
    states = []
    for from_input in from_inputs.split(1):
        inputs, hidden = from_input.chunk(3, dim=1), (state @ hidden_weight).chunk(3, dim=1)
        reset, update = (torch.sigmoid(inputs[gate] + hidden[gate]) for gate in (0, 1))
        new = torch.tanh(inputs[2] + reset * hidden[2])
        state = new + update * (state - new)
        states.append(state)
    return torch.cat(states)


def last_items(items: Tensor, ends: Tensor, width: int) -> Tensor:
    """The last ``width`` items of the first ``ends`` [B] of each row [B, L], padded on the right, [B, width]."""
    columns = torch.arange(width, device=items.device)
    place = (ends - width).clamp(min=0)[:, None] + columns
    inside = place < ends[:, None]
    return torch.where(inside, items.gather(1, torch.where(inside, place, 0)), 0)


@cache
def over_rows(name: str) -> type[TP]:
    """The class ``TP<name>`` over a model of RecBole's."""
    return type(f"{PREFIX}{name}", (TPOverRows, getattr(sequential_recommender, name)), {"__module__": __name__})


def __getattr__(name: str) -> Callable:
    """RecBole's ``get_model`` looks a class up in its module."""
    if name.startswith(PREFIX) and name.removeprefix(PREFIX) in OVER_ROWS:
        return over_rows(name.removeprefix(PREFIX))
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
