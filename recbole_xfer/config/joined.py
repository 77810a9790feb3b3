"""The configurations of the models that ``adaptation: auto`` joins."""

from __future__ import annotations

from recbole_xfer.config.config import XferConfig, known_keys, settings
from recbole_xfer.config.properties import STAGE_PREFIX
from recbole_xfer.hooks import AUTO, hooks_of

CONTENT = "ContentKNN"
"""The model without training that is joined with those that read item features."""

ORIGIN = ("adaptation", "source", "pretrained", "pretrained_digest", "data_digest", "run_dir")
"""Keys that a model from scratch, or without training, does not share with one that was adapted."""


def is_joined(config: XferConfig) -> bool:
    """Whether the configuration is of joined models."""
    return config["adaptation"] == AUTO


def member_configs(config: XferConfig) -> dict[str, XferConfig]:
    """The configurations of the models that are joined, by name: ``scratch``, each adaptation, and ``ContentKNN``.

    Each is that of a run of its own: its folder is that of an identical run.
    """
    anew = config.replace(**dict.fromkeys(ORIGIN))
    members = {"scratch": anew.replace(adaptation="scratch")}
    for way in hooks_of(config.model_class).kept:
        members[way] = config.replace(adaptation=way, data_digest=None, run_dir=None)
    if hooks_of(config.model_class).reads_features:
        members[CONTENT] = _without_training(anew)
    return members


def _without_training(config: XferConfig) -> XferConfig:
    """The configuration of ContentKNN on the same data, with the same evaluation."""
    known = known_keys(CONTENT, config["dataset"]) - {"model"}
    same = {key: value for key, value in settings(config).items() if key in known and not key.startswith(STAGE_PREFIX)}
    return XferConfig(CONTENT, overrides=same)
