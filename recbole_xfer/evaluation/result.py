"""The result of a run: metrics, and how they were measured (split, candidates, masking of the history, seed)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from recbole_xfer.data.targets import TargetLoader
from recbole_xfer.evaluation.domain_ranking import metric_name
from recbole_xfer.evaluation.groups import Group


@dataclass(frozen=True)
class Protocol:
    """How a ranking was measured; results of different protocols cannot be compared.

    Attributes:
        split: such as ``leave one out by time``.
        candidates: such as ``all 1,234 items`` or ``100 uniform negatives``.
        history_masked: whether the user's earlier items were removed from the ranking; None if nothing is ranked.
    """

    split: str
    candidates: str
    history_masked: bool | None

    def __str__(self) -> str:
        if self.history_masked is None:
            return f"{self.split}; {self.candidates}"
        return f"{self.split}; {self.candidates} ranked; history {'masked' if self.history_masked else 'kept'}"


@dataclass(frozen=True)
class Result:
    """The metrics of one run on one dataset.

    Attributes:
        label: name in a table, such as ``ANT (relearn)``.
        valid: metrics of the validation split at the best epoch.
        test: metrics of the test split.
        rows: number of test targets.
        rows_by_domain: number of test targets of each domain, if targets are ranked within their domains.
        best_epoch: counted from 0.
        seconds: of training and validation, without pre-training.
        valid_score: value of the metric that chose the epoch.
        cutoff: k of ``by_row``.
        by_row: NDCG@k of each test target, [rows]; equal protocols and data give the same order.
        row_targets: (domain, user) of each value of ``by_row``, if targets are ranked within their domains.
        groups: metrics of groups of test targets, by name.
        repeats: share of test targets whose item the user had interacted with before; a masked history masks them.
        tied: share of test targets with the score of another candidate; None if there are none.
        approximations: what training approximated, such as a sampled loss; None if nothing.
        weights: of the models that ``adaptation: auto`` joins, by name; they sum to 1. None for any other run.
    """

    label: str
    model: str
    dataset: str
    source: str | None
    adaptation: str | None
    protocol: Protocol
    seed: int
    valid: Mapping[str, float]
    test: Mapping[str, float]
    rows: int
    best_epoch: int
    seconds: float
    folder: str
    valid_score: float
    cutoff: int
    by_row: np.ndarray | None = field(repr=False, default=None)
    row_targets: pd.MultiIndex | None = field(repr=False, default=None)
    rows_by_domain: Mapping[str, int] | None = None
    groups: Mapping[str, Group] = field(default_factory=dict)
    repeats: float | None = None
    tied: float | None = None
    approximations: str | None = None
    weights: Mapping[str, float] | None = None

    def caption(self) -> str:
        """Numbers of test targets, protocol, seed, best epoch, ties, approximations and joined models, as text."""
        tied = f"{self.tied:.1%} of the targets tied" if self.tied else None
        facts = self.target_counts(), self.protocol, f"seed {self.seed}", f"best epoch {self.best_epoch}"
        weights = weights_text([self.weights]) if self.weights else None
        return "; ".join(map(str, filter(None, [*facts, tied, self.approximations, weights])))

    def target_counts(self) -> str:
        """Such as ``900 test targets (Books 600, Toys 300)``, or for groups of users ``(new 300, new-tail 240)``.

        With masked history also ``of which 5.7% are repeats, which count as misses``.
        """
        parts = {**(self.rows_by_domain or {}), **{name: group.rows for name, group in self.groups.items()}}
        counts = ", ".join(f"{name} {rows:,}" for name, rows in parts.items())
        masked = self.repeats and self.protocol.history_masked
        repeats = f", of which {self.repeats:.1%} are repeats, which count as misses" if masked else ""
        return f"{self.rows:,} test targets" + (f" ({counts})" if counts else "") + repeats

    def test_by_part(self) -> dict[str, float]:
        """Test metrics, including those of groups of users, which are named like domains: ``ndcg@10 [new-tail]``."""
        of_groups = {
            metric_name(metric, name): value
            for name, group in self.groups.items()
            for metric, value in group.test.items()
        }
        return {**self.test, **of_groups}

    def as_dict(self) -> dict[str, Any]:
        """The content of result.json."""
        values = asdict(self)
        del values["by_row"], values["row_targets"]
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Result:
        """The inverse of :meth:`as_dict`; without ``by_row``, which is not written to files."""
        groups = {name: Group(**group) for name, group in values["groups"].items()}
        return cls(**{**values, "protocol": Protocol(**values["protocol"]), "groups": groups})


def protocol(loader: Any) -> Protocol:
    """The protocol of a loader of test rows: what was split, ranked and left out."""
    dataset, config = loader._dataset, loader.config
    kind = {"uniform": "uniform", "popularity": "popular"}.get(config["test_neg_sample_args"]["distribution"])
    if not isinstance(loader, TargetLoader):
        number = config["test_neg_sample_args"]["sample_num"]
        rows = "interactions" if kind is None else f"targets and {number} {kind} negatives of each"
        return Protocol(dataset.split_text, f"labels of {rows} predicted", None)
    items = f"{dataset.item_num - 1:,}"
    within = " of the target's domain" if config["rank_within_domain"] else ""
    if loader.candidates is not None:
        candidates = f"{loader.candidates.shape[1]} {kind} negatives{within}"
    else:
        candidates = f"all items{within} ({items} in total)" if within else f"all {items} items"
    return Protocol(dataset.split_text, candidates, loader.mask_history)


def weights_text(weights: Sequence[Mapping[str, float]]) -> str:
    """How the scores of models are joined: the weights by name, means where there are several seeds."""
    several = "mean " if len(weights) > 1 else ""
    means = {name: float(np.mean([some[name] for some in weights])) for name in weights[0]}
    shares = ", ".join(f"{name} {mean:.2f}" for name, mean in means.items())
    return f"scores joined with {several}weights chosen on the validation split, {shares}"


def score_text(value: Mapping[str, float], several: bool) -> str:
    """The text of a metric in a table: its ``mean``, and with several seeds the ``spread``: ``0.1234 ±.0012``."""
    return f"{value['mean']:.4f}" + (f" ±{value['spread']:.4f}".replace("±0", "±") if several else "")


def ndcg_by_row(topk: Tensor | None, k: int) -> np.ndarray | None:
    """NDCG@k of each evaluated row.

    Args:
        topk: RecBole's ``rec.topk``: hits at each rank, then the number of positives, [N, K + 1].
    """
    if topk is None or topk.shape[1] <= k:
        return None
    hits, positives = topk[:, :k].numpy(), topk[:, -1].numpy()
    discount = 1 / np.log2(np.arange(2, k + 2))
    best = np.cumsum(discount)[np.clip(positives, 1, k) - 1]
    return (hits * discount).sum(axis=1) / best
