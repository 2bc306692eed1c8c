"""From the nodes of a YAML file to the tree of a space. Every word is checked, every definition resolved, every mistake located."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from itertools import chain, repeat

from headsearch.document import ListNode, MapNode, Node, ScalarNode, Where, describe, shorten
from headsearch.errors import HeadError, did_you_mean
from headsearch.heads import FAMILIES, HeadConfig, canonical, head_id
from headsearch.heads.config import SET, Scalar
from headsearch.heads.family import Family, Parameter
from headsearch.heads.registry import PRESETS
from headsearch.space.domains import Choice, Fixed, Integer, Real, scalar_text
from headsearch.space.tree import (
    Blocks,
    HeadNode,
    OneOf,
    SetOf,
    SharedHead,
    SharedValue,
    Source,
    Stack,
    children,
    distinct_nodes,
    domain_of,
    literal_head,
)
from headsearch.space.values import (
    HEAD_KINDS,
    NAME_KINDS,
    VALUE_KINDS,
    keyword_of,
    named_by_same,
    read_choice,
    read_integer,
    read_real,
)

MAX_DEFINITIONS = 200
MAX_NODES = 5_000
MAX_LEVELS = 40
MAX_SLOTS = 32
MAX_MEMBERS = 8
"""Heads of a set: every one of them is trained at every step."""
MAX_STAGES = 128

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NUMBERED = re.compile(r"(slot|member)\d+")


class TreeParser:
    """Builds trees from nodes, given the definitions of the file."""

    def __init__(self, definitions: MapNode | None) -> None:
        self.stages = (*FAMILIES, *PRESETS)
        """What a stage may be called: a family, or one with parameters of its own."""
        self.definitions: dict[str, Node] = {}
        self.resolving: list[str] = []
        self.heads: dict[str, HeadNode] = {}
        self.shared_heads: dict[str, SharedHead] = {}
        self.shared_names: set[str] = set()
        self.sizes: dict[int, tuple[int, int, int]] = {}
        if definitions is not None:
            self._define(definitions)

    def _define(self, node: MapNode) -> None:
        words = ("family", "repeat", "size", "each", "default", "none")
        reserved = {*VALUE_KINDS, *HEAD_KINDS, *NAME_KINDS, *words}
        if len(node.items) > MAX_DEFINITIONS:
            raise node.where.error(f"{len(node.items)} definitions; expected at most {MAX_DEFINITIONS}")
        for name, where in node.keys.items():
            if not _NAME.fullmatch(name):
                raise where.error(
                    f"'{shorten(name)}' as the name of a definition; expected letters, digits and underscores"
                )
            if name in FAMILIES:
                raise where.error(f"the definition '{name}' has the name of a family; expected another name")
            if name in reserved or _NUMBERED.fullmatch(name):
                raise where.error(f"the definition '{name}' has a reserved name; expected another name")
        self.definitions = dict(node.items)

    def parse(self, head: Node) -> HeadNode:
        """The tree of the whole space; checks definitions that nothing uses, too."""
        self.shared_names = {
            name for node in (head, *self.definitions.values()) for name in named_by_same(node)
        }
        kinds = {name: self._kind_of_definition(name, node.where) for name, node in self.definitions.items()}
        tree = self.head(head)
        for name, node in self.definitions.items():
            if kinds[name] == "head":
                self._defined_head(name, node.where)
            else:
                self._defined_value(name, node.where)
        return tree

    # --- heads

    def head(self, node: Node) -> HeadNode:
        """The tree of a node that stands for a head."""
        if not isinstance(node, MapNode):
            hint = ""
            if isinstance(node, ScalarNode) and node.value in self.stages:
                hint = f"; did you mean {{{node.value}: {{}}}}?"
            raise node.where.error(
                f"{describe(node)} as a head; expected a family with its parameters, one_of, stack, set, ref or same{hint}"
            )
        keyword = keyword_of(node, (*HEAD_KINDS, *NAME_KINDS), self.stages, "head")
        if keyword in VALUE_KINDS:
            raise node.keys[keyword].error(
                f"'{keyword}' draws a value, and a head is expected here; expected one_of, with a list of heads"
            )
        if keyword == "one_of":
            tree: HeadNode = self._one_of(node)
        elif keyword == "stack":
            tree = self._stack(node.items["stack"])
        elif keyword == SET:
            tree = self._set(node.items[SET])
        elif keyword == "ref":
            return self._defined_head(*self._name_in(node, keyword))
        elif keyword == "same":
            name, where = self._name_in(node, keyword)
            target = self._defined_head(name, where)
            tree = self.shared_heads.setdefault(name, SharedHead(name, target))
        else:
            tree = self._blocks(keyword, node)
        self._bound(tree, node.where)
        return tree

    def _bound(self, tree: HeadNode, where: Where) -> None:
        """Refuse a tree that definitions have made too large: a short text may stand for a huge tree."""
        below = [self.sizes[id(child)] for child in children(tree)]
        nodes = 1 + sum(size[0] for size in below)
        levels = 1 + max((size[1] for size in below), default=0)
        stages = max((size[2] for size in below), default=1)
        if isinstance(tree, Stack):
            stages *= max(int(value or 0) for value in domain_of(tree.repeat).values())
        if nodes > MAX_NODES:
            raise where.error(f"{nodes} heads once definitions are put in; expected at most {MAX_NODES}")
        if levels > MAX_LEVELS:
            raise where.error(
                f"heads nested {levels} deep once definitions are put in; expected at most {MAX_LEVELS}"
            )
        if stages > MAX_STAGES:
            raise where.error(f"a head of up to {stages} stages; expected at most {MAX_STAGES}")
        self.sizes[id(tree)] = nodes, levels, stages

    def _one_of(self, node: MapNode) -> OneOf:
        items = node.items["one_of"]
        if not isinstance(items, ListNode) or not items.items:
            wrong = "an empty list" if isinstance(items, ListNode) else describe(items)
            raise items.where.error(f"{wrong} under 'one_of'; expected a list of at least one head")
        branches: list[HeadNode] = []
        labels: list[str] = []
        for item in items.items:
            branch = self.head(item)
            # A shared head's decisions bear its own name; no other branch may take that for its decisions.
            taken = {*labels} if isinstance(branch, SharedHead) else {*labels, *self.shared_names}
            label = name = self._label(item)
            number = 2
            while label in taken:
                label, number = f"{name}#{number}", number + 1
            branches.append(branch)
            labels.append(label)
        default: int | None = None
        if "default" in node.items:
            wanted = node.items["default"]
            if not isinstance(wanted, ScalarNode) or wanted.value not in labels:
                tail = did_you_mean(str(wanted.value), labels) if isinstance(wanted, ScalarNode) else ""
                raise wanted.where.error(f"{describe(wanted)} as the default is not among the heads{tail}")
            default = labels.index(str(wanted.value))
        return OneOf(Choice(tuple(labels), default), tuple(branches))

    def _label(self, item: Node) -> str:
        assert isinstance(item, MapNode)
        keyword = keyword_of(item, (*HEAD_KINDS, *NAME_KINDS), self.stages, "head")
        return self._name_in(item, keyword)[0] if keyword in NAME_KINDS else keyword

    def _stack(self, node: Node) -> Stack:
        if not isinstance(node, MapNode):
            raise node.where.error(f"{describe(node)} under 'stack'; expected 'repeat' and 'each'")
        source, _ = self._number(node, "stack", "repeat", MAX_SLOTS)
        return Stack(source, self._single_head(node.items["each"], "stack"))

    def _set(self, node: Node) -> SetOf:
        if isinstance(node, MapNode):
            source, most = self._number(node, SET, "size", MAX_MEMBERS)
            items = (node.items["each"],) * most
        elif isinstance(node, ListNode) and 1 <= len(node.items) <= MAX_MEMBERS:
            source, items = Fixed(len(node.items)), node.items
        else:
            wrong = f"a list of {len(node.items)}" if isinstance(node, ListNode) else describe(node)
            raise node.where.error(
                f"{wrong} under 'set'; expected a list of 1 to {MAX_MEMBERS} heads, or 'size' and 'each'"
            )
        slots: list[HeadNode] = []
        known: list[HeadConfig | str] = []
        for item in items:
            slot = slots[0] if isinstance(node, MapNode) and slots else self._single_head(item, SET)
            head = _always(slot)
            if head is not None and head in known:
                name = head if isinstance(head, str) else head_id(head)
                raise item.where.error(
                    f"a set that names the same head twice: {name}; expected heads that differ"
                )
            slots.append(slot)
            known += [head] if head is not None else []
        return SetOf(source, tuple(slots))

    def _single_head(self, node: Node, what: str) -> HeadNode:
        """The tree of a head that cannot be a set, because it is a part of a set or a stack."""
        tree = self.head(node)
        if any(isinstance(found, SetOf) for found in distinct_nodes(tree)):
            raise node.where.error(f"a set inside a {what}; expected single heads")
        return tree

    def _number(self, node: MapNode, what: str, key: str, most: int) -> tuple[Source, int]:
        """How many slots a stack or set has, and the most of them; checks that it has both its keys."""
        node.refuse_unknown((key, "each"), "key", f" of {what}")
        for needed in (key, "each"):
            if needed not in node.items:
                raise node.where.error(
                    f"a {what} without '{needed}'; expected '{key}' (how many) and 'each' (the head in every slot)"
                )
        source = self.value(node.items[key])
        domain = domain_of(source)
        where = node.items[key].where
        if isinstance(domain, Real) or domain.count is None or domain.count > most:
            raise where.error(f"'{key}' is {domain}; expected whole numbers from 1 to {most}")
        largest = 1
        for value in domain.values():
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                raise where.error(
                    f"'{key}' may be {scalar_text(value)}; expected whole numbers from 1 to {most}"
                )
            largest = max(largest, value)
        return source, largest

    def _blocks(self, name: str, node: MapNode) -> Blocks:
        family_name, preset = PRESETS.get(name, (name, {}))
        family = FAMILIES[family_name]
        body = node.items[name]
        if isinstance(body, ScalarNode) and body.value is None:
            body = MapNode({}, body.where, {})
        if not isinstance(body, MapNode):
            raise body.where.error(
                f"{describe(body)} under '{name}'; expected a mapping of its parameters, or {{}} for its defaults"
            )
        body.refuse_unknown([parameter.name for parameter in family.parameters], "parameter", f" of {name}")
        sources = tuple(
            (
                p.name,
                self._parameter(family, p, body.items[p.name])
                if p.name in body.items
                else Fixed(preset.get(p.name, p.default)),
            )
            for p in family.parameters
        )
        return Blocks(family_name, sources, tuple(parameter.default for parameter in family.parameters))

    # --- values

    def _parameter(self, family: Family, parameter: Parameter, node: Node) -> Source:
        """The domain of a parameter, every value of which the family allows."""
        source = self.value(node)
        domain = domain_of(source)
        if (
            isinstance(domain, Real)
            and domain.count is None
            and (parameter.kind != "float" or parameter.choices is not None)
        ):
            expected = (
                "one of its choices" if parameter.choices is not None else f"a value of kind {parameter.kind}"
            )
            raise node.where.error(
                f"{family.name}.{parameter.name} is drawn from {domain}; expected {expected}"
            )
        values, positions = domain.values(), _positions(node)
        if isinstance(domain, Integer):
            if parameter.choices is None:
                values = iter((domain.low, domain.high))
            else:
                positions = []
        checked: list[Scalar] = []
        for value, position in zip(values, chain(positions, repeat(node.where)), strict=False):
            try:
                checked.append(parameter.validated(value, family.name))
            except HeadError as error:
                choices = map(str, parameter.choices or ())
                near = did_you_mean(value, choices) if isinstance(value, str) else ""
                raise position.error(f"{error}{near if 'did you mean' in near else ''}") from None
        if isinstance(source, Fixed):
            return Fixed(checked[0])
        return Choice(tuple(checked), source.default) if isinstance(source, Choice) else source

    def value(self, node: Node) -> Source:
        """The domain of a node that stands for a value."""
        if isinstance(node, ScalarNode):
            return Fixed(node.value)
        if isinstance(node, ListNode):
            raise node.where.error("a list as a value; expected {choice: […]} to draw one of several")
        keyword = keyword_of(node, (*VALUE_KINDS, *NAME_KINDS), self.stages, "value")
        if keyword in NAME_KINDS:
            name, where = self._name_in(node, keyword)
            domain = self._defined_value(name, where)
            if keyword == "ref" or isinstance(domain, SharedValue):
                return domain
            return SharedValue(name, domain)
        if keyword not in VALUE_KINDS:
            raise node.keys[keyword].error(
                f"'{keyword}' is a head, and a value is expected here; expected a literal, choice, int or float"
            )
        if keyword == "choice":
            return read_choice(node)
        return read_integer(node) if keyword == "int" else read_real(node)

    # --- definitions

    def _name_in(self, node: MapNode, keyword: str) -> tuple[str, Where]:
        """The name of a definition that `{ref: name}` or `{same: name}` refers to."""
        target = node.items[keyword]
        if not isinstance(target, ScalarNode) or not isinstance(target.value, str):
            raise target.where.error(
                f"{describe(target)} under '{keyword}'; expected the name of a definition"
            )
        if target.value not in self.definitions:
            known = did_you_mean(target.value, self.definitions) or "; nothing is defined under 'define'"
            raise target.where.error(f"'{shorten(target.value)}' is not defined{known}")
        return target.value, target.where

    @contextlib.contextmanager
    def _resolving(self, name: str, where: Where) -> Iterator[None]:
        """Mark a definition as being resolved; meeting it again meanwhile is a cycle."""
        names = self.resolving
        if name in names:
            raise where.error(
                f"definitions go round in a circle: {' → '.join([*names[names.index(name) :], name])}; expected an end"
            )
        if len(names) >= MAX_LEVELS:
            raise where.error(f"definitions refer to each other more than {MAX_LEVELS} deep")
        names.append(name)
        try:
            yield
        finally:
            names.pop()

    def _kind_of_definition(self, name: str, where: Where) -> str:
        """`value` or `head`, following references; a cycle is an error."""
        with self._resolving(name, where):
            node = self.definitions[name]
            if not isinstance(node, MapNode):
                return "value"
            keyword = keyword_of(node, (*VALUE_KINDS, *HEAD_KINDS, *NAME_KINDS), self.stages, "definition")
            if keyword in NAME_KINDS:
                return self._kind_of_definition(*self._name_in(node, keyword))
            return "value" if keyword in VALUE_KINDS else "head"

    def _defined_head(self, name: str, where: Where) -> HeadNode:
        if name not in self.heads:
            if self._kind_of_definition(name, where) != "head":
                raise where.error(f"'{name}' is defined as a value, and a head is expected here")
            with self._resolving(name, where):
                self.heads[name] = self.head(self.definitions[name])
        return self.heads[name]

    def _defined_value(self, name: str, where: Where) -> Source:
        if self._kind_of_definition(name, where) != "value":
            raise where.error(f"'{name}' is defined as a head, and a value is expected here")
        with self._resolving(name, where):
            return self.value(self.definitions[name])


def _always(tree: HeadNode) -> HeadConfig | str | None:
    """What a tree always is, where that is known: the canonical form of its one head, or the name of a shared draw."""
    head = literal_head(tree)
    if head is not None:
        return canonical(head)
    return tree.name if isinstance(tree, SharedHead) else None


def _positions(node: Node) -> list[Where]:
    """Where the values of a domain stand, in the order that the domain lists them; empty where they are defined elsewhere."""
    if not isinstance(node, MapNode):
        return [node.where]
    for keyword in VALUE_KINDS:
        listed = node.items.get(keyword)
        if isinstance(listed, ListNode):
            return [item.where for item in listed.items]
    return []
