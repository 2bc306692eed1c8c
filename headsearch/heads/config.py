"""What a head is, as data: a sequence of stages, each a family with its parameters, or a set of such heads. No torch here.

`HeadConfig` is what the space draws, what a trial trains, what `head.yaml` records. The empty head (no stages) is the
identity: it is how the control `none`, plain self-supervised learning, is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Scalar = bool | int | float | str | None

Params = Mapping[str, Any]
"""The parameters of a stage by name, each a `Scalar`. They are checked once, when they are read (`registry.validate_stage`)."""

SET = "set"
"""What spaces and head files call a set of heads. No family may have that name."""


@dataclass(frozen=True)
class Stage:
    """A run of like blocks."""

    family: str
    """Name of a registered family, e.g. `convnext`."""
    params: Params = field(default_factory=dict)
    """Every parameter of the family by name; `depth` is the number of blocks."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "params", MappingProxyType(dict(self.params)))

    def __hash__(self) -> int:
        return hash((self.family, tuple(sorted(self.params.items(), key=lambda item: item[0]))))

    def __reduce__(self) -> tuple[Any, ...]:
        return Stage, (self.family, dict(self.params))


@dataclass(frozen=True)
class HeadConfig:
    """A candidate auxiliary head."""

    stages: tuple[Stage, ...] = ()
    """In the order the feature map passes through them; empty for the control `none`, and for a set."""
    members: tuple[HeadConfig, ...] = ()
    """Of a set: heads that are trained on one base at once, each on the base's own feature map. Empty for a single head."""

    def __post_init__(self) -> None:
        assert not (self.stages and self.members), "a head has stages or members, not both"

    @property
    def heads(self) -> tuple[HeadConfig, ...]:
        """The single heads to train: the members of a set, this head alone, or none."""
        return self.members or ((self,) if self.stages else ())

    def __iter__(self) -> Iterator[Stage]:
        """The stages of a single head; a set has none of its own, its members have."""
        return iter(self.stages)

    @property
    def depth(self) -> int:
        """Number of blocks in all; of a set, over all its members."""
        return sum(int(stage.params.get("depth", 1) or 0) for head in self.heads for stage in head)

    @property
    def family(self) -> str:
        """The family, `none` for the empty head, or the families joined by `+` in order of first appearance.

        Of a set the families of its members, e.g. `set(convnext|mixer)`: every member is named, also where two are of one family.
        """
        if self.members:
            return f"{SET}({'|'.join(member.family for member in self.members)})"
        return "+".join(dict.fromkeys(stage.family for stage in self.stages)) or "none"

    def to_dict(self) -> dict[str, Any] | list[dict[str, Any]] | None:
        """Plain data for YAML and JSON: `None`, `{family: params}`, a list of those for several stages, or `{"set": [...]}`."""
        if self.members:
            return {SET: [member.to_dict() for member in self.members]}
        stages: list[dict[str, Any]] = [{stage.family: dict(stage.params)} for stage in self.stages]
        if not stages:
            return None
        return stages[0] if len(stages) == 1 else stages
