"""RecBole's loader of targets to rank, with one row per target for every model."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.data.dataloader import FullSortEvalDataLoader
from recbole.data.dataloader.abstract_dataloader import AbstractDataLoader
from recbole.data.interaction import Interaction

from recbole_xfer.data.histories import ranges
from recbole_xfer.errors import XferError
from recbole_xfer.processes import count, own


class TargetLoader(FullSortEvalDataLoader):
    """RecBole's FullSortEvalDataLoader with one row per target, also for models without sequences.

    A batch has the rows, what to leave out of the ranking, and the row and item of each target. With ``mask_history``
    all items before a target are left out, and the target too if it is one of them. Of several processes each ranks its
    own rows.

    Args:
        config: of the run.
        dataset: a part of the split.
        candidates: the items to rank each target with, [N, C]; None for all items.

    Attributes:
        mask_history: whether items before a target are left out.
        first: the first row of this process.

    Raises:
        XferError: if there are fewer rows than processes.
    """

    def __init__(self, config: Any, dataset: Any, candidates: np.ndarray | None = None) -> None:
        self.candidates = candidates
        self.mask_history = bool(config["mask_history"])
        self.iid_field = dataset.iid_field
        if 0 < len(dataset) < count():
            raise XferError(
                f"{config['dataset']} has {len(dataset)} rows to rank, not one for each process. Start fewer."
            )
        rows = own(len(dataset))
        self.first, self.sample_size = rows.start, rows.stop - rows.start
        self.targets = ranges(*dataset.target_ranges)
        AbstractDataLoader.__init__(self, config, dataset, None)

    def _init_batch_size_and_step(self) -> None:
        self.step = self.config["eval_batch_size"]
        self.set_batch_size(self.step)

    def collate_fn(self, index: Any) -> tuple[Interaction, Any, torch.Tensor, torch.Tensor]:
        """Returns a batch."""
        index = self.first + np.array(index)
        rows = self.transform(self._dataset, self._dataset[index])
        return rows, self._left_out(index), torch.arange(len(index)), rows[self.iid_field]

    def _left_out(self, index: np.ndarray) -> Any:
        """Returns what is not ranked, as (row, item) or bool [B, n_items]; None if everything is."""
        histories, targets = self._dataset.sequences, self.targets[index]
        seen = histories.before(targets) if self.mask_history else None
        if self.candidates is None:
            return seen and (torch.from_numpy(seen[0]), torch.from_numpy(seen[1]))
        left_out = np.ones((len(index), self._dataset.item_num), dtype=bool)
        np.put_along_axis(left_out, np.c_[self.candidates[index], histories.items[targets]], False, axis=1)
        if seen is not None:
            left_out[seen] = True
        return torch.from_numpy(left_out)

    def repeats(self) -> float:
        """Returns the share of targets whose item occurs before them in their history."""
        return float(self._dataset.sequences.repeated(self.targets).mean())
