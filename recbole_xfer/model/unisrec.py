"""UniSRec: universal sequence representations from item texts (Hou et al., KDD 2022), and RETR's X- models.

The X- models (RETR, section 4.2) share UniSRec's pre-training and differ in their encoder.

Symbols in comments: N items, B windows, L positions, d width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xfer.collectives import drawn, gather, place
from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.data.features import word_drop_command
from recbole_xfer.data.vectors import WORD_DROP
from recbole_xfer.errors import XferError
from recbole_xfer.hooks import Inspection
from recbole_xfer.layers.encoder import CausalEncoder, states_at
from recbole_xfer.layers.items import SCALING
from recbole_xfer.layers.light import LightEncoder
from recbole_xfer.layers.losses import cosine_cross_entropy
from recbole_xfer.layers.pathway import PathwayEncoder, kept_fractions
from recbole_xfer.layers.projection import ExpertProjection
from recbole_xfer.model.base import FeatureRecommender, Step, check_texts, look_up

AUGMENTATIONS = ("item_drop", WORD_DROP)
BACKBONE = ("encoder.", "position_embedding.")


class UniSRec(FeatureRecommender):
    """Pre-trained on the texts of several domains with two contrastive tasks; on the target its adaptor is tuned.

    ``--adaptation=finetune`` keeps everything and trains the adaptor alone: the paper's inductive setting. With
    ``--item_embedding=True`` an embedding of each item is added and trained: the transductive setting.

    Each sequence is augmented by item drop, or by word drop where the domain has vectors of shortened texts
    (``recbole-xfer encode --drop_words``). The paper gives no proportion for word drop; a tenth of the sequences lose
    words, as in the authors' code, drawn per sequence instead of per batch.

    Deviation: the sequence-item task is trained at all positions, and items of a user's own window are not negatives.
    """

    shares_batches: ClassVar[bool] = True
    kept: ClassVar = {"finetune": ("adaptor.", "content_start.", *SCALING, *BACKBONE)}
    frozen: ClassVar = {"finetune": BACKBONE}
    explainable: ClassVar[bool] = True
    encoder_class: ClassVar[type[nn.Module]] = CausalEncoder

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        check_texts(dataset, self.features)
        self.contrast_weight = float(config["contrast_weight"])
        self.item_drop = config["item_drop"]
        self.word_drop_share = self._add_word_drop(config, dataset) if self.contrast_weight else 0.0
        self.adaptor = ExpertProjection(
            self.features.sizes()["text"],
            self.width,
            config["projection_heads"],
            whiten=True,
            dropout=config["projection_dropout"],
        )
        self.encoder: Any = type(self).encoder_class(config)

    def _add_word_drop(self, config: Any, dataset: TransferDataset) -> float:
        """Adds the vectors of shortened texts to the features, if used; returns the fraction of augmented sequences."""
        asked = config["augmentation"]
        kinds = asked or AUGMENTATIONS
        if WORD_DROP not in kinds or (dataset.word_drop is None and not asked):
            return 0.0
        if dataset.word_drop is None:
            command = word_drop_command(config["dataset"], dataset.root)
            raise XferError(f"{config['dataset']} has no vectors for word_drop. Make them with `{command}`.")
        self.features.add(WORD_DROP, dataset.word_drop, scaled_as="text")
        return config["word_drop_share"] if len(kinds) > 1 else 1.0

    def encode_items(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Texts through parametric whitening and the mixture of experts, [N, d]; zero for an item without text."""
        return self._encode_texts(self.features.rows("text", ids), ids), {}

    def _encode_texts(self, vectors: Tensor, ids: Tensor) -> Tensor:
        """Vectors [N, D] of the texts of items [N] to items [N, d]."""
        item = self.adaptor(vectors) * self.features.present("text", ids)[:, None]
        return item if self.item_embedding is None else item + self.item_embedding(ids)

    def encode_states(self, embedded: Tensor, real: Tensor) -> Tensor:
        """[B, L, d] to [B, L, d]; ``real`` is bool [B, L]."""
        return self.encoder(embedded, real)

    def encode_at(self, position: Tensor, items: Tensor) -> Tensor:
        """See :meth:`~recbole_xfer.model.base.VectorRecommender.encode_at`."""
        return self.encoder.at(position, self.embed(items), items > 0)

    def inspect(self, items: Tensor) -> Inspection:
        """See :meth:`~recbole_xfer.hooks.Hooks.inspect`."""
        return self.encoder.inspect(self.embed(items))

    def calculate_loss(self, interaction: Interaction) -> Tensor | tuple[Tensor, ...]:
        """The sequence-item task, and lambda times the sequence-sequence task where lambda is not 0."""
        step = self.encode_step(interaction)
        loss = self.next_item_loss(step)
        return (loss, self.contrast_weight * self._sequence_loss(step)) if self.contrast_weight else loss

    def _sequence_loss(self, step: Step) -> Tensor:
        """Finds each window's own augmented form among those of the batch; the step holds the windows' states.

        Other windows of the same user are negatives, as are those of other users.
        """
        ends = (step.targets > 0).sum(dim=1).cumsum(dim=0) - 1  # a window's last item always has a target
        whole = step.users[ends]
        augmented = gather(self._augmented(step))
        own = place(len(whole))[0] + torch.arange(len(whole), device=whole.device)
        return cosine_cross_entropy(whole, augmented, own, self.temperature)

    def _augmented(self, step: Step) -> Tensor:
        """State at the last item of each window, [B, d], after the window lost items or its items lost words."""
        items = drop_items(step.items, self.item_drop)
        embedded = look_up(items, step.ids, step.table)
        if self.word_drop_share:
            draws = drawn(torch.empty(len(items), device=items.device), Tensor.uniform_)
            loses_words = draws < self.word_drop_share  # [B]
            items = torch.where(loses_words[:, None], step.items, items)
            embedded[loses_words] = self._without_words(step.items[loses_words])
        states = self.encode_users(embedded, items > 0)
        return states[torch.arange(len(items), device=items.device), (items > 0).sum(dim=1) - 1]

    def _without_words(self, items: Tensor) -> Tensor:
        """Windows [B, L] with shortened texts, [B, L, d]; an item without a shortened text keeps its own."""
        ids = gather(items).unique()
        vectors = self.features.rows("text", ids)
        present = self.features.present(WORD_DROP, ids)[:, None]
        table = self._encode_texts(torch.where(present, self.features.rows(WORD_DROP, ids), vectors), ids)
        return table[torch.searchsorted(ids, items)] * (items > 0)[..., None]


class XSASRec(UniSRec):
    """X-SASRec: UniSRec's own encoder. On the target, item embeddings are added and the backbone is frozen.

    RETR's paper lists this model as UniSRec; the sizes are RETR's.
    """


class XRETR(XSASRec):
    """X-RETR: RETR's encoder."""

    encoder_class: ClassVar[type[nn.Module]] = PathwayEncoder
    encoder_keys: ClassVar = (
        *XSASRec.encoder_keys, "pathway_context", "pathway_route", "pathway_hierarchical", "pathway_acts_on",
    )  # fmt: skip

    def epoch_scalars(self) -> dict[str, float]:
        """The fraction of behaviours that each block kept."""
        return kept_fractions(self)


class XLightSANs(XSASRec):
    """X-LightSANs: LightSANs' encoder, which reads positions separately from the items.

    It is bidirectional, so it is trained on prefixes, at the last position of each.

    Raises:
        XferError: for training at all positions, where it would see its targets.
    """

    explainable: ClassVar[bool] = False
    encoder_class: ClassVar[type[nn.Module]] = LightEncoder

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        if config["train_rows"] != "prefixes":
            raise XferError("XLightSANs is bidirectional: rows must end at the target. Set --train_rows=prefixes.")

    def encode_users(self, embedded: Tensor, real: Tensor) -> Tensor:
        """[B, L, d] to [B, L, d]; ``real`` is bool [B, L]."""
        return self.encoder(embedded, self.position_embedding.weight[: embedded.shape[1]], real)

    def encode_at(self, position: Tensor, items: Tensor) -> Tensor:
        """See :meth:`~recbole_xfer.model.base.VectorRecommender.encode_at`."""
        return states_at(self.encode(items), position)


def drop_items(items: Tensor, ratio: float) -> Tensor:
    """Windows [B, L] without a random proportion of their items, moved left; each keeps its last item."""
    length = (items > 0).sum(dim=1, keepdim=True)
    position = torch.arange(items.shape[1], device=items.device)
    draws = drawn(torch.empty(items.shape, device=items.device), Tensor.uniform_)
    keep = (draws >= ratio) | (position == length - 1)
    kept = items * keep
    return kept.gather(1, (kept == 0).long().argsort(dim=1, stable=True))
