"""Pictures of training: losses and validation, SyNCRec's gaps and weights, RecGURU's game, and routes.

Each line is a mean over the runs of a row, with a band of one standard deviation.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from recbole_xfer.evaluation.domain_ranking import metric_key
from recbole_xfer.layers.pathway import KEPT
from recbole_xfer.model.recguru import RECONSTRUCTION
from recbole_xfer.report.history import Run, by_label, over_runs
from recbole_xfer.report.looks import CALM, WARNING, Look, Looks
from recbole_xfer.report.picture import Line, Lines, Picture
from recbole_xfer.trainer.recguru import ADVERSARIAL, AUTOENCODER, RECOMMENDATION

LAST_SHARE = 0.25
"""Fraction of the epochs over which the final gap is a mean, because gaps vary from epoch to epoch."""

CRITIC, DISTANCE = "critic loss", "Wasserstein distance"
"""What RecGURU's critic logs."""

EPOCH = "epoch"


def training_picture(runs: Sequence[Run], title: str, name: str, looks: Looks) -> Picture | None:
    """Validation metric of all rows, and training loss, with a panel for each model, by epoch."""
    ranked = [run for run in runs if _ranking(run)]
    if not ranked:
        return None
    metric = metric_key(ranked[0].keys["valid_metric"])
    found = _validation(ranked, metric, looks)
    panels = [found] if found else []
    for model in dict.fromkeys(run.keys["model"] for run in ranked):
        rows = by_label([run for run in ranked if run.keys["model"] == model])
        lines = _lines({row: [_losses(run) for run in own] for row, own in rows.items()}, looks)
        if any(len(line.points) > 1 for line in lines):  # Pop and ContentKNN have one epoch
            panels.append(Lines(f"training loss, {model}", lines, EPOCH))
    if not panels:
        return None
    return Picture(name, title, panels, 3, _best_epochs(ranked, metric))


def _validation(runs: Sequence[Run], metric: str, looks: Looks) -> Lines | None:
    """The validation metric; the best epoch of each run is circled."""
    lines = _lines({row: [_scores(run, metric) for run in own] for row, own in by_label(runs).items()}, looks)
    circles = [
        (run.best_epoch, scores[run.best_epoch], run.label)
        for run, scores in ((run, _scores(run, metric)) for run in runs)
        if run.best_epoch in scores.index and len(scores) > 1
    ]
    best = pd.DataFrame(circles, columns=["x", "y", "line"])
    title = f"validation {metric} (circles: best epochs)" if circles else f"validation {metric}"
    return Lines(title, lines, EPOCH, circles=best) if lines else None


def _scores(run: Run, metric: str) -> pd.Series:
    """The validation metric by epoch."""
    values = {record["epoch"]: record.get("valid", {}).get(metric) for record in _ranking(run)}
    return pd.Series(values, dtype=float).dropna()


def _losses(run: Run) -> pd.Series:
    """The training loss by epoch, which is the first scalar that is logged."""
    return pd.Series({one["epoch"]: next(iter(one["train"].values())) for one in _ranking(run)}, dtype=float)


def _ranking(run: Run) -> list[Mapping[str, Any]]:
    """The records of the epochs that train what ranks."""
    return [record for record in run.history if record["phase"] in (None, RECOMMENDATION)]


def _lines(series: Mapping[str, Sequence[pd.Series]], looks: Mapping[str, Look]) -> list[Line]:
    """A line for each name that has values."""
    points = {name: over_runs(of) for name, of in series.items()}
    return [Line(name, found, looks[name]) for name, found in points.items() if len(found)]


def _best_epochs(runs: Sequence[Run], metric: str) -> list[str]:
    """When validation was best, in a sentence for each row."""
    sentences = []
    for row, own in by_label(runs).items():
        scores = [(run.best_epoch, _scores(run, metric)) for run in own]
        best = [(epoch, of[epoch]) for epoch, of in scores if epoch in of]
        if best:
            several = len(best) > 1
            epochs = ", ".join(str(epoch) for epoch, _ in best)
            mean = sum(score for _, score in best) / len(best)
            text = f"{mean:.4f}{' on average' if several else ''}"
            sentences.append(f"{row}: validation {metric} was best in epoch{'s' * several} {epochs}: {text}.")
    return sentences


# --- SyNCRec ---------------------------------------------------------------------------------------------------------


def gap_picture(runs: Sequence[Run], title: str, name: str) -> Picture | None:
    """Gap (Eq. 10) and weight (Eq. 11) of each domain in the runs of a row; hurt domains stand out."""
    runs = [run for run in runs if f"gap/{run.domains[0]}" in run.scalars(None)]
    if not runs:
        return None
    domains, logs = runs[0].domains, [run.scalars(None) for run in runs]
    final = pd.DataFrame([_last(log, run, "gap") for log, run in zip(logs, runs, strict=True)]).mean()
    looks = {domain: Look(WARNING if final[domain] < 0 else CALM) for domain in domains}

    def lines(scalar: str) -> list[Line]:
        return _lines({domain: [log[f"{scalar}/{domain}"] for log in logs] for domain in domains}, looks)

    rest = Looks(["alpha", "beta"])
    panels = [
        Lines("gap (negative: transfer hurts)", lines("gap"), EPOCH, named=True, zero=True),
        Lines("weight", lines("weight"), EPOCH, named=True),
        Lines(
            "alpha (memory) and beta (influence of the gap)",
            _lines({one: [log[one] for log in logs] for one in rest}, rest), EPOCH, named=True,
        ),
    ]  # fmt: skip
    return Picture(name, title, panels, 2, _hurt(runs, logs, final))


def _kept(run: Run, log: pd.DataFrame) -> tuple[int, int]:
    """The first of the last epochs up to the best one, and the epoch after them."""
    kept = len(log) if run.best_epoch is None else run.best_epoch + 1
    return kept - max(1, round(LAST_SHARE * kept)), kept


def _last(log: pd.DataFrame, run: Run, scalar: str) -> pd.Series:
    """Means of a scalar of the domains over the last epochs."""
    first, end = _kept(run, log)
    values = log[[f"{scalar}/{domain}" for domain in run.domains]].set_axis(run.domains, axis=1)
    return values[first:end].mean()


def _hurt(runs: Sequence[Run], logs: Sequence[pd.DataFrame], gap: pd.Series) -> list[str]:
    """Which domains are hurt, by the last epochs up to the best one, as means over seeds."""
    first, end = _kept(runs[0], logs[0])
    over = f"over epochs {first} to {end - 1}" if end - first > 1 else f"in epoch {first}"
    if len(runs) > 1:
        over = f"over the last epochs of {len(runs)} runs"
    before = pd.DataFrame([log.iloc[0] for log in logs]).mean()
    after = pd.DataFrame([_last(log, run, "weight") for log, run in zip(logs, runs, strict=True)]).mean()
    hurt, rest = gap[gap < 0].sort_values(), gap[gap >= 0].sort_values(ascending=False)
    sentences = [
        f"{domain} is hurt: its mean gap {over} is {value:+.3f}; "
        f"its weight {_moved(before[f'weight/{domain}'], after[domain])}."
        for domain, value in hurt.items()
    ] or [f"No domain is hurt: no mean gap {over} is negative."]
    if len(hurt) and len(rest):
        sentences.append(f"Not hurt: {', '.join(f'{domain} ({value:+.3f})' for domain, value in rest.items())}.")
    return sentences


def _moved(before: float, after: float) -> str:
    first, last = f"{before:.3f}", f"{after:.3f}"
    return f"stayed at {last}" if first == last else f"{'fell' if after < before else 'rose'} from {first} to {last}"


# --- RecGURU ---------------------------------------------------------------------------------------------------------


def game_picture(runs: Sequence[Run], title: str, name: str) -> Picture | None:
    """The critic of RecGURU, and the reconstruction loss of its autoencoders or of AutoRec's, in the runs of a row."""
    logs = [run.scalars(AUTOENCODER, ADVERSARIAL) for run in runs]
    logs = [log for log in logs if not log.empty]
    if not logs:
        return None
    games = [game for game in (run.scalars(ADVERSARIAL) for run in runs) if DISTANCE in game]
    losses = {
        domain: [log[f"{RECONSTRUCTION}{domain}"] for log in logs if f"{RECONSTRUCTION}{domain}" in log]
        for domain in runs[0].domains
    }
    start = len(runs[0].scalars(AUTOENCODER))
    limit = (start - 0.5, "autoencoder phase", "adversarial phase")
    panels = []
    for scalar, heading in ((CRITIC, CRITIC), (DISTANCE, f"{DISTANCE}, estimated")):
        lines = _lines({"critic": [game[scalar] for game in games]}, {"critic": Look(CALM)})
        if lines:
            panels.append(Lines(heading, lines, "epoch of the adversarial phase"))
    panels.append(
        Lines(
            "reconstruction loss", _lines(losses, Looks(losses)), EPOCH, named=True,
            boundary=limit if games and start else None,
        )
    )  # fmt: skip
    sentences = [_reconstructed(domain, over_runs(of)["mean"]) for domain, of in losses.items() if of]
    if games:
        sentences.insert(0, _distance(over_runs([game[DISTANCE] for game in games])["mean"], runs[0].domains))
    return Picture(name, title, panels, 3, sentences)


def _reconstructed(domain: str, values: pd.Series) -> str:
    return f"Reconstruction loss of {domain} went from {values.iloc[0]:.3f} to {values.iloc[-1]:.3f}."


def _distance(values: pd.Series, domains: Sequence[str]) -> str:
    """Whether the domains came closer, by the critic's distance in each epoch."""
    peak, end = values.max(), values.iloc[-1]
    word = "came closer" if end < peak / 2 else "did not come closer"
    grows = " The distance still grew, so the critic had not converged: raise adversarial_epochs."
    return (
        f"The domains {word}: the critic's estimated distance between {' and '.join(domains)} was highest in epoch "
        f"{values.idxmax()} of the adversarial phase, {peak:.4f}, and {end:.4f} in the last epoch."
        f"{grows if end == peak else ''}"
    )


# --- routes ----------------------------------------------------------------------------------------------------------


def routes_picture(runs: Sequence[Run], title: str, name: str, looks: Looks) -> Picture | None:
    """The fraction of behaviours that each block of a pathway kept in training, with a panel for each block."""
    logs = {run.folder: run.scalars(None) for run in runs}
    blocks = dict.fromkeys(name for log in logs.values() for name in log if name.startswith(KEPT))
    panels = []
    for block in blocks:
        series = {
            row: [logs[run.folder][block] for run in own if block in logs[run.folder]]
            for row, own in by_label(runs).items()
        }
        panels.append(Lines(block.removeprefix(KEPT), _lines(series, looks), EPOCH, "fraction kept"))
    return Picture(name, title, panels) if panels else None


def of_each_row(
    runs: Sequence[Run], table: str, draw: Callable[[Sequence[Run], str, str], Picture | None]
) -> list[Picture]:
    """The pictures of rows that have one of a kind."""
    rows = by_label(runs).items()
    return [picture for row, own in rows if (picture := draw(own, f"{row}, {table}" if table else row, row))]
