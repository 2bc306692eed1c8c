"""The canonical form of a head, and its name: two descriptions of the same network share both. No torch here.

Adjacent stages with the same parameters are one stage, so a head is defined by its sequence of blocks, however the description divides it: Swin's
alternation of shifted windows continues through the whole stage. The members of a set are sorted by name, since their order means nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from headsearch.errors import HeadError
from headsearch.heads.common import MAX_DEPTH
from headsearch.heads.config import SET, HeadConfig, Stage
from headsearch.heads.registry import family, validate_stage

if TYPE_CHECKING:
    from headsearch.base.info import BaseInfo

_LONGEST_SLUG = 48


def canonical(config: HeadConfig, base: BaseInfo | None = None) -> HeadConfig:
    """The one description of the network that `config` builds.

    Defaults are filled in, values normalised, parameters without effect set to their defaults, and adjacent stages of like
    blocks merged. With a base, what depends on it is settled too: the number of attention heads, windows larger than the
    grid, ratios that give the same number of channels. Ids are therefore compared between heads made canonical for one base.
    The members of a set are canonical and sorted; a set of one head is that head.

    Raises `HeadError` for a value that is not allowed, where the base cannot carry the head, and for a set that names the same
    head twice: on one base the second would learn what the first does, at twice the price.
    """
    if config.members:
        return _canonical_set(config, base)
    return HeadConfig(tuple(_merge(_canonical_stage(stage, base) for stage in config)))


def canonical_or_none(config: HeadConfig, base: BaseInfo | None = None) -> HeadConfig | None:
    """The canonical form, or None where `canonical` refuses: for counting what can be built."""
    try:
        return canonical(config, base)
    except HeadError:
        return None


def head_id(config: HeadConfig) -> str:
    """A readable name with a hash, e.g. `convnext-d3-k7-a1b2c3d4` or `set-convnext-d3-k7+mixer-d1-a1b2c3d4`, of a canonical config;
    `none` for the empty head.

    Fit for a file name.
    """
    if not config.heads:
        return "none"
    text = json.dumps(_identity(config), sort_keys=True, separators=(",", ":"))
    return f"{_slug(config)}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _canonical_set(config: HeadConfig, base: BaseInfo | None) -> HeadConfig:
    named = {}
    for member in config.members:
        assert member.stages, "a set is of single heads"
        head = canonical(member, base)
        name = head_id(head)
        if name in named:
            raise HeadError(f"a set that names the same head twice: {name}; expected heads that differ")
        named[name] = head
    if len(named) == 1:
        return next(iter(named.values()))
    return HeadConfig(members=tuple(named[name] for name in sorted(named)))


def _identity(config: HeadConfig) -> Any:
    """What the hash is of: `to_dict` without parameters that families got later, where they are at their defaults."""
    if config.members:
        return {SET: [_identity(member) for member in config.members]}
    stages: list[dict[str, Any]] = []
    for stage in config:
        later = family(stage.family).later
        params = {
            name: value for name, value in stage.params.items() if name not in later or value != later[name]
        }
        stages.append({stage.family: params})
    return stages[0] if len(stages) == 1 else stages


def _canonical_stage(stage: Stage, base: BaseInfo | None) -> Stage:
    stage = validate_stage(stage.family, stage.params)
    simplify = family(stage.family).simplify
    if simplify is not None:
        stage = validate_stage(*simplify(stage.params))
    resolve = family(stage.family).resolve
    if resolve is not None and base is not None:
        stage = validate_stage(stage.family, resolve(stage.params, base))
    return stage


def _merge(stages: Iterable[Stage]) -> Iterator[Stage]:
    """Adjacent stages of like blocks as one, and of more than `MAX_DEPTH` blocks as several."""
    runs: list[tuple[str, dict[str, Any]]] = []
    for stage in stages:
        params = dict(stage.params)
        if params["depth"] == 1 and not params["first_shortcut"]:
            # There is no residual branch to drop: the block goes with any value.
            params["drop_path"] = None
        name, former = runs[-1] if runs else ("", {})
        like = {**params, "depth": former.get("depth"), "first_shortcut": former.get("first_shortcut")}
        follows = name == stage.family and params["first_shortcut"]
        if follows and former in (like, {**like, "drop_path": None}):
            former |= {"depth": former["depth"] + params["depth"], "drop_path": params["drop_path"]}
        else:
            runs.append((stage.family, params))
    for name, params in runs:
        for start in range(0, params["depth"], MAX_DEPTH):
            own = {
                "depth": min(MAX_DEPTH, params["depth"] - start),
                "first_shortcut": params["first_shortcut"] or start > 0,
                "drop_path": params["drop_path"] or 0.0,
            }
            yield validate_stage(name, {**params, **own})


def _slug(config: HeadConfig) -> str:
    if config.members:
        for slugs in (
            map(_slug, config.members),
            (f"{member.family}-d{member.depth}" for member in config.members),
        ):
            slug = f"{SET}-{'+'.join(slugs)}"
            if len(slug) <= _LONGEST_SLUG:
                return slug
        return f"{SET}{len(config.members)}-d{config.depth}"
    if len(config.stages) > 1:
        slug = f"{config.family}-d{config.depth}"
        return slug if len(slug) <= _LONGEST_SLUG else f"stack{len(config.stages)}-d{config.depth}"
    stage = config.stages[0]
    parts = [stage.family]
    for parameter in family(stage.family).parameters:
        value = stage.params[parameter.name]
        if parameter.slug is None or value is None:
            continue
        if value == parameter.default and (parameter.added_later or isinstance(value, float)):
            continue
        parts.append(f"{parameter.slug}{value:g}" if isinstance(value, float) else f"{parameter.slug}{value}")
    if not stage.params["first_shortcut"]:
        parts.append("noshortcut")
    return "-".join(parts)
