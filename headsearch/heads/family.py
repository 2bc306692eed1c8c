"""A family of heads: its parameters, declared once, and how to build one of its blocks.

The declaration needs no torch, so that spaces can be read, checked and sampled in milliseconds; `block` imports torch and timm
when it is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from headsearch.base.info import BaseInfo
from headsearch.errors import HeadError
from headsearch.heads.config import SET, Params, Scalar
from headsearch.registry import Entry

if TYPE_CHECKING:
    from torch import nn

_OF_ALL = {"depth": "int", "first_shortcut": "bool", "drop_path": "float"}
"""Parameters that every family has, with their kinds: `headsearch.heads.COMMON_PARAMETERS`."""
_WORDS = ("choice", "int", "float", "one_of", "stack", SET, "ref", "same", "none", "paper")
"""Words of the language of spaces, and names of stages that are no family. No family may have one of these names."""

Resolve = Callable[[Params, BaseInfo], Params]
"""Replaces what depends on the base (null defaults, clamps). Raises `HeadError` where the base cannot carry the head."""


@dataclass(frozen=True)
class Parameter:
    """One knob of a family."""

    name: str
    kind: Literal["int", "float", "bool", "str"]
    default: Scalar
    doc: str
    """One line, for `--help`, the JSON Schema and the docs."""
    low: float | None = None
    """Smallest value allowed (int and float)."""
    high: float | None = None
    """Largest value allowed (int and float)."""
    choices: tuple[Scalar, ...] | None = None
    """The only values allowed, where the family knows just these."""
    nullable: bool = False
    """Whether null is allowed: the family then derives the value from the base."""
    slug: str | None = None
    """What stands before the value in a head's readable name (`k` in `convnext-d3-k7`); None leaves the value out.
    A float, and what was `added_later`, is named only where it is not the default."""
    added_later: bool = False
    """Whether heads had names before the family got it. At its default it is then left out of the names and hashes of heads, and of the hashes of
    spaces, so that they stay as they were."""

    def check(self) -> None:
        """Look for bounds that are missing or do not hold the default. Raises `ValueError`."""
        numeric = self.kind in ("int", "float")
        if self.kind not in ("int", "float", "bool", "str"):
            raise ValueError(
                f"parameter {self.name} is of kind {self.kind!r}; expected int, float, bool or str"
            )
        if (
            self.kind != "bool"
            and self.choices is None
            and not (numeric and None not in (self.low, self.high))
        ):
            bounds = "low and high, or choices" if numeric else "choices"
            raise ValueError(f"parameter {self.name} has no bounds; expected {bounds}")
        if not self._allows(self._normal(self.default)):
            raise ValueError(
                f"parameter {self.name} has the default {self.default!r}, which it does not allow"
            )
        if not self.doc:
            raise ValueError(f"parameter {self.name} has no doc; expected a line that says what it is")

    def validated(self, value: object, family: str) -> Scalar:
        """The value as this parameter's type (7.0 becomes 7 where an integer is due).

        Raises:
            HeadError: it is not allowed; the message calls it a parameter of `family`, and says what was expected.
        """
        normal = self._normal(value)
        if (normal is None and value is not None) or not self._allows(normal):
            raise HeadError(f"{family}.{self.name} is {_shown(value)}: expected {self._expected()}")
        return normal

    def _normal(self, value: object) -> Scalar:
        """The value as the parameter's type, or None where it is of another."""
        if self.kind in ("bool", "str"):
            return value if isinstance(value, bool if self.kind == "bool" else str) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            return None
        if self.kind == "float":
            return float(value)
        return int(value) if value == int(value) else None

    def _allows(self, normal: Scalar) -> bool:
        if normal is None:
            return self.nullable
        if self.choices is not None:
            return normal in self.choices
        if isinstance(normal, bool | str):
            return True
        return (self.low is None or self.low <= normal) and (self.high is None or normal <= self.high)

    def _expected(self) -> str:
        if self.choices is not None:
            text = f"one of {', '.join(map(_shown, self.choices))}"
        else:
            text = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "a text"}[
                self.kind
            ]
            if self.low is not None and self.high is not None:
                text += f" from {self.low:g} to {self.high:g}"
        return f"{text}, or null" if self.nullable else text


def _shown(value: object) -> str:
    """A value as YAML has it."""
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else str(value) if isinstance(value, int | float) else repr(value)


@dataclass(frozen=True)
class BlockSpec:
    """What a family needs to build one block."""

    width: int
    """Channels in and out."""
    grid: tuple[int, int]
    """Height and width of the feature map, in positions."""
    index: int
    """Position of the block within its stage."""
    shortcut: bool
    """Whether the block keeps its residual; False only for the first block of a stage with `first_shortcut: false`."""
    params: Params
    """The stage's parameters, resolved for the base."""

    def __getitem__(self, name: str) -> Any:
        """A parameter's value."""
        return self.params[name]

    @property
    def positions(self) -> int:
        """How many the map has."""
        return self.grid[0] * self.grid[1]

    @property
    def drop_path(self) -> float:
        """Probability of dropping a residual branch. A block without a shortcut has nothing to fall back on, and drops nothing."""
        return float(self["drop_path"]) if self.shortcut else 0.0


@dataclass(frozen=True)
class Family(Entry):
    """A kind of block that heads are made of. All have `depth`, `first_shortcut` and `drop_path`."""

    doc: str
    """One line: what inductive bias it brings. With its source."""
    parameters: tuple[Parameter, ...]
    layout: Literal["BCHW", "BHWC", "BNC"]
    """Memory layout its blocks work in; the head converts once per stage."""
    block: Callable[[BlockSpec], nn.Module]
    """Builds one block: a module from a feature map in `layout` to one of the same shape."""
    grid_bound: bool = False
    """Whether a built block is tied to one grid size (mixer-like families)."""
    simplify: Callable[[Params], tuple[str, Params]] | None = None
    """Maps parameters to the canonical (family, parameters) of the same network: drops what has no effect, resolves aliases."""
    resolve: Resolve | None = None
    """See `Resolve`."""

    @property
    def by_name(self) -> dict[str, Parameter]:
        """The parameters by name, in their order."""
        return {parameter.name: parameter for parameter in self.parameters}

    @property
    def later(self) -> dict[str, Scalar]:
        """The defaults of parameters that were `added_later`, by name."""
        return {parameter.name: parameter.default for parameter in self.parameters if parameter.added_later}

    def check(self) -> None:
        """Look for what would go wrong only later: a missing parameter, no bounds. Raises `ValueError`."""
        if self.name in _WORDS:
            raise ValueError("a word of the language of spaces; choose another name")
        if self.layout not in ("BCHW", "BHWC", "BNC"):
            raise ValueError(f"layout is {self.layout!r}; expected BCHW, BHWC or BNC")
        kinds = {parameter.name: parameter.kind for parameter in self.parameters}
        for name, kind in _OF_ALL.items():
            if kinds.get(name) != kind:
                raise ValueError(
                    f"no parameter {name} of kind {kind}; expected parameters to begin with *headsearch.heads.COMMON_PARAMETERS"
                )
        if len(kinds) != len(self.parameters):
            raise ValueError("two parameters of one name")
        for parameter in self.parameters:
            parameter.check()
