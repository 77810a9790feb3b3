"""Text, image and price through a linear layer each, literally, in NumPy float64."""

from collections.abc import Mapping
from typing import Any

from tests.reference.ant import price_embedding
from tests.reference.sasrec import Array


def embed(vectors: Mapping[str, Array | float | None], parameters: Mapping[str, tuple[Array, Array]]) -> list[Array]:
    """Each modality of an item, W v + b or zero where the item lacks it, [M, d].

    A price is a number from 0 to 100, of which v is ANT's Eq. 3 with the paper's omega.

    Args:
        vectors: of the item by modality.
        parameters: W [d, D] and b [d] by modality.
    """
    found = []
    for name, (weight, bias) in parameters.items():
        v = vectors[name]
        if name == "price" and v is not None:
            v = price_embedding(float(v), weight.shape[1], 50_000)
        found.append(bias * 0 if v is None else weight @ v + bias)
    return found


def inputs(model: Any, item: int) -> dict[str, Array | float | None]:
    """What a model with feature tables reads of an item, as :func:`embed` reads it."""
    found: dict[str, Array | float | None] = {}
    for name in model.features.modalities:
        ids = model.position_embedding.weight.new_full((1,), item).long()
        row = model.features.rows(name, ids)[0].double().numpy()
        found[name] = row if bool(model.features.present(name, ids)) else None
    return found


def parameters_of(embedding: Any) -> dict[str, tuple[Array, Array]]:
    """The parameters of a FeatureEmbedding, as :func:`embed` reads them."""
    return {
        name: tuple(part.detach().double().numpy() for part in (layer.weight, layer.bias))
        for name, layer in embedding.layers.items()
    }
