"""A second device, made of CPU tensors: code that would fail on a GPU fails on it, without a GPU.

Operations between one of its tensors and one of the CPU raise an error, as with CUDA, and so do NumPy's views.
Importing this module registers the device for the whole process, so tests import it in a process of its own.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from recbole_xfer.config.config import XferConfig

NAME = "other"
aten = torch.ops.aten

MIXING = {aten.copy_.default, aten._to_copy.default}
"""Operations that move values between devices."""
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}
"""Operations that also accept indices on the CPU."""


class Backend(_DummyBackendModule):
    """The functions that PyTorch needs of a device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        """For ``torch.autocast``, which RecBole enters even if it is disabled."""
        return [torch.bfloat16]


class OtherTensor(torch.Tensor):
    """A tensor of the device; its values are in ``inner``."""

    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> OtherTensor:
        tensor = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=torch.device(NAME, 0),
        )
        tensor.inner = inner
        return tensor

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert a tensor of another device to numpy")

    def __reduce_ex__(self, protocol: Any) -> Any:
        return self.inner.__reduce_ex__(protocol)

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return run(operation, args, kwargs or {})


class OtherDevice(TorchDispatchMode):
    """A context in which tensors can be created on the device."""

    def __enter__(self) -> Any:
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device=) moves its values by an operation
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        torch._C._set_only_lift_cpu_tensors(False)
        super().__exit__(*error)

    def __torch_dispatch__(self, operation: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        return run(operation, args, kwargs or {})


def run(operation: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Runs an operation on the values; its results are on the device if an argument is, or if ``device`` says so."""
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    there = any(isinstance(tensor, OtherTensor) for tensor in tensors)
    if there and operation not in MIXING:
        check_places(operation, args, tensors)
    values, options = tree_map_only(OtherTensor, lambda tensor: tensor.inner, (args, kwargs))
    device = kwargs.get("device")
    if device is not None:
        there = device.type == NAME
        options["device"] = torch.device("cpu")
    result = operation(*values, **options)
    if operation is aten.copy_.default:
        return args[0]
    if not there:
        return result
    return return_and_correct_aliasing(operation, args, kwargs, tree_map_only(torch.Tensor, OtherTensor, result))


def check_places(operation: Any, args: tuple, tensors: list[torch.Tensor]) -> None:
    """Raises RuntimeError for tensors of two devices; a single number may be on the CPU."""
    if operation in INDEXING and isinstance(args[0], OtherTensor):
        tensors = [args[0], *(arg for arg in args[2:] if isinstance(arg, torch.Tensor))]
    elsewhere = [tuple(tensor.shape) for tensor in tensors if tensor.dim() and not isinstance(tensor, OtherTensor)]
    if elsewhere:
        raise RuntimeError(
            f"{operation}: expected all tensors to be on one device, but those of shape {elsewhere} are not"
        )


def call_there(folder: Path, function: Callable[..., Any], *args: Any, **keys: Any) -> Any:
    """Calls a function in a folder, with this device as RecBole's."""
    os.chdir(folder)
    sys.argv = sys.argv[:1]  # otherwise RecBole reads the arguments of the parent process
    with OtherDevice():
        return function(*args, **keys)


def _init_device(self: XferConfig) -> None:
    self.final_config_dict |= {"device": torch.device(NAME), "single_spec": True, "local_rank": 0}


_setup_privateuseone_for_python_backend(NAME, Backend())
XferConfig._init_device = _init_device
torch.set_num_threads(1)
