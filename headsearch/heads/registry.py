"""The families of heads by name, and the reading of head descriptions against their declarations. No torch here.

A new family is one file beside this one and its name in `_MODULES`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from headsearch.errors import HeadError, did_you_mean
from headsearch.heads import (
    convnext,
    gmlp,
    mbconv,
    metaformer,
    mixer,
    mlp,
    poolformer,
    resmlp,
    resnet,
    swin,
    vit,
)
from headsearch.heads.config import SET, HeadConfig, Params, Scalar, Stage
from headsearch.heads.family import Family, Parameter
from headsearch.registry import Registry

_MODULES = (convnext, resnet, mbconv, vit, swin, mixer, resmlp, gmlp, poolformer, metaformer, mlp)

FAMILIES: Registry[Family] = Registry(Family, "family", (module.FAMILY for module in _MODULES))
"""Every family, by the name that spaces and head files use."""


PRESETS: Mapping[str, tuple[str, Params]] = {"paper": ("convnext", {"first_shortcut": False})}
"""Stages that have a name of their own, by that name: a family, and the parameters in which they differ from its defaults. `paper` is the head of the
HSSL authors' code: ConvNeXt blocks with kernel 7 and MLP ratio 4, no LayerScale, the first of them without a shortcut. Descriptions of heads and spaces
know them; what is recorded is the family."""


def family(name: str) -> Family:
    """The family of that name. Raises `HeadError` naming the nearest."""
    if name not in FAMILIES:
        raise HeadError(f"unknown family of heads '{name}'{did_you_mean(name, FAMILIES)}")
    return FAMILIES[name]


def declared(name: str) -> dict[str, Parameter]:
    """The parameters of a family by name; none of one that is not known here, of a plug-in that a run had."""
    return FAMILIES[name].by_name if name in FAMILIES else {}


def validate_stage(family_name: str, params: Mapping[str, Any]) -> Stage:
    """A stage with every parameter of the family, defaults filled in and values checked.

    Raises `HeadError` naming the parameter, the value and what is allowed.
    """
    declared = family(family_name).by_name
    for name in params:
        if name not in declared:
            raise HeadError(f"{family_name} has no parameter '{name}'{did_you_mean(str(name), declared)}")
    return Stage(
        family_name,
        {
            name: parameter.validated(params[name], family_name) if name in params else parameter.default
            for name, parameter in declared.items()
        },
    )


def parse_head(data: object, *, recorded: bool = False) -> HeadConfig:
    """The inverse of `HeadConfig.to_dict`: null, `{family: params}`, a list of those, or `{"set": [...]}`. Raises `HeadError`.

    `recorded`: of a run, which may have had families of plug-ins; those that are not known here are taken as they stand.

    >>> parse_head({"vit": {"depth": 1}}).stages[0].params["mlp_ratio"]
    4.0
    >>> parse_head({"set": [{"vit": {"depth": 1}}, {"mixer": {"depth": 2}}]}).depth
    3
    """
    if data is None:
        return HeadConfig()
    if isinstance(data, Mapping) and list(data) == [SET]:
        return _parse_set(data[SET], recorded)
    items = data if isinstance(data, list) else [data]
    return HeadConfig(tuple(_parse_stage(item, recorded) for item in items))


def _parse_set(items: object, recorded: bool) -> HeadConfig:
    if not isinstance(items, list) or not items:
        raise HeadError(f"the heads of a set are a list of at least one, not {items!r}")
    members = tuple(parse_head(item, recorded=recorded) for item in items)
    for member in members:
        if not member.stages:
            raise HeadError(f"a set is of single heads; got {member.to_dict()!r} in one")
    return HeadConfig(members=members)


def _parse_stage(item: object, recorded: bool) -> Stage:
    if isinstance(item, str):
        item = {item: {}}
    if not isinstance(item, Mapping) or len(item) != 1:
        raise HeadError(
            f"a head is {{family: parameters}}, a list of those, {{{SET}: [...]}}, or null; got {item!r}"
        )
    [(name, params)] = item.items()
    if name == SET:
        raise HeadError("a set stands alone: it cannot be a part of a head with several stages")
    if not isinstance(name, str):
        raise HeadError(f"a family of heads is a name, not {name!r}")
    if params is not None and not isinstance(params, Mapping):
        raise HeadError(f"the parameters of {name} are a mapping of names to values, not {params!r}")
    if recorded and name not in FAMILIES and _are_scalars(params):
        return Stage(name, params)
    if name in PRESETS:
        name, preset = PRESETS[name]
        params = {**preset, **(params or {})}
    return validate_stage(name, params or {})


def _are_scalars(params: Mapping[Any, Any] | None) -> TypeGuard[Params]:
    """Whether these may be parameters that some family once declared: `depth` is among those of all."""
    return (
        params is not None
        and isinstance(params.get("depth"), int)
        and all(isinstance(name, str) and isinstance(value, Scalar) for name, value in params.items())
    )
