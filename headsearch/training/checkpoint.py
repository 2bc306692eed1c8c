"""The state of a training run on disk: written whole or not at all, read without running anything that is in it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors.torch import save
from torch import Tensor

from headsearch.errors import RunError


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write `state` (tensors and plain data) to a temporary name and rename it, so that `path` is the old or the new state, whole.

    Raises:
        RunError: it cannot be written (disk full, no permission); an older checkpoint is left as it was.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(dict(state), file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:
        # torch reports a full disk as a RuntimeError of its zip writer.
        temporary.unlink(missing_ok=True)
        raise RunError(f"{path}: checkpoint cannot be written: {_first_line(error)}") from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors to a temporary name and rename it.

    Raises:
        RunError: it cannot be written; what was there is left as it was.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        content = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
        temporary.write_bytes(save(content, metadata={"format": "pt"}))
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise RunError(f"{path}: cannot be written: {error.strerror or error}") from error


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, tensors onto `device`.

    Raises:
        RunError: it cannot be read, is damaged, or holds more than tensors and plain data.
    """
    return read_checkpoint(path, path, device)


def read_checkpoint(source: Path | BinaryIO, name: Path, device: torch.device) -> dict[str, Any]:
    """As `load_checkpoint`, from a file or from memory; `name` is what errors call it."""
    try:
        state = torch.load(source, map_location=device, weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise RunError(
            f"{name}: not a readable checkpoint ({_first_line(error)}); remove it to train from the start"
        ) from error
    if not isinstance(state, dict):
        raise RunError(f"{name}: not a checkpoint; remove it to train from the start")
    return state


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
