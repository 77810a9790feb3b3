"""Writes docs/keys.md and the tables of keys in docs/models, from the schema and the yaml files of properties/.

Run ``python docs/render_keys.py`` after a change of keys; ``--check`` only says whether a page is out of date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from recbole_xfer.config import properties, schema  # noqa: E402
from recbole_xfer.config.value_types import words  # noqa: E402

HEAD = "| key | must be | default | meaning |\n|---|---|---|---|"
BLOCK = re.compile(r"(<!-- keys: (\w+) -->\n).*?(<!-- end keys -->)", re.DOTALL)
INTRODUCTION = """# Keys

Keys of this package, with their default values; `docs/render_keys.py` writes this page. Set a key on the command line
(`--key=value`) or in a yaml file (`--config_files=my.yaml`). A key with the prefix `pretrain_` replaces the key without
it in pre-training. Other keys are [RecBole's](https://recbole.io/docs/user_guide/config_settings.html).
"""


def meanings(file: Path) -> dict[str, str]:
    """The comments of a yaml file by key; a comment can continue on the next lines."""
    found: dict[str, str] = {}
    key = None
    for line in file.read_text(encoding="utf-8").splitlines():
        if match := re.match(r"([\w-]+):.*?\s#\s+(.*)", line):
            key, found[match[1]] = match[1], match[2]
        elif key and (match := re.match(r"\s+#\s+(.*)", line)):
            found[key] += f" {match[1]}"
        else:
            key = None
    return found


def table(rows: Iterable[tuple[str, Any, Any, str]]) -> str:
    """A table of keys: name, type, default and meaning."""
    lines = [f"| `{key}` | {words(kind)} | {default} | {meaning} |" for key, kind, default, meaning in rows]
    return "\n".join([HEAD, *lines])


def keys_of(file: Path) -> str:
    """The table of the keys of a yaml file; empty if it only names other files."""
    own = {
        key: value
        for key, value in properties.read_yaml(file).items()
        if key not in (properties.LIKE, properties.MODULE, properties.TRAINER)
    }
    known = meanings(file)
    rows = [
        (key, schema.kind_of(key, file.stem), f"`{_text(value)}`", known.get(key) or _in_pretraining(key))
        for key, value in own.items()
    ]
    return table(rows) if rows else ""


def _in_pretraining(key: str) -> str:
    return f"`{key.removeprefix(properties.STAGE_PREFIX)}` in pre-training."


def _text(value: Any) -> str:
    return str(value).replace("'", "")


def all_keys() -> str:
    """The page docs/keys.md."""
    folder = properties.folder()
    rows = [(key, schema.KEYS[key], "", meaning) for key, meaning in schema.WITHOUT_DEFAULT.items()]
    parts = [
        INTRODUCTION,
        f"## All models\n\n{keys_of(folder / 'overall.yaml')}\n",
        f"## Without a default\n\n{table(rows)}\n",
    ]
    for kind in ("model", "dataset"):
        for file in sorted(folder.glob(f"{kind}/*.yaml")):
            keys = keys_of(file)
            if keys:
                parts.append(f"## {file.stem}{' (datasets)' if kind == 'dataset' else ''}\n\n{keys}\n")
    return "\n".join(parts)


def pages() -> dict[Path, str]:
    """The contents of all pages with keys."""
    found = {DOCS / "keys.md": all_keys()}
    for path in sorted(DOCS.glob("models/*.md")):
        found[path] = BLOCK.sub(
            lambda match: f"{match[1]}{keys_of(properties.folder() / f'model/{match[2]}.yaml')}\n{match[3]}",
            path.read_text(encoding="utf-8"),
        )
    return found


def outdated() -> list[Path]:
    """Pages that differ from the schema and the yaml files."""
    return [path for path, text in pages().items() if not path.exists() or path.read_text(encoding="utf-8") != text]


if __name__ == "__main__":
    if "--check" in sys.argv:
        stale = outdated()
        if stale:
            sys.exit(f"Run python docs/render_keys.py: {', '.join(path.name for path in stale)} is out of date.")
    else:
        for page, text in pages().items():
            page.write_text(text, encoding="utf-8")
