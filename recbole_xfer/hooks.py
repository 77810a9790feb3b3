"""The hooks of a model: all that configuration, training, evaluation and reports ask of one, with defaults.

A model of this package inherits :class:`Hooks` before RecBole's class (see ``model/base.py``) and overrides what
differs. RecBole's own models have no hooks, so every caller asks :func:`hooks_of`, which has the defaults for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from recbole_xfer.errors import XferError

AUTO = "auto"
"""The adaptation that joins a model from scratch, each of its other adaptations, and the neighbours of content."""


def is_adapted(adaptation: str | None) -> bool:
    """Whether a run with this value of ``adaptation`` starts from a pre-trained model."""
    return adaptation not in (None, "scratch")


@dataclass(frozen=True)
class Inspection:
    """How an encoder read one history of L items.

    Attributes:
        routes: 1 where a block keeps an item on the pathway, [blocks, L]; no rows without a pathway.
        attention: weight of each item for the last item in the last block, mean over heads, [L].
    """

    routes: Tensor
    attention: Tensor


class Hooks:
    """Everything that the rest of the package asks of a model; by default, a model runs like RecBole's."""

    loader: ClassVar[Any] = None
    """Class of the loader of training batches, built by its ``of(config, dataset, sampler)``; None: RecBole's."""

    loss_types: ClassVar[tuple[str, ...]] = ("BPR", "CE")
    """The valid values of ``loss_type``."""

    draws_negatives: ClassVar[bool] = False
    """Whether the model draws negatives itself, by the distribution of ``train_neg_sample_args``."""

    reads_features: ClassVar[bool] = False
    """Whether the model reads texts, images or prices of the items."""

    kept: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """For each adaptation, prefixes of the parameters that the pre-trained model provides; without any, the model
    cannot be adapted."""

    frozen: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """For each adaptation, prefixes of the parameters that are not trained."""

    encoder_keys: ClassVar[tuple[str, ...]] = ()
    """Keys that change what the model computes but no shape of its parameters; adaptation rejects other values than
    those of pre-training."""

    explainable: ClassVar[bool] = False
    """Whether ``inspect`` is defined, so that ``recbole-xfer explain`` can show how the model ranks."""

    shares_batches: ClassVar[bool] = False
    """Whether the losses of several processes, each of its own rows of a batch, add up to the loss of the batch; see
    :mod:`recbole_xfer.collectives`."""

    @staticmethod
    def needs_several_domains(config: Any) -> bool:
        """Whether the model cannot be trained on a single domain; a comparison asks before it trains anything."""
        return False

    @property
    def inductive(self) -> bool:
        """Whether items are known by their features alone, so that the model ranks items it was not trained on."""
        return False

    def adapt(self: Any, pretrained: Mapping[str, Tensor], adaptation: str) -> None:
        """Loads the parameters of a pre-trained model that ``kept`` names, and stops training those in ``frozen``.

        Raises:
            XferError: if a kept parameter has another shape in the pre-trained model.
        """
        kept = self.kept[adaptation]
        theirs = {name: value for name, value in pretrained.items() if name.startswith(kept)}
        own = {name: value for name, value in self.state_dict().items() if name.startswith(kept)}
        for name in own.keys() | theirs.keys():
            their_shape, own_shape = (tuple(s[name].shape) if name in s else "none" for s in (theirs, own))
            if their_shape != own_shape:
                without = [other for other, names in self.kept.items() if not name.startswith(names)]
                raise XferError(
                    f"The pre-trained model does not fit: {name} has the shape {their_shape} there and {own_shape} in "
                    f"this configuration. Use the sizes and modalities of the pre-training"
                    f"{''.join(f', or --adaptation={other}' for other in without)}."
                )
        self.load_state_dict(theirs, strict=False)
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(not name.startswith(self.frozen.get(adaptation, ())))

    def epoch_scalars(self) -> dict[str, float]:
        """Returns values that are written to TensorBoard and to ``epochs.json`` at the end of an epoch."""
        return {}

    def inspect(self, items: Tensor) -> Inspection:
        """How the model reads a history of items [1, L]; see ``explainable``."""
        raise NotImplementedError

    def compared_users(self, items: Tensor) -> Tensor | None:
        """Histories [B, L] to the vectors of users, [B, d], that an adversary of training compares.

        None without an adversary, or if it compares the vectors by which the model ranks.
        """
        return None


DEFAULTS = Hooks()


def hooks_of(model: nn.Module | type[nn.Module]) -> Any:
    """The hooks of a model or of its class: the model itself where it has them, the defaults for RecBole's models."""
    known = issubclass(model, Hooks) if isinstance(model, type) else isinstance(model, Hooks)
    return model if known else DEFAULTS
