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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def cell(text: str, change: Mapping[str, Any] | None = None) -> str:
    """Returns the json of a cell as a study prints it, with its digits; of a change if one is given."""
    if change:
        return json.dumps({"percent": round(100 * change["change"], 1), "p": float(f"{change['p_corrected']:.2g}")})
    found = re.fullmatch(r"(\d+\.\d+)(?: ±(\.\d+))?", text)
    if not found:
        return json.dumps(text or None, ensure_ascii=False)
    return f"[{found[1]}, 0{found[2]}]" if found[2] else found[1]


def tables(study: Mapping[str, Any], title: str, only: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Returns the tables of a ``study.json``; the rows are lists of json texts.

    Args:
        study: content of the file.
        title: begins that of each table.
        only: metrics to keep; all if empty.
    """
    made = []
    for table in study["tables"]:
        named = f"{title}: {table['layouts'][0]['name']}"
        made.append({"title": named, **_measured(table, only)})
        if "joint_against_alone" in table:
            made.append({"title": f"{named}, joint against one domain", **_joint(table["joint_against_alone"])})
    return made


def _measured(table: Mapping[str, Any], only: Sequence[str]) -> dict[str, Any]:
    """The table of all rows; one metric of several domains or groups has a column for each."""
    layout, changes = table["layouts"][0], table.get("against", {}).get("changes", {})
    heads, wanted = layout["columns"], {metric.lower() for metric in only}
    kept = [n for n, head in enumerate(heads) if not wanted or head in wanted or head.startswith("vs ")]
    metrics = [n for n in kept if not heads[n].startswith("vs ")]
    note, model, parts = f"{layout['caption'].rstrip('.')}.", "", []  # rows: model, domain or group, cells
    for line in layout["lines"]:
        model, (*part,) = line["names"][0] or model, line["names"][1:]
        if any(line["entries"][n]["text"] for n in kept):
            change = changes.get(model) if part in ([], ["all"]) else None
            texts = {n: line["entries"][n]["text"] for n in kept}
            parts.append((model, part, [cell(texts[n], None if n in metrics else change) for n in kept]))
    if len(layout["names"]) == 2 and len(metrics) == 1:
        columns = list(dict.fromkeys(part for _, (part,), _ in parts))
        by_model: dict[str, dict[str, str]] = {}
        for model, (part,), cells in parts:
            by_model.setdefault(model, {})[part] = cells[0]
            if len(cells) > 1 and cells[1] != "null":
                by_model[model]["vs"] = cells[1]
        places = [*columns, *(["vs"] if len(kept) > 1 else [])]
        rows = [[json.dumps(m), *(cells.get(place, "null") for place in places)] for m, cells in by_model.items()]
        return {
            "note": f"{heads[metrics[0]]}. {note}",
            "columns": ["model", *columns, *(heads[n] for n in kept if n not in metrics)],
            "rows": rows,
        }
    return {
        "note": note,
        "columns": [*layout["names"], *(heads[n] for n in kept)],
        "rows": [[json.dumps(model), *map(json.dumps, part), *cells] for model, part, cells in parts],
    }


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
    options = parser.parse_args()
    study = json.loads((options.folder / "study.json").read_text(encoding="utf-8"))
    print(",\n".join(map(text, tables(study, options.title, options.only))))


if __name__ == "__main__":
    main()
