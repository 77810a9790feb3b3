"""Plans of studies: tables, cells that several tables share, and mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from recbole_xfer.errors import XferError
from recbole_xfer.study.plan import StudyPlan, read_plan
from recbole_xfer.testing.data import write_small

PLAN: dict[str, Any] = {
    "datasets": ["Small", "Other"],
    "seeds": [1, 2],
    "settings": {"few heads": {"projection_heads": 2}, "many heads": {"projection_heads": 4}},
    "rows": [{"model": "Pop"}, {"model": "ANT", "adaptation": "scratch", "name": "ours"}],
}


def plan(folder: Path, **keys: Any) -> StudyPlan:
    for name in ("Small", "Other"):
        (folder / name).mkdir(exist_ok=True)
    content = {key: value for key, value in {**PLAN, "data_path": str(folder), **keys}.items() if value is not None}
    (folder / "plan.yaml").write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return read_plan(folder / "plan.yaml")


def test_a_table_for_each_dataset_and_setting_and_one_run_for_equal_cells(tmp_path: Path) -> None:
    made = plan(tmp_path)
    names = ["Small, few heads", "Small, many heads", "Other, few heads", "Other, many heads"]
    assert [table.name for table in made.tables] == names
    cells = made.cells()
    assert len(cells) == 4 * 2 * 2
    assert len({cell.identity for cell in cells.values()}) == 4 * 2 + 2 * 2  # Pop does not know the key
    assert {cell.keys.get("projection_heads") for cell in cells.values()} == {None, 2, 4}
    assert [row.label for row in made.tables[0].rows] == ["Pop", "ours"]


def test_a_table_for_each_fraction_of_users(tmp_path: Path) -> None:
    made = plan(tmp_path, datasets=["Small"], train_share=[1, 0.03, 0.5])
    settings = "Small, few heads", "Small, many heads"
    ends = "3% of the users", "50% of the users", "all users"
    assert [table.name for table in made.tables] == [f"{name}, {end}" for name in settings for end in ends]
    assert [(table.curve, table.share) for table in made.tables[:3]] == [(settings[0], s) for s in (0.03, 0.5, 1.0)]
    assert [cell.keys["train_share"] for cell in made.cells().values()][:5:4] == [0.03, 0.5]
    on_the_command_line = read_plan(tmp_path / "plan.yaml", {"train_share": "0.03,0.5,1"})
    assert [table.name for table in on_the_command_line.tables] == [table.name for table in made.tables]
    one = read_plan(tmp_path / "plan.yaml", {"train_share": "0.5"})
    assert [(table.name, table.share) for table in one.tables] == [(name, None) for name in settings]
    assert {row.keys["train_share"] for table in one.tables for row in table.rows} == {0.5}


def test_a_fraction_in_the_file_of_a_search_is_ignored(tmp_path: Path) -> None:
    best = tmp_path / "best.yaml"
    best.write_text("model: SASRec\nlearning_rate: 0.25\ntrain_share: 0.3\n", encoding="utf-8")
    rows = [{"model": "SASRec", "config_files": str(best)}]
    (table,) = plan(tmp_path, datasets=["Small"], settings=None, rows=rows).tables
    assert table.rows[0].keys["learning_rate"] == 0.25 and "train_share" not in table.rows[0].keys


def test_the_command_line_replaces_datasets(tmp_path: Path) -> None:
    plan(tmp_path)
    for keys in ({"dataset": "Other"}, {"datasets": "[Other]"}):
        made = read_plan(tmp_path / "plan.yaml", keys)
        assert [table.dataset for table in made.tables] == ["Other", "Other"]


def test_figures_of_tables_that_the_command_line_leaves_out_are_allowed(tmp_path: Path) -> None:
    figures = {name: {"Pop": {"ndcg@10": 0.1}} for name in ("Small", "Other")}
    plan(tmp_path, published={"source": "A", "same_data": True, "figures": figures}, settings=None)
    made = read_plan(tmp_path / "plan.yaml", {"datasets": "[Other]"})
    assert made.published is not None
    assert made.published.rows("Other", None) == figures["Other"]


def test_a_baseline_is_a_label_a_name_or_the_model_of_one_row(tmp_path: Path) -> None:
    for name in ("ours", "ANT"):
        assert plan(tmp_path, baseline=name).tables[0].baseline == "ours"
    rows = [*PLAN["rows"], {"model": "BPR", "baseline": "ANT"}]
    own = plan(tmp_path, rows=rows, baseline="Pop").tables[0]
    assert own.baseline == "Pop" and [row.baseline for row in own.rows] == [None, None, "ours"]
    joined = plan(tmp_path, ensembles={"both": ["ANT", "Pop"]}, baseline="both").tables[0]
    assert joined.baseline == "both"
    assert [joined.rows[row].label for row in joined.ensembles["both"]] == ["ours", "Pop"]


def test_only_rows_leaves_out_the_others_and_what_compares_or_joins_them(tmp_path: Path) -> None:
    rows = [*PLAN["rows"], {"model": "BPR"}]
    ensembles = {"all": ["Pop", "ours", "BPR"], "two": ["BPR", "Pop"]}
    whole = plan(tmp_path, rows=rows, ensembles=ensembles)
    made = plan(tmp_path, rows=rows, ensembles=ensembles, only_rows=["BPR", "Pop"])
    for table, all_of_it in zip(made.tables, whole.tables, strict=True):
        assert list(table.rows) == [all_of_it.rows[2], all_of_it.rows[0]]
        assert table.ensembles == {"two": [0, 1]}
    cells, all_cells = made.cells(), whole.cells()
    assert len(cells) == len(all_cells) * 2 / 3
    assert {cell.identity for cell in cells.values()} < {cell.identity for cell in all_cells.values()}
    rows = [{"model": "Pop"}, {"model": "SASRec", "alone": True}, {"model": "BPR", "alone": "SASRec"}]
    keys = {"datasets": ["Small+Other"], "settings": None, "rank_within_domain": True, "rows": rows}
    for chosen, references in ((["BPR", "SASRec"], [1, 1]), (["BPR"], [None])):
        (table,) = plan(tmp_path, **keys, only_rows=chosen).tables
        assert [row.reference for row in table.rows] == references


ROW = {"model": "SASRec"}
ADAPTED = {"model": "ANT", "source": "Other"}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"baseline": "Popp"}, "baseline=Popp names no row. Did you mean 'Pop'?"),
        (
            {"baseline": "ANT", "rows": [{**ADAPTED, "adaptation": way} for way in ("finetune", "relearn")]},
            r"baseline=ANT names 2 rows \(ANT \(finetune\), ANT \(relearn\)\); give its label",
        ),
        ({"ensembles": {"both": ["Pop", "Popp"]}}, "ensembles.both=Popp names no row. Did you mean 'Pop'?"),
        ({"ensembles": {"both": ["Pop"]}}, "must be a mapping from names to lists of two or more rows"),
        ({"ensembles": {"both": ["ours", "ANT"]}}, "ensembles.both names a row twice: ours, ANT. Name each row once"),
        ({"ensembles": {"ours": ["Pop", "ANT"]}}, "ensembles: 'ours' is also the label of a row. Choose another name"),
        ({"only_rows": ["Popp"]}, "only_rows=Popp names no row. Did you mean 'Pop'?"),
        ({"only_rows": ["ANT", "ours"]}, "only_rows names a row twice: ANT, ours. Name each row once"),
        (
            {"rows": [{"model": "Pop", "baseline": "Popp"}], "settings": None},
            "baseline=Popp names no row. Did you mean 'Pop'?",
        ),
        ({"only_rows": []}, r"only_rows=\[\] is invalid: it must be a list of different names"),
        ({"rows": ["Pop"]}, "'rows' must be a list with a 'model' in each entry.*'only_rows' chooses some of them"),
        ({"datasets": ["Small", "Nowhere"]}, r"The folder .*Nowhere does not exist. Make it"),
        ({"datasets": ["Small", "Small"]}, "must be a list of different datasets"),
        ({"dataset": "Small"}, "plan.yaml has both 'dataset' and 'datasets'. Leave one"),
        ({"rows": []}, "plan.yaml lacks the key 'rows'"),
        ({"rows": [{"model": "Pop", "name": "a"}, {"model": "BPR", "name": "a"}]}, "2 rows with name: a. Give each"),
        ({"settings": {"texts": {"modality": ["text"]}}}, "Unknown key 'modality'. Did you mean 'modalities'?"),
        ({"settings": {"texts": {"seed": 1}}}, "seed=1 is invalid in a comparison"),
        ({"settings": ["texts"]}, r"settings=\['texts'\] is invalid: it must be a mapping from names to keys"),
        ({"train_share": [0.1, 2]}, r"train_share=\[0.1, 2\] is invalid in a comparison: it must be a number above 0"),
        ({"train_share": [0.1, 0.1]}, "or a list of different such numbers, as"),
        ({"train_share": "few"}, "train_share=few is invalid in a comparison"),
        ({"train_share": 2}, "train_share=2 is invalid: it must be a number above 0, at most 1."),
        ({"rows": [{**ROW, "train_share": 0.1}]}, r"train_share=0.1 is invalid in a row \(SASRec\): all rows"),
        (
            {"train_share": [0.1, 1], "settings": {"few": {"train_share": 0.5}}},
            "train_share is a list, but also a key of the setting 'few'. Leave one of them out.",
        ),
        ({"mask_history": [True, True]}, r"mask_history=\[True, True\] is invalid in a comparison"),
        ({"rows": [{**ROW, "search": 3}]}, "search=3 is invalid: it must be the path of a space, or True"),
        ({"rows": [{**ROW, "search": "none.yaml"}], "settings": None}, "The file none.yaml"),
        ({"published": {"source": "A", "figures": {}}}, "published.same_data is invalid: Field required"),
    ],
)
def test_mistakes_are_one_sentence(tmp_path: Path, keys: dict, message: str) -> None:
    with pytest.raises(XferError, match=message):
        plan(tmp_path, **keys)


@pytest.mark.parametrize(
    ("figures", "message"),
    [
        ({"Smal": {"Pop": {"ndcg@10": 0.1}}}, "'Smal' is no table of this plan. Did you mean 'Small'?"),
        ({"Small": {"Pop": {"ndgc@10": 0.1}}}, "'ndgc@10' is not measured. Did you mean 'ndcg@10'?"),
    ],
)
def test_figures_name_a_table_and_a_metric(tmp_path: Path, figures: dict, message: str) -> None:
    published = {"source": "A", "same_data": True, "figures": figures}
    with pytest.raises(XferError, match=message.replace("?", r"\?")):
        plan(tmp_path, published=published, settings=None)


def test_a_searched_row_and_the_row_as_given_need_different_names(tmp_path: Path) -> None:
    write_small(tmp_path)
    space = tmp_path / "space.yaml"
    space.write_text("learning_rate: [0.1, 0.01]\n", encoding="utf-8")
    rows = [ROW, {**ROW, "search": str(space), "trials": 2}]
    with pytest.raises(XferError, match="Several rows are called 'SASRec'. Give each a name of its own"):
        plan(tmp_path, rows=rows, settings=None)
    made = plan(tmp_path, rows=[ROW, {**rows[1], "name": "searched"}], settings=None)
    assert [(row.label, row.trials) for row in made.tables[0].rows] == [("SASRec", None), ("searched", 2)]
