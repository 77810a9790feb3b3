"""Where a model runs, and which number formats a device supports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from recbole_xfer.errors import XferError


def move(model: torch.nn.Module, name: str) -> torch.device:
    """Moves a model to a device and returns it; ``auto`` is a GPU if there is one.

    Raises:
        XferError: if the device cannot be used.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise XferError(f"The device '{name}' cannot be used here ({error}). Try --device=cpu.") from error
    return device


def has_fast_bfloat16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16; without them bfloat16 is many times slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws the same random numbers in each block with the same seed; those after the block do not depend on it."""
    before = random_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        set_random_state(before)


def random_state() -> list[torch.Tensor]:
    """The states of PyTorch's generators: the CPU's, and those of the GPUs."""
    return [torch.get_rng_state(), *(torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [])]


def set_random_state(state: list[torch.Tensor]) -> None:
    """Sets what :func:`random_state` returned."""
    on_cpu, *on_gpus = state
    torch.set_rng_state(on_cpu)
    if on_gpus:
        torch.cuda.set_rng_state_all(on_gpus)
