"""RecGURU: adversarial learning of generalized user representations (Li et al., WSDM 2022).

Symbols in comments: B histories, L positions, T targets, K negatives, N longest history, D domains, d width.
"""

from __future__ import annotations

from typing import Any

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.config import choice
from recbole_xfer.data.dataloader import HISTORIES, SHARED
from recbole_xfer.data.dataset import TARGETS, TransferDataset
from recbole_xfer.errors import XferError
from recbole_xfer.layers.adversary import Critic, gradient_penalty
from recbole_xfer.layers.encoder import FeedForward, SelfAttention, last_states
from recbole_xfer.layers.losses import item_cross_entropy, precise


class Layer(nn.Module):
    """A transformer layer; a decoder's has attention to the user's representation behind self-attention."""

    def __init__(self, config: Any, attends: bool) -> None:
        super().__init__()
        width, eps, dropout = config["hidden_size"], float(config["layer_norm_eps"]), config["hidden_dropout_prob"]
        self.self_attention = SelfAttention(width, config["n_heads"], dropout, config["attn_dropout_prob"], eps)
        self.user_attention = UserAttention(width, dropout, eps) if attends else None
        self.feed_forward = FeedForward(width, config["inner_size"], config["hidden_act"], dropout, eps)

    def forward(self, x: Tensor, user: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """[B, L, d] to [B, L, d]; users [B, d], and ``real`` as for self-attention."""
        x = self.self_attention(x, real=real)
        if self.user_attention is not None:
            x = self.user_attention(x, user)
        return self.feed_forward(x)


class UserAttention(nn.Module):
    """Multi-head attention to a single vector, a residual and layer normalisation behind it.

    The softmax over one score is 1, whatever is asked, so that queries and keys would have no effect.
    """

    def __init__(self, width: int, dropout: float, eps: float) -> None:
        super().__init__()
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=eps)

    def forward(self, x: Tensor, user: Tensor) -> Tensor:
        """[B, L, d] and users [B, d] to [B, L, d]"""
        return self.norm(x + self.dropout(self.out(self.value(user)))[:, None])


class Transformer(nn.Module):
    """Normalisation and dropout of the input, then the layers: an encoder, a decoder or a recommender."""

    def __init__(self, config: Any, attends: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config["hidden_size"], eps=float(config["layer_norm_eps"]))
        self.dropout = nn.Dropout(config["hidden_dropout_prob"])
        self.layers = nn.ModuleList(Layer(config, attends) for _ in range(config["n_layers"]))

    def forward(self, x: Tensor, user: Tensor | None = None, real: Tensor | None = None) -> Tensor:
        """Embedded histories [B, L, d] to states [B, L, d]; causal where ``real`` is not given."""
        x = self.dropout(self.norm(x))
        for layer in self.layers:
            x = layer(x, user, real)
        return x


class RecGURU(SequentialRecommender):
    """Autoencoders of two domains with one encoder, whose users a critic cannot tell apart, and a recommender in each.

    The three phases of Algorithm 1 minimise :meth:`autoencoder_losses`, then in turn :meth:`critic_losses` and
    :meth:`encoder_losses`, and at last :meth:`calculate_loss`, which trains the encoder too.

    Deviation: in phase 3 the representation behind a target is that of the items before it; with
    ``representation: window`` it is that of all training items (Eq. 10), which holds what is to be predicted.
    Deviation: Eq. 8 is the critic's loss of the improved WGAN, as in section 4.2.
    Deviation: the loss of Eq. 5 is a mean over items, not their sum, so that long histories do not silence the critic.

    Args:
        config: see properties/model/RecGURU.yaml.
        dataset: of two domains; of one or two for the variants without the game.
    """

    input_type = InputType.POINTWISE

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        self.variant = choice(config, "variant", "RecGURU", "AutoRec", "SeqRec")
        self.whole_window = choice(config, "representation", "prefix", "window") == "window"
        self._check(config, dataset.domains)
        self.reconstruction_negatives, self.negatives = config["reconstruction_negatives"], config["negatives"]
        self.penalty_weight = config["gradient_penalty"]
        self.adversarial_weight, self.overlap_weight = config["adversarial_weight"], config["overlap_weight"]
        width, domains = config["hidden_size"], len(dataset.domains)

        self.item_embedding = nn.Embedding(self.n_items, width, padding_idx=0)  # I^A and I^B
        self.eos_embedding = nn.Embedding(domains, width)
        self.position_embedding = nn.Parameter(torch.empty(domains, self.max_seq_length + 1, width))  # P^A and P^B
        self.encoder = Transformer(config, attends=False)
        self.decoders = nn.ModuleList(Transformer(config, attends=True) for _ in range(domains))
        self.critic = Critic(width, config["critic_size"], config["critic_layers"])
        self.recommenders = nn.ModuleList(
            Transformer(config, attends=self.variant != "SeqRec") for _ in range(domains)
        )
        self._index_items(torch.from_numpy(dataset.item_domain).long(), domains)
        self.initializer_range = config["initializer_range"]
        self._init_weights()

    def _check(self, config: Any, domains: list[str]) -> None:
        if config["histories"] != "per_domain":
            raise XferError(f"histories={config['histories']} mixes domains. RecGURU needs --histories=per_domain.")
        if len(domains) > 2 or (len(domains) < 2 and self.variant == "RecGURU"):
            raise XferError(
                f"RecGURU joins two domains, and dataset={config['dataset']} names {len(domains)}. "
                f"Name two, such as --dataset=Books+Movies{', or set --variant=AutoRec' if len(domains) < 2 else ''}."
            )

    def _index_items(self, item_domain: Tensor, domains: int) -> None:
        """Buffers: the domain of each item, the items of each domain, and the place of each item among them."""
        place = torch.zeros_like(item_domain)
        for domain in range(domains):
            items = 1 + (item_domain[1:] == domain).nonzero()[:, 0]
            place[items] = torch.arange(len(items))
            self.register_buffer(f"items_{domain}", items, persistent=False)
        self.register_buffer("item_domain", item_domain, persistent=False)
        self.register_buffer("place", place, persistent=False)

    def _init_weights(self) -> None:
        """As RecBole's SASRec; the critic keeps PyTorch's."""
        nn.init.normal_(self.position_embedding, std=self.initializer_range)
        for name, module in self.named_modules():
            if isinstance(module, (nn.Linear, nn.Embedding)) and not name.startswith("critic."):
                nn.init.normal_(module.weight, std=self.initializer_range)
            if isinstance(module, nn.Linear) and not name.startswith("critic."):
                nn.init.zeros_(module.bias)

    # --- the user's representation (section 3.3) -------------------------------------------------------------------

    def positions(self, items: Tensor, domain: Tensor) -> Tensor:
        """P at each item, [B, L, d]; counted from the end, as if histories were padded on the left: the last has N."""
        last = self.max_seq_length - (items > 0).sum(dim=1, keepdim=True)  # [B, 1]
        number = (last + torch.arange(items.shape[1], device=items.device)).clamp(max=self.max_seq_length - 1)
        return self.position_embedding[domain[:, None], number]

    def represent(self, items: Tensor, domain: Tensor) -> Tensor:
        """Histories [B, L] of domains [B] to users h [B, d]: the state of [eos], which stands first here (Eq. 4)."""
        embedded = self.item_embedding(items) + self.positions(items, domain)
        eos = self.eos_embedding(domain) + self.position_embedding[domain, -1]
        real = F.pad(items > 0, (1, 0), value=True)  # [eos] is never masked
        return self.encoder(torch.cat([eos[:, None], embedded], dim=1), real=real)[:, 0]

    def reconstruct(self, items: Tensor, users: Tensor, domain: int) -> Tensor:
        """Decoder's states [B, L, d] for histories [B, L] of a domain: each reads h [B, d] and the items before it.

        In place of an item before the first it reads [eos].
        """
        domains = torch.full_like(items[:, 0], domain)
        before = torch.cat([self.eos_embedding(domains)[:, None], self.item_embedding(items[:, :-1])], dim=1)
        return self.decoders[domain](before + self.positions(items, domains), users)

    def reconstruction_loss(self, items: Tensor, users: Tensor, domain: int) -> Tensor:
        """Eq. 5 (Eq. 14), by softmax over all items of the domain or over some that are drawn."""
        real = items > 0
        states, target = self.reconstruct(items, users, domain)[real], items[real]  # [T, d], [T]
        if self.reconstruction_negatives is None:
            return item_cross_entropy(states, self.item_embedding(self.items_of(domain)), self.place[target])
        negatives = self.draw(target, domain, self.reconstruction_negatives)
        candidates = self.item_embedding(torch.cat([target[:, None], negatives], dim=1))  # [T, 1 + K, d]
        logits = precise(torch.einsum("td,tkd->tk", states, candidates))
        return -logits.log_softmax(dim=1)[:, 0].mean()

    def items_of(self, domain: int) -> Tensor:
        """Ids of a domain's items."""
        return getattr(self, f"items_{domain}")

    def draw(self, target: Tensor, domain: int, count: int) -> Tensor:
        """Items of a domain other than each target [T], evenly, [T, count]."""
        items = self.items_of(domain)
        place = torch.randint(len(items) - 1, (len(target), count), device=target.device)
        return items[place + (place >= self.place[target][:, None])]

    # --- phases 1 and 2 (section 3.5) --------------------------------------------------------------------------------

    def represent_batch(self, histories: Tensor) -> Tensor:
        """Histories of each domain, [D, B, L], to users h, [D, B, d]."""
        domain = torch.arange(len(histories), device=histories.device).repeat_interleave(histories.shape[1])
        return self.represent(histories.flatten(0, 1), domain).unflatten(0, histories.shape[:2])

    def autoencoder_losses(self, interaction: Interaction) -> dict[str, Tensor]:
        """Eq. 5 in each domain, by what it is called in the log."""
        histories = interaction[HISTORIES]
        return self._reconstructions(histories, self.represent_batch(histories))

    def _reconstructions(self, histories: Tensor, users: Tensor) -> dict[str, Tensor]:
        return {
            f"reconstruction {'AB'[domain]}": self.reconstruction_loss(histories[domain], users[domain], domain)
            for domain in range(len(histories))
        }

    def critic_losses(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        """The critic's loss on users h of the two domains, [B, d] each, the distance that it estimates, and its parts.

        No gradient goes to the users.
        """
        a, b = precise(a.detach()), precise(b.detach())
        distance = self.critic.distance(a, b)
        penalty = gradient_penalty(self.critic, a, b, torch.rand(len(a), 1, dtype=a.dtype, device=a.device))
        loss = self.penalty_weight * penalty - distance
        return {"critic loss": loss, "Wasserstein distance": distance, "gradient penalty": penalty}

    def encoder_losses(self, interaction: Interaction) -> dict[str, Tensor]:
        """The parts of Eq. 13, whose sum is minimised while the critic is fixed, by what they are called in the log."""
        histories = interaction[HISTORIES]
        users = self.represent_batch(histories)
        distance = self.critic.distance(precise(users[0]), precise(users[1]))
        return {
            **self._reconstructions(histories, users),
            "adversarial": self.adversarial_weight * distance,
            "overlap": self.overlap_weight * self.overlap_penalty(interaction[SHARED]),
        }

    def overlap_penalty(self, histories: Tensor) -> Tensor:
        """Eq. 9: how far the two representations of each user of both domains lie apart; 0 without such users."""
        if not histories.shape[1]:
            return self.position_embedding.new_zeros(())
        users = precise(self.represent_batch(histories))  # [2, S, d]
        return (users[0] - users[1]).norm(dim=-1).mean()

    # --- phase 3 and ranking (section 3.4) ---------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> Tensor:
        """Eq. 12, a mean over targets."""
        items, targets = interaction[self.ITEM_SEQ], interaction[TARGETS]  # [B, L]
        real = targets > 0
        target = targets[real]  # [T]
        states = self.preferences(items)[real] if self.whole_window else self._states(items, real)  # [T, d]
        domain = self.item_domain[target]
        losses = []
        for number in domain.unique().tolist():
            state, positive = states[domain == number], target[domain == number]  # [T, d], [T]
            negatives = self.item_embedding(self.draw(positive, number, self.negatives))  # [T, K, d]
            score = precise((state * self.item_embedding(positive)).sum(dim=-1))
            score_of_negatives = precise(torch.einsum("td,tkd->tk", state, negatives)).mean(dim=1)
            losses.append(-F.logsigmoid(score) - F.logsigmoid(-score_of_negatives))
        return torch.cat(losses).mean()

    def _states(self, items: Tensor, real: Tensor) -> Tensor:
        """q [T, d] at the positions that are real, each from the items up to there alone."""
        window, position = real.nonzero(as_tuple=True)
        prefixes = items[window] * (torch.arange(items.shape[1], device=items.device) <= position[:, None])
        return last_states(prefixes, position + 1, self.preferences)

    def preferences(self, items: Tensor) -> Tensor:
        """Eq. 10: histories [B, L], each of one domain, to q at every position, [B, L, d]."""
        domain = self.item_domain[items[:, 0]]
        users = None if self.variant == "SeqRec" else self.represent(items, domain)
        embedded = self.item_embedding(items) + self.positions(items, domain)
        states = torch.empty_like(embedded)
        for number in domain.unique().tolist():
            rows = domain == number
            part = self.recommenders[number](embedded[rows], None if users is None else users[rows])
            states[rows] = part.to(states.dtype)
        return states

    @torch.no_grad()
    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Histories [B, L] of given lengths [B] to preferences q [B, d]."""
        return precise(last_states(item_seq, item_seq_len, self.preferences))

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Eq. 11: q I_v for every item v, [B, n_items]."""
        users = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return users @ self.item_embedding.weight.T

    def predict(self, interaction: Interaction) -> Tensor:
        """Eq. 11 for one item each, [B]."""
        users = self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return (users * self.item_embedding(interaction[self.ITEM_ID])).sum(dim=-1)
