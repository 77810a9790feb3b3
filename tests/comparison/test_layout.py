"""Tables in Markdown and LaTeX: marks, parts of one table, and signs with a meaning."""

from __future__ import annotations

from dataclasses import replace

from recbole_xfer.comparison.layout import BEST, SECOND, Entry, Layout, Line, latex, markdown

ONE = Layout(
    "Results on A_1", "A_1", "50% of 3; seed 1", ["model"], ["ndcg@10"],
    [Line(["Pop"], [Entry("0.1 ±.01", BEST)]), Line(["A|B*"], [Entry("0.2", SECOND)]), Line(["C"], [Entry("0.3")])],
)  # fmt: skip


def test_markdown_marks_the_best_and_escapes_names() -> None:
    assert markdown([ONE]) == (
        "## Results on A\\_1\n\n| model | ndcg@10 |\n| --- | ---: |\n| Pop | **0.1 ±.01** |\n"
        "| A\\|B\\* | <u>0.2</u> |\n| C | 0.3 |\n\n50% of 3; seed 1\n"
    )


def test_latex_has_booktabs_rules_marks_and_no_sign_with_a_meaning() -> None:
    text = latex([ONE])
    assert [line for line in text.splitlines() if "rule" in line] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert r"Pop & \textbf{0.1 $\pm$.01} \\" in text and r"\underline{0.2}" in text
    assert r"A$|$B*" in text and r"\caption{Results on A\_1: 50\% of 3; seed 1.}" in text


def test_latex_joins_tables_with_equal_columns() -> None:
    two = replace(ONE, name="B", caption="70 targets; seed 1")
    other = Layout("C", "C", "", ["model"], ["recall@10"], [Line(["Pop"], [Entry("0.5")])])
    text = latex([ONE, two, other])
    assert text.count(r"\begin{table}") == 2
    assert r"\multicolumn{2}{l}{\emph{A\_1}} \\" in text
    assert r"\caption{seed 1. A\_1: 50\% of 3. B: 70 targets.}" in text
