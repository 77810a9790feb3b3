"""The models that TP trains: RETR, SASRec and RecBole's models.

Symbols in comments: L positions, d width, h width of a GRU's states.
"""

from __future__ import annotations

from collections import ChainMap
from typing import Any

import torch
from recbole.model import sequential_recommender as recbole
from torch import Tensor

from recbole_xfer.data.dataset import TransferDataset
from recbole_xfer.layers.pathway import stop_counting
from recbole_xfer.model.retr import RETR
from recbole_xfer.model.tp import Batch, TPAllPositions, TPOverRows, last_items


class TPRETR(TPAllPositions, RETR):
    """RETR, trained by TP."""

    def __init__(self, config: Any, dataset: TransferDataset) -> None:
        super().__init__(config, dataset)
        stop_counting(self)

    def states(self, batch: Batch) -> Tensor:
        """The encoder's states, [L, d]."""
        return self.encoder(self.embed(batch[self.ITEM_SEQ][None]))[0]


class TPSASRec(TPRETR):
    """SASRec, which is RETR without its pathway, trained by TP."""


class TPGRU4Rec(TPAllPositions, recbole.GRU4Rec):
    """RecBole's GRU4Rec, trained by TP."""

    def states(self, batch: Batch) -> Tensor:
        """RecBole's forward for every prefix, [L, d]; written out, since ``vmap`` does not support nn.GRU."""
        states = self.emb_dropout(self.item_embedding(batch[self.ITEM_SEQ]))  # [L, d]
        for layer in range(self.num_layers):
            weights = (getattr(self.gru_layers, f"weight_{part}_l{layer}") for part in ("ih", "hh"))
            states = gru(states, *weights)
        return self.dense(states)


class TPCaser(TPAllPositions, recbole.Caser):
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


def gru(x: Tensor, input_weight: Tensor, hidden_weight: Tensor) -> Tensor:
    """A layer of ``nn.GRU`` without biases: inputs [L, d] to states [L, h]."""
    from_inputs = x @ input_weight.T  # [L, 3h]
    # contiguous: a row times each path's matrix takes a fourth of the time
    hidden_weight = hidden_weight.T.contiguous()
    state = from_inputs.new_zeros(1, len(hidden_weight))
    states = []
    for from_input in from_inputs.split(1):
        inputs, hidden = from_input.chunk(3, dim=1), (state @ hidden_weight).chunk(3, dim=1)
        reset, update = (torch.sigmoid(inputs[gate] + hidden[gate]) for gate in (0, 1))
        new = torch.tanh(inputs[2] + reset * hidden[2])
        state = new + update * (state - new)
        states.append(state)
    return torch.cat(states)


class TPCORE(TPOverRows, recbole.CORE):
    """RecBole's CORE, trained by TP."""


class TPFDSA(TPOverRows, recbole.FDSA):
    """RecBole's FDSA, trained by TP."""


class TPFOSSIL(TPOverRows, recbole.FOSSIL):
    """RecBole's FOSSIL, trained by TP."""


class TPGCSAN(TPOverRows, recbole.GCSAN):
    """RecBole's GCSAN, trained by TP."""


class TPHGN(TPOverRows, recbole.HGN):
    """RecBole's HGN, trained by TP."""


class TPLightSANs(TPOverRows, recbole.LightSANs):
    """RecBole's LightSANs, trained by TP."""


class TPNARM(TPOverRows, recbole.NARM):
    """RecBole's NARM, trained by TP."""


class TPNextItNet(TPOverRows, recbole.NextItNet):
    """RecBole's NextItNet, trained by TP."""


class TPNPE(TPOverRows, recbole.NPE):
    """RecBole's NPE, trained by TP."""


class TPSASRecF(TPOverRows, recbole.SASRecF):
    """RecBole's SASRecF, trained by TP."""


class TPSINE(TPOverRows, recbole.SINE):
    """RecBole's SINE, trained by TP."""


class TPSRGNN(TPOverRows, recbole.SRGNN):
    """RecBole's SRGNN, trained by TP."""


class TPSTAMP(TPOverRows, recbole.STAMP):
    """RecBole's STAMP, trained by TP."""
