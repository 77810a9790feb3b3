"""Every domain, joint against alone: what training on all domains gains or costs each (SyNCRec's Table 4).

A model that learns one domain alone has that domain's part of the joined split: it trains, validates and tests on what
the joint model does there, and ranks the same items. It cannot rank a target whose user took nothing of the domain
before; such targets are left out on both sides.
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
from recbole_xfer.data.dataset import DOMAIN_SEPARATOR
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.result import Result, score_text
from recbole_xfer.hooks import hooks_of

SIDES = "alone", "joint"


@dataclass(frozen=True)
class Pair:
    """A row's joint results, and those of a model that learned one of the domains alone; one each a seed."""

    domain: str
    joint: Sequence[Result]
    alone: Sequence[Result]

    @cached_property
    def scores(self) -> tuple[np.ndarray, np.ndarray]:
        """NDCG of the joint models and of those alone at the same targets, [seeds, targets] each."""
        targets = self.alone[0].row_targets
        return _at(targets, self.joint), _at(targets, self.alone)

    @cached_property
    def left_out(self) -> int:
        """How many of the domain's test targets the model that learned it alone cannot rank."""
        return (self.joint[0].rows_by_domain or {})[self.domain] - len(self.scores[0][0])


def _at(targets: Any, results: Sequence[Result]) -> np.ndarray:
    """NDCG at some targets, [seeds, targets]."""
    rows = []
    for result in results:
        place = result.row_targets.get_indexer(targets)  # type: ignore[union-attr]
        if result.by_row is None or (place < 0).any():
            raise XferError(f"{result.label} (seed {result.seed}) did not rank the targets that it is compared on.")
        rows.append(result.by_row[place])
    return np.stack(rows)


@dataclass(frozen=True)
class JointAgainstAlone:
    """The change of each model on each domain, tested over its test targets."""

    pairs: Sequence[Pair]

    def changes(self) -> list[dict[str, Any]]:
        """For each pair what was measured, and whether joining is a sure gain or loss after Holm's correction."""
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
                "sure": ("gain" if change > 0 else "loss") if p_corrected < SIGNIFICANCE else None,
            }
            for pair, (change, p), p_corrected in zip(self.pairs, tests, corrected, strict=True)
        ]

    def caption(self) -> str:
        """What was measured and tested."""
        first = self.pairs[0].joint[0]
        seeds = ", ".join(str(result.seed) for result in self.pairs[0].joint)
        several = len(self.pairs[0].joint) > 1
        of_one_row = {pair.domain: pair.left_out for pair in self.pairs}
        return (
            f"NDCG@{first.cutoff} of the same test targets, "
            f"{'mean and standard deviation of seeds' if several else 'seed'} {seeds}; {first.protocol}. "
            f"Left out on both sides: {sum(of_one_row.values()):,} of {first.rows:,} targets, whose user took nothing "
            f"of the domain before. p: paired t-test over targets{' (means over seeds)' if several else ''}, with "
            f"Holm's correction for {len(self.pairs)} tests; gain and loss are sure below {SIGNIFICANCE}."
        )

    def table(self) -> Table:
        """The changes as a table for the console."""
        table = Table(
            title=escape(f"Joint against alone on {self.pairs[0].joint[0].dataset}"),
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
        table.add_column("sure", no_wrap=True)
        above = None
        for row in self.changes():
            own = row["model"] == row["alone_model"]
            name = row["model"] if own else f"{row['model']} (alone: {row['alone_model']})"
            cells = [score_text(row[side], len(self.pairs[0].joint) > 1) for side in SIDES]
            change = f"{row['change']:+.1%}", f"{row['p_corrected']:.2g}", row["sure"] or ""
            names = "" if name == above else escape(name), escape(row["domain"])
            table.add_row(*names, f"{row['targets']:,}", *cells, *change)
            above = name
        return table

    def as_dict(self) -> dict[str, Any]:
        """For result.json."""
        alone = {id(result): result for pair in self.pairs for result in pair.alone}  # rows may share them
        return {
            "measured": self.caption(),
            "changes": self.changes(),
            "runs_alone": [result.as_dict() for result in alone.values()],
        }


def _over_seeds(scores: np.ndarray) -> dict[str, float]:
    """Mean over targets [seeds, targets], and its standard deviation over seeds."""
    means = scores.mean(axis=1)
    return {"mean": float(means.mean()), "spread": float(means.std(ddof=len(means) > 1))}


def joint_against_alone(
    results: Sequence[Sequence[Result]],
    against: Sequence[int | None],
    domains: Sequence[str],
    alone: Callable[[int, str], list[Result]],
) -> JointAgainstAlone | None:
    """The changes of a comparison; None where no row is set against models of one domain.

    Args:
        results: joint, of each row and seed.
        against: of each row, from :func:`references`.
        domains: that were joined.
        alone: trains a row's model on one of them, for each seed; called once for a row and domain.
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
    """For each row of a comparison, the row whose models alone it is set against; None where it is against none.

    Args:
        rows: keys of each; ``alone: True`` sets a row against its own model alone, ``alone: NAME`` against that of
            another row, by its ``name`` or model.

    Raises:
        XferError: if a name is of no row, or of several, that has ``alone: True``.
    """
    own = {number: row.get("name", row["model"]) for number, row in enumerate(rows) if row.get("alone") is True}
    found: list[int | None] = []
    for number, row in enumerate(rows):
        alone = row.get("alone") or None
        named = [number] if alone is True else [other for other, name in own.items() if name == alone]
        if alone is not None and len(named) != 1:
            raise XferError(
                f"alone: {alone} must name one row with 'alone: True', by its name or model; "
                f"{len(named) or 'none'} has it."
            )
        found.append(named[0] if named else None)
    return found


def check_pairing(config: Any, by_itself: bool) -> None:
    """Raises XferError where a joint model and one alone would not rank the same targets among the same items.

    Args:
        config: of the joint row.
        by_itself: whether the row's own model is to learn one domain alone, which one that joins domains cannot.
    """
    name, (split, *_) = f"alone ({config['model']} on {config['dataset']})", config["eval_args"]["split"]
    if DOMAIN_SEPARATOR not in config["dataset"]:
        raise XferError(f"{name} needs several domains, such as dataset: Books+Toys.")
    if by_itself and hooks_of(get_model(config["model"])).needs_several_domains(config):
        raise XferError(f"{name}: it cannot learn one domain. Name a row with another model, such as alone: SASRec.")
    if not config["rank_within_domain"]:
        raise XferError(f"{name} ranks the items of one domain. Set rank_within_domain: True for all rows.")
    if config["eval_args"]["mode"]["test"] != "full":
        raise XferError(f"{name} needs mode: full in eval_args, for sampled candidates differ between any two models.")
    if split not in ("LS", "NU"):
        raise XferError(f"{name} needs one test target a history: LS or NU in eval_args.split, not {split}.")
    if config["overlap"] != 1:
        raise XferError(f"{name} needs overlap: 1, for a hidden user has another split.")
