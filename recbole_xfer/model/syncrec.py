"""SyNCRec: cooperation between single- and cross-domain sequential recommendation (Park et al., SIGIR 2024).

Symbols in comments: B windows, L positions of items, D domains, K experts, T targets, r width. Of 1 + L positions, the
first (0) is the start token (SOS). A task is a domain, or the cross-domain sequence, whose number is D.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.collectives import gather, mean, place, total
from recbole_xfer.data.dataset import NEGATIVES, TARGETS, TransferDataset
from recbole_xfer.errors import XferError
from recbole_xfer.layers.domain_views import View, across, last_of, per_domain
from recbole_xfer.layers.encoder import FeedForward, init_as_sasrec
from recbole_xfer.layers.experts import Experts
from recbole_xfer.layers.losses import precise
from recbole_xfer.model.base import DotProductRecommender

SINGLE = "gate/single experts"
"""Name in the log of the gate's weight for single-domain experts in joined sequences."""


class ACMoE(nn.Module):
    """The asymmetric cooperative network with a mixture of sequential experts (section 4.2).

    The experts 1 to j learn only from cross-domain sequences, the others only from single-domain sequences.

    Deviation: an expert is SASRec's encoder and a tower its feed-forward part, with residuals and layer normalisation,
    which Eq. 6 and 7 leave out. Deviation: places count from a sequence's start, as in RecBole, and padding adds
    nothing to the gate's sum; the paper pads on the left, so that its last place is always the latest item.

    Args:
        config: reads ``n_experts``, ``cross_experts``, ``decoupled``, ``gate`` and the sizes of an expert.
        domains: D.
        length: maximum number of positions of a sequence, with its start token.
    """

    def __init__(self, config: Any, domains: int, length: int) -> None:
        super().__init__()
        count, cross = config["n_experts"], config["cross_experts"]
        if not 0 < cross < count:
            raise XferError(f"cross_experts={cross} is invalid: it must be between 1 and n_experts - 1 = {count - 1}.")
        self.decoupled = config["decoupled"]
        self.read = torch.zeros(2)  # weight of the single-domain experts at items of joined sequences; these items
        self.cross_experts = Experts(config, cross)  # f_TRM^1 to f_TRM^j
        self.single_experts = Experts(config, count - cross)  # f_TRM^(j+1) to f_TRM^K
        self.gate = Gate(config, domains + 1, length)  # g^d and g^cross
        width, act, eps = config["hidden_size"], config["hidden_act"], float(config["layer_norm_eps"])
        self.towers = nn.ModuleList(  # h^d and h^cross
            FeedForward(width, config["inner_size"], act, config["hidden_dropout_prob"], eps)
            for _ in range(domains + 1)
        )

    def forward(self, x: Tensor, view: View, real: Tensor) -> Tensor:
        """Y (Eq. 2 or 4) at the R positions that a view reads.

        Args:
            x: embedded windows E, [B, 1 + L, r].
            view: cross-domain or single-domain sequences.
            real: where there are items, [B, L].

        Returns:
            [B, R, r]
        """
        states = []
        for experts, learns in ((self.cross_experts, not view.single), (self.single_experts, view.single)):
            with torch.set_grad_enabled(torch.is_grad_enabled() and (learns or not self.decoupled)):  # SG
                states.append(experts(x, view.seen).index_select(2, view.read))  # [j or K - j, B, R, r]
        gates = self.gate(x, view, real).permute(2, 0, 1)[..., None]  # [K, B, R, 1]
        if self.training and not view.single:
            read = gates[len(states[0]) :, real].detach()
            self.read = self.read.to(read.device) + torch.stack([read.sum(), real.sum().to(read)])
        mixed = (gates * torch.cat(states)).sum(dim=0).flatten(0, 1)  # f of Eq. 2 and 4
        if not view.single:  # one sequence, so one tower
            return self.towers[-1](mixed).unflatten(0, view.task.shape)
        task = view.task.flatten()
        order, sizes = task.argsort(stable=True), torch.bincount(task, minlength=len(self.towers)).tolist()
        parts = mixed.index_select(0, order).split(sizes)
        y = torch.cat([tower(part) for tower, part in zip(self.towers, parts, strict=True)])
        return torch.zeros_like(y).index_copy(0, order, y).unflatten(0, view.task.shape)


class Gate(nn.Module):
    """The weight of each expert (Eq. 3).

    ``gate: window`` reads the whole sequence, as in the paper. In training, an early position thus sees a little of the
    items after it, K numbers per window; the last position, which ranks, does not. ``position`` reads only each
    position's own item.

    Args:
        config: reads ``gate``, ``n_experts`` and ``hidden_size``.
        tasks: D + 1.
        length: maximum number of positions of a sequence.
    """

    def __init__(self, config: Any, tasks: int, length: int) -> None:
        super().__init__()
        self.places = length if config["gate"] == "window" else 1
        shape = (tasks, self.places, config["n_experts"], config["hidden_size"])
        self.weight = nn.Parameter(torch.empty(shape))  # W_g
        nn.init.normal_(self.weight, std=config["initializer_range"])

    def forward(self, x: Tensor, view: View, real: Tensor) -> Tensor:
        """Weights [B, R, K]; arguments as for :class:`ACMoE`."""
        if self.places == 1:
            return self.products(x[:, view.read], view.task).softmax(dim=-1)
        task = view.task[:, -real.shape[1] :]  # of the items, [B, L]
        items = self.products(x[:, 1:] * real[..., None], task * self.places + view.place[:, 1:])  # [B, L, K]
        start = precise(torch.einsum("br,tkr->btk", x[:, 0], self.weight[:, 0]))  # [B, D + 1, K]
        logits = start.scatter_add(1, task[..., None].expand_as(items), items)
        own = view.task[..., None].expand(-1, -1, logits.shape[-1])
        return logits.softmax(dim=-1).gather(1, own)

    def products(self, x: Tensor, row: Tensor) -> Tensor:
        """Of x [B, l, r] with each expert's weights in rows [B, l] of (task, place), [B, l, K]."""
        weight = F.embedding(row, self.weight.flatten(0, 1).flatten(1)).unflatten(-1, self.weight.shape[2:])
        return precise(x[..., None, :] * weight).sum(dim=-1)  # einsum would be a matrix product for each position


class SyNCRec(DotProductRecommender):
    """One model for the sequence of each domain and for the joined sequence, which ranks (Eq. 1 to 19).

    Where the joined sequence predicts a domain's items worse than the domain's own sequence does, transfer hurts it:
    its gap (Eq. 10) is negative, and its weight in the joined sequence's loss shrinks (Eq. 11 and 12). The last item of
    the joined sequence is tested, as in the paper's Figure 2, which says no more.

    Deviation: the losses are the negatives of Eq. 8, 9 and 16; all sums over a batch are divided by its number of
    targets, so that their scale does not depend on its size, and the sum of Eq. 10 by the domain's number of targets.
    Deviation: both tasks read the same window, so that a domain's sequence holds the window's items of this domain,
    where the paper reads the last T items of each domain; the gap is thus the effect of the other domains. A user's
    first item is not a target, as in RecBole. Deviation: no gradient passes through the gap, which would join what
    Eq. 2 and 4 separate; a domain without a target in a batch keeps its last gap. Batches hold windows of similar
    length, so the gap, carried from batch to batch, comes from one length at a time; the effect was not measured.
    Deviation: Y of Eq. 16 and 17 are means over a sequence's positions. Deviation: scores have no sigmoid of their own
    in Eq. 8 and 9, which validated better (docs/models/syncrec.md); ``bounded_scores: True`` has it. Nothing drives
    alpha and beta except the loss that they weigh. With ``ranking_sequence: own``, which is ours, the sequence of the
    item's domain ranks; with ``both`` the sum of its score and that of the joined sequence.
    """

    input_type = InputType.PAIRWISE
    shares_batches: ClassVar[bool] = True

    item_domain: Tensor
    gap: Tensor
    weight: Tensor

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        self.domains = dataset.domains
        count = len(self.domains)
        if count < 2 or config["histories"] != "across":
            raise XferError(
                f"SyNCRec learns from histories across several domains. Join them, such as --dataset=Books+Toys, "
                f"and leave --histories at 'across' (now: {config['dataset']}, {config['histories']})."
            )
        self.eta = config["harmonic_factor"]
        self.temperature = config["weight_temperature"]  # delta
        self.loss_correction = config["loss_correction"]
        self.weight_scale = config["weight_scale"] if self.loss_correction else 1.0
        self.bounded_scores = config["bounded_scores"]
        self.ranking_sequence = config["ranking_sequence"]
        width, length = config["hidden_size"], 1 + self.max_seq_length
        self.item_embedding = nn.Embedding(self.n_items, width, padding_idx=0)  # M
        self.start_embedding = nn.Embedding(1, width)  # (SOS)
        self.position_embedding = nn.Embedding(length, width)  # P
        self.acmoe = ACMoE(config, count, length)
        self.similarity = nn.Linear(width, width, bias=False)  # W^H
        init_as_sasrec(self, config["initializer_range"])
        trained = config["trained_correction"]
        self.alpha = nn.Parameter(torch.tensor(float(config["weight_memory"])), requires_grad=trained)
        self.beta = nn.Parameter(torch.tensor(float(config["gap_influence"])), requires_grad=trained)
        self.register_buffer("item_domain", torch.from_numpy(dataset.item_domain).long(), persistent=False)
        self.register_buffer("gap", torch.zeros(count))  # phi
        self.register_buffer("weight", torch.zeros(count))  # lambda
        self._steps: list[Tensor] = []  # gap and weight, [2, D] each

    @staticmethod
    def needs_several_domains(config: Any) -> bool:
        """Always."""
        return True

    # --- representations -------------------------------------------------------------------------------------------

    def embed(self, vectors: Tensor, view: View) -> Tensor:
        """E + P with the start token before the items: item embeddings [B, L, r] to [B, 1 + L, r]."""
        start = self.start_embedding.weight.expand(vectors.shape[0], 1, -1)
        return torch.cat([start, vectors], dim=1) + self.position_embedding(view.place)

    def cross_states(self, items: Tensor, vectors: Tensor) -> Tensor:
        """Y^cross (Eq. 4) at every item: items [B, L] and their embeddings [B, L, r] to [B, L, r]."""
        view = across(self.item_domain[items], len(self.domains))
        return self.acmoe(self.embed(vectors, view), view, items > 0)

    def single_states(self, items: Tensor, vectors: Tensor) -> Tensor:
        """Y^single (Eq. 2) at the start token of each domain's sequence and at every item, all domains in one batch.

        Items [B, L] and their embeddings [B, L, r] to [B, D + L, r].
        """
        view = per_domain(self.item_domain[items], len(self.domains))
        return self.acmoe(self.embed(vectors, view), view, items > 0)

    def own_states(self, items: Tensor, vectors: Tensor) -> Tensor:
        """Y^single at the last item of each domain up to every position, or at the domain's start token before any.

        Items [B, L] and their embeddings [B, L, r] to [B, L, D, r].
        """
        single, count = self.single_states(items, vectors), len(self.domains)
        domain = torch.arange(count, device=items.device)
        place = count + torch.arange(items.shape[1], device=items.device)[:, None]  # of each item in ``single``
        own = self.item_domain[items][..., None] == domain  # [B, L, D]
        read = torch.where(own, place, domain).cummax(dim=1).values
        window = torch.arange(len(items), device=items.device)[:, None, None]
        return single[window, read]

    def encode(self, items: Tensor) -> Tensor:
        """Y^cross, which ranks (Eq. 19), of items [B, L], [B, L, r]; or a state for each domain, [B, L, D r]."""
        vectors = self.item_embedding(items)
        if self.ranking_sequence == "joined":
            return self.cross_states(items, vectors)
        states = self.own_states(items, vectors)
        if self.ranking_sequence == "both":
            states = states + self.cross_states(items, vectors)[:, :, None]
        return states.flatten(2)

    def item_vectors(self, ids: Tensor | None = None) -> Tensor:
        """Embeddings [N, r]; or [N, D r], zero but for the item's domain, so that the state of this domain ranks it."""
        vectors = super().item_vectors(ids)
        if self.ranking_sequence == "joined":
            return vectors
        domain = self.item_domain if ids is None else self.item_domain[ids]
        return (F.one_hot(domain, len(self.domains))[..., None] * vectors[..., None, :]).flatten(-2)

    # --- training --------------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> tuple[Tensor, ...]:
        """Eq. 18: the single-domain losses, the corrected cross-domain loss, and SC-MIM where eta is below 1."""
        items, targets = interaction[self.ITEM_SEQ], interaction[TARGETS]  # [B, L]
        domains, target_domains = self.item_domain[items], self.item_domain[targets]
        # one lookup for all, since the gradient of each is as large as the table
        vectors, positive, negative = self.item_embedding(torch.stack([items, targets, interaction[NEGATIVES]]))
        cross = self.cross_states(items, vectors)  # [B, L, r]
        single = self.single_states(items, vectors)  # [B, D + L, r]

        wanted = targets > 0
        window, domain = wanted.nonzero()[:, 0], target_domains[wanted]  # [T]
        last = last_of(domains, target_domains)[wanted]  # [T], the last item of the same domain
        before = torch.where(last > 0, len(self.domains) - 1 + last, domain)  # without one, the sequence's start
        candidates = positive[wanted], negative[wanted]
        single_loss = self.pairwise_loss(single[window, before], *candidates)  # Eq. 8, [T]
        cross_loss = self.pairwise_loss(cross[wanted], *candidates)  # Eq. 9, [T]
        weight = self.weights(self.gaps(single_loss, cross_loss, domain))  # [D]
        corrected = self.weight_scale * weight[domain] * cross_loss  # Eq. 12, [T]
        losses = self.eta * mean(single_loss), self.eta * mean(corrected)
        if self.eta == 1:
            return losses
        row, column = (items > 0).nonzero(as_tuple=True)
        key = domains[row, column] * len(items) + row
        at_items = single[:, len(self.domains) :][row, column]
        mim = self.mutual_information_loss(at_items, cross[row, column], key, interaction[self.USER_ID])
        return *losses, (1 - self.eta) * mim / total(torch.tensor(len(window)))

    def pairwise_loss(self, states: Tensor, target: Tensor, negative: Tensor) -> Tensor:
        """Eq. 8 and 9 at each target: states, targets' embeddings and those of the negatives, [T, r] each, to [T]."""
        positive, other = (precise((states * item).sum(dim=-1)) for item in (target, negative))
        if self.bounded_scores:
            positive, other = positive.sigmoid(), other.sigmoid()
        return -F.logsigmoid(positive - other)

    @torch.no_grad()
    def gaps(self, single_loss: Tensor, cross_loss: Tensor, domain: Tensor) -> Tensor:
        """phi (Eq. 10): loss of each domain's own sequence minus that of the joined sequence at its targets, [D]."""
        count = total(torch.bincount(domain, minlength=len(self.domains)))
        gain = total(torch.zeros_like(self.gap).index_add(0, domain, single_loss - cross_loss))
        return torch.where(count > 0, gain / count.clamp(min=1), self.gap)

    def weights(self, gap: Tensor) -> Tensor:
        """lambda (Eq. 11), [D], carried from batch to batch in training; all 1 without the correction."""
        weight = torch.ones_like(gap)
        if self.loss_correction:
            weight = ((self.alpha * self.weight + self.beta * gap) / self.temperature).softmax(dim=0)
        if self.training:
            self.gap, self.weight = gap, weight.detach()
            self._steps.append(torch.stack([self.gap, self.weight]))
        return weight

    def mutual_information_loss(self, single: Tensor, cross: Tensor, key: Tensor, users: Tensor) -> Tensor:
        """Eq. 16 as a sum over the batch's sequences; other users' sequences of the same domain are the negatives.

        Args:
            single, cross: both towers' Y at every item, [N, r].
            key: domain * B + window of each item, [N].
            users: user of each window, [B].
        """
        sequence, item_sequence, length = key.unique(return_inverse=True, return_counts=True)  # domain by domain
        y_single, y_cross = (
            torch.zeros(len(sequence), y.shape[1], dtype=y.dtype, device=y.device).index_add(0, item_sequence, y)
            / length[:, None]
            for y in (single, cross)
        )
        user, domain = users[sequence % len(users)], sequence // len(users)
        y_all, user_all, domain_all = gather(y_single), gather(user), gather(domain)
        number = place(len(sequence))[0] + torch.arange(len(sequence), device=key.device)
        losses = []
        for d in range(len(self.domains)):
            rows, own = (domain_all == d).nonzero()[:, 0], domain == d
            rho = precise(y_all[rows] @ self.similarity(y_cross[own]).T).sigmoid()  # Eq. 17, [n, this process' n]
            others = user_all[rows][:, None] != user[own]
            negatives = rho.masked_fill(~others, -torch.inf).logsumexp(dim=0)
            positive = rho.gather(0, torch.searchsorted(rows, number[own])[None])[0]
            losses.append((negatives - positive)[others.any(dim=0)])
        return torch.cat(losses).sum()

    def epoch_scalars(self) -> dict[str, float]:
        """Gap and weight of each domain, and how much the joined sequence is read by experts that never learn from it.

        Means over the training steps since the last call; alpha and beta as they are.
        """
        gap, weight = torch.stack(self._steps).mean(dim=0).tolist()
        read, items = total(self.acmoe.read).tolist()
        self._steps, self.acmoe.read = [], torch.zeros(2)
        values = {"alpha": float(self.alpha.detach()), "beta": float(self.beta.detach()), SINGLE: read / items}
        for name, by_domain in (("gap", gap), ("weight", weight)):
            values |= {f"{name}/{domain}": value for domain, value in zip(self.domains, by_domain, strict=True)}
        return values
