"""The self-supervised methods, by name. Importing this needs no torch; building a method does.

A new method is one file beside this one, with its options, its recipe and its module, and its name in `_MODULES`; or a plug-in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headsearch.errors import ExperimentError, did_you_mean
from headsearch.methods import barlow, byol, dino, dinov2, ibot, ijepa, mae, mocov3, simclr, simmim, vicreg
from headsearch.methods.options import MethodEntry, MethodOptions, MethodRecipe
from headsearch.options import checked_options
from headsearch.registry import Registry

if TYPE_CHECKING:
    from headsearch.methods.method import Method

__all__ = ["METHODS", "MethodEntry", "MethodOptions", "MethodRecipe", "build_method", "check_method"]


_MODULES = (barlow, byol, dino, dinov2, ibot, ijepa, mae, mocov3, simclr, simmim, vicreg)

METHODS: Registry[MethodEntry] = Registry(MethodEntry, "method", (module.METHOD for module in _MODULES))
"""Every method by the name that experiments use."""


def check_method(name: str, options: Mapping[str, Any]) -> MethodOptions:
    """The options of a method, checked and completed. Needs no torch.

    >>> check_method("mocov3", {"temperature": 0.1}).temperature
    0.1

    Raises:
        ExperimentError: an unknown method or option (the nearest known one is named), or a value out of bounds.
    """
    if name not in METHODS:
        raise ExperimentError(f"method.name: unknown method '{name}'{did_you_mean(name, METHODS)}")
    return checked_options(METHODS[name].options, options, "method.kwargs", name)


def build_method(name: str, *, width: int, **options: Any) -> Method:
    """Build a method for a base of the given width (channels), from which sizes that are not chosen are derived.

    Raises:
        ExperimentError: as `check_method`.
    """
    checked = check_method(name, options)
    return METHODS[name].define()(width, checked)
