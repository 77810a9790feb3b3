"""Prints the tables of a study as those of a file of benchmarks/results, so that no figure is typed by hand.

    recbole-xfer compare plans/ant_table3.yaml --output=ant_table3
    python -m benchmarks.record ant_table3 --title="Table 3" --only NDCG@10

The rest of the file, which says what the figures mean, is written by hand. A table of joint against single-domain
training has a column for each domain.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

AGAINST = "vs "
"""Begins the head of the column of changes."""

OWN_BASELINES = f"{AGAINST}baseline"
"""Head of that column where rows have different baselines, which get a column of their own."""

TRAINING = ("epoch", "seconds")
"""Columns of a study of one seed that are no figures of a benchmark."""


def cell(text: str, change: Mapping[str, Any] | None = None) -> str:
    """Returns the json of a cell as a study prints it, with its digits; of a change if one is given."""
    if change:
        return json.dumps({"percent": round(100 * change["change"], 1), "p": float(f"{change['p_corrected']:.2g}")})
    found = re.fullmatch(r"(\d+\.\d+)(?: ±(\.\d+))?", text)
    if not found:
        return json.dumps(text or None, ensure_ascii=False)
    return f"[{found[1]}, 0{found[2]}]" if found[2] else found[1]


def tables(
    study: Mapping[str, Any], title: str, only: Sequence[str] = (), validation: str | None = None
) -> list[dict[str, Any]]:
    """Returns the tables of a ``study.json``; the rows are lists of json texts.

    Args:
        study: content of the file.
        title: begins that of each table.
        only: metrics to keep; all if empty.
        validation: metric of the validation split, which has the last column.
    """
    made = []
    for table in study["tables"]:
        named = f"{title}: {table['layouts'][0]['name']}"
        made.append({"title": named, **_measured(table, only)})
        if validation:
            _add_validation(made[-1], table["runs"], validation.lower())
        if "joint_against_alone" in table:
            made.append({"title": f"{named}, joint against one domain", **_joint(table["joint_against_alone"])})
    return made


def _lines(table: Mapping[str, Any]) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Yields the model of each line, its domain or group if it has one, and the json of its cells by column."""
    layout, changes = table["layouts"][0], table.get("against", {}).get("changes", {})
    model = ""
    for line in layout["lines"]:
        first, *part = line["names"]
        model = first or model
        change = changes.get(model) if part in ([], ["all"]) else None
        texts = zip(layout["columns"], (entry["text"] for entry in line["entries"]), strict=True)
        cells = {head: cell(text, change if head.startswith(AGAINST) else None) for head, text in texts}
        yield model, part, {**cells, "baseline": json.dumps(change and change["baseline"])}


def _measured(table: Mapping[str, Any], only: Sequence[str]) -> dict[str, Any]:
    """The table of all rows; one metric of several domains or groups has a column for each."""
    layout, wanted = table["layouts"][0], {metric.lower() for metric in only}
    measured = [head for head in layout["columns"] if head not in TRAINING]
    changes = [head for head in measured if head.startswith(AGAINST)]
    metrics = [head for head in measured if head not in changes and (not wanted or head in wanted)]
    against = ["baseline", *changes] if OWN_BASELINES in changes else changes
    names, columns = layout["names"], [*metrics, *against]
    rows = [line for line in _lines(table) if any(line[2][head] != "null" for head in columns)]
    if len(names) == 2 and len(metrics) == 1:
        names, columns = names[:1], [*dict.fromkeys(part[0] for _, part, _ in rows), *against]
        wide: dict[str, dict[str, str]] = {}
        for model, (part,), cells in rows:
            own = {head: cells[head] for head in against if cells[head] != "null"}
            wide.setdefault(model, {}).update({part: cells[metrics[0]], **own})
        rows = [(model, [], cells) for model, cells in wide.items()]
    only_metric = f"{metrics[0].upper()}; " if len(metrics) == 1 else ""
    return {
        "note": f"{only_metric}{layout['caption'].rstrip('.')}.",
        "columns": [*names, *columns],
        "rows": [
            [*map(json.dumps, (model, *part)), *(cells.get(head, "null") for head in columns)]
            for model, part, cells in rows
        ],
    }


def _add_validation(made: dict[str, Any], runs: Sequence[Mapping[str, Any]], metric: str) -> None:
    """Adds the mean and spread of the validation split to the first line of each model."""
    scores: dict[str, list[float]] = {}
    for run in runs:
        scores.setdefault(run["label"], []).append(run["valid"][metric])
    cells = {
        label: f"[{mean(own):.4f}, {stdev(own):.4f}]" if len(own) > 1 else f"{own[0]:.4f}"
        for label, own in scores.items()
    }
    made["columns"].append(f"validation {metric}")
    for row in made["rows"]:
        row.append(cells.pop(json.loads(row[0]), "null"))


def _joint(joint: Mapping[str, Any]) -> dict[str, Any]:
    """The table of joint against single-domain training: a row for each model, a column for each domain."""
    domains = {f"{change['domain']} ({change['targets']:,})": change["domain"] for change in joint["changes"]}
    rows: dict[str, dict[str, str]] = {}
    for change in joint["changes"]:
        own = change["model"] == change["alone_model"]
        name = change["model"] if own else f"{change['model']} ({change['alone_model']})"
        rows.setdefault(name, {})[change["domain"]] = cell("", change)
    return {
        "note": f"The change of the joint model against the one of a single domain. {joint['measured']}",
        "columns": ["model", *domains],
        "rows": [[json.dumps(name), *(cells[domain] for domain in domains.values())] for name, cells in rows.items()],
    }


def text(table: Mapping[str, Any]) -> str:
    """Returns the json of a table, a line for each row."""
    parts = [f"{json.dumps(key)}: {json.dumps(table[key], ensure_ascii=False)}" for key in table if key != "rows"]
    rows = ",\n".join(f"        [{', '.join(row)}]" for row in table["rows"])
    lines = ",\n".join(f"      {part}" for part in (*parts, f'"rows": [\n{rows}\n      ]'))
    return f"    {{\n{lines}\n    }}"


def main() -> None:
    """Prints the tables of a study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="that --output of compare named")
    parser.add_argument("--title", required=True, help="begins the title of each table")
    parser.add_argument("--only", nargs="+", default=[], help="metrics to keep")
    parser.add_argument("--validation", metavar="METRIC", help="also this metric of the validation split")
    options = parser.parse_args()
    study = json.loads((options.folder / "study.json").read_text(encoding="utf-8"))
    print(",\n".join(map(text, tables(study, options.title, options.only, options.validation))))


if __name__ == "__main__":
    main()
