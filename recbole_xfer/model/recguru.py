"""RecGURU: adversarial learning of generalized user representations (Li et al., WSDM 2022).

Symbols in comments: B histories, L positions, T targets, K negatives, N longest history, D domains, d width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.collectives import drawn, mean, total
from recbole_xfer.data.batches import HISTORIES, SHARED
from recbole_xfer.data.dataset import TARGETS, TransferDataset
from recbole_xfer.data.negatives import check_drawable, powers
from recbole_xfer.errors import XferError
from recbole_xfer.layers.adversary import Critic, gradient_penalty
from recbole_xfer.layers.dropout import Dropout
from recbole_xfer.layers.encoder import FeedForward, SelfAttention, in_groups, init_as_sasrec, last_states
from recbole_xfer.layers.losses import item_cross_entropy, precise
from recbole_xfer.model.base import DotProductRecommender

RECONSTRUCTION = "reconstruction/"
"""Prefix of the names of the domains' reconstruction losses in the log; the name of the domain follows."""


class Layer(nn.Module):
    """A transformer layer; in a decoder, attention to the user's representation follows self-attention."""

    def __init__(self, config: Any, attends: bool) -> None:
        super().__init__()
        width, eps, dropout = config["hidden_size"], float(config["layer_norm_eps"]), config["hidden_dropout_prob"]
        self.self_attention = SelfAttention(width, config["n_heads"], dropout, config["attn_dropout_prob"], eps)
        self.user_attention = UserAttention(width, dropout, eps) if attends else None
        self.feed_forward = FeedForward(width, config["inner_size"], config["hidden_act"], dropout, eps)

    def forward(self, x: Tensor, user: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """[B, L, d] and users [B, d] to [B, L, d]; attends to all ``real`` items, bool [B, L]; causal without it."""
        return self.feed_forward(self.attend(x, user, real))

    def attend(self, x: Tensor, user: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """:meth:`forward` up to the feed-forward part."""
        x = self.self_attention(x, mask=None if real is None else real[:, None])
        return x if self.user_attention is None else self.user_attention(x, user)


class UserAttention(nn.Module):
    """Multi-head attention to a single vector, followed by a residual and layer normalisation.

    The softmax over one score is 1 for every query, so that queries and keys would have no effect.
    """

    def __init__(self, width: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, user: Tensor) -> Tensor:
        """[B, L, d] and users [B, d] to [B, L, d]"""
        return self.norm(x + self.dropout(self.out(self.value(user)))[:, None])


class Transformer(nn.Module):
    """Normalisation and dropout of the input, then the layers: an encoder, a decoder or a recommender."""

    def __init__(self, config: Any, attends: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config["hidden_size"], eps=float(config["layer_norm_eps"]))
        self.dropout = Dropout(config["hidden_dropout_prob"])
        self.layers = nn.ModuleList(Layer(config, attends) for _ in range(config["n_layers"]))

    def forward(self, x: Tensor, user: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """Embedded histories [B, L, d] to states [B, L, d]; causal where ``real`` is not given."""
        x = self.dropout(self.norm(x))
        for layer in self.layers:
            x = layer(x, user, real)
        return x

    def first(self, x: Tensor, real: Tensor) -> Tensor:
        """The first position of :meth:`forward`, [B, d]; the last feed-forward part is computed only there."""
        x = self.dropout(self.norm(x))
        layers: list[Any] = list(self.layers)
        *before, last = layers
        for layer in before:
            x = layer(x, real=real)
        return last.feed_forward(last.attend(x, real=real)[:, 0])


class DomainItems(nn.Module):
    """The items of each domain, and random draws from them; not saved with the model.

    Args:
        item_domain: index of each item's domain, [n_items].
        domains: their number.
        weights: to which draws of items are proportional, [n_items]; None for uniform draws.
    """

    domain: Tensor
    place: Tensor  # of each item among those of its domain

    def __init__(self, item_domain: Tensor, domains: int, weights: np.ndarray | None = None) -> None:
        super().__init__()
        self.weighted = weights is not None
        place = torch.zeros_like(item_domain)
        for domain in range(domains):
            items = 1 + (item_domain[1:] == domain).nonzero()[:, 0]
            place[items] = torch.arange(len(items))
            self.register_buffer(f"items_{domain}", items, persistent=False)
            if weights is not None:
                cumulated = torch.from_numpy(np.r_[0, np.cumsum(weights[items.numpy()])])
                self.register_buffer(f"cumulated_{domain}", cumulated, persistent=False)
        self.register_buffer("domain", item_domain, persistent=False)
        self.register_buffer("place", place, persistent=False)

    def of(self, domain: int) -> Tensor:
        """Ids of a domain's items."""
        return getattr(self, f"items_{domain}")

    def draw(self, target: Tensor, domain: int, count: int) -> Tensor:
        """Draws items of a domain other than each target [T], with replacement, [T, count]."""
        items = self.of(domain)
        if self.weighted:
            return items[self._draw_weighted(self.place[target][:, None], getattr(self, f"cumulated_{domain}"), count)]
        place = drawn(target.new_empty((len(target), count)), lambda places: places.random_(0, len(items) - 1))
        return items[place + (place >= self.place[target][:, None])]

    @staticmethod
    def _draw_weighted(own: Tensor, cumulated: Tensor, count: int) -> Tensor:
        """Draws places other than each target's own [T, 1], by their cumulated weights from 0, [T, count]."""
        below, weight = cumulated[own], cumulated[own + 1] - cumulated[own]
        value = drawn(cumulated.new_empty((len(own), count)), Tensor.uniform_) * (cumulated[-1] - weight)
        value = torch.where(value < below, value, value + weight)  # skips the target
        return torch.searchsorted(cumulated, value, right=True) - 1


class Embedding(nn.Module):
    """Item embeddings I and positional embeddings P of each domain (section 3.3, *Embed*).

    Positions are counted from the end, as if histories were padded on the left: the last item's is N.
    """

    def __init__(self, items: int, longest: int, domains: int, width: int) -> None:
        super().__init__()
        self.items = nn.Embedding(items, width, padding_idx=0)  # I^A and I^B
        self.eos = nn.Embedding(domains, width)
        self.positions = nn.Parameter(torch.empty(domains, longest + 1, width))  # P^A and P^B

    def forward(self, items: Tensor, domain: Tensor) -> Tensor:
        """Histories [B, L] of domains [B] to item and position embeddings, added, [B, L, d]."""
        return self.items(items) + self.position(items, domain)

    def position(self, items: Tensor, domain: Tensor) -> Tensor:
        """P at each item of histories [B, L] of domains [B], [B, L, d]."""
        longest = self.positions.shape[1] - 1
        first = longest - (items > 0).sum(dim=1, keepdim=True)  # [B, 1]
        number = (first + torch.arange(items.shape[1], device=items.device)).clamp(max=longest - 1)
        return self.positions[domain[:, None], number]

    def end(self, domain: Tensor) -> Tensor:
        """The embedded [eos] of domains [B], [B, d]."""
        return self.eos(domain) + self.positions[domain, -1]


class GURU(nn.Module):
    """Autoencoders of the domains with one shared encoder, whose user representations shall not depend on the domain.

    See section 3.3.

    Args:
        config: see properties/model/RecGURU.yaml.
        items: the items of each domain.
        domains: their names.
    """

    def __init__(self, config: Any, items: DomainItems, domains: Sequence[str]) -> None:
        super().__init__()
        self.domains = domains
        self.negatives = config["reconstruction_negatives"]
        self.embed = Embedding(len(items.domain), config["MAX_ITEM_LIST_LENGTH"], len(domains), config["hidden_size"])
        self.encoder = Transformer(config, attends=False)
        self.decoders = nn.ModuleList(Transformer(config, attends=True) for _ in domains)
        self.items = items

    def represent(self, items: Tensor, domain: Tensor) -> Tensor:
        """Histories [B, L] of domains [B] to users h [B, d]: the state of [eos], which comes first here (Eq. 4)."""
        embedded = torch.cat([self.embed.end(domain)[:, None], self.embed(items, domain)], dim=1)
        real = F.pad(items > 0, (1, 0), value=True)  # [eos] is never masked
        return self.encoder.first(embedded, real)

    def represent_domains(self, histories: Tensor) -> Tensor:
        """Histories of all domains, [D, B, L], to users h, [D, B, d]."""
        domain = torch.arange(len(histories), device=histories.device).repeat_interleave(histories.shape[1])
        items = histories.flatten(0, 1)
        users = in_groups(items, (items > 0).sum(dim=1), lambda part, rows: self.represent(part, domain[rows]))
        return users.unflatten(0, histories.shape[:2])

    def reconstruct(self, items: Tensor, users: Tensor, domain: int) -> Tensor:
        """Decoder's states [B, L, d] for histories [B, L] of a domain: each reads h [B, d] and the previous items.

        The first reads [eos] instead.
        """
        domains = torch.full_like(items[:, 0], domain)
        before = torch.cat([self.embed.eos(domains)[:, None], self.embed.items(items[:, :-1])], dim=1)
        return self.decoders[domain](before + self.embed.position(items, domains), users)

    def reconstruction_loss(self, items: Tensor, users: Tensor, domain: int) -> Tensor:
        """Eq. 5 (Eq. 14), by softmax over all items of the domain or over some drawn items."""
        real = items > 0
        states, target = self.reconstruct(items, users, domain)[real], items[real]  # [T, d], [T]
        if self.negatives is None:
            return item_cross_entropy(states, self.embed.items(self.items.of(domain)), self.items.place[target])
        candidates = torch.cat([target[:, None], self.items.draw(target, domain, self.negatives)], dim=1)
        logits = precise(torch.einsum("td,tkd->tk", states, self.embed.items(candidates)))  # [T, 1 + K]
        return -mean(logits.log_softmax(dim=1)[:, 0])

    def losses(self, histories: Tensor, users: Tensor) -> dict[str, Tensor]:
        """Eq. 5 for histories [D, B, L] and their users h [D, B, d], by name in the log."""
        return {
            f"{RECONSTRUCTION}{name}": self.reconstruction_loss(histories[domain], users[domain], domain)
            for domain, name in enumerate(self.domains)
        }

    def overlap_penalty(self, histories: Tensor) -> Tensor:
        """Eq. 9: mean distance of the two representations of each user in both domains, [2, S, L]; 0 without any."""
        if not total(torch.tensor(histories.shape[1])):
            return self.embed.positions.new_zeros(())
        users = precise(self.represent_domains(histories))  # [2, S, d]
        return mean((users[0] - users[1]).norm(dim=-1))


class CDSRec(nn.Module):
    """A recommender for each domain, built as a decoder (section 3.4).

    Its embeddings are its own and start as those of the autoencoders: shared ones would move under the fixed encoder.

    Args:
        config: see properties/model/RecGURU.yaml.
        items: the items of each domain.
        domains: their number.
        attends: whether the recommenders attend to the user's representation.
    """

    def __init__(self, config: Any, items: DomainItems, domains: int, attends: bool) -> None:
        super().__init__()
        self.negatives = config["negatives"]
        self.whole_domain = config["recommendation_loss"] == "CE"
        self.embed = Embedding(len(items.domain), config["MAX_ITEM_LIST_LENGTH"], domains, config["hidden_size"])
        self.recommenders = nn.ModuleList(Transformer(config, attends) for _ in range(domains))
        self.items = items

    def forward(self, items: Tensor, users: Tensor | None) -> Tensor:
        """Eq. 10: histories [B, L], each of one domain, and users h [B, d] to q at every position, [B, L, d]."""
        domain = self.items.domain[items[:, 0]]
        embedded = self.embed(items, domain)
        if torch.compiler.is_compiling():  # a graph has no loops over its data
            states = torch.stack([recommender(embedded, users) for recommender in self.recommenders], dim=1)
            return states[torch.arange(items.shape[0], device=items.device), domain]
        states = torch.empty_like(embedded)
        for number in domain.unique().tolist():
            rows = domain == number
            part = self.recommenders[number](embedded[rows], None if users is None else users[rows])
            states[rows] = part.to(states.dtype)
        return states

    def loss(self, states: Tensor, target: Tensor) -> Tensor:
        """Eq. 12, or cross-entropy over the items of a target's domain; a mean over targets [T] with their q [T, d]."""
        domain, targets = self.items.domain[target], total(torch.tensor(len(target)))
        own = [domain == number for number in range(len(self.recommenders))]
        return torch.stack([self._loss_of_domain(states[o], target[o], n) for n, o in enumerate(own)]).sum() / targets

    def _loss_of_domain(self, q: Tensor, positive: Tensor, domain: int) -> Tensor:
        """The sum of losses over targets [T] of a domain."""
        if self.whole_domain:
            targets = total(torch.tensor(len(positive)))
            items = self.embed.items(self.items.of(domain))
            return targets * item_cross_entropy(q, items, self.items.place[positive]) if targets else q.sum()
        negatives = self.embed.items(self.items.draw(positive, domain, self.negatives))  # [T, K, d]
        score = precise((q * self.embed.items(positive)).sum(dim=-1))
        score_of_negatives = precise(torch.einsum("td,tkd->tk", q, negatives)).mean(dim=1)
        return -(F.logsigmoid(score) + F.logsigmoid(-score_of_negatives)).sum()


class RecGURU(DotProductRecommender):
    """Users of two domains in one space, where a critic cannot distinguish the domains, and a recommender in each.

    The three phases of Algorithm 1 minimise :meth:`autoencoder_losses`; :meth:`critic_losses` and
    :meth:`encoder_losses` in turn; and :meth:`calculate_loss`. Phase 3 fixes the representations: trained further, they
    would drift apart by domain again.

    Scores of two domains are not on one scale, since Eq. 12 compares items of one domain only; so the default ranks
    within domains.

    Deviation: in phase 3 a target is predicted with the representation of the items before it. With
    ``representation: window`` it is that of all items in the window (Eq. 10), which include every target but the last.
    Deviation: Eq. 8 is the critic's loss of the improved WGAN, as in section 4.2.
    Deviation: the loss of Eq. 5 is a mean over items, not their sum, so that long histories do not outweigh the critic.
    Deviation: AutoRec on two domains shares one encoder, which is RecGURU without its game; on one it is the paper's.

    Args:
        config: see properties/model/RecGURU.yaml.
        dataset: two domains; one or two for the variants without the game.

    Raises:
        XferError: for another number of domains, or histories that mix them.
    """

    shares_batches: ClassVar[bool] = True
    input_type = InputType.POINTWISE
    draws_negatives: ClassVar[bool] = True

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        self.variant = config["variant"]
        self.whole_window = config["representation"] == "window"
        self._check(config, dataset.domains, dataset.item_domain)
        self.penalty_weight = config["gradient_penalty"]
        self.adversarial_weight, self.overlap_weight = config["adversarial_weight"], config["overlap_weight"]
        domains = len(dataset.domains)
        weights = self._weights(config["train_neg_sample_args"], dataset)
        items = DomainItems(torch.from_numpy(dataset.item_domain).long(), domains, weights)
        self.guru = GURU(config, items, dataset.domains)
        self.cdsrec = CDSRec(config, items, domains, attends=self.variant != "SeqRec")
        for part in (self.guru, self.cdsrec):
            init_as_sasrec(part, config["initializer_range"])
            nn.init.normal_(part.embed.positions, std=config["initializer_range"])
        self.critic = Critic(config["hidden_size"], config["critic_size"], config["critic_layers"])

    @staticmethod
    def needs_several_domains(config: Any) -> bool:
        """Except for the variants without the game."""
        return bool(config["variant"] == "RecGURU")

    def _check(self, config: Any, domains: list[str], item_domain: np.ndarray) -> None:
        if config["histories"] != "per_domain":
            raise XferError(f"histories={config['histories']} mixes domains. Set --histories=per_domain for RecGURU.")
        if len(domains) > 2 or (len(domains) < 2 and self.needs_several_domains(config)):
            alone = ", or set --variant=AutoRec" if len(domains) < 2 else ""
            raise XferError(
                f"RecGURU joins two domains, but dataset={config['dataset']} names {len(domains)}. "
                f"Name two, such as --dataset=Books+Movies{alone}."
            )
        for domain, items in zip(domains, np.bincount(item_domain[1:], minlength=len(domains)), strict=True):
            if items < 2:
                raise XferError(f"The domain {domain} has one item, so no negative can be drawn. Leave the domain out.")

    def _weights(self, drawn: Mapping[str, Any], dataset: TransferDataset) -> np.ndarray | None:
        """The weights of items in draws of negatives, [n_items]; None for uniform draws."""
        if drawn["sample_num"] not in ("none", 1):
            raise XferError(
                f"train_neg_sample_args.sample_num={drawn['sample_num']} has no effect on RecGURU. Set --negatives and "
                f"--reconstruction_negatives instead."
            )
        if drawn["distribution"] != "popularity":
            return None
        weights = powers(dataset.target_counts, drawn["alpha"])
        drawable = np.bincount(dataset.item_domain[weights > 0], minlength=len(dataset.domains))
        for domain, count in zip(dataset.domains, drawable, strict=True):
            check_drawable(count, f" of the domain {domain}")
        return weights

    # --- training (section 3.5) --------------------------------------------------------------------------------------

    def autoencoder_losses(self, interaction: Interaction) -> dict[str, Tensor]:
        """Phase 1: Eq. 5 in each domain, by name in the log."""
        histories = interaction[HISTORIES]
        return self.guru.losses(histories, self.guru.represent_domains(histories))

    def critic_losses(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        """Phase 2: the critic's loss on users h of the two domains, [B, d] each, and its parts, by name in the log.

        No gradient flows to the users.
        """
        a, b = precise(a.detach()), precise(b.detach())
        distance = self.critic.distance(a, b)
        penalty = gradient_penalty(self.critic, a, b, drawn(torch.empty_like(a[:, :1]), Tensor.uniform_))
        loss = self.penalty_weight * penalty - distance
        return {"critic loss": loss, "Wasserstein distance": distance, "gradient penalty": penalty}

    def encoder_losses(self, interaction: Interaction) -> dict[str, Tensor]:
        """Phase 2: the parts of Eq. 13, by name in the log; their sum is minimised while the critic is fixed."""
        histories = interaction[HISTORIES]
        users = self.guru.represent_domains(histories)
        with torch.autocast(histories.device.type, enabled=False):  # as in the critic's own steps
            distance = self.critic.distance(precise(users[0]), precise(users[1]))
        return {
            **self.guru.losses(histories, users),
            "adversarial": self.adversarial_weight * distance,
            "overlap": self.overlap_weight * self.guru.overlap_penalty(interaction[SHARED]),
        }

    def begin_recommendation(self) -> None:
        """Copies the autoencoders' embeddings to the recommenders, before phase 3 (Algorithm 1 has one of each)."""
        self.cdsrec.embed.load_state_dict(self.guru.embed.state_dict())

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Phase 3: Eq. 12 at every position with a target."""
        items, targets = interaction[self.ITEM_SEQ], interaction[TARGETS]  # [B, L]
        real = targets > 0
        states = self.encode(items)[real] if self.whole_window else self._encode_prefixes(items, real)
        return self.cdsrec.loss(states, targets[real])

    def _encode_prefixes(self, items: Tensor, real: Tensor) -> Tensor:
        """q [T, d] at the real positions, each with the representation of the items up to this position."""
        window, position = real.nonzero(as_tuple=True)
        prefixes = items[window] * (torch.arange(items.shape[1], device=items.device) <= position[:, None])
        return last_states(prefixes, position + 1, self.encode_at)

    def encode(self, items: Tensor) -> Tensor:
        """Histories [B, L], each of one domain, to preferences q at every position, [B, L, d]; q I_v ranks (Eq. 11)."""
        return self.cdsrec(items, None if self.variant == "SeqRec" else self.extract(items))

    @property
    def item_table(self) -> nn.Embedding:
        """I, the recommenders' own."""
        return self.cdsrec.embed.items

    @torch.no_grad()
    def extract(self, items: Tensor) -> Tensor:
        """Generalized representations h [B, d] of histories [B, L], each of one domain, without dropout."""
        self.guru.eval()
        return self.guru.represent(items, self.guru.items.domain[items[:, 0]])

    def compared_users(self, items: Tensor) -> Tensor | None:
        """h, which the critic compares; also of AutoRec, which has no critic, but not of SeqRec, which has no h."""
        return None if self.variant == "SeqRec" else self.extract(items)
