"""Compares several models on one target: mean and spread over seeds, and whether transfer helped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from recbole.evaluator.register import smaller_metrics
from rich import box
from rich.markup import escape
from rich.table import Table

from recbole_xfer.comparison.joint import JointAgainstAlone
from recbole_xfer.comparison.significance import SIGNIFICANCE, holm, paired_change
from recbole_xfer.config.values import text_of
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.domain_ranking import by_domain, split_metric_name
from recbole_xfer.evaluation.result import Result, score_text

REMEDIES: Sequence[tuple[Callable[[Result], str], str]] = (
    (lambda result: result.dataset, "Choose runs on one dataset."),
    (lambda result: result.protocol.split, "Set one eval_args.split for all runs, and train them again."),
    (
        lambda result: result.protocol.candidates,
        "Set one eval_args.mode and one rank_within_domain for all runs. If their numbers of items differ, train all "
        "on the same files with the same item_inter_num_interval, user_inter_num_interval and val_interval.",
    ),
    (
        lambda result: f"history {'masked' if result.protocol.history_masked else 'kept'}",
        "Set one mask_history for all runs: --mask_history=True or False.",
    ),
    (lambda result: str(result.protocol), "Evaluate all runs with the same keys."),
)
"""What must be equal in all results of a table, and what to do where it is not."""


@dataclass(frozen=True)
class Comparison:
    """Results on one target, measured with one protocol.

    Attributes:
        results: of each row and seed.
        joint: compares rows with models trained on one domain alone, where rows ask for it.
    """

    results: Sequence[Result]
    joint: JointAgainstAlone | None = None

    def __post_init__(self) -> None:
        for measured, remedy in REMEDIES:
            labels: dict[str, str] = {}
            for result in self.results:
                labels.setdefault(measured(result), result.label)
            if len(labels) > 1:
                differing = " versus ".join(f"{value} ({label})" for value, label in labels.items())
                raise XferError(f"These results cannot be compared: {differing}. {remedy}")
        if len({frozenset(result.test_by_part()) for result in self.results}) > 1:
            raise XferError(
                "These results have different metrics or groups. Set --metrics, --topk and --eval_groups for all runs."
            )

    def by_label(self) -> dict[str, list[Result]]:
        """The results of each row of the table, one per seed."""
        rows: dict[str, list[Result]] = defaultdict(list)
        for result in self.results:
            rows[result.label].append(result)
        return dict(rows)

    def summary(self) -> dict[str, dict[str, dict[str, float]]]:
        """Mean and standard deviation over seeds of each row's test metrics, including those of domains and groups."""
        rows = {label: [result.test_by_part() for result in results] for label, results in self.by_label().items()}
        return {
            label: {
                metric: {
                    "mean": float(np.mean([test[metric] for test in tests])),
                    "spread": float(np.std([test[metric] for test in tests], ddof=len(tests) > 1)),
                }
                for metric in tests[0]
            }
            for label, tests in rows.items()
        }

    def caption(self) -> str:
        """Numbers of test targets, protocol, seeds, and what the training of a row approximated, as text."""
        first = self.results[0]
        seeds = sorted({result.seed for result in self.results})
        spread = "mean and standard deviation over seeds" if len(seeds) > 1 else "seed"
        facts = first.target_counts(), str(first.protocol), f"{spread} {', '.join(map(str, seeds))}"
        approximated = {result.label: result.approximations for result in self.results if result.approximations}
        return "; ".join([*facts, *(f"{label} {how}" for label, how in approximated.items())])

    def table(self) -> Table:
        """The test metrics as a table for the console; the best value of each column is bold."""
        first = self.results[0]
        several = any(len(results) > 1 for results in self.by_label().values())
        table = Table(
            title=escape(f"Test results on {first.dataset}"),
            caption=escape(self.caption()),
            caption_justify="left",
            box=box.SIMPLE_HEAD,  # mean and spread of four metrics fit into 80 columns
            pad_edge=False,
            collapse_padding=True,
        )
        table.add_column("model", no_wrap=True)
        metrics = list(first.test_by_part())
        parts = by_domain(dict.fromkeys(metrics))
        if len(parts) > 1:
            table.add_column("group" if first.groups else "domain", no_wrap=True)
        for metric in parts[None]:
            table.add_column(metric, justify="right", no_wrap=True)
        if not several:
            table.add_column("epoch", justify="right")
            table.add_column("seconds", justify="right", no_wrap=True)
        summary = self.summary()
        best = {metric: _better(metric)(row[metric]["mean"] for row in summary.values()) for metric in metrics}
        for label, results in self.by_label().items():
            cells = {metric: _cell(summary[label][metric], best[metric], several) for metric in metrics}
            rest = [] if several else [str(results[0].best_epoch), f"{results[0].seconds:.0f}"]
            for part, row in by_domain(cells).items():
                names = [label] if len(parts) == 1 else ["", part] if part else [label, "all"]
                table.add_row(*map(escape, names), *row.values(), *([] if part else rest))
        return table

    def verdict(self) -> str:
        """Says for each adapted row whether transfer helped or hurt significantly, against the same model from scratch.

        One sentence per source; the p-values have Holm's correction over all rows. Empty if no row is adapted, or no
        metric is one of rankings (``metrics: [GAUC]``).
        """
        if any(result.by_row is None for result in self.results):
            return ""
        pairs = [(results, self._from_scratch(results)) for results in self.by_label().values()]
        tested = [(results, scratch) for results, scratch in pairs if scratch is not None]
        if not tested:
            return ""
        changes = [paired_change(mean_by_row(results), mean_by_row(scratch)) for results, scratch in tested]
        corrected = holm(np.array([p for _, p in changes]))
        findings: dict[str, list[str]] = defaultdict(list)
        for ((row, *_), (scratch, *_)), (change, _), p in zip(tested, changes, corrected, strict=True):
            word = "made no significant difference" if p >= SIGNIFICANCE else "helped" if change > 0 else "hurt"
            numbers = f"({change:+.1%} compared with {scratch.label}, p = {p:.2g})"
            findings[row.source or "a pre-trained model"].append(f"{row.label} {word} {numbers}")
        first = tested[0][0][0]
        texts = [f"Transfer from {source}, NDCG@{first.cutoff}: {'; '.join(of)}. " for source, of in findings.items()]
        correction = f", with Holm's correction for {len(tested)} tests" if len(tested) > 1 else ""
        return f"{''.join(texts)}Paired t-test over {len(mean_by_row([first])):,} test targets{correction}."

    def _from_scratch(self, adapted: Sequence[Result]) -> list[Result] | None:
        """The row from scratch of the same model and keys, else the only one of its model; None if neither exists."""
        first, rows = adapted[0], self.by_label()
        if first.adaptation in (None, "scratch"):
            return None
        of_model = [row for row in rows.values() if (row[0].model, row[0].adaptation) == (first.model, "scratch")]
        same_keys = first.label.replace(f"({first.adaptation})", "(scratch)")
        return rows.get(same_keys) or (of_model[0] if len(of_model) == 1 else None)

    def as_dict(self) -> dict[str, Any]:
        """The content of the file of ``--result``."""
        return {
            "dataset": self.results[0].dataset,
            "measured": self.caption(),
            "verdict": self.verdict(),
            "summary": self.summary(),
            "runs": [result.as_dict() for result in self.results],
            **({"joint_against_alone": self.joint.as_dict()} if self.joint else {}),
        }


def with_distinct_labels(results: Sequence[Result], keys: Sequence[Mapping[str, Any]]) -> list[Result]:
    """Adds to equal labels the keys in which their runs differ: ``RETR n_heads=4``, ``ANT (relearn), source Toys``.

    Args:
        results: of several runs.
        keys: of each run; ``seed`` is ignored, because a row has several seeds.
    """
    labelled = []
    for result, own in zip(results, keys, strict=True):
        same_label = [others for other, others in zip(results, keys, strict=True) if other.label == result.label]
        differing = {
            key: value
            for key, value in own.items()
            if key != "seed" and any(key not in others or others[key] != value for others in same_label)
        }
        other_models = [o for o in same_label if o.get("pretrained") != own.get("pretrained")]
        if all(others.get("source") != own.get("source") for others in other_models):
            differing.pop("pretrained", None)  # the source says enough without a path
        labelled.append(replace(result, label=_described(result.label, differing)))
    return labelled


def _described(label: str, differing: Mapping[str, Any]) -> str:
    """A label with some keys of its run, those of its pre-training in words."""
    origin = f", source {differing['source']}" if differing.get("source") else ""
    if differing.get("pretrained"):
        origin += f", from {Path(differing['pretrained']).name}"
    others = {key: value for key, value in differing.items() if key not in ("source", "pretrained")}
    return f"{label}{origin} {text_of(others)}".strip()


def mean_by_row(results: Sequence[Result]) -> np.ndarray:
    """NDCG of each test target as a mean over seeds, [rows]."""
    rows = [result.by_row for result in results if result.by_row is not None]
    return np.mean(rows, axis=0)


def _better(metric: str) -> Callable[[Iterable[float]], float]:
    """``min`` for a metric where smaller is better, such as a loss; else ``max``."""
    name = split_metric_name(metric)[0].partition("@")[0]
    return min if name in smaller_metrics else max


def _cell(value: dict[str, float], best: float, several: bool) -> str:
    text = score_text(value, several)
    return f"[bold]{text}[/bold]" if value["mean"] == best else text
