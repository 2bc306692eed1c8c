"""Where a proxy trains, and how precisely: `auto` is settled here, once."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch

from headsearch.errors import ExperimentError
from headsearch.training.sharing import SharedGPU

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt`."""


def resolve_device(name: str, key: str = "proxy.device") -> torch.device:
    """The device that `key` names; `auto` is the accelerator where there is one, else the CPU.

    Raises:
        ExperimentError: no such kind of device, or none here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ExperimentError(f"{key}: '{name}' is no device; expected auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise ExperimentError(f"{key}: '{name}' is not supported; expected auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ExperimentError(
            f"{key}: '{name}' is not here; this machine has {torch.cuda.device_count()} CUDA device(s)"
        )
    return device


def keep_freed_memory() -> None:
    """Have this process reuse the memory of tensors that are gone, instead of giving it back to the system after every layer and having it cleared
    again: a step of a ResNet on a CPU takes an eighth less time (docs/decisions/333-freed-memory-is-kept.md). Nothing, where the C library is not glibc."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_MMAP_MAX, 0)
        set_option(_TRIM_THRESHOLD, -1)


def shared_gpus(device: torch.device, ranks: int, waits: Callable[[str], None]) -> list[SharedGPU]:
    """The GPU at `device`, or the first of this machine for several `ranks`, for trainings that may have neighbours there; none for the CPU.
    `waits` is as `SharedGPU` has it. Raises `ExperimentError` where there are fewer."""
    if device.type == "cpu":
        return []
    devices = [device] if ranks == 1 else [resolve_device(f"cuda:{number}") for number in range(ranks)]
    # In the same order in all processes, or two could wait for each other.
    names = sorted(str(torch.cuda.get_device_properties(each).uuid) for each in devices)
    return [SharedGPU(name, waits) for name in names]


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """bfloat16 where autocast is wanted, None for plain float32.

    `auto` takes bfloat16 on accelerators that have it. On a CPU it takes float32: in bfloat16 a small ViT is slower even with AVX-512 BF16 or AMX
    instructions (its matrices are too small to make up for the casts). A ViT-S at 224 pixels is twice as fast with AMX.
    """
    if precision == "auto":
        return (
            torch.bfloat16
            if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
            else None
        )
    return torch.bfloat16 if precision == "bfloat16" else None


def generators_kept(device: torch.device) -> AbstractContextManager[None]:
    """Whatever is drawn or seeded within, torch's global generators are afterwards as they were: the CPU's, and that of the device."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])
