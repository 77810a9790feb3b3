"""The datasets of RecBole's models and ours, over the same histories and splits.

RecBole's evaluation loaders work on them unchanged. Histories are kept once, see :mod:`recbole_xfer.data.histories`.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.dataset import Dataset, SequentialDataset
from recbole.data.interaction import Interaction

from recbole_xfer.config.values import join_domains
from recbole_xfer.data.atomic import AtomicFormat
from recbole_xfer.data.domain_files import AtomicFilesMixin
from recbole_xfer.data.features import ItemFeatures, load_item_features, load_word_drop
from recbole_xfer.data.histories import Sequences, Windows, gather, prefixes, ranges, windows
from recbole_xfer.data.vectors import WORD_DROP, VectorTable, vector_files
from recbole_xfer.errors import XferError

TARGETS = "target_list"
"""Field of a training batch: the next item at each position, 0 where there is no target, [B, L]."""
NEGATIVES = "negative_list"
"""Field of a training batch, for pairwise losses: a sampled negative for each target, [B, L]."""


class InteractionDataset(AtomicFilesMixin, Dataset):
    """RecBole's dataset for models without sequences (Pop, BPR, ...), with the same split as TransferDataset."""

    def build(self) -> list[InteractionDataset]:
        """Returns training, validation and test parts; a history's first item is also trained on.

        A history of one item is trained on only if nothing is held out.
        """
        self._change_feat_format()
        self.sequences = self._group()
        train, *held_out = self._split()
        trained = (self.sequences.starts, self.sequences.ends) if self._is_whole else with_first_item(*train)
        self._drop_unused_col()
        parts = []
        for first, end in [trained, *held_out]:
            parts.append(self.copy(self.inter_feat[self.sequences.order[ranges(first, end)]]))
            parts[-1].target_ranges = first, end
        return parts

    def following(self, histories: Sequences | None = None) -> InteractionDataset:
        """Returns a part with one row per history, for the next item: that of the user's last interaction.

        Args:
            histories: other histories, of ids of users with interactions; this dataset's by default.
        """
        own, asked = self.sequences, histories or self.sequences
        last = np.zeros(self.user_num, dtype=np.int64)
        last[own.users] = own.order[own.ends - 1]
        part = self.copy(self.inter_feat[last[asked.users]])
        part.sequences = asked.with_next()
        part.target_ranges = part.sequences.ends - 1, part.sequences.ends
        return part


def with_first_item(first: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Extends ranges of targets, unless they are empty, by the item before each: all that is trained on."""
    return first - (first < end), end


class TransferDataset(AtomicFilesMixin, SequentialDataset):
    """Histories of one or several domains, with the features of their items.

    Configuration (see properties/overall.yaml): ``histories``, ``train_rows``, ``window_stride``,
    ``MAX_ITEM_LIST_LENGTH`` and RecBole's ``eval_args`` and filters.
    """

    ROW = "history_end"  # column of inter_feat: index of the row's target in ``sequences.items``

    def _benchmark_presets(self) -> None:
        """Does nothing: :class:`AtomicFilesMixin` reads the files of ``benchmark_filename``."""

    # --- histories ---------------------------------------------------------------------------------------------

    def _change_feat_format(self) -> None:
        """Converts frames to tensors, as RecBole does, and groups interactions into histories without copies."""
        Dataset._change_feat_format(self)
        self._aug_presets()
        columns = {field: values.numpy() for field, values in self.inter_feat.interaction.items()}
        self.sequences = self._group()
        listed = (
            [self.iid_field] if self.config["train_rows"] == "windows" else [f for f in columns if f != self.uid_field]
        )
        self._columns = {field: columns[field][self.sequences.order] for field in listed}
        self.inter_feat = self._rows(ranges(self.sequences.starts + 1, self.sequences.ends))

    def _rows(self, targets: np.ndarray) -> Interaction:
        """Returns one row per target: its user, its columns, and the end of its history."""
        rows = {self.uid_field: self.sequences.users[self.sequences.history_of(targets)].astype(np.int64)}
        rows |= {field: values[targets] for field, values in self._columns.items()}
        return Interaction(
            {field: torch.from_numpy(values) for field, values in rows.items()} | {self.ROW: torch.from_numpy(targets)}
        )

    def __getitem__(self, index: Any, join: bool = True) -> Interaction:
        """Returns the rows of RecBole's SequentialDataset, by default with the features of their items and users."""
        rows = self.with_lists(index)
        return self.join(rows) if join else rows

    def with_lists(self, index: Any) -> Interaction:
        """Returns rows with their histories as lists, which are gathered on demand."""
        rows = self.inter_feat[index]
        if isinstance(rows, dict):  # a single index
            rows = Interaction({field: values.unsqueeze(0) for field, values in rows.items()})
        targets = rows[self.ROW].numpy()
        starts = np.maximum(self.sequences.starts[self.sequences.history_of(targets)], targets - self.max_item_list_len)
        lengths = targets - starts
        lists: dict[str, torch.Tensor] = {self.item_list_length_field: torch.from_numpy(lengths)}
        for field, values in self._columns.items():
            cells = gather(values, starts, lengths, self.max_item_list_len)
            lists[field + self.config["LIST_SUFFIX"]] = torch.from_numpy(cells)
        rows.update(Interaction(lists))
        return rows

    def following(self, histories: Sequences | None = None) -> TransferDataset:
        """Returns a part with one row per history, for the next item, which is unknown: the row's columns are zero.

        Args:
            histories: other histories, of ids of users (0 if unknown) and items; this dataset's by default.
        """
        part = self.copy(self.inter_feat)
        asked = histories or self.sequences
        values = {self.iid_field: asked.items}
        if histories is None:
            values |= self._columns
        zeros = {
            f: np.zeros((len(asked.items), *column.shape[1:]), column.dtype) for f, column in self._columns.items()
        }
        part._columns = {f: np.insert(values.get(f, zero), asked.ends, 0, axis=0) for f, zero in zeros.items()}
        part.sequences = asked.with_next()
        part.target_ranges = part.sequences.ends - 1, part.sequences.ends
        part.inter_feat = part._rows(part.target_ranges[0])
        return part

    def seen_items(self, rows: Interaction) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns the items before the target of each evaluation row, which may include the target's item.

        Returns:
            (row [K], item [K]): pairs to mask if history is masked.
        """
        row, item = self.sequences.before(rows[self.ROW].cpu().numpy())
        return torch.from_numpy(row), torch.from_numpy(item)

    @property
    def item_counter(self) -> Counter:
        """The number of interactions of each item id in this part, with each history's first item as RecBole has it."""
        return Counter(self.sequences.items[ranges(*with_first_item(*self.target_ranges))].tolist())

    def inter_matrix(self, form: str = "coo", value_field: str | None = None) -> Any:
        """Returns the users-by-items matrix of this part's targets."""
        return Dataset.inter_matrix(self, form, value_field)

    # --- training windows ----------------------------------------------------------------------------------------

    @cached_property
    def windows(self) -> Windows:
        """Training inputs that contain every training target exactly once."""
        first, ends = self.target_ranges
        starts = first - 1  # a history's first item is an input, never a target
        if self.config["train_rows"] == "prefixes":
            return prefixes(starts, ends, self.max_item_list_len)
        stride = self.config["window_stride"] or max(self.max_item_list_len // 2, 1)
        if not 1 <= stride <= self.max_item_list_len:
            raise XferError(
                f"window_stride={stride} is invalid: it must be an integer from 1 to MAX_ITEM_LIST_LENGTH="
                f"{self.max_item_list_len}."
            )
        return windows(starts, ends, self.max_item_list_len, stride)

    def training_batch(self, which: np.ndarray) -> Interaction:
        """Returns windows as tensors: items [B, L], targets [B, L] (0 for no target), lengths [B] and users [B]."""
        start, length, skip = (part[which] for part in (self.windows.start, self.windows.length, self.windows.skip))
        items = gather(self.sequences.items, start, length)
        targets = gather(self.sequences.items, start + 1, length)
        targets[np.arange(targets.shape[1]) < skip[:, None]] = 0
        return Interaction(
            {
                self.uid_field: torch.from_numpy(
                    self.sequences.users[self.sequences.history_of(start)].astype(np.int64)
                ),
                self.iid_field + self.config["LIST_SUFFIX"]: torch.from_numpy(items.astype(np.int64)),
                TARGETS: torch.from_numpy(targets.astype(np.int64)),
                self.item_list_length_field: torch.from_numpy(length),
            }
        )

    def build(self) -> list[TransferDataset]:
        """Returns training, validation and test parts (see :mod:`recbole_xfer.data.splits`)."""
        self._change_feat_format()
        parts = []
        for first, end in self._split():
            parts.append(self.copy(self._rows(ranges(first, end))))
            parts[-1].target_ranges = first, end
        return parts

    # --- items -----------------------------------------------------------------------------------------------------

    def files_read(self) -> list[Path]:
        """The files from which the dataset has been read so far, those of domains left out included."""
        read = vars(self)
        kinds = read["features"].modalities if "features" in read else ()
        kinds = [*(kind for kind in kinds if kind != "price"), *([WORD_DROP] if read.get(WORD_DROP) else [])]
        found = [vector_files(self.root / domain, domain, kind) for domain in self.domains for kind in kinds]
        return [*super().files_read(), *dict.fromkeys(path for paths in found for path in paths)]

    @cached_property
    def word_drop(self) -> VectorTable | None:
        """Vectors of texts without some of their words, aligned to item ids; None if a domain has none."""
        text = self.features.text
        return text and load_word_drop(self.root, self.domains, self.item_domain, self.item_tokens, text)

    @cached_property
    def features(self) -> ItemFeatures:
        """Text, image and price of every item, aligned to item ids."""
        form = AtomicFormat.of(self.config)
        return load_item_features(
            self.root, self.domains, self.item_domain, self.item_tokens, self.config["modalities"], form
        )


# --- datasets of single models of RecBole ------------------------------------------------------


class StoredRowsDataset(TransferDataset):
    """For FEARec, which looks up training rows: as in RecBole, each has its lists."""

    def build(self) -> list[TransferDataset]:
        """Returns training, validation and test parts."""
        parts = super().build()
        parts[0].inter_feat = parts[0].with_lists(np.arange(len(parts[0])))
        return parts


class NegativeHistoriesDataset(TransferDataset):
    """For DIEN, which contrasts each item of a history with a negative, drawn once from ``seed``."""

    def _change_feat_format(self) -> None:
        super()._change_feat_format()
        number = self.item_num - 1
        if number < 2:
            raise XferError(f"{join_domains(self.domains)} has one item, so no negative can be drawn. Use more data.")
        items = self.sequences.items.astype(np.int64)
        steps = np.random.default_rng(self.config["seed"]).integers(1, number, len(items))
        self._columns[self.config["NEG_PREFIX"] + self.iid_field] = (items - 1 + steps) % number + 1
