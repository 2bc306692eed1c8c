"""Files of weights: read without running anything in them, checked against the model tensor by tensor, and only then copied into it.

A file holds a state dictionary, or has one under a name that trainers give it; safetensors or what `torch.load(weights_only=True)` reads.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from headsearch.errors import BaseModelError
from headsearch.files import check_weights

_NESTED = (
    "state_dict_ema",
    "model_ema",
    "teacher",
    "state_dict",
    "model_state_dict",
    "model",
    "student",
    "module",
)
"""Under which a checkpoint has its weights; averaged ones first, as timm has it."""
_WRAPPERS = ("module.", "_orig_mod.")
"""What torch's wrappers put before names."""
_BASE = "backbone."
"""What trainers put before the names of the base, where projectors lie beside it."""


def load_weights(made: nn.Module, model: str, path: str) -> None:
    """Copy the weights of a file into a model of timm's. A classifier in the file is left out; all else must fit, and be finite.

    Raises `BaseModelError` for a file that cannot be read or does not fit; the model is then as it was.
    """
    check_weights(path)
    own = made.state_dict()
    classifier = getattr(made, "pretrained_cfg", {}).get("classifier") or ()
    heads = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    try:
        with Path(path).open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"
        found = _safetensors(path, own) if is_safetensors else _unwrapped(_torch_file(path), path)
        state = {name: value for name, value in found.items() if name in own or not name.startswith(heads)}
        _check(state, own, f"weights: '{path}' does not fit {model}")
        for name, value in state.items():
            state[name] = value.to("cpu", own[name].dtype)
        _check_finite(state, path)
    except (BaseModelError, MemoryError):
        raise
    except OSError as error:
        raise BaseModelError(f"weights: '{path}' cannot be read: {error.strerror or error}") from error
    except Exception as error:
        # torch's readers raise whatever a damaged file leads them to.
        if isinstance(error, UnpicklingError) and "global" in str(error).lower():
            raise BaseModelError(
                f"weights: '{path}' holds Python objects, which might run code; expected tensors alone (a state_dict)"
            ) from error
        raise BaseModelError(
            f"weights: '{path}' is neither safetensors nor a dictionary of tensors that torch.load can read"
        ) from error
    made.load_state_dict(state)


def _safetensors(path: str, own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file; those that will not be used are not read, and stand for their shapes alone."""
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
            return {
                _bare(name): file.get_tensor(name)
                if _bare(name) in own and list(own[_bare(name)].shape) == shape
                else torch.empty(shape, device="meta")
                for name, shape in shapes.items()
            }
    except SafetensorError as error:
        raise BaseModelError(f"weights: '{path}' is damaged safetensors: {error}") from error


def _torch_file(path: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            # Mapped, not read: of a checkpoint a third or less are weights.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
            return torch.load(path, map_location="cpu", weights_only=True)


def _unwrapped(content: Any, path: str) -> dict[str, Any]:
    """The state dictionary in what a trainer has saved."""
    while isinstance(content, Mapping) and not any(isinstance(value, Tensor) for value in content.values()):
        key = next((key for key in _NESTED if isinstance(content.get(key), Mapping)), None)
        if key is None:
            break
        content = content[key]
    if not isinstance(content, Mapping) or not any(isinstance(value, Tensor) for value in content.values()):
        held = type(content).__name__
        if isinstance(content, Mapping):
            held = f"{', '.join(str(key) for key in list(content)[:5]) or 'nothing'}"
        raise BaseModelError(
            f"weights: '{path}' holds {held}; expected a dictionary of tensors, or one under {', '.join(_NESTED)}"
        )
    named = {_bare(str(name)): value for name, value in content.items()}
    of_base = {name.removeprefix(_BASE): value for name, value in named.items() if name.startswith(_BASE)}
    return of_base or named


def _bare(name: str) -> str:
    """A tensor's name without what wrappers have put before it."""
    prefix = next((prefix for prefix in _WRAPPERS if name.startswith(prefix)), None)
    return name if prefix is None else _bare(name.removeprefix(prefix))


def _check(state: Mapping[str, Any], own: Mapping[str, Tensor], problem: str) -> None:
    for name in [*own, *state]:
        if name not in state:
            raise BaseModelError(f"{problem}: it lacks {name}")
        value = state[name]
        if not isinstance(value, Tensor):
            raise BaseModelError(f"{problem}: {name} is no tensor but {type(value).__name__}")
        if name not in own:
            raise BaseModelError(f"{problem}, which has no {name}")
        expected = own[name]
        if value.shape != expected.shape:
            raise BaseModelError(
                f"{problem}: {name} has shape {tuple(value.shape)}, expected {tuple(expected.shape)}"
            )
        if value.layout != torch.strided or value.is_quantized:
            raise BaseModelError(f"{problem}: {name} is sparse or quantised, expected a plain tensor")
        if (value.is_floating_point(), value.is_complex()) != (
            expected.is_floating_point(),
            expected.is_complex(),
        ):
            raise BaseModelError(f"{problem}: {name} is {value.dtype}, expected {expected.dtype}")


def _check_finite(state: Mapping[str, Tensor], path: str) -> None:
    broken = list(_not_finite(state))
    if broken:
        name, count, size = broken[0]
        more = f" (and in {len(broken) - 1} more tensors)" if len(broken) > 1 else ""
        raise BaseModelError(
            f"weights: '{path}' holds values that are not finite: {count:,} of {size:,} in {name}{more}"
        )


def _not_finite(state: Mapping[str, Tensor]) -> Iterator[tuple[str, int, int]]:
    for name, value in state.items():
        count = value.numel() - int(torch.isfinite(value).sum())
        if count:
            yield name, count, value.numel()
