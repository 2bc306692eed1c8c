"""The tree of a space, and the one walker that turns decisions into a head.

Definitions are resolved here: `{ref: x}` has become the definition itself, `{same: x}` a node with its name. Sampling, Optuna's suggestions,
enumeration and the default head all use `walk`; they differ only in what decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from headsearch.heads import FAMILIES, validate_stage
from headsearch.heads.config import HeadConfig, Scalar
from headsearch.space.domains import Choice, Domain, Fixed, Integer


@dataclass(frozen=True)
class SharedValue:
    """A value drawn once per head, for all who name it (`{same: name}`)."""

    name: str
    domain: Domain


Source = Domain | SharedValue
"""Where a value comes from."""


def domain_of(source: Source) -> Domain:
    """The values that a source may give."""
    return source.domain if isinstance(source, SharedValue) else source


@dataclass(frozen=True)
class Blocks:
    """Stages of one family. Every parameter of the family is present, those not written as their default."""

    family: str
    parameters: tuple[tuple[str, Source], ...]
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

    repeat: Source
    each: HeadNode


@dataclass(frozen=True)
class SetOf:
    """Heads that are trained on one base at once, each drawn on its own. No set is below it."""

    size: Source
    """How many heads."""
    slots: tuple[HeadNode, ...]
    """As many as `size` may be; a set of fewer takes the first ones. Written as `each`, they are one node many times."""

    @cached_property
    def turns(self) -> tuple[int, ...]:
        """For every slot, how many before it are drawn alike."""
        return tuple(self.slots[:number].count(slot) for number, slot in enumerate(self.slots))


@dataclass(frozen=True)
class SharedHead:
    """A head drawn once and used wherever it is named (`{same: name}`)."""

    name: str
    head: HeadNode


HeadNode = Blocks | OneOf | Stack | SetOf | SharedHead


Pick = Callable[[str, Domain, Scalar], Scalar]
"""Decides: (name, domain, the value to try first where the domain names none) → value."""


def walk(root: HeadNode, pick: Pick) -> HeadConfig:
    """The head that the decisions of `pick` lead to. A decision is asked for only where it matters, and in a fixed order.

    The heads of a set are drawn without regard to each other, so two may coincide; it is the canonical form that refuses such a set.
    """
    return _Walk(pick).head(root, ())


class _Walk:
    """One pass through the tree; remembers what is shared."""

    def __init__(self, pick: Pick) -> None:
        self.pick = pick
        self.shared_values: dict[str, Scalar] = {}
        self.shared_heads: dict[str, HeadConfig] = {}
        self.turn = 0
        """Where the next decisions start from: see `asked`."""

    def value(self, name: str, source: Source, fallback: Scalar) -> Scalar:
        if isinstance(source, Fixed):
            return source.value
        if not isinstance(source, SharedValue):
            return self.asked(name, source, fallback)
        if source.name not in self.shared_values:
            self.shared_values[source.name] = self.value(source.name, source.domain, fallback)
        return self.shared_values[source.name]

    def asked(self, name: str, domain: Domain, fallback: Scalar) -> Scalar:
        """A decision. If several heads of a set are drawn from the same node, the domains of the second, third, … start elsewhere: the number of
        the head is counted off in the values of its decisions, the first decision fastest. If all began with their defaults, they would be one
        head, and no set."""
        if self.turn and isinstance(domain, Choice | Integer):
            self.turn, steps = divmod(self.turn, domain.count or 1)
            domain = domain.starting(fallback, steps)
        return self.pick(name, domain, fallback)

    def head(self, node: HeadNode, path: tuple[str, ...], label: str | None = None) -> HeadConfig:
        """The head of `node`. `label` is its name among the branches of a `one_of`, and names its decisions."""
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
            return HeadConfig((validate_stage(node.family, drawn),))
        inside = (*path, label) if label else path
        if isinstance(node, OneOf):
            chosen = self.asked(".".join((*inside, "family")), node.labels, None)
            position = node.labels.options.index(chosen)
            return self.head(node.branches[position], inside, str(chosen))
        if isinstance(node, SetOf):
            return self.set(node, inside)
        repeat = self.value(".".join((*inside, "repeat")), node.repeat, None)
        assert isinstance(repeat, int)
        slots = [self.head(node.each, (*inside, f"slot{slot}")) for slot in range(1, repeat + 1)]
        return HeadConfig(tuple(stage for slot in slots for stage in slot))

    def set(self, node: SetOf, inside: tuple[str, ...]) -> HeadConfig:
        size = self.value(".".join((*inside, "size")), node.size, None)
        assert isinstance(size, int)
        members = []
        for number, slot in enumerate(node.slots[:size]):
            self.turn = node.turns[number]
            members.append(self.head(slot, (*inside, f"member{number + 1}")))
        self.turn = 0
        return HeadConfig(members=tuple(members))


def enumerate_walks(root: HeadNode) -> Iterator[tuple[HeadConfig, dict[str, Scalar]]]:
    """Every head with its decisions, by depth-first replay: walk, advance the last decision that has values left, walk again.

    There are as many heads as distinct sequences of decisions. No domain is held in memory as a list.
    """
    decided: dict[str, Any] = {}
    left: list[tuple[str, Iterator[Scalar]]] = []
    """What each decision, in order, may still be."""

    def pick(name: str, domain: Domain, fallback: Scalar) -> Scalar:
        if name not in decided:
            left.append((name, domain.values()))
            decided[name] = next(left[-1][1])
        return decided[name]  # type: ignore[no-any-return]

    no_more = object()
    while True:
        yield walk(root, pick), decided.copy()
        while left and (value := next(left[-1][1], no_more)) is no_more:
            del decided[left.pop()[0]]
        if not left:
            return
        decided[left[-1][0]] = value


def children(node: HeadNode) -> tuple[HeadNode, ...]:
    """The heads directly below a node."""
    if isinstance(node, OneOf):
        return node.branches
    if isinstance(node, Stack):
        return (node.each,)
    if isinstance(node, SetOf):
        return node.slots
    return (node.head,) if isinstance(node, SharedHead) else ()


def values_of(node: HeadNode) -> tuple[Source, ...]:
    """The values drawn by a node itself, the choice among branches left out."""
    if isinstance(node, Blocks):
        return tuple(source for _, source in node.parameters)
    if isinstance(node, SetOf):
        return (node.size,)
    return (node.repeat,) if isinstance(node, Stack) else ()


def literal_head(root: HeadNode) -> HeadConfig | None:
    """The one head of a tree that leaves nothing to decide, else None."""
    nodes = distinct_nodes(root)
    if any(isinstance(node, OneOf) for node in nodes):
        return None
    if not all(isinstance(domain_of(source), Fixed) for node in nodes for source in values_of(node)):
        return None
    return walk(root, lambda name, domain, fallback: domain.first(fallback))


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
        later = {name: Fixed(default) for name, default in FAMILIES[node.family].later.items()}
        return {
            node.family: {
                name: _value_data(source)
                for name, source in sorted(node.parameters, key=lambda p: p[0])
                if source != later.get(name)
            }
        }
    if isinstance(node, Stack):
        return {"repeat": _value_data(node.repeat), "each": node_data(node.each)}
    if isinstance(node, SetOf):
        return {"size": _value_data(node.size), "set": [node_data(slot) for slot in node.slots]}
    return {"one_of": node.labels.to_data(), "branches": [node_data(branch) for branch in node.branches]}


def _value_data(source: Source) -> Any:
    meaning = domain_of(source).to_data()
    return {"same": source.name, "of": meaning} if isinstance(source, SharedValue) else meaning
