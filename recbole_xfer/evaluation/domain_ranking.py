"""Ranking within domains: the candidates of a target are the items of its domain, and each domain has its results.

A metric is named ``ndcg@10`` over all targets, ``ndcg@10 [Books]`` over those of a domain, and ``ndcg@10 [mean]`` is
the mean over domains.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.evaluator.collector import DataStruct
from torch import Tensor

from recbole_xfer.config.values import split_domains
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.groups import rows_of

MEAN = "mean"
WITHOUT_LENGTH = {"auc", "gauc", "logloss", "mae", "rmse"}
"""RecBole's metrics that no length of ranking goes with."""


class DomainRanking:
    """Restricts the scores of one evaluation pass, and remembers which domain each ranked row belongs to.

    Args:
        domains: names.
        item_domain: index into ``domains`` of each item id, [n_items].
    """

    def __init__(self, domains: Sequence[str], item_domain: Tensor) -> None:
        self.domains = domains
        self.item_domain = item_domain
        self._rows: list[Tensor] = []
        self._sources: list[Tensor] = []
        self._seen = 0

    def restrict(self, scores: Tensor, row: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """One row for each row and domain of its targets, the other domains' items at minus infinity.

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
        self._rows.append(domain.cpu())
        self._sources.append(self._seen + (different // len(self.domains)).cpu())
        self._seen += len(scores)
        other = self.item_domain != domain[:, None]
        return scores[different // len(self.domains)].masked_fill(other, -torch.inf), new_row

    @property
    def rows(self) -> Tensor:
        """The domain of each ranked row, [N]."""
        return torch.cat(self._rows)

    @property
    def sources(self) -> Tensor:
        """The loader's row behind each ranked row, [N]: a row with targets in several domains is ranked in each."""
        return torch.cat(self._sources)

    def counts(self) -> dict[str, int]:
        """How many rows each domain has."""
        counts = torch.bincount(self.rows, minlength=len(self.domains)).tolist()
        return dict(zip(self.domains, counts, strict=True))

    def targets(self, users: np.ndarray) -> pd.MultiIndex:
        """(domain, user) of each ranked row; the users are those of the loader's rows."""
        return pd.MultiIndex.from_arrays([np.array(self.domains)[self.rows], users[self.sources]])

    def results(
        self, data: DataStruct, evaluate: Callable[[DataStruct], Mapping[str, float]], places: int
    ) -> dict[str, float]:
        """The metrics of each domain by themselves, and their mean.

        Args:
            data: what RecBole collected of all rows.
            evaluate: RecBole's evaluator, which rounds.
            places: to which it rounds, and the mean is rounded.
        """
        parts = {name: evaluate(rows_of(data, self.rows == d)) for d, name in enumerate(self.domains)}
        metrics = next(iter(parts.values()))
        mean = {metric: round(float(np.mean([part[metric] for part in parts.values()])), places) for metric in metrics}
        return {
            named(metric, name): float(part[metric]) for name, part in {MEAN: mean, **parts}.items() for metric in part
        }


def named(metric: str, domain: str) -> str:
    """Such as ``ndcg@10 [Books]``."""
    return f"{metric} [{domain}]"


def by_domain(metrics: Mapping[str, Any]) -> dict[str | None, dict[str, Any]]:
    """Metrics over all targets under None, and those of each domain (or group of users) under its name."""
    parts: dict[str | None, dict[str, Any]] = {}
    for name, value in metrics.items():
        metric, domain = _parsed(name)
        parts.setdefault(domain, {})[metric] = value
    return parts


def _parsed(name: str) -> tuple[str, str | None]:
    """The metric and the domain of a name."""
    metric, _, domain = name.removesuffix("]").partition(" [")
    return metric, domain or None


def metric_key(name: str) -> str:
    """``NDCG@10 [Books]`` as results have it: RecBole's metrics are in small letters, domains as they are."""
    metric, bracket, domain = name.partition(" [")
    return metric.lower() + bracket + domain


def check_valid_metric(config: Any) -> None:
    """Raises XferError if validation does not measure ``valid_metric``, so that no epoch could be chosen."""
    metric, domain = _parsed(config["valid_metric"])
    lengths = {name: config["topk"] if name.lower() not in WITHOUT_LENGTH else [None] for name in config["metrics"]}
    measured = [f"{name}@{k}" if k else name for name, topk in lengths.items() for k in topk]
    if metric.lower() not in map(str.lower, measured):
        raise XferError(f"valid_metric={config['valid_metric']} is not among the metrics: {', '.join(measured)}.")
    there = [*split_domains(config["single_domain"] or config["dataset"]), MEAN]
    if domain and (not config["rank_within_domain"] or domain not in there):
        raise XferError(
            f"valid_metric={config['valid_metric']} needs rank_within_domain=True and one of {', '.join(there)} in "
            f"brackets. Correct it, or set --valid_metric={metric}."
        )
