"""Pages of docs/benchmarks equal their data; a study has its provenance; its commands name existing files."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.curves import IMAGE, picture
from benchmarks.render import PAGES, RESULTS, SUMMARIES, Change, ResultError, read, render, stale
from tests.conftest import ROOT

STUDIES = sorted(RESULTS.glob("*.json"))
PROVENANCE = ("commands", "commit", "recorded", "date", "hardware", "versions", "seeds", "protocol", "notes")


def written(folder: Path, **changes: Any) -> Path:
    """A copy of a study with changed keys; a key changed to Ellipsis is left out."""
    values = json.loads(STUDIES[0].read_text(encoding="utf-8")) | changes
    path = folder / "study.json"
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}), encoding="utf-8")
    return path


def test_every_page_equals_its_data() -> None:
    assert stale(render()) == [], "run: python -m benchmarks.render"


def test_the_picture_of_curves_equals_its_data() -> None:
    assert IMAGE.read_text(encoding="utf-8") == picture()


def test_a_changed_a_missing_and_a_leftover_page_are_stale(tmp_path: Path) -> None:
    for path in PAGES.glob("*.md"):
        (tmp_path / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    assert stale(render(), tmp_path) == []
    (tmp_path / "index.md").write_text("changed", encoding="utf-8")
    (tmp_path / "scale.md").unlink()
    (tmp_path / "unknown.md").write_text("no data", encoding="utf-8")
    assert stale(render(), tmp_path) == ["index.md", "scale.md", "unknown.md"]


def test_pages_link_to_existing_files() -> None:
    for path in PAGES.glob("*.md"):
        for link in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / link).exists(), f"{path.name} links to {link}"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_names_where_its_figures_were_recorded(path: Path) -> None:
    study = read(path)
    assert study.recorded
    assert study.commands
    assert {"python", "torch"} <= study.versions.keys()
    assert study.topic == "speed" or (study.seeds and study.protocol)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_commands_name_existing_files(path: Path) -> None:
    study = read(path)
    for command in [*study.commands, *(command for table in study.tables for command in table.commands)]:
        files = re.findall(r"\b(?:benchmarks|tests|properties)/[\w./-]+", command)
        modules = re.findall(r"-m (benchmarks[\w.]*)", command)
        for file in [*files, *(f"{module.replace('.', '/')}.py" for module in modules)]:
            assert (ROOT / file).is_file(), f"{path.name}: '{command}' names {file}, which does not exist"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_an_answer_quotes_values_of_its_tables(path: Path) -> None:
    study = read(path)
    tables = str([table.rows for table in study.tables])
    for value in re.findall(r"0\.\d{3,}", study.answer):
        assert f"'{value}'" in tables, f"{path.name}: the answer's {value} is in no table"


def test_the_front_page_follows_the_data(tmp_path: Path) -> None:
    value = str(read(RESULTS / "demo.json").value("CJ-Nutrition", "ANT (scratch)", "NDCG@10"))
    for path in STUDIES:
        text = path.read_text(encoding="utf-8")
        (tmp_path / path.name).write_text(text.replace(value, "0.9876"), encoding="utf-8")
    assert f"| {value} |" in render()["index.md"]
    assert "| 0.9876 |" in render(tmp_path)["index.md"]
    assert value not in render(tmp_path)["index.md"]


def test_the_figures_of_the_readme_equal_the_data() -> None:
    """Rows of `Does transfer help?`: each value of a target and a share of users, and the change of ``auto``."""
    columns = "ContentKNN", "ANT (scratch)", "ANT (relearn)", "ANT (finetune)", "ANT (auto)"
    tables = read(RESULTS / "adaptation-auto.json").tables
    named = r"^\| (?:(\S+)( with item embeddings)?, from (.+?) )?\| (\d+%|all) \|(.+) \*\*(\S+)\*\* \((\S+)\) \|$"
    checked = 0
    for target, ids, source, share, others, auto, change in re.findall(
        named, (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE
    ):
        if target:
            title = f"{target}, from {source}{',' + ids if ids else ''}: NDCG@10"
            (table,) = (table for table in tables if table.title == title)
        place = table.columns.index(share.replace("all", "100%"))
        rows = {row[0]: row[place] for row in table.rows}
        values = [*re.findall(r"0\.\d{4}", others), auto]
        assert values == [str(rows[name][0]) for name in columns], (title, share)
        assert str(rows["auto against scratch"]).startswith(f"**{change} (p = "), (title, share)
        checked += 1
    assert checked == 7


def test_joint_models_are_counted_in_comparisons_with_one_domain_only() -> None:
    page = render()["when_transfer_pays.md"]
    counted = int(re.search(r"Of (\d+) comparisons of a joint model with models of one\s+domain", page)[1])
    tables = [table for path in STUDIES for table in read(path).tables if "joint against" in table.title.lower()]
    rows = [row for table in tables for row in table.rows if row[0] != "BPR"]
    assert counted == sum(isinstance(cell, Change) for row in rows for cell in row)


@pytest.mark.parametrize("name", SUMMARIES)
def test_a_page_about_all_studies_has_figures_of_the_data_only(name: str) -> None:
    template = (ROOT / "benchmarks" / "templates" / name).read_text(encoding="utf-8")
    prose = re.sub(r"{%.*?%}|{{.*?}}|{#.*?#}", "", template, flags=re.DOTALL)
    assert re.findall(r"0\.\d+|\d+(?:\.\d+)?%", prose) == []


@pytest.mark.parametrize("key", PROVENANCE)
def test_a_study_without_a_provenance_key_is_rejected(key: str, tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=f"study.json: the key '{key}' is invalid: Field required"):
        read(written(tmp_path, **{key: ...}))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"commits": "1234567"}, "the key 'commits' is invalid: Extra inputs are not permitted"),
        ({"commit": "yesterday"}, "the key 'commit' is invalid: String should match pattern"),
        ({"date": "November"}, "the key 'date' is invalid: Input should be a valid date"),
        (
            {"tables": [{"title": "T", "columns": ["model", "NDCG@10"], "rows": [["ANT"]]}]},
            "the key 'tables.0' is invalid: row 'ANT' has 1 cells for 2 columns",
        ),
        (
            {"tables": [{"title": "T", "columns": ["model", "NDCG@10"], "rows": [["ANT", [0.1, 0.2, 0.3]]]}]},
            "the key 'tables.0.rows.0.1' is invalid: a cell must be a text, a number, [mean, standard deviation]",
        ),
    ],
)
def test_an_invalid_study_is_rejected_in_one_sentence(changes: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ResultError) as error:
        read(written(tmp_path, **changes))
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_invalid_json_is_rejected_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text("{", encoding="utf-8")
    with pytest.raises(ResultError, match="study.json is not valid json"):
        read(tmp_path / "study.json")


def test_a_number_keeps_the_digits_of_its_file() -> None:
    text = (PAGES / "tp-movietweetings.md").read_text(encoding="utf-8")
    assert "0.1639 ± 0.0000" in text


def test_a_value_that_does_not_exist_is_an_error_that_names_it() -> None:
    study = read(RESULTS / "demo.json")
    assert study.value("CJ-Nutrition", "Pop", "NDCG@10") == study.tables[0].rows[0][2]
    with pytest.raises(ResultError, match=r"no cell at \('BPR', 'NDCG@10'\)"):
        study.value("CJ-Nutrition", "BPR", "NDCG@10")
    scales = read(RESULTS / "vector-scaling.json")
    [table] = scales.tables
    row = next(cells for cells in table.rows if cells[:2] == ["ANT (relearn)", "no"])
    assert scales.value(table.title, ("ANT (relearn)", "no"), "standard") == row[4][0]
    with pytest.raises(ResultError, match="has no table 'CJ-Deli'"):
        study.value("CJ-Deli", "Pop", "NDCG@10")
