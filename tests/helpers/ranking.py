"""What an experiment ranks, as its collector receives it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from recbole_xfer.evaluation.tiles import VectorScores
from recbole_xfer.experiment import Experiment, fit


def ranked(made: Experiment, data: Any = None) -> tuple[np.ndarray, np.ndarray]:
    """The scores of each ranked row [rows, items], minus infinity for what is left out, and its target [rows]."""
    return ranked_and_measured(made, data)[:2]


def ranked_and_measured(made: Experiment, data: Any = None) -> tuple[np.ndarray, np.ndarray, dict[str, float]]:
    """The same, and the metrics of this pass."""
    if made.config["model"] == "Pop":
        fit(made)  # it cannot rank before it has counted
    scores, targets = [], []
    collect = made.trainer.eval_collector.eval_batch_collect

    def spy(batch: Any, interaction: Any, row: torch.Tensor, item: torch.Tensor) -> None:
        scores.append(whole(batch).clone())
        targets.append(item)
        collect(batch, interaction, row, item)

    made.trainer.eval_collector.eval_batch_collect = spy
    measured = made.trainer.evaluate(data or made.test_data, load_best_model=False)
    made.trainer.eval_collector.eval_batch_collect = collect
    return torch.cat(scores).numpy(), torch.cat(targets).numpy(), measured


def whole(scores: torch.Tensor | VectorScores) -> torch.Tensor:
    """Scores of a batch as RecBole has them, [B, n_items]; minus infinity for what is not ranked."""
    if isinstance(scores, torch.Tensor):
        return scores
    products = scores.users @ scores.items.T
    if scores.repeated is not None:
        products[scores.repeated[:2]] += scores.repeated.score
    products[scores.left_out] = -torch.inf
    return torch.nn.functional.pad(products, (1, 0), value=-torch.inf)
