"""Ranks each target among the items of its own domain, and measures each domain.

``ndcg@10`` is a metric over all targets, ``ndcg@10 [Books]`` over those of a domain, and ``ndcg@10 [mean]`` is the mean
over domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_xfer.collectives import gather
from recbole_xfer.config.values import split_domains
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.groups import select_rows

MEAN = "mean"
WITHOUT_CUTOFF = {"auc", "gauc", "logloss", "mae", "rmse"}
"""RecBole's metrics that have no cutoff k."""


class DomainRanking:
    """Masks the scores of one evaluation pass to each target's domain, and records the domain of each ranked row.

    Args:
        domains: their names.
        item_domain: index into ``domains`` of each item id, [n_items].
        first: the first row that this process ranks; None if each process ranks all rows.
    """

    def __init__(self, domains: Sequence[str], item_domain: Tensor, first: int | None = None) -> None:
        self.domains = domains
        self.item_domain = item_domain
        self._row_domain: list[Tensor] = []
        self._loader_row: list[Tensor] = []
        self._shared, self._seen = first is not None, first or 0

    def mask_other_domains(self, scores: Tensor, row: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Splits each row into one per domain of its targets, where items of other domains score minus infinity.

        Args:
            scores: of all items, [B, n_items].
            row: row of each target, ascending, [T].
            item: the targets, [T].

        Returns:
            scores [R, n_items] and the row of each target, [T].
        """
        row, item = row.to(scores.device), item.to(scores.device)
        key = row * len(self.domains) + self.item_domain[item]
        different, new_row = key.unique(return_inverse=True)
        domain = different % len(self.domains)
        self._row_domain.append(domain.cpu())
        self._loader_row.append(self._seen + (different // len(self.domains)).cpu())
        self._seen += len(scores)
        other = self.item_domain != domain[:, None]
        return scores[different // len(self.domains)].masked_fill(other, -torch.inf), new_row

    def gather(self) -> None:
        """Ends a pass: adds the rows that the other processes ranked."""
        if self._shared:
            self._row_domain, self._loader_row = [gather(self.row_domain)], [gather(self.loader_row)]

    @property
    def row_domain(self) -> Tensor:
        """The domain of each ranked row, as an index into ``domains``, [N]."""
        return torch.cat(self._row_domain)

    @property
    def loader_row(self) -> Tensor:
        """The loader's row of each ranked row, [N]; a row with targets in several domains is ranked in each."""
        return torch.cat(self._loader_row)

    def counts(self) -> dict[str, int]:
        """Number of ranked rows of each domain."""
        counts = torch.bincount(self.row_domain, minlength=len(self.domains)).tolist()
        return dict(zip(self.domains, counts, strict=True))

    def targets(self, users: np.ndarray) -> pd.MultiIndex:
        """(domain, user) of each ranked row, given the user of each of the loader's rows."""
        return pd.MultiIndex.from_arrays([np.array(self.domains)[self.row_domain], users[self.loader_row]])

    def metrics_by_domain(
        self, data: DataStruct, evaluate: Callable[[DataStruct], Mapping[str, float]], decimals: int
    ) -> dict[str, float]:
        """The metrics of each domain, and their mean over domains.

        Args:
            data: collected by RecBole for all rows.
            evaluate: RecBole's evaluator, which rounds.
            decimals: places to which the mean is rounded too.
        """
        row_domain = self.row_domain
        parts = {name: evaluate(select_rows(data, row_domain == d)) for d, name in enumerate(self.domains)}
        metrics = next(iter(parts.values()))
        mean = {
            metric: round(float(np.mean([part[metric] for part in parts.values()])), decimals) for metric in metrics
        }
        return {
            metric_name(metric, name): float(part[metric])
            for name, part in {MEAN: mean, **parts}.items()
            for metric in part
        }


def metric_name(metric: str, part: str) -> str:
    """The name of a metric over a domain or a group of users, such as ``ndcg@10 [Books]``."""
    return f"{metric} [{part}]"


def split_metric_name(name: str) -> tuple[str, str | None]:
    """The metric and the domain or group of a name; None for all targets."""
    metric, _, part = name.removesuffix("]").partition(" [")
    return metric, part or None


def by_domain(metrics: Mapping[str, Any]) -> dict[str | None, dict[str, Any]]:
    """Groups metrics by domain (or group of users); those over all targets have the key None."""
    parts: dict[str | None, dict[str, Any]] = {}
    for name, value in metrics.items():
        metric, part = split_metric_name(name)
        parts.setdefault(part, {})[metric] = value
    return parts


def metric_key(name: str) -> str:
    """The key of a metric in results: RecBole writes ``NDCG@10`` in lower case; ``[Books]`` stays unchanged."""
    metric, bracket, domain = name.partition(" [")
    return metric.lower() + bracket + domain


def check_valid_metric(config: Any) -> None:
    """Raises XferError if validation does not measure ``valid_metric``, which chooses the epoch."""
    metric, domain = split_metric_name(config["valid_metric"])
    cutoffs = {name: config["topk"] if name.lower() not in WITHOUT_CUTOFF else [None] for name in config["metrics"]}
    measured = [f"{name}@{k}" if k else name for name, topk in cutoffs.items() for k in topk]
    if metric.lower() not in map(str.lower, measured):
        raise XferError(
            f"valid_metric={config['valid_metric']} is not among the metrics: {', '.join(measured)}. "
            f"Choose one of them, or change metrics or topk."
        )
    known = [*split_domains(config["single_domain"] or config["dataset"]), MEAN]
    if domain and (not config["rank_within_domain"] or domain not in known):
        raise XferError(
            f"valid_metric={config['valid_metric']} needs rank_within_domain=True and one of {', '.join(known)} in "
            f"brackets. Correct it, or set --valid_metric={metric}."
        )
