"""UniSRec: universal sequence representations from item texts (Hou et al., KDD 2022), and the X- models of RETR's
section 4.2, which are pre-trained as UniSRec is, each with an encoder of its own.

Symbols in comments: N items, B windows, L positions, d width.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from recbole.data.interaction import Interaction
from torch import Tensor, nn

from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.data.features import word_drop_command
from recbole_xfer.data.vectors import WORD_DROP
from recbole_xfer.errors import XferError
from recbole_xfer.layers.encoder import CausalEncoder
from recbole_xfer.layers.light import LightEncoder
from recbole_xfer.layers.losses import cosine_cross_entropy
from recbole_xfer.layers.pathway import PathwayEncoder
from recbole_xfer.layers.projection import ExpertProjection
from recbole_xfer.model.base import FeatureRecommender, Step

AUGMENTATIONS = ("item_drop", WORD_DROP)
BACKBONE = ("encoder.", "position_embedding.")


class UniSRec(FeatureRecommender):
    """Pre-trained on the texts of several domains with two contrastive tasks; on the target its adaptor is tuned.

    ``--adaptation=finetune`` keeps everything and trains the adaptor alone: the paper's inductive setting. With
    ``--item_embedding=True`` an embedding of each item is added and trained: the transductive setting.

    Sequences are augmented by item drop, and by word drop where the vectors of texts without some of their words are
    there (``recbole-xfer encode --drop_words``); each sequence by one of the two.

    Deviation: the sequence-item task is trained at all positions, and what stands in a user's own window is no
    negative.
    """

    kept: ClassVar = {"finetune": ("adaptor.", *BACKBONE)}
    frozen: ClassVar = {"finetune": BACKBONE}
    encoder_class: ClassVar[type[nn.Module]] = CausalEncoder

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        if "text" not in self.features.modalities:
            raise XferError(f"{config['dataset']} carries no text vectors. Make them with `recbole-xfer encode`.")
        self.contrast_weight = float(config["contrast_weight"])
        self.item_drop = config["item_drop"]
        self.word_drop_share = self._word_drop_share(config, dataset) if self.contrast_weight else 0.0
        self.adaptor = ExpertProjection(
            self.features.sizes()["text"],
            self.width,
            config["projection_heads"],
            whiten=True,
            dropout=config["projection_dropout"],
        )
        self.encoder = type(self).encoder_class(config)

    def _word_drop_share(self, config: Any, dataset: TransferDataset) -> float:
        """The share of sequences that word drop augments; its vectors join the features where that is not 0."""
        asked = config["augmentation"]
        kinds = asked or AUGMENTATIONS
        if WORD_DROP not in kinds or (dataset.word_drop is None and not asked):
            return 0.0
        if dataset.word_drop is None:
            command = word_drop_command(config["dataset"])
            raise XferError(f"{config['dataset']} has no vectors for word_drop. Make them with `{command}`.")
        self.features.add(WORD_DROP, dataset.word_drop)
        return config["word_drop_share"] if len(kinds) > 1 else 1.0

    def encode_items(self, ids: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Texts through parametric whitening and the mixture of experts, [N, d]; an item without text has none."""
        return self._encode_texts(self.features.rows("text", ids), ids), {}

    def _encode_texts(self, vectors: Tensor, ids: Tensor) -> Tensor:
        """Vectors [N, D] of the texts of items [N] to items [N, d]."""
        item = self.adaptor(vectors) * self.features.present("text", ids)[:, None]
        return item if self.item_embedding is None else item + self.item_embedding(ids)

    def encode_states(self, embedded: Tensor, real: Tensor) -> Tensor:
        """[B, L, d] to [B, L, d]; ``real`` is bool [B, L]."""
        return self.encoder(embedded, real)

    def calculate_loss(self, interaction: Interaction) -> Tensor | tuple[Tensor, ...]:
        """The sequence-item task, and lambda times the sequence-sequence task where it is asked for."""
        step = self.encode_step(interaction)
        loss = self.next_item_loss(step)
        return (loss, self.contrast_weight * self._sequence_loss(step)) if self.contrast_weight else loss

    def _sequence_loss(self, step: Step) -> Tensor:
        """Finds each window's own augmented form among those of the batch; the step has passed the windows already.

        Other windows of the same user are negatives too, as another user's are.
        """
        ends = (step.targets > 0).sum(dim=1).cumsum(dim=0) - 1  # a window's last item always has a target
        whole = step.users[ends]
        augmented = self._augmented(step)
        return cosine_cross_entropy(whole, augmented, torch.arange(len(whole), device=whole.device), self.temperature)

    def _augmented(self, step: Step) -> Tensor:
        """State at the last item of each window, [B, d], when the window lacks items or its items words."""
        items = drop_items(step.items, self.item_drop)
        embedded = self.look_up(items, step.row, step.table)
        if self.word_drop_share:
            loses_words = torch.rand(len(items), device=items.device) < self.word_drop_share  # [B]
            items = torch.where(loses_words[:, None], step.items, items)
            embedded[loses_words] = self._without_words(step.items[loses_words])
        states = self.encode_users(embedded, items > 0)
        return states[torch.arange(len(items), device=items.device), (items > 0).sum(dim=1) - 1]

    def _without_words(self, items: Tensor) -> Tensor:
        """Windows [B, L] of items whose texts lack words, [B, L, d]; an item that has no such text keeps its own."""
        ids, place = items.unique(return_inverse=True)
        vectors = self.features.rows("text", ids)
        present = self.features.present(WORD_DROP, ids)[:, None]
        table = self._encode_texts(torch.where(present, self.features.rows(WORD_DROP, ids), vectors), ids)
        return table[place] * (items > 0)[..., None]


class XSASRec(UniSRec):
    """X-SASRec: UniSRec's own encoder. On the target, item embeddings are added and the backbone is frozen."""


class XRETR(XSASRec):
    """X-RETR: RETR's encoder."""

    encoder_class: ClassVar[type[nn.Module]] = PathwayEncoder
    encoder_keys: ClassVar = (*XSASRec.encoder_keys, "pathway_context", "pathway_route", "pathway_hierarchical")


class XLightSANs(XSASRec):
    """X-LightSANs: LightSANs' encoder, to which positions come apart from the items.

    It is bidirectional, so it is trained on prefixes, at the last position of each.

    Raises:
        XferError: if it were to be trained at all positions, where it would see what it is to predict.
    """

    encoder_class: ClassVar[type[nn.Module]] = LightEncoder

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        if config["train_rows"] != "prefixes":
            raise XferError("XLightSANs looks ahead, so its training rows must end at the target: train_rows=prefixes.")

    def encode_users(self, embedded: Tensor, real: Tensor) -> Tensor:
        """[B, L, d] to [B, L, d]; ``real`` is bool [B, L]."""
        return self.encoder(embedded, self.position_embedding.weight[: embedded.shape[1]], real)


def drop_items(items: Tensor, ratio: float) -> Tensor:
    """Windows [B, L] without a random share of their items, moved to the left; each keeps its last item."""
    length = (items > 0).sum(dim=1, keepdim=True)
    position = torch.arange(items.shape[1], device=items.device)
    keep = (torch.rand(items.shape, device=items.device) >= ratio) | (position == length - 1)
    kept = items * keep
    return kept.gather(1, (kept == 0).long().argsort(dim=1, stable=True))
