"""The tree of a space, and the one walker that turns decisions into a head.

Definitions are resolved by now: `{ref: x}` has become the definition itself, `{same: x}` a node that carries its name. Sampling,
Optuna's suggestions, enumeration and the default head all go through `walk`; they differ only in who decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from headsearch.heads import validate_stage
from headsearch.heads.config import HeadConfig, Scalar, Stage
from headsearch.space.domains import Choice, Domain, Fixed


@dataclass(frozen=True)
class SharedValue:
    """A value drawn once per head, for all who name it (`{same: name}`)."""

    name: str
    domain: Domain


@dataclass(frozen=True)
class Blocks:
    """Stages of one family. Every parameter of the family is present, those not written as their default."""

    family: str
    parameters: tuple[tuple[str, Domain | SharedValue], ...]
    defaults: tuple[Scalar, ...]
    """The family's own default of each parameter."""


@dataclass(frozen=True)
class OneOf:
    """Exactly one of several heads; the parameters of the others do not exist."""

    labels: Choice
    """A distinct name for each branch, and which is tried first."""
    branches: tuple[HeadNode, ...]


@dataclass(frozen=True)
class Stack:
    """A sequence of heads, each slot drawn on its own."""

    repeat: Domain | SharedValue
    each: HeadNode


@dataclass(frozen=True)
class SharedHead:
    """A head drawn once and used wherever it is named (`{same: name}`)."""

    name: str
    head: HeadNode


HeadNode = Blocks | OneOf | Stack | SharedHead


def families_of(node: HeadNode) -> frozenset[str]:
    """Every family that a head below `node` may have."""
    if isinstance(node, Blocks):
        return frozenset({node.family})
    if isinstance(node, OneOf):
        return frozenset().union(*map(families_of, node.branches))
    return families_of(node.each if isinstance(node, Stack) else node.head)


Pick = Callable[[str, Domain, Scalar], Scalar]
"""Decides: (name, domain, the value to try first where the domain names none) → value."""


def walk(root: HeadNode, pick: Pick) -> HeadConfig:
    """The head that the decisions of `pick` lead to. A decision is asked for only where it matters, and in a fixed order."""
    return HeadConfig(_Walk(pick).head(root, ()))


class _Walk:
    """One pass through the tree; remembers what is shared."""

    def __init__(self, pick: Pick) -> None:
        self.pick = pick
        self.shared_values: dict[str, Scalar] = {}
        self.shared_heads: dict[str, tuple[Stage, ...]] = {}

    def value(self, name: str, source: Domain | SharedValue, fallback: Scalar) -> Scalar:
        if isinstance(source, Fixed):
            return source.value
        if not isinstance(source, SharedValue):
            return self.pick(name, source, fallback)
        if source.name not in self.shared_values:
            self.shared_values[source.name] = self.value(source.name, source.domain, fallback)
        return self.shared_values[source.name]

    def head(self, node: HeadNode, path: tuple[str, ...], label: str | None = None) -> tuple[Stage, ...]:
        """Stages of `node`. `label` is its name among the branches of a `one_of`, and names its decisions."""
        if isinstance(node, SharedHead):
            if node.name not in self.shared_heads:
                self.shared_heads[node.name] = self.head(node.head, (), node.name)
            return self.shared_heads[node.name]
        if isinstance(node, Blocks):
            prefix = (*path, label or node.family)
            drawn = {
                name: self.value(".".join((*prefix, name)), source, default)
                for (name, source), default in zip(node.parameters, node.defaults, strict=True)
            }
            return (validate_stage(node.family, drawn),)
        inside = (*path, label) if label else path
        if isinstance(node, OneOf):
            chosen = self.pick(".".join((*inside, "family")), node.labels, None)
            position = node.labels.options.index(chosen)
            return self.head(node.branches[position], inside, str(chosen))
        repeat = self.value(".".join((*inside, "repeat")), node.repeat, None)
        assert isinstance(repeat, int)
        stages: tuple[Stage, ...] = ()
        for slot in range(1, repeat + 1):
            stages += self.head(node.each, (*inside, f"slot{slot}"))
        return stages


def enumerate_walks(root: HeadNode) -> Iterator[HeadConfig]:
    """Every head, by depth-first replay: walk, advance the last decision that has values left, walk again.

    The number of heads is the number of distinct sequences of decisions; a domain is never held in memory as a list.
    """
    replay = _Replay()
    while True:
        replay.position = 0
        yield walk(root, replay.pick)
        if not replay.advance():
            return


class _Replay:
    """Repeats the decisions it holds, and takes the first value of every decision after those."""

    def __init__(self) -> None:
        self.values: list[Iterator[Scalar]] = []
        self.current: list[Scalar] = []
        self.position = 0

    def pick(self, name: str, domain: Domain, fallback: Scalar) -> Scalar:
        if self.position == len(self.current):
            values = domain.values()
            self.values.append(values)
            self.current.append(next(values))
        self.position += 1
        return self.current[self.position - 1]

    def advance(self) -> bool:
        """Move the last decision that has values left to its next value; False when all is done."""
        while self.values:
            for value in self.values[-1]:
                self.current[-1] = value
                return True
            self.values.pop()
            self.current.pop()
        return False


def children(node: HeadNode) -> tuple[HeadNode, ...]:
    """The heads directly below a node."""
    if isinstance(node, OneOf):
        return node.branches
    if isinstance(node, Stack):
        return (node.each,)
    return (node.head,) if isinstance(node, SharedHead) else ()


def values_of(node: HeadNode) -> tuple[Domain | SharedValue, ...]:
    """The values drawn by a node itself, the choice among branches left out."""
    if isinstance(node, Blocks):
        return tuple(source for _, source in node.parameters)
    return (node.repeat,) if isinstance(node, Stack) else ()


def distinct_nodes(root: HeadNode) -> list[HeadNode]:
    """Every node once, children before parents, although definitions may be reached along many ways."""
    found: dict[int, HeadNode] = {}

    def visit(node: HeadNode) -> None:
        if id(node) not in found:
            for child in children(node):
                visit(child)
            found[id(node)] = node

    visit(root)
    return list(found.values())


def node_data(node: HeadNode) -> Any:
    """The meaning of a tree as plain data, for hashing: no comments, no names that merely abbreviate."""
    if isinstance(node, SharedHead):
        return {"same": node.name, "of": node_data(node.head)}
    if isinstance(node, Blocks):
        return {
            node.family: {
                name: _value_data(source) for name, source in sorted(node.parameters, key=lambda p: p[0])
            }
        }
    if isinstance(node, Stack):
        return {"repeat": _value_data(node.repeat), "each": node_data(node.each)}
    return {"one_of": node.labels.to_data(), "branches": [node_data(branch) for branch in node.branches]}


def _value_data(source: Domain | SharedValue) -> Any:
    return (
        {"same": source.name, "of": source.domain.to_data()}
        if isinstance(source, SharedValue)
        else source.to_data()
    )
