"""The table of a comparison and its verdict on transfer, from results with known answers."""

from __future__ import annotations

from dataclasses import replace
from io import StringIO

import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from scipy import stats

from recbole_xfer.cli.tables import print_result
from recbole_xfer.comparison.joint import JointAgainstAlone, Pair
from recbole_xfer.comparison.significance import holm, paired_change
from recbole_xfer.comparison.table import Comparison, Failure, mean_by_row, with_distinct_labels
from recbole_xfer.errors import XferError
from recbole_xfer.evaluation.groups import Group
from recbole_xfer.evaluation.result import Protocol, Result

PROTOCOL = Protocol("leave one out", "all 9 items", history_masked=False)


def result(label: str, by_row: np.ndarray, seed: int = 1, protocol: Protocol = PROTOCOL) -> Result:
    adaptation = label.partition("(")[2].partition(")")[0] or None
    return Result(
        label=label, model="ANT", dataset="D", source="A+B" if adaptation != "scratch" else None,
        adaptation=adaptation, protocol=protocol, seed=seed, valid={}, test={"ndcg@10": float(by_row.mean())},
        rows=len(by_row), best_epoch=3, seconds=1.0, folder="saved/x", valid_score=0.0, cutoff=10, by_row=by_row,
    )  # fmt: skip


@pytest.fixture
def scratch() -> np.ndarray:
    return np.random.default_rng(0).uniform(0.2, 0.8, 200)


def test_verdict_says_helped_hurt_or_no_significant_difference(scratch: np.ndarray) -> None:
    noise = np.random.default_rng(1).normal(scale=0.1, size=200)
    rows = {
        "ANT (scratch)": scratch,
        "ANT (relearn)": scratch * 1.2,
        "ANT (finetune)": scratch * 0.8,
        "ANT (other)": scratch + noise - noise.mean() + 1e-4,
    }
    verdict = Comparison([result(label, values) for label, values in rows.items()]).verdict()
    assert verdict.startswith("Transfer from A+B, NDCG@10: ANT (relearn) helped (+20.0% compared with ANT (scratch)")
    assert "ANT (finetune) hurt (-20.0% compared with ANT (scratch)," in verdict
    assert "ANT (other) made no significant difference (+0.0% compared with ANT (scratch)," in verdict
    assert "200 test targets" in verdict


def test_each_adapted_row_names_its_own_source_and_several_tests_are_corrected(scratch: np.ndarray) -> None:
    noise = np.random.default_rng(2).normal(scale=0.1, size=200)
    weak = scratch + noise - noise.mean() + 0.015
    assert 0.05 / 2 < paired_change(weak, scratch)[1] < 0.05  # significant as the only test
    rows = [result("ANT (scratch)", scratch), result("ANT (relearn)", weak)]
    assert "ANT (relearn) helped" in Comparison(rows).verdict()
    assert "Holm" not in Comparison(rows).verdict()
    other = [replace(result("ANT (finetune)", scratch + noise - noise.mean()), source="C")]
    verdict = Comparison([*rows, *other]).verdict()
    assert verdict.startswith("Transfer from A+B, NDCG@10: ANT (relearn) made no significant difference (")
    assert "). Transfer from C, NDCG@10: ANT (finetune) made no significant difference (" in verdict
    assert verdict.endswith("Paired t-test over 200 test targets, with Holm's correction for 2 tests.")


def test_transfer_is_compared_with_the_same_model_from_scratch(scratch: np.ndarray) -> None:
    rows = {
        "ANT (scratch)": scratch, "ANT (finetune)": scratch * 1.2, "ANT (scratch) d=8": scratch * 1.5,
        "ANT (finetune) d=8": scratch * 1.2, "ANT (relearn) d=4": scratch,
    }  # fmt: skip
    of_another = replace(result("XRETR (finetune)", scratch), model="XRETR")
    verdict = Comparison([*(result(label, values) for label, values in rows.items()), of_another]).verdict()
    assert "ANT (finetune) helped (+20.0% compared with ANT (scratch)," in verdict
    assert "ANT (finetune) d=8 hurt (-20.0% compared with ANT (scratch) d=8," in verdict
    assert "relearn" not in verdict  # two rows of its model are from scratch; neither has its keys
    assert "XRETR" not in verdict


def test_an_adapted_row_with_a_name_is_not_compared_with_itself(scratch: np.ndarray) -> None:
    named = replace(result("ANT (relearn)", scratch), label="ours")
    assert Comparison([named, result("Pop", scratch)]).verdict() == ""
    assert "compared with ANT (scratch)" in Comparison([named, result("ANT (scratch)", scratch)]).verdict()


def test_no_verdict_without_transfer(scratch: np.ndarray) -> None:
    assert Comparison([result("Pop", scratch), result("ANT (scratch)", scratch)]).verdict() == ""


def test_one_target_is_not_significant() -> None:
    verdict = Comparison([result("ANT (scratch)", np.array([0.5])), result("ANT (relearn)", np.ones(1))]).verdict()
    assert "ANT (relearn) made no significant difference (+100.0% compared with ANT (scratch), p = 1)" in verdict


def test_no_verdict_without_a_ranking_metric(scratch: np.ndarray) -> None:
    rows = [replace(result(label, scratch), by_row=None) for label in ("ANT (scratch)", "ANT (relearn)")]
    assert Comparison(rows).verdict() == ""


def test_paired_test_uses_means_over_seeds(scratch: np.ndarray) -> None:
    swing = np.where(np.arange(200) % 2, 0.1, -0.1)
    ours = [result("a", scratch + 0.01 + swing, seed=1), result("a", scratch + 0.01 - swing, seed=2)]
    change, p = paired_change(mean_by_row(ours), mean_by_row([result("b", scratch)]))
    assert change == pytest.approx(0.01 / scratch.mean())
    assert p < 1e-6


def test_holms_correction_by_hand() -> None:
    """3 x 0.01, 2 x 0.02 and 1 x 0.03, none below the previous one."""
    assert holm(np.array([0.03, 0.01, 0.02])) == pytest.approx([0.04, 0.03, 0.04])
    assert holm(np.array([0.9, 0.8])) == pytest.approx([1.0, 1.0])


def test_mean_and_spread_over_seeds(scratch: np.ndarray) -> None:
    comparison = Comparison([result("a", scratch, seed=1), result("a", scratch + 0.02, seed=2)])
    assert comparison.summary()["a"]["ndcg@10"]["mean"] == pytest.approx(scratch.mean() + 0.01)
    assert comparison.summary()["a"]["ndcg@10"]["spread"] == pytest.approx(0.02 / np.sqrt(2))
    assert "seeds 1, 2" in comparison.caption()


def test_table_of_several_seeds_fits_80_columns(scratch: np.ndarray) -> None:
    metrics = dict.fromkeys(("recall@10", "recall@50", "ndcg@10", "ndcg@50"), 0.1234)
    results = [
        replace(result(label, scratch, seed), test=metrics)
        for label in ("ANT (finetune)", "PathwayBERT4Rec")
        for seed in (1, 2)
    ]
    console = Console(width=80, file=StringIO())
    console.print(Comparison(results).table())
    lines = console.file.getvalue().splitlines()
    assert sum(line.count("0.1234 ±.0000") for line in lines) == 8
    assert not any("…" in line for line in lines)


def test_labels_of_one_model_get_the_keys_that_differ(scratch: np.ndarray) -> None:
    results = [result(label, scratch, seed) for label in ("RETR", "RETR", "RETR", "Pop") for seed in (1, 2)]
    rows = [{"window": 5, "tau": 0.123456}, {"window": 5}, {"window": 5, "route": "random"}, {"window": 7}]
    keys = [{**row, "seed": seed} for row in rows for seed in (1, 2)]
    summary = Comparison(with_distinct_labels(results, keys)).summary()
    assert list(summary) == ["RETR tau=0.1235", "RETR", "RETR route=random", "Pop"]


def test_labels_name_the_source_but_no_path_that_says_no_more(scratch: np.ndarray) -> None:
    rows = [("Toys", "saved/ANT-Toys-1a"), ("Toys+Books", "saved/ANT-Toys+Books-2b"), ("Games", "saved/ANT-Games-3c")]
    keys = [{"source": source, "pretrained": path, "seed": seed} for source, path in rows for seed in (1, 2)]
    summary = Comparison(
        with_distinct_labels([result("ANT (relearn)", scratch, seed) for _ in rows for seed in (1, 2)], keys)
    ).summary()
    assert list(summary) == [f"ANT (relearn), source {source}" for source, _ in rows]
    same_source = [{"source": "Toys", "pretrained": f"saved/ANT-Toys-{digest}", "d": 8} for digest in ("1a", "2b")]
    own_path = [{"pretrained": "../saved/ANT-Toys-1a/"}, {"pretrained": "saved/ANT-Toys-2b", "d": 4}]
    for keys, ends in (
        (same_source, [", from ANT-Toys-1a", ", from ANT-Toys-2b"]),
        (own_path, [", from ANT-Toys-1a", ", from ANT-Toys-2b d=4"]),
        ([{"source": None}, {"source": "Toys"}], ["", ", source Toys"]),
    ):
        labelled = with_distinct_labels([result("ANT (relearn)", scratch) for _ in keys], keys)
        assert [own.label.removeprefix("ANT (relearn)") for own in labelled] == ends


@pytest.mark.parametrize(
    ("dataset", "protocol", "message"),
    [
        ("E", PROTOCOL, r"D \(a\) versus E \(b\). Choose runs on one dataset"),
        (
            "D",
            replace(PROTOCOL, history_masked=True),
            r"history kept \(a\) versus history masked \(b\). .*mask_history",
        ),
        ("D", replace(PROTOCOL, split="ratio"), r"leave one out \(a\) versus ratio \(b\). Set one eval_args.split"),
        (
            "D",
            replace(PROTOCOL, candidates="all 7 items"),
            r"all 9 items \(a\) versus all 7 items \(b\). .*eval_args.mode .*with the same item_inter_num_interval",
        ),
    ],
)
def test_results_that_cannot_be_compared_name_the_difference_and_the_remedy(
    scratch: np.ndarray, dataset: str, protocol: Protocol, message: str
) -> None:
    other = replace(result("b", scratch, protocol=protocol), dataset=dataset)
    with pytest.raises(XferError, match=f"cannot be compared: {message}"):
        Comparison([result("a", scratch), replace(result("a", scratch), seed=2), other])


def test_results_of_different_groups_are_rejected(scratch: np.ndarray) -> None:
    grouped = replace(result("b", scratch), groups={"new": Group(3, {"ndcg@10": 0.5})})
    with pytest.raises(XferError, match="different metrics or groups. Set --metrics, --topk and --eval_groups"):
        Comparison([result("a", scratch), grouped])


def test_markup_in_names_is_escaped(scratch: np.ndarray, capsys: pytest.CaptureFixture) -> None:
    """Brackets in names look like rich's markup."""
    names = "Pop [ours]", "Pop [/x]"
    ours, theirs = (replace(result(name, scratch), dataset="D[b]", rows_by_domain={"B [c]": 200}) for name in names)
    targets = pd.MultiIndex.from_product([["B [c]"], range(200)])
    ours, theirs = replace(ours, row_targets=targets), replace(theirs, row_targets=targets)
    for table in (Comparison([ours, theirs]), JointAgainstAlone([Pair("B [c]", [ours], [theirs])])):
        Console(width=200).print(table.table())
        shown = capsys.readouterr().out
        assert all(name in shown for name in (*names, "D[b]", "B [c]"))
    print_result(theirs)
    assert "Pop [/x] on D[b]" in capsys.readouterr().out


def test_best_of_a_column_is_bold_also_where_smaller_is_better(scratch: np.ndarray) -> None:
    metrics = "ndcg@10", "giniindex@10", "ndcg@10 [new]", "giniindex@10 [new]"
    rows = {"a": (0.1, 0.3, 0.1, 0.5), "b": (0.2, 0.4, 0.3, 0.6)}
    results = [
        replace(result(label, scratch), test=dict(zip(metrics, values, strict=True))) for label, values in rows.items()
    ]
    cells = [str(cell) for column in Comparison(results).table().columns for cell in column.cells]
    assert [cell[6:9] for cell in cells if "bold" in cell] == ["0.2", "0.3", "0.3", "0.5"]


def test_every_row_is_compared_with_the_baseline(scratch: np.ndarray) -> None:
    noise = np.random.default_rng(1).normal(scale=0.1, size=200)
    rows = {"a": scratch, "b": scratch * 1.2, "c": scratch + noise - noise.mean()}
    comparison = Comparison([result(label, values) for label, values in rows.items()], baseline="a")
    better, equal = comparison.changes()
    p = [stats.ttest_rel(rows[label], scratch).pvalue for label in "bc"]
    assert [change.p for change in (better, equal)] == pytest.approx(p)
    assert better.p_corrected == pytest.approx(2 * p[0])
    column = comparison.table().columns[-1]
    assert column.header == "vs a" and list(column.cells) == ["", "+20.0%*", "+0.0%"]
    assert "Holm's correction for 2 tests" in comparison.caption()
    assert comparison.as_dict()["against"]["changes"]["b"]["significant"] is True


def test_rows_may_have_baselines_of_their_own(scratch: np.ndarray) -> None:
    rows = {"a": scratch, "a+": scratch * 1.2, "b": scratch * 2, "b+": scratch * 1.8, "c": scratch * 3}
    results = [result(label, values) for label, values in rows.items()]
    comparison = Comparison(results, baseline="a", own_baselines={"b+": "b", "b": "a", "c": "failed"})
    column = comparison.table().columns[-1]
    assert column.header == "vs baseline"
    assert list(column.cells) == ["", "+20.0%* (a)", "+100.0%* (a)", "-10.0%* (b)", ""]
    assert "vs baseline: change of NDCG@10 from the row named beside it, * where" in comparison.caption()
    assert "Holm's correction for 3 tests" in comparison.caption()
    of_pairs = {record["row"]: record["baseline"] for record in comparison.records() if record["metric"] == "ndcg@10"}
    assert of_pairs == {"a": None, "a+": "a", "b": "a", "b+": "b", "c": None}
    alone = Comparison(results, own_baselines={"b+": "b"}).table().columns[-1]
    assert alone.header == "vs b" and list(alone.cells) == ["", "", "", "-10.0%*", ""]


def test_the_second_of_at_least_three_is_underlined(scratch: np.ndarray) -> None:
    cells = [list(Comparison([result(label, scratch * k) for label, k in rows.items()]).table().columns[1].cells)
             for rows in ({"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 2})]  # fmt: skip
    assert [cell[:3] for cell in cells[0][1:]] == ["[un", "[bo"] and not any("[un" in cell for cell in cells[1])


def test_failed_rows_are_in_the_table_and_the_caption(scratch: np.ndarray) -> None:
    failed = [Failure("b", 1, "why"), Failure("b", 2, "why"), Failure("a", 2, "why")]
    comparison = Comparison([result("a", scratch)], failed=failed, figures={"b": {"ndcg@10": 0.9}})
    ours, theirs, published = comparison.layout().lines
    assert [line.names for line in (ours, theirs, published)] == [["a"], ["b"], ["b, published"]]
    assert [entry.text for entry in theirs.entries] == ["failed", "", ""] and ours.entries[0].text != "failed"
    assert "b failed with seeds 1, 2; a failed with seed 2" in comparison.caption()


def test_published_figures_are_below_their_row_and_never_the_best(scratch: np.ndarray) -> None:
    figures = {"a": {"ndcg@10": 0.9}, "theirs": {"ndcg@10": 0.8, "recall@10": 0.1}}
    comparison = Comparison([result("a", scratch), result("b", scratch / 2)], figures=figures, notes=["not ours"])
    assert [line.names[0] for line in comparison.layout().lines] == ["a", "a, published", "b", "theirs, published"]
    assert [line.entries[0].place for line in comparison.layout().lines] == [1, None, None, None]
    assert comparison.caption().endswith("; not ours")
    assert [record["published"] for record in comparison.records()] == [0.9, None]


def test_joint_training_has_a_layout_too(scratch: np.ndarray) -> None:
    targets = pd.MultiIndex.from_product([["B [c]"], range(200)])
    own = replace(result("Pop [x]", scratch), rows_by_domain={"B [c]": 200}, row_targets=targets)
    layout = Comparison([own], JointAgainstAlone([Pair("B [c]", [own], [own])])).layouts()[1]
    assert layout.lines[0].names == ["Pop [x]", "B [c]"] and layout.lines[0].entries[0].text == "200"
