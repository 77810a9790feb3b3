"""Compares several models on one target: mean and spread over seeds, a baseline, and whether transfer helped."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from recbole.evaluator.register import smaller_metrics
from rich.table import Table

from recbole_xfer.comparison.joint import JointAgainstAlone
from recbole_xfer.comparison.layout import BEST, SECOND, Entry, Layout, Line
from recbole_xfer.comparison.significance import SIGNIFICANCE, holm, paired_change
from recbole_xfer.config.values import text_of
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.domain_ranking import by_domain, split_metric_name
from recbole_xfer.evaluation.result import Result, score_text, weights_text
from recbole_xfer.hooks import is_adapted

REMEDIES: Sequence[tuple[Callable[[Result], str], str]] = (
    (lambda result: result.dataset, "Choose runs on one dataset."),
    (
        lambda result: result.protocol.split,
        "Set one eval_args.split and one train_share for all runs, and train them again.",
    ),
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
class Failure:
    """A run that ended with an error: its label, its seed, and the error as a sentence."""

    label: str
    seed: int
    reason: str


@dataclass(frozen=True)
class Change:
    """The difference between a row and its baseline: relative to its NDCG, and a paired test over test targets."""

    label: str
    baseline: str
    change: float
    p: float
    p_corrected: float

    @property
    def significant(self) -> bool:
        """Whether the difference is significant after the correction."""
        return self.p_corrected < SIGNIFICANCE

    def text(self) -> str:
        """Such as ``+12.3%*``."""
        return f"{self.change:+.1%}{'*' if self.significant else ''}"


@dataclass(frozen=True)
class Comparison:
    """Results on one target, measured with one protocol.

    Attributes:
        results: of each row and seed.
        joint: compares rows with models trained on one domain alone, where rows ask for it.
        name: of the table in a study; by default the dataset.
        baseline: label of the row with which all others are compared.
        own_baselines: label of the row with which a row is compared instead.
        failed: runs without a result.
        figures: published ones, by row and metric.
        notes: further parts of the caption.
    """

    results: Sequence[Result]
    joint: JointAgainstAlone | None = None
    name: str = ""
    baseline: str | None = None
    own_baselines: Mapping[str, str] = field(default_factory=dict)
    failed: Sequence[Failure] = ()
    figures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    notes: Sequence[str] = ()

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

    @property
    def metric(self) -> str:
        """The metric that is shown alone, NDCG at the tested length or, where it is not measured, the first one."""
        measured, tested = self.results[0].test, f"ndcg@{self.results[0].cutoff}"
        return tested if tested in measured else next(iter(measured))

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
        """Numbers of test targets, protocol and seeds, as text."""
        first = self.results[0]
        seeds = sorted({result.seed for result in self.results})
        spread = "mean and standard deviation over seeds" if len(seeds) > 1 else "seed"
        measured = f"{first.target_counts()}; {first.protocol}; {spread} {', '.join(map(str, seeds))}"
        return "; ".join([measured, *self._notes()])

    def _notes(self) -> Iterator[str]:
        """What the caption says about the baseline, approximations and failed runs, and further notes."""
        changes = self.changes()
        if changes:
            correction = f", with Holm's correction for {len(changes)} tests" if len(changes) > 1 else ""
            base = "" if _one_baseline(changes) else " from the row named beside it"
            yield (
                f"{_head(changes)}: change of NDCG@{self.results[0].cutoff}{base}, * where a paired t-test over test "
                f"targets is significant (p < {SIGNIFICANCE}{correction})"
            )
        for result in {result.label: result for result in self.results if result.approximations}.values():
            yield f"{result.label} {result.approximations}"
        for label, row in self.by_label().items():
            weights = [result.weights for result in row if result.weights]
            if weights:
                yield f"{label}: {weights_text(weights)}"
        yield from self.notes
        for label, failures in self._failed_by_label().items():
            yield f"{label} failed with {'seed' if len(failures) == 1 else 'seeds'} " + ", ".join(
                str(failure.seed) for failure in failures
            )

    def _failed_by_label(self) -> dict[str, list[Failure]]:
        return {failure.label: [f for f in self.failed if f.label == failure.label] for failure in self.failed}

    def changes(self) -> list[Change]:
        """The difference of each row from its baseline; the p-values have Holm's correction over the table.

        Only of rows with a baseline that has results; empty if no metric is one of rankings.
        """
        if any(result.by_row is None for result in self.results):
            return []
        rows = {label: mean_by_row(results) for label, results in self.by_label().items()}
        baselines = {label: self.own_baselines.get(label, self.baseline) for label in rows}
        pairs = [(label, base) for label, base in baselines.items() if base in rows and base != label]
        tests = [paired_change(rows[label], rows[base]) for label, base in pairs]
        corrected = holm(np.array([p for _, p in tests]))
        return [
            Change(label, base, change, p, float(p_corrected))
            for (label, base), (change, p), p_corrected in zip(pairs, tests, corrected, strict=True)
        ]

    def table(self) -> Table:
        """The test metrics as a table for the console."""
        return self.layout().for_console()

    def layout(self) -> Layout:
        """The test metrics as a table, in which the best and the second value of each column are marked.

        Below a row are its published figures. Rows that failed, and figures of other rows, are the last.
        """
        first, rows, summary = self.results[0], self.by_label(), self.summary()
        several = any(len(results) > 1 for results in rows.values())
        metrics = list(first.test_by_part())
        places = {
            metric: place_values(metric, {label: row[metric]["mean"] for label, row in summary.items()})
            for metric in metrics
        }
        tested = self.changes()
        one = _one_baseline(tested)
        changes = {each.label: each.text() + ("" if one else f" ({each.baseline})") for each in tested}
        heads = [*([] if several else ["epoch", "seconds"]), *([_head(tested)] if tested else [])]
        failed = self._failed_by_label()
        lines: list[Line] = []
        for label in dict.fromkeys([*rows, *failed, *self.figures]):
            if label in rows:
                of_row = {m: Entry(score_text(summary[label][m], several), places[m].get(label)) for m in metrics}
                own = [] if several else [_epoch(rows[label][0].best_epoch), f"{rows[label][0].seconds:.0f}"]
                lines += _lines(label, of_row, [*own, *([changes.get(label, "")] if changes else [])])
            elif label in failed:
                lines += _lines(label, dict.fromkeys(metrics, Entry("failed")), [""] * len(heads))
            if label in self.figures:
                figures = {m: Entry(f"{self.figures[label][m]:.4f}") for m in metrics if m in self.figures[label]}
                lines += _lines(f"{label}, published", figures, [""] * len(heads), metrics)
        parts = by_domain(dict.fromkeys(metrics))
        names = ["model"] if len(parts) == 1 else ["model", "group" if first.groups else "domain"]
        name = self.name or first.dataset
        return Layout(f"Test results on {name}", name, self.caption(), names, [*parts[None], *heads], lines)

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
        first = adapted[0]
        if not is_adapted(first.adaptation):
            return None
        same_model = (first.model, "scratch")
        rows = {label: row for label, row in self.by_label().items() if (row[0].model, row[0].adaptation) == same_model}
        same_keys = first.label.replace(f"({first.adaptation})", "(scratch)")
        return rows.get(same_keys) or (next(iter(rows.values())) if len(rows) == 1 else None)

    def layouts(self) -> list[Layout]:
        """The layouts of its tables, that of joint and single-domain training included."""
        return [self.layout(), *([Layout.of(self.joint.table(), names=2)] if self.joint else [])]

    def records(self) -> list[dict[str, Any]]:
        """A record of each row and metric: mean, spread and number of seeds, and the change from its baseline."""
        first, rows, changes = self.results[0], self.by_label(), {change.label: change for change in self.changes()}
        tested = "baseline", "change", "p", "p_corrected"
        shared = {
            "dataset": first.dataset,
            "table": self.name or first.dataset,
            "history_masked": first.protocol.history_masked,
        }
        found = []
        for label, metrics in self.summary().items():
            change = asdict(changes[label]) if label in changes else {}
            for metric, value in metrics.items():
                of_metric = change if metric == f"ndcg@{first.cutoff}" else {}
                record = {**shared, "row": label, "metric": metric, **value, "seeds": len(rows[label])}
                record["published"] = self.figures.get(label, {}).get(metric)
                found.append({**record, **{key: of_metric.get(key) for key in tested}})
        return found

    def as_dict(self) -> dict[str, Any]:
        """The content of the file of ``--result``."""
        changes = {change.label: {**asdict(change), "significant": change.significant} for change in self.changes()}
        further = {
            "against": {"baseline": self.baseline, "changes": changes} if changes else None,
            "published": self.figures,
            "failed": [asdict(failure) for failure in self.failed],
            "joint_against_alone": self.joint.as_dict() if self.joint else None,
        }
        return {
            "dataset": self.results[0].dataset,
            "metric": self.metric,
            "measured": self.caption(),
            "verdict": self.verdict(),
            "summary": self.summary(),
            "runs": [result.as_dict() for result in self.results],
            "layouts": [asdict(layout) for layout in self.layouts()],
            **{name: value for name, value in further.items() if value},
        }


def with_distinct_labels(results: Sequence[Result], keys: Sequence[Mapping[str, Any]]) -> list[Result]:
    """Results with distinct labels, see :func:`distinct_labels`."""
    labels = distinct_labels([result.label for result in results], keys)
    return [replace(result, label=label) for result, label in zip(results, labels, strict=True)]


def distinct_labels(labels: Sequence[str], keys: Sequence[Mapping[str, Any]]) -> list[str]:
    """Adds to equal labels the keys in which their runs differ: ``RETR n_heads=4``, ``ANT (relearn), source Toys``.

    Args:
        labels: of several runs.
        keys: of each run; ``seed`` is ignored, because a row has several seeds.
    """
    labelled = []
    for label, own in zip(labels, keys, strict=True):
        same_label = [others for other, others in zip(labels, keys, strict=True) if other == label]
        differing = {
            key: value
            for key, value in own.items()
            if key != "seed" and any(key not in others or others[key] != value for others in same_label)
        }
        other_models = [o for o in same_label if o.get("pretrained") != own.get("pretrained")]
        if all(others.get("source") != own.get("source") for others in other_models):
            differing.pop("pretrained", None)  # the source says enough without a path
        labelled.append(_described(label, differing))
    return labelled


def _described(label: str, differing: Mapping[str, Any]) -> str:
    """A label with some keys of its run, those of its pre-training in words."""
    origin = f", source {differing['source']}" if differing.get("source") else ""
    if differing.get("pretrained"):
        origin += f", from {Path(differing['pretrained']).name}"
    others = {key: value for key, value in differing.items() if key not in ("source", "pretrained")}
    return f"{label}{origin} {text_of(others)}".strip()


def _one_baseline(changes: Sequence[Change]) -> bool:
    """Whether all changes are from one row."""
    return len({change.baseline for change in changes}) == 1


def _head(changes: Sequence[Change]) -> str:
    """The head of the column of changes."""
    return f"vs {changes[0].baseline if _one_baseline(changes) else 'baseline'}"


def mean_by_row(results: Sequence[Result]) -> np.ndarray:
    """NDCG of each test target as a mean over seeds, [rows]."""
    rows = [result.by_row for result in results if result.by_row is not None]
    return np.mean(rows, axis=0)


def place_values(metric: str, values: Mapping[str, float]) -> dict[str, int]:
    """Which labels have the best and, among at least three, the second value of a metric."""
    name = split_metric_name(metric)[0].partition("@")[0]
    ranked = sorted(set(values.values()), reverse=name not in smaller_metrics)
    marks = (BEST, SECOND) if len(values) > 2 else (BEST,)
    return {
        label: place
        for label, value in values.items()
        for place, best in zip(marks, ranked, strict=False)
        if value == best
    }


def _lines(label: str, entries: Mapping[str, Entry], rest: Sequence[str], metrics: Iterable[str] = ()) -> list[Line]:
    """The lines of a row: all targets, then each domain or group.

    Args:
        label: of the row.
        entries: by metric; without ``metrics``, all of them.
        rest: further entries of the first line.
        metrics: of the table, where entries may be missing; lines without any entry are left out then.
    """
    parts = by_domain({metric: entries.get(metric, Entry()) for metric in metrics or entries})
    lines = []
    for part, row in parts.items():
        if part and not any(entry.text for entry in row.values()):
            continue
        names = [label] if len(parts) == 1 else ["", part] if part else [label, "all"]
        lines.append(Line(names, [*row.values(), *map(Entry, [""] * len(rest) if part else rest)]))
    return lines


def _epoch(best: int) -> str:
    """The best epoch as text; empty for what has none, such as an ensemble."""
    return str(best) if best >= 0 else ""
