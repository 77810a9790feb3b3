"""Compares joint training with training on each domain alone: its gain or loss per domain (SyNCRec's Table 4).

A model trained on one domain alone gets that domain's part of the joined split: the same training, validation and test
targets as the joint model, and the same candidates. It cannot rank a target whose user has no earlier item in the
domain; such targets are excluded from both sides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from recbole.utils import get_model
from rich import box
from rich.markup import escape
from rich.table import Table

from recbole_xfer.comparison.significance import SIGNIFICANCE, holm, paired_change
from recbole_xfer.config.values import split_domains
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import Result, score_text
from recbole_xfer.hooks import hooks_of

SIDES = "alone", "joint"


@dataclass(frozen=True)
class Pair:
    """The results of a jointly trained row, and of a model trained on one domain alone; one per seed on each side."""

    domain: str
    joint: Sequence[Result]
    alone: Sequence[Result]

    @cached_property
    def scores(self) -> tuple[np.ndarray, np.ndarray]:
        """NDCG of the joint and of the single-domain models on the same targets, [seeds, targets] each."""
        targets = self.alone[0].row_targets
        return _at(targets, self.joint), _at(targets, self.alone)

    @cached_property
    def left_out(self) -> int:
        """How many test targets of the domain the single-domain model cannot rank."""
        return (self.joint[0].rows_by_domain or {})[self.domain] - len(self.scores[0][0])


def _at(targets: Any, results: Sequence[Result]) -> np.ndarray:
    """NDCG of the given targets, [seeds, targets]."""
    rows = []
    for result in results:
        place = result.row_targets.get_indexer(targets)  # type: ignore[union-attr]
        if result.by_row is None or (place < 0).any():
            raise XferError(
                f"{result.label} (seed {result.seed}) did not rank all targets of the comparison. "
                f"Compare runs of the same data and split."
            )
        rows.append(result.by_row[place])
    return np.stack(rows)


@dataclass(frozen=True)
class JointAgainstAlone:
    """The change of each model on each domain, with a paired test over the domain's test targets."""

    pairs: Sequence[Pair]

    def changes(self) -> list[dict[str, Any]]:
        """The scores of each pair, and whether joint training is a significant gain or loss after Holm's correction."""
        tests = [paired_change(*(scores.mean(axis=0) for scores in pair.scores)) for pair in self.pairs]
        corrected = holm(np.array([p for _, p in tests]))
        return [
            {
                "model": pair.joint[0].label,
                "alone_model": pair.alone[0].label,
                "domain": pair.domain,
                "targets": pair.scores[0].shape[1],
                "left_out": pair.left_out,
                "joint": _over_seeds(pair.scores[0]),
                "alone": _over_seeds(pair.scores[1]),
                "change": change,
                "p": p,
                "p_corrected": float(p_corrected),
                "significant": ("gain" if change > 0 else "loss") if p_corrected < SIGNIFICANCE else None,
            }
            for pair, (change, p), p_corrected in zip(self.pairs, tests, corrected, strict=True)
        ]

    def caption(self) -> str:
        """Metric, protocol, seeds, excluded targets and significance test, as text."""
        first = self.pairs[0].joint[0]
        seeds = ", ".join(str(result.seed) for result in self.pairs[0].joint)
        several = len(self.pairs[0].joint) > 1
        left_out = sum({pair.domain: pair.left_out for pair in self.pairs}.values())
        return (
            f"NDCG@{first.cutoff} on the same test targets; {first.protocol}; "
            f"{'mean and standard deviation over seeds' if several else 'seed'} {seeds}. "
            f"Excluded from both sides: {left_out:,} of {first.rows:,} targets, whose user has no earlier item in the "
            f"domain. p: paired t-test over targets{' (means over seeds)' if several else ''}, with Holm's correction "
            f"for {len(self.pairs)} tests; significant below {SIGNIFICANCE}."
        )

    def table(self) -> Table:
        """The changes as a table for the console."""
        table = Table(
            title=escape(f"Joint and single-domain training on {self.pairs[0].joint[0].dataset}"),
            caption=escape(self.caption()),
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
            collapse_padding=True,
        )
        table.add_column("model", no_wrap=True)
        table.add_column("domain", no_wrap=True)
        for name in ("targets", *SIDES, "change", "p"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("significant", no_wrap=True)
        previous = None
        for row in self.changes():
            own = row["model"] == row["alone_model"]
            name = row["model"] if own else f"{row['model']} (alone: {row['alone_model']})"
            cells = [score_text(row[side], len(self.pairs[0].joint) > 1) for side in SIDES]
            change = f"{row['change']:+.1%}", f"{row['p_corrected']:.2g}", row["significant"] or ""
            names = "" if name == previous else escape(name), escape(row["domain"])
            table.add_row(*names, f"{row['targets']:,}", *cells, *change)
            previous = name
        return table

    def as_dict(self) -> dict[str, Any]:
        """Its part of the file of ``--result``."""
        alone = {id(result): result for pair in self.pairs for result in pair.alone}  # rows may share them
        return {
            "measured": self.caption(),
            "changes": self.changes(),
            "runs_alone": [result.as_dict() for result in alone.values()],
        }


def _over_seeds(scores: np.ndarray) -> dict[str, float]:
    """The mean of scores [seeds, targets], and the standard deviation over seeds of the mean over targets."""
    means = scores.mean(axis=1)
    return {"mean": float(means.mean()), "spread": float(means.std(ddof=len(means) > 1))}


def joint_against_alone(
    results: Sequence[Sequence[Result]],
    against: Sequence[int | None],
    domains: Sequence[str],
    alone: Callable[[int, str], list[Result]],
) -> JointAgainstAlone | None:
    """Compares the rows that ask for it with single-domain models; None where no row does.

    Args:
        results: of joint training, for each row and seed.
        against: for each row, from :func:`references`.
        domains: the joined domains.
        alone: trains a row's model on one domain, for each seed; called once per row and domain.
    """
    trained: dict[tuple[int, str], list[Result]] = {}
    pairs = []
    for joint, reference in zip(results, against, strict=True):
        if reference is None:
            continue
        for domain in domains:
            if (reference, domain) not in trained:
                trained[reference, domain] = alone(reference, domain)
            pairs.append(Pair(domain, joint, trained[reference, domain]))
    return JointAgainstAlone(pairs) if pairs else None


def references(rows: Sequence[Mapping[str, Any]]) -> list[int | None]:
    """For each row of a comparison, the row whose single-domain models it is compared with; None without ``alone``.

    Args:
        rows: keys of each; ``alone: True`` compares a row with its own model, ``alone: NAME`` with the model of another
            row that has ``alone: True``, by its ``name`` or model.

    Raises:
        XferError: if no row, or more than one, with ``alone: True`` has the name.
    """
    own = {number: row.get("name", row["model"]) for number, row in enumerate(rows) if row.get("alone") is True}
    found: list[int | None] = []
    for number, row in enumerate(rows):
        alone = row.get("alone") or None
        matching = [number] if alone is True else [other for other, name in own.items() if name == alone]
        if alone is not None and len(matching) != 1:
            raise XferError(
                f"alone: {alone} must be the name or the model of one row with 'alone: True'; "
                f"{len(matching)} such rows exist."
            )
        found.append(matching[0] if matching else None)
    return found


def check_pairing(config: Any, own_model: bool) -> None:
    """Raises XferError if a joint and a single-domain model would not rank the same targets among the same items.

    Args:
        config: of the joint row.
        own_model: whether the row's own model is trained on single domains, which some joint models cannot be.
    """
    name, (split, *_) = f"alone ({config['model']} on {config['dataset']})", config["eval_args"]["split"]
    if len(split_domains(config["dataset"])) < 2:
        raise XferError(f"{name} needs several domains, such as dataset: Books+Toys.")
    if own_model and hooks_of(get_model(config["model"])).needs_several_domains(config):
        raise XferError(f"{name}: the model cannot learn one domain. Name a row of another model: alone: SASRec.")
    if not config["rank_within_domain"]:
        raise XferError(f"{name} ranks within each domain. Set rank_within_domain: True for all rows.")
    if config["eval_args"]["mode"]["test"] != "full":
        raise XferError(f"{name} needs mode: full in eval_args, because sampled candidates differ between models.")
    if split not in ("LS", "NU"):
        raise XferError(f"{name} needs one test target per history: set LS or NU in eval_args.split, not {split}.")
    if config["overlap"] != 1:
        raise XferError(f"{name} needs overlap: 1, because hidden users have another split.")
