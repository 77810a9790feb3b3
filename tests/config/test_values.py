"""Yaml of any content is a value or one sentence."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from recbole_xfer.config.config import XferConfig
from recbole_xfer.config.values import parse_value, read_yaml, read_yaml_file, text_of, write_yaml
from recbole_xfer.errors import XferError

REPEATED = "".join(f"{after}: &{after} [{', '.join([f'*{name}'] * 10)}]\n" for name, after in pairwise("abcdefgh"))
FORM = "a value does not have the form of its type"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seed: 2020-13-45", FORM),
        ("seed: 2020-02-30 12:00:00", FORM),
        ("seed: !!int x", FORM),
        ("seed: !!int ''", FORM),
        ("seed: !!bool x", FORM),
        ("seed: !!timestamp x", FORM),
        ("seed: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        (f"seed: {'9' * 5000}", FORM),
        (f"seed: 0x{'f' * 9000}", "an integer has too many digits"),
        (f"seed: {'[' * 3000}", "its lists or mappings are nested too deeply"),
        (f"seed: {'[' * 3000}{']' * 3000}", "its lists or mappings are nested too deeply"),
        ("\n".join(f"{' ' * depth}a:" for depth in range(900)), "its lists or mappings are nested too deeply"),
        ("seed: &a [*a]", "its lists or mappings are nested too deeply"),
        (f"a: &a [0, 0, 0, 0, 0]\n{REPEATED}", "it has more than 100,000 values"),
    ],
)
def test_invalid_yaml_is_one_sentence(text: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(XferError, match=rf"keys.yaml is not valid yaml: .*{reason}"):
        read_yaml_file(path)
    if text.startswith("seed: "):
        value = text.removeprefix("seed: ")
        assert parse_value(value) == value
        with pytest.raises(XferError, match="is invalid: it must be an integer"):
            XferConfig("SASRec", "Small", overrides={"seed": value})
        with pytest.raises(XferError, match="is not valid yaml"):
            XferConfig("SASRec", "Small", config_files=[path])


def test_a_dataset_may_look_like_a_tag() -> None:
    assert XferConfig("SASRec", "!!int")["dataset"] == "!!int"
    assert parse_value("!!int") == "!!int"


@pytest.mark.parametrize(
    "text", ["None", "null", "~", "", "1e-3", "1.5", "12", "True", "yes", "2020-01-01", "[a", "a: b"]
)
def test_a_string_that_looks_like_another_value_is_written_in_quotes(text: str) -> None:
    values = {"key": text, "keys": [text, {text: None}]}
    assert read_yaml(write_yaml(values)) == values


def test_keys_as_text_are_short() -> None:
    keys = {"modalities": ["text", "image"], "learning_rate": 0.00051234, "topk": [5, 10], "n_heads": 2}
    assert text_of(keys) == "modalities=[text, image] learning_rate=0.0005123 topk=[5, 10] n_heads=2"
