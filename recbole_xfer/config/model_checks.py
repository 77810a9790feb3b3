"""Checks that need the model: its name, and whether the values of several keys go together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recbole.utils import ModelType

from recbole_xfer.config import properties
from recbole_xfer.config.recbole_keys import SPARSE_ADAM
from recbole_xfer.config.schema import check
from recbole_xfer.config.value_types import choice
from recbole_xfer.errors import XferError, did_you_mean
from recbole_xfer.hooks import AUTO, hooks_of, is_adapted

TP_MODEL = "tp_model"
"""Key that names the model which ``model: TP`` trains: with ``LightSANs`` the model is ``TPLightSANs``."""


def check_model(name: str) -> None:
    """Raises XferError if neither RecBole nor this package has the model; capitals matter."""
    if name.lower() in properties.TREES:
        raise XferError(f"RecBole's {name} learns decision trees, which is not supported. Choose another model.")
    names = {properties.TP, *properties.models(), *properties.recbole_models()}
    if name not in names:
        raise XferError(f"The model '{name}' does not exist{did_you_mean(name, names)}")


def trained_by_tp(name: str | None) -> str:
    """Returns the name under which a model that TP trains is registered.

    Raises:
        XferError: if no model is named, or TP cannot train it.
    """
    if not name:
        raise XferError(f"model={properties.TP} needs a model to train. Add --{TP_MODEL}=NAME, such as SASRec.")
    if f"{properties.TP}{name}" not in properties.models():
        fit = sorted(known[len(properties.TP) :] for known in properties.models() if known.startswith(properties.TP))
        raise XferError(
            f"{TP_MODEL}={name} is not a model with the sequence embedding that TP needs{did_you_mean(str(name), fit)} "
            f"These are: {', '.join(fit)}."
        )
    return f"{properties.TP}{name}"


def check_together(config: Mapping[str, Any], model: type) -> None:
    """Raises XferError for values that do not fit each other or the model.

    Args:
        config: all values by key.
        model: the class of the model.
    """
    _check_heads(config.get("hidden_size"), config.get("n_heads"))
    _check_loss(config.get("loss_type"), model)
    _check_sampled(config)
    _check_repeat_bias(config)
    _check_adaptation(config.get("adaptation"), model)


def _check_heads(width: int | None, heads: int | None) -> None:
    if width and heads and width % heads:
        raise XferError(f"hidden_size={width} is invalid: it must be a multiple of n_heads={heads}.")


def _check_loss(loss: str | None, model: Any) -> None:
    if model.type == ModelType.SEQUENTIAL and loss is not None:
        check("loss_type", loss, choice(hooks_of(model).loss_types))


def _check_sampled(config: Mapping[str, Any]) -> None:
    if config.get("negatives") == "sampled" and config.get("loss_type") not in (None, "CE"):
        raise XferError(f"negatives=sampled estimates cross-entropy, not {config['loss_type']}. Set --loss_type=CE.")
    if str(config.get("learner")).lower() == SPARSE_ADAM:
        for key in ("weight_decay", "clip_grad_norm"):
            if config.get(key):
                raise XferError(f"learner=sparse_adam does not support {key}. Leave {key} out, or set --learner=adam.")


def learns_repeats(config: Mapping[str, Any]) -> bool:
    """Whether a loss learns a bias of repeats (docs/decisions/0034): one over items among which repeats are."""
    over_items = config.get("loss_type") in (None, "CE") and config.get("negatives") != "in_batch"
    return over_items and not config.get("content_start")


def _check_repeat_bias(config: Mapping[str, Any]) -> None:
    if not config.get("repeat_bias"):
        return
    if config.get("loss_type") not in (None, "CE"):
        raise XferError(f"repeat_bias is learned by cross-entropy, not {config['loss_type']}. Set --loss_type=CE.")
    if config.get("content_start"):
        raise XferError("repeat_bias is learned from the items that content_start spares. Leave one of them out.")


def _check_adaptation(adaptation: str | None, model: type) -> None:
    if not is_adapted(adaptation):
        return
    ways = tuple(hooks_of(model).kept)
    if not ways:
        raise XferError(f"{model.__name__} cannot be adapted. Leave out --adaptation, --source and --pretrained.")
    check("adaptation", adaptation, choice((*ways, AUTO, "scratch")))
