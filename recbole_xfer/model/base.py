"""Base classes of models: one ranks by item embeddings, the other by item vectors computed from features.

A subclass overrides the hooks of :class:`~recbole_xfer.hooks.Hooks` where it differs from their defaults.

Symbols in comments: N items, B windows, L positions, T targets, C candidates, d width.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.utils import InputType
from torch import Tensor, nn
from torch.nn import functional as F

from recbole_xfer.collectives import gather
from recbole_xfer.config.recbole_keys import SPARSE_ADAM
from recbole_xfer.config.values import join_domains
from recbole_xfer.data.batches import WindowDataLoader
from recbole_xfer.data.dataset import TARGETS, TransferDataset
from recbole_xfer.data.domain_folder import command
from recbole_xfer.data.features import ItemFeatures
from recbole_xfer.errors import XferError
from recbole_xfer.hooks import Hooks
from recbole_xfer.layers.content import ContentStart
from recbole_xfer.layers.encoder import last_states, states_at
from recbole_xfer.layers.items import FeatureTables
from recbole_xfer.layers.losses import Repeats, chunked_cross_entropy, item_cross_entropy
from recbole_xfer.layers.repeats import RepeatBias, add_to_repeats
from recbole_xfer.layers.sampling import Candidates, CandidateSampler

EMBEDDING_RANGE = 0.02
"""Standard deviation of new embeddings, as in SASRec; PyTorch's default of 1 outweighs the features."""


@dataclass(frozen=True)
class Step:
    """The windows of a training step, with every item that they need encoded once.

    Attributes:
        items: windows, [B, L]; 0 is padding.
        targets: the next item at each position, [B, L]; 0 where there is none.
        ids: the encoded items, ascending, [N].
        table: their vectors, [N, d].
        parts: vectors of their parts, such as each modality, [N, d].
        users: states at the positions with a target, [T, d].
        ranked: vectors by which the encoded items are ranked, [N, d] or, with a content start, [N, d + D].
        histories: with a content start, the content of the histories of ``users``, [T, D].
        candidates: of a sampled loss.
    """

    items: Tensor
    targets: Tensor
    ids: Tensor
    table: Tensor
    parts: dict[str, Tensor]
    users: Tensor
    ranked: Tensor
    histories: Tensor | None
    candidates: Candidates | None

    def row(self, items: Tensor) -> Tensor:
        """The table's rows of items [...] that the step encodes."""
        return torch.searchsorted(self.ids, items)


class VectorRecommender(Hooks, SequentialRecommender):
    """Scores items by the dot product of their vectors and the vector of the user, which is read from a history.

    With ``repeat_bias`` the items of the history have a learned score more. A subclass defines :meth:`encode` and
    :meth:`item_vectors`.
    """

    loader: ClassVar = WindowDataLoader

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        self.temperature = 1.0  # a score is a logit times it
        self.repeat_bias = RepeatBias() if config["repeat_bias"] else None

    def encode(self, items: Tensor) -> Tensor:
        """Windows [B, L] to the state at every position, [B, L, d]."""
        raise NotImplementedError

    def encode_at(self, position: Tensor, items: Tensor) -> Tensor:
        """What :meth:`encode` gives at one position [B] of each window, [B, d]; overridden where it costs less."""
        return states_at(self.encode(items), position)

    def item_vectors(self, ids: Tensor | None = None) -> Tensor:
        """The vectors by which items [N] are ranked, [N, d]; of all items by id, [n_items, d], without ``ids``."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Histories [B, L] of given lengths [B] to the vectors of their users, [B, d]."""
        return last_states(item_seq, item_seq_len, self.encode_at)

    def user_vectors(self, interaction: Interaction) -> Tensor:
        """The vectors of the users of rows with histories, [B, d]."""
        return self.forward(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])

    @property
    def repeat_score(self) -> Tensor | None:
        """What is added to the scores of the items of a history, []; None without ``repeat_bias``."""
        return None if self.repeat_bias is None else self.repeat_bias.bias * self.temperature

    def products(self, interaction: Interaction) -> Tensor:
        """The products of the vectors of users and of all items, [B, n_items]."""
        return self.user_vectors(interaction) @ self.item_vectors().T

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of all items, [B, n_items]."""
        scores, more = self.products(interaction), self.repeat_score
        return scores if more is None else add_to_repeats(scores, interaction[self.ITEM_SEQ], more)

    def predict(self, interaction: Interaction) -> Tensor:
        """The score of one item per row, [B]."""
        items = interaction[self.ITEM_ID]
        scores, more = (self.user_vectors(interaction) * self.item_vectors(items)).sum(dim=-1), self.repeat_score
        return scores if more is None else scores + more * (interaction[self.ITEM_SEQ] == items[:, None]).any(dim=1)

    def repeats(self, items: Tensor, targets: Tensor, candidates: Tensor | None = None) -> Repeats | None:
        """The learned bias of a loss, if the model has one.

        Args:
            items: of windows, [B, L].
            targets: the next item at each position, 0 where there is none, [B, L].
            candidates: item ids, ascending, [C]; None: all items.
        """
        if self.repeat_bias is None:
            return None
        every = torch.arange(1, self.n_items, device=items.device) if candidates is None else candidates
        return self.repeat_bias.of_targets(items, targets, every)


class DotProductRecommender(VectorRecommender):
    """Ranks items by their embeddings and the state at a history's last item.

    A subclass defines :meth:`~VectorRecommender.encode` and ``calculate_loss``.
    """

    item_embedding: nn.Embedding
    candidates: CandidateSampler | None

    @property
    def item_table(self) -> nn.Embedding:
        """The item embeddings by which items are ranked."""
        return self.item_embedding

    def item_vectors(self, ids: Tensor | None = None) -> Tensor:
        """See :meth:`VectorRecommender.item_vectors`."""
        return self.item_table.weight if ids is None else self.item_table(ids)

    def cross_entropy(self, states: Tensor, items: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of the next item among all items, or among sampled candidates.

        Args:
            states: at the positions with a target, [T, d].
            items: of windows, [B, L].
            targets: the next item at each position, 0 where there is none, [B, L].
        """
        if self.candidates is not None:
            ids, target, correction = self.candidates(targets)
            repeats = self.repeats(items, targets, ids)
            return item_cross_entropy(states, self.item_table(ids), target, correction=correction, repeats=repeats)
        repeats = self.repeats(items, targets)
        return item_cross_entropy(states, self.item_table.weight[1:], targets[targets > 0] - 1, repeats=repeats)


class ContentRecommender(Hooks, SequentialRecommender):
    """Computes vectors of items from their features; the catalogue is encoded once per evaluation.

    A subclass defines :meth:`encode_items` and how items are ranked.

    Args:
        config: reads ``vector_scaling`` and ``catalogue_chunk``.
    """

    loader: ClassVar = WindowDataLoader
    reads_features: ClassVar[bool] = True

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        self.chunk = config["catalogue_chunk"]
        self.features = FeatureTables(dataset.features, config["vector_scaling"])
        self._catalogue: Tensor | None = None
        self._directions: Tensor | None = None

    def encode_items(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Items [N] to their vectors [N, d], and the vectors [N, d] of their parts by name."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> ContentRecommender:
        """Switches the mode and forgets the catalogue that an evaluation encoded."""
        self._catalogue = self._directions = None
        return super().train(mode)

    @property
    def feature_device(self) -> torch.device:
        """Where the features are."""
        return next(self.features.buffers()).device

    def use_items(self, features: ItemFeatures) -> None:
        """Ranks these items from now on, by features that are scaled as those of training; for inductive models."""
        tables = FeatureTables(features, "none")
        tables.load_state_dict(self.features.state_dict())
        self.features = tables.to(self.feature_device)
        self.n_items = len(features.present(features.modalities[0]))
        self._catalogue = self._directions = None

    @torch.no_grad()
    def catalogue(self) -> Tensor:
        """Vectors of all items by id, [n_items, d]; row 0, the padding, is zero. Encoded once per evaluation."""
        if self._catalogue is None or self.training:
            ids = torch.arange(1, self.n_items, device=self.feature_device)
            parts = [self.encode_items(chunk)[0] for chunk in ids.split(self.chunk)]
            self._catalogue = F.pad(torch.cat(parts), (0, 0, 1, 0))
        return self._catalogue


class FeatureRecommender(ContentRecommender, VectorRecommender):
    """Scores items by the cosine of their vectors and the user's state; trained at all positions of windows.

    Each item is encoded once per step, and the catalogue once per evaluation.

    A subclass defines ``encode_items`` and :meth:`encode_states`, and names in ``kept`` and ``frozen`` what an
    adaptation keeps and does not train.

    Args:
        config: reads ``temperature``, ``negatives``, ``n_negatives``, ``catalogue_chunk``, ``item_embedding``,
            ``hidden_size``, ``learner`` and ``content_start``.
    """

    input_type = InputType.POINTWISE
    encoder_keys: ClassVar[tuple[str, ...]] = ("n_heads", "hidden_act", "layer_norm_eps", "vector_scaling")

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        self.temperature = config["temperature"]
        self.negatives = config["negatives"]
        self.width = config["hidden_size"]
        self.position_embedding = self._new_embedding(self.max_seq_length)
        self.item_embedding = (
            self._new_embedding(self.n_items, sparse=has_sparse_tables(config)) if config["item_embedding"] else None
        )
        self.candidates = candidate_sampler(config, dataset)
        self.content_start = ContentStart(config, self.features) if config["content_start"] else None

    def _new_embedding(self, count: int, sparse: bool = False) -> nn.Embedding:
        embedding = nn.Embedding(count, self.width, sparse=sparse)
        nn.init.normal_(embedding.weight, std=EMBEDDING_RANGE)
        return embedding

    @property
    def inductive(self) -> bool:
        """Whether the model has no item embeddings."""
        return self.item_embedding is None

    # --- items and users -------------------------------------------------------------------------------------------

    def encode_states(self, embedded: Tensor, real: Tensor) -> Tensor:
        """Items with their positions, [B, L, d], to states at every position, [B, L, d]; see :meth:`encode_users`."""
        raise NotImplementedError

    def encode_users(self, embedded: Tensor, real: Tensor) -> Tensor:
        """Items of windows, [B, L, d], to states at every position, [B, L, d].

        Args:
            embedded: the items' vectors, zero at padding.
            real: where there are items, bool [B, L]; only a bidirectional encoder needs it.
        """
        return self.encode_states(embedded + self.position_embedding.weight[: embedded.shape[1]], real)

    # --- training --------------------------------------------------------------------------------------------------

    def calculate_loss(self, interaction: Interaction) -> Tensor | tuple[Tensor, ...]:
        """The next-item loss; a model with further losses returns a tuple of all, whose sum is minimised."""
        return self.next_item_loss(self.encode_step(interaction))

    def encode_step(self, interaction: Interaction) -> Step:
        """Encodes every item that the step needs once, into a table from which histories and candidates are read."""
        items, targets = interaction[self.ITEM_SEQ], interaction[TARGETS]
        candidates = None if self.candidates is None else self.candidates(targets)
        ids = self._step_items(items, targets if candidates is None else candidates.ids)
        table, parts = self.encode_items(ids)
        users = self.encode_users(look_up(items, ids, table), items > 0)[targets > 0]
        ranked, histories = self.directions(ids, table), None
        if self.content_start is not None:
            histories = self.content_start.histories(look_up(items, ids, ranked))[targets > 0]
        return Step(items, targets, ids, table, parts, users, ranked, histories, candidates)

    def _step_items(self, items: Tensor, candidates: Tensor) -> Tensor:
        """The ids of the items that a step of all processes encodes, ascending, [N]."""
        if self._whole:
            return torch.arange(1, self.n_items, device=items.device)
        distinct = gather(torch.cat([items.flatten(), candidates.flatten()])).unique()
        return distinct[distinct > 0]

    @property
    def _whole(self) -> bool:
        """Whether a step encodes the whole catalogue."""
        return self.negatives == "full" and self.n_items <= self.chunk

    def next_item_loss(self, step: Step) -> Tensor:
        """Cross-entropy of the next item among the whole catalogue, sampled candidates, or the batch's targets.

        Items of a user's own window are not negatives in a batch, nor with a content start, to which they are nearest.
        """
        target = step.targets[step.targets > 0]
        users = self.user_directions(step.users, step.histories)
        if self.negatives == "in_batch":
            candidates = gather(target).unique()  # [C]
            own = torch.searchsorted(candidates, target)  # [T]
            items = step.ranked[step.row(candidates)]
            return item_cross_entropy(users / self.temperature, items, own, self._in_window(step, candidates))
        spared = partial(self._in_window, step) if self.content_start is not None else None
        repeats = partial(self.repeats, step.items, step.targets)
        if step.candidates is not None:
            ids, own, correction = step.candidates
            excluded, items = None if spared is None else spared(ids), step.ranked[step.row(ids)]
            return item_cross_entropy(users / self.temperature, items, own, excluded, correction, repeats(ids))
        if self._whole:
            excluded, own, biased = None if spared is None else spared(step.ids), step.row(target), repeats(step.ids)
            return item_cross_entropy(users / self.temperature, step.ranked, own, excluded, repeats=biased)
        chunks = torch.arange(1, self.n_items, device=target.device).split(self.chunk)
        encode = lambda ids: self.directions(ids, self.encode_items(ids)[0])  # noqa: E731
        return chunked_cross_entropy(users, target, encode, chunks, self.temperature, spared, repeats)

    def _in_window(self, step: Step, candidates: Tensor) -> Tensor:
        """Which candidates [C], ascending, are in a target's own window and not the target, bool [T, C]."""
        windows = torch.cat([step.items, step.targets], dim=1)
        column = torch.searchsorted(candidates, windows).clamp(max=len(candidates) - 1)
        column[candidates[column] != windows] = len(candidates)  # extra column for non-candidates
        in_window = torch.zeros(len(windows), len(candidates) + 1, dtype=torch.bool, device=windows.device)
        in_window.scatter_(1, column, True)
        real = step.targets > 0
        return in_window[real.nonzero()[:, 0], :-1] & (candidates != step.targets[real][:, None])

    # --- ranking ---------------------------------------------------------------------------------------------------

    def encode(self, items: Tensor) -> Tensor:
        """Windows [B, L] to the state at every position, [B, L, d], with items from the catalogue."""
        return self.encode_users(self.catalogue()[items], items > 0)

    def embed(self, items: Tensor) -> Tensor:
        """Windows [B, L] with their positions, [B, L, d], from the catalogue."""
        return self.catalogue()[items] + self.position_embedding.weight[: items.shape[1]]

    @torch.no_grad()
    def forward(self, item_seq: Tensor, item_seq_len: Tensor) -> Tensor:
        """Histories [B, L] of given lengths [B] to :meth:`user_directions`."""
        states, histories = super().forward(item_seq, item_seq_len), None
        if self.content_start is not None:
            start, items = self.content_start, self.item_vectors()
            content_at = lambda position, some: states_at(start.histories(items[some]), position)  # noqa: E731
            histories = last_states(item_seq, item_seq_len, content_at)
        return self.user_directions(states, histories)

    def user_directions(self, states: Tensor, histories: Tensor | None) -> Tensor:
        """States [..., d] as unit vectors; with a content start, and the content of histories, [..., d + D]."""
        if self.content_start is None or histories is None:
            return F.normalize(states, dim=-1)
        return self.content_start.users(states, histories)

    def directions(self, ids: Tensor, vectors: Tensor) -> Tensor:
        """Items [N] with vectors [N, d] to those by which they are ranked: unit vectors, or [N, d + D]."""
        if self.content_start is None:
            return F.normalize(vectors, dim=-1)
        return self.content_start.items(self.features, ids, vectors)

    def item_vectors(self, ids: Tensor | None = None) -> Tensor:
        """Vectors by which items are ranked: a score is a cosine, or the sum of a content start."""
        if self._directions is None or self.training:
            items = torch.arange(1, self.n_items, device=self.feature_device)
            ranked = self.directions(items, self.catalogue()[1:])
            self._directions = F.pad(ranked, (0, 0, 1, 0))
        return self._directions if ids is None else self._directions[ids]


def check_texts(dataset: TransferDataset, features: FeatureTables) -> None:
    """Raises XferError for a model of texts whose items have none."""
    if "text" not in features.modalities:
        name = join_domains(dataset.domains)
        raise XferError(f"{name} has no text vectors. Make them with `{command('encode', name, dataset.root)}`.")


def look_up(items: Tensor, ids: Tensor, table: Tensor) -> Tensor:
    """Windows [B, L] looked up in a table [N, d] of items [N], ascending, zero at padding, [B, L, d]."""
    return F.embedding(torch.searchsorted(ids, items), table) * (items > 0)[..., None]


def candidate_sampler(config: Any, dataset: TransferDataset) -> CandidateSampler | None:
    """The sampler of a sampled loss; None for a loss over all items or the batch's targets."""
    return CandidateSampler(dataset.target_counts, config["n_negatives"]) if config["negatives"] == "sampled" else None


def has_sparse_tables(config: Any) -> bool:
    """Whether the gradient of item embeddings has only the rows that a step reads."""
    return config["learner"].lower() == SPARSE_ADAM
