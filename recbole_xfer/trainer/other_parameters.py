"""The state that RecBole's models keep in addition to their parameters, such as counts or a similarity matrix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse
import torch
from torch import Tensor


def as_tensors(name: str, value: Any) -> dict[str, Tensor]:
    """A value as named tensors. The names tell :func:`from_tensors` its type.

    Values that are neither a tensor, an array nor a sparse matrix are left out: RecBole's models compute them again.
    """
    if isinstance(value, Tensor):
        return {f"{name}.tensor": value}
    if isinstance(value, np.ndarray) and value.dtype != object:
        return {f"{name}.array": torch.from_numpy(np.ascontiguousarray(value))}
    if scipy.sparse.issparse(value):
        matrix = value.tocsr()
        parts = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr, "shape": matrix.shape}
        return {f"{name}.sparse.{part}": torch.as_tensor(content) for part, content in parts.items()}
    return {}


def from_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The values of :func:`as_tensors`, by name."""
    values: dict[str, Any] = {}
    for key, tensor in tensors.items():
        name, kind, *_ = key.split(".")
        if kind == "tensor":
            values[name] = tensor
        elif kind == "array":
            values[name] = tensor.cpu().numpy()
        elif name not in values:
            data, indices, indptr, shape = (
                tensors[f"{name}.sparse.{part}"].cpu().numpy() for part in ("data", "indices", "indptr", "shape")
            )
            values[name] = scipy.sparse.csr_matrix((data, indices, indptr), shape=tuple(shape))
            values[name].check_format()  # all indices, which compiled code trusts
    return values


def check_other_parameters(model: Any, values: Mapping[str, Any]) -> None:
    """Raises ValueError unless a model has all these values, each of the same shape."""
    known = getattr(model, "other_parameter_name", ())
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"the model has no value '{name}'")
        own = getattr(getattr(model, name, None), "shape", None)
        if own is not None and tuple(own) != tuple(value.shape):
            raise ValueError(f"the shape of '{name}' is {tuple(value.shape)}, not {tuple(own)}")


def numbers(model: Any) -> dict[str, int | float]:
    """The numbers that a model keeps as attributes, such as the step of an annealing."""
    return {name: value for name, value in vars(model).items() if type(value) in (int, float)}


def set_numbers(model: Any, values: Mapping[str, int | float]) -> None:
    """Sets what :func:`numbers` returned; others than a new model's are set by training."""
    for name in numbers(model).keys() & values.keys():
        setattr(model, name, values[name])
