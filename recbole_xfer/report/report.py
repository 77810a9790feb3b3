"""Reports on runs: which domains transfer hurts, the course of training, and results by group and by key.

Draws what the runs' folders contain in ``config.yaml``, ``epochs.json`` and ``result.json``; trains and evaluates
nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from recbole_xfer.comparison.table import Comparison, with_distinct_labels
from recbole_xfer.config.values import is_number, split_domains
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.domain_ranking import MEAN, by_domain, metric_key
from recbole_xfer.evaluation.result import Result
from recbole_xfer.model.recguru import RECONSTRUCTION
from recbole_xfer.report.page import Section, write_page
from recbole_xfer.report.pictures import draw_bars, draw_curves, draw_game, draw_training, draw_transfer
from recbole_xfer.trainer.recguru import ADVERSARIAL, AUTOENCODER, RECOMMENDATION
from recbole_xfer.trainer.run_folder import UNIMPORTANT, RunFolder

PARTS = {None: "all targets", MEAN: "mean of domains"}
"""Names of the parts of results that are not domains."""
LAST_SHARE = 0.25
"""Fraction of the epochs over which the final gap is a mean, because gaps vary from epoch to epoch."""
FEWEST = 3
"""Minimum number of cutoffs, or of values of a key, for a curve."""


@dataclass(frozen=True)
class Run:
    """A run, read from its folder.

    Attributes:
        keys: its configuration, without keys that change no result.
        history: a record of each epoch (see :class:`~recbole_xfer.trainer.trainer.XferTrainer`).
        best_epoch: None while the run is not finished.
        result: None if nothing was measured on a test split.
        label: distinguishes it from the other runs, as in a comparison.
    """

    folder: Path
    keys: Mapping[str, Any]
    history: Sequence[Mapping[str, Any]]
    best_epoch: int | None
    result: Result | None
    label: str

    @property
    def domains(self) -> list[str]:
        """The domains of the dataset."""
        return split_domains(self.keys["dataset"])

    def scalars(self, *phases: str | None) -> pd.DataFrame:
        """The scalars that training logged in these phases, one row per epoch."""
        records = [record for record in self.history if record["phase"] in phases]
        return pd.DataFrame([record["train"] for record in records])


@dataclass(frozen=True)
class Picture:
    """A figure, the name of its file, and its findings as sentences."""

    name: str
    title: str
    sentences: Sequence[str]
    figure: Figure


@dataclass(frozen=True)
class Report:
    """Pictures of runs, and notes on missing files."""

    runs: Sequence[Run]
    pictures: Sequence[Picture]
    notes: Sequence[str]

    def lines(self) -> list[str]:
        """All sentences, below the titles of their pictures."""
        return [*self.notes, *(line for p in self.pictures if p.sentences for line in (f"{p.title}:", *p.sentences))]


def report(folders: Iterable[str | Path]) -> Report:
    """Draws runs.

    Args:
        folders: of runs on one target, finished or not.

    Raises:
        XferError: if a folder has no run, the runs cannot be compared, or there is nothing to draw.
    """
    runs = _labelled([read_run(Path(folder)) for folder in folders])
    several = len(runs) > 1
    pictures = [picture for run in runs for picture in (_transfer(run, several), _game(run, several)) if picture]
    pictures += _training(runs) + _results([run for run in runs if run.result])
    notes = [note for run in runs for note in _missing(run)]
    if not pictures:
        raise XferError(f"There is nothing to draw. {' '.join(notes)}")
    return Report(runs, pictures, notes)


def read_run(folder: Path) -> Run:
    """Reads a run; its label ignores other runs."""
    keys = RunFolder(folder).config()
    values = RunFolder(folder).result() or {}
    result = Result.from_dict(values) if "test" in values else None
    return Run(
        folder=folder,
        keys={key: value for key, value in keys.items() if key not in UNIMPORTANT},
        history=RunFolder(folder).epochs(),
        best_epoch=values.get("best_epoch"),
        result=result,
        label=result.label if result else keys["model"],
    )


def _labelled(runs: Sequence[Run]) -> list[Run]:
    """The runs in order of their labels; those with results get the labels of a comparison."""
    measured = [(run.result, run.keys) for run in runs if run.result]
    results = iter(with_distinct_labels([result for result, _ in measured], [keys for _, keys in measured]))
    labelled = [replace(run, label=next(results).label) if run.result else run for run in runs]
    return sorted(labelled, key=lambda run: (run.label, run.keys["seed"]))


def _missing(run: Run) -> Iterator[str]:
    if run.best_epoch is None:
        yield f"{run.folder} is not finished. Run its command again to resume it."
    if not run.history:
        yield f"{run.folder} has no {RunFolder.EPOCHS}, so its training cannot be drawn. Train it again."


# --- one run ---------------------------------------------------------------------------------------------------------


def _transfer(run: Run, several: bool) -> Picture | None:
    """SyNCRec: which domains are hurt, by the last epochs up to the best one."""
    scalars = run.scalars(None)
    if f"gap/{run.domains[0]}" not in scalars:
        return None
    gaps, weights = (
        scalars[[f"{name}/{domain}" for domain in run.domains]].set_axis(run.domains, axis=1)
        for name in ("gap", "weight")
    )
    kept = len(scalars) if run.best_epoch is None else run.best_epoch + 1
    last = max(1, round(LAST_SHARE * kept))
    over = f"over epochs {kept - last} to {kept - 1}" if last > 1 else f"in epoch {kept - 1}"
    gap = gaps[kept - last : kept].mean().rename(f"mean gap {over}")
    before, after = weights.iloc[0], weights[kept - last : kept].mean()
    hurt, rest = gap[gap < 0].sort_values(), gap[gap >= 0].sort_values(ascending=False)
    sentences = [
        f"{domain} is hurt: its mean gap {over} is {value:+.3f}; its weight {_moved(before[domain], after[domain])}."
        for domain, value in hurt.items()
    ] or [f"No domain is hurt: no mean gap {over} is negative."]
    if len(hurt) and len(rest):
        sentences.append(f"Not hurt: {', '.join(f'{domain} ({value:+.3f})' for domain, value in rest.items())}.")
    figure = draw_transfer(gaps, weights, scalars[["alpha", "beta"]], gap)
    return Picture(_name("transfer", run, several), f"Transfer between domains, {_title(run)}", sentences, figure)


def _moved(before: float, after: float) -> str:
    first, last = f"{before:.3f}", f"{after:.3f}"
    return f"stayed at {last}" if first == last else f"{'fell' if after < before else 'rose'} from {first} to {last}"


def _game(run: Run, several: bool) -> Picture | None:
    """RecGURU and AutoRec: the critic, and the reconstruction loss."""
    losses = run.scalars(AUTOENCODER, ADVERSARIAL)
    if losses.empty:
        return None
    names = {f"{RECONSTRUCTION}{domain}": domain for domain in run.domains}
    losses = losses[[name for name in names if name in losses]].rename(columns=names)
    start = len(run.scalars(AUTOENCODER))
    game = run.scalars(ADVERSARIAL)
    critic = game if game.empty else game[["critic loss", "Wasserstein distance"]]
    sentences = [
        f"Reconstruction loss of {domain} went from {values.iloc[0]:.3f} to {values.iloc[-1]:.3f}."
        for domain, values in losses.items()
    ]
    if not critic.empty:
        sentences.insert(0, _distance(critic["Wasserstein distance"], run.domains))
    figure = draw_game(critic, losses, start)
    return Picture(_name("game", run, several), f"Representations of users, {_title(run)}", sentences, figure)


def _distance(values: pd.Series, domains: Sequence[str]) -> str:
    peak, end = values.max(), values.iloc[-1]
    word = "came closer" if end < peak / 2 else "did not come closer"
    grows = " The distance still grew, so the critic had not converged: raise adversarial_epochs."
    return (
        f"The domains {word}: the critic's estimated distance between {' and '.join(domains)} was highest in epoch "
        f"{values.idxmax()} of the adversarial phase, {peak:.4f}, and {end:.4f} in the last epoch."
        f"{grows if end == peak else ''}"
    )


def _name(kind: str, run: Run, several: bool) -> str:
    return f"{kind}-{run.folder.name}" if several else kind


def _title(run: Run) -> str:
    return f"{run.label}, seed {run.keys['seed']}"


# --- one run or several ----------------------------------------------------------------------------------------------


def _training(runs: Sequence[Run]) -> list[Picture]:
    """Loss and validation metric by epoch; the loss only if all runs have one model and so one kind of loss."""
    metric = metric_key(runs[0].keys["valid_metric"])
    epochs = pd.DataFrame(
        {
            "label": run.label,
            "run": number,
            "epoch": record["epoch"],
            "kept": record["epoch"] == run.best_epoch,
            "training loss": next(iter(record["train"].values())),
            metric: record.get("valid", {}).get(metric),
        }
        for number, run in enumerate(runs)
        for record in run.history
        if record["phase"] in (None, RECOMMENDATION)
    )
    if epochs.empty:
        return []
    if len({run.keys["model"] for run in runs}) > 1:
        del epochs["training loss"]
    epochs = epochs.dropna(axis=1, how="all")
    if not {"training loss", metric} & set(epochs):
        return []
    kept = epochs[epochs["kept"]].dropna() if metric in epochs else epochs[:0]
    sentences = []
    for label, best in kept.groupby("label", sort=False):
        numbers, several = ", ".join(map(str, best["epoch"])), len(best) > 1
        score = f"{best[metric].mean():.4f}{' on average' if several else ''}"
        sentences.append(f"{label}: validation {metric} was best in epoch{'s' * several} {numbers}: {score}.")
    return [Picture("training", "Training and validation", sentences, draw_training(epochs, kept, metric))]


def _results(runs: Sequence[Run]) -> list[Picture]:
    """Test metrics: bars, curves over the cutoff k, and curves over each key in which the runs differ."""
    results = [replace(run.result, label=run.label) for run in runs if run.result]
    if not results:
        return []
    caption, k = f"{Comparison(results).caption()}.", str(results[0].cutoff)
    table = _metrics(results)
    bars = _summary(_at_cutoff(table, k), [])
    pictures = [Picture("results", "Test results", [caption, *_winners(bars)], draw_bars(bars, caption))]
    overall = table[~table["part"].isin(runs[0].domains)]
    lengths = overall[overall["k"] != ""].astype({"k": int}).rename(columns={"k": "cutoff k"})
    if lengths["cutoff k"].nunique() >= FEWEST:
        curves = draw_curves(_summary(lengths, ["cutoff k"]), "cutoff k", caption)
        pictures.append(Picture("lengths", "Test results by cutoff k", [], curves))
    influences = (_influence(runs, key, k, caption) for key in _varied(runs))
    return pictures + [picture for picture in influences if picture]


def _influence(runs: Sequence[Run], key: str, k: str, caption: str) -> Picture | None:
    """Results over a key, with one line per set of runs that differ only in it; None if they have too few values."""
    having = [run for run in runs if is_number(run.keys.get(key))]
    others = [{name: value for name, value in run.keys.items() if name != key} for run in having]
    results = with_distinct_labels([run.result for run in having if run.result], others)
    table = _metrics(results)
    table[key] = [having[number].keys[key] for number in table["run"]]
    table = table[(table.groupby("label")[key].transform("nunique") >= FEWEST) & ~table["part"].isin(runs[0].domains)]
    if table.empty:
        return None
    curves = _summary(_at_cutoff(table, k), [key])
    overall = curves[(curves["part"] == PARTS[None]) & (curves["metric"] == curves["metric"].iloc[-1])]
    best = overall.loc[overall.groupby("label", sort=False)["mean"].idxmax()]
    sentences = [
        f"{row['label']}: {row['metric']} of {row['part']} is highest at {key} = {row[key]:g}, {row['mean']:.4f}"
        + (f" ± {row['spread']:.4f}." if row["spread"] else ".")
        for _, row in best.iterrows()
    ]
    return Picture(f"influence-{key}", f"Influence of {key}", sentences, draw_curves(curves, key, caption))


def _metrics(results: Sequence[Result]) -> pd.DataFrame:
    """Each test metric of each result by part (all targets, domain, group), metric and cutoff k."""
    rows = []
    for number, result in enumerate(results):
        for part, metrics in by_domain(result.test_by_part()).items():
            for name, value in metrics.items():
                metric, _, k = name.partition("@")
                rows.append((number, result.label, PARTS.get(part, part), metric, k, value))
    return pd.DataFrame(rows, columns=["run", "label", "part", "metric", "k", "value"])


def _at_cutoff(table: pd.DataFrame, k: str) -> pd.DataFrame:
    """The metrics at one cutoff, and those without a cutoff, with their full names."""
    chosen = table[table["k"].isin([k, ""])]
    return chosen.assign(metric=[f"{m}@{k}" if k else m for m, k in zip(chosen["metric"], chosen["k"], strict=True)])


def _summary(table: pd.DataFrame, more: list[str]) -> pd.DataFrame:
    """Mean and standard deviation over the runs of each label."""
    values = table.groupby(["label", "part", "metric", *more], sort=False)["value"]
    return values.agg(mean="mean", spread="std").fillna({"spread": 0}).reset_index()


def _winners(bars: pd.DataFrame) -> list[str]:
    """Names the label with the highest value per part, by the last metric of the table (NDCG by default)."""
    if bars["label"].nunique() == 1:
        return []
    metric = bars["metric"].iloc[-1]
    best = bars[bars["metric"] == metric].sort_values("mean", ascending=False).drop_duplicates("part")
    where = best.groupby("label", sort=False)["part"].agg(", ".join)
    return [f"Highest {metric}: {'; '.join(f'{label} on {parts}' for label, parts in where.items())}."]


def _varied(runs: Sequence[Run]) -> list[str]:
    """The keys with enough different numbers in the runs for a curve."""
    names = sorted({key for run in runs for key in run.keys} - {"seed"})
    numbers = {name: {run.keys[name] for run in runs if is_number(run.keys.get(name))} for name in names}
    return [name for name in names if len(numbers[name]) >= FEWEST]


# --- the page --------------------------------------------------------------------------------------------------------


def write(report: Report, folder: Path) -> list[Path]:
    """Writes ``report.html``, which contains all pictures, and each picture as a PNG file; returns all paths."""
    rows = [
        (run.label, run.keys["seed"], "" if run.best_epoch is None else run.best_epoch, run.folder)
        for run in report.runs
    ]
    sections = [
        Section(sentences=report.notes),
        *(Section(picture.title, picture.sentences, figure=picture.figure) for picture in report.pictures),
        Section("Runs", columns=("model", "seed", "best epoch", "folder"), rows=rows),
    ]
    figures = {folder / f"{picture.name}.png": picture.figure for picture in report.pictures}
    return write_page(folder / "report.html", f"Report on {report.runs[0].keys['dataset']}", sections, figures)
