"""YAML with positions: reads the text of a space into nodes that know their line and column, and refuses what is not plain data.

Every mistake becomes a `SpaceError` of the form `file:line:column: what is wrong, what was expected`. Only scalars, lists and
mappings with distinct text keys get through: no tags, no anchors (definitions are there for that), no unbounded nesting.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import yaml

from headsearch.errors import SpaceError, did_you_mean
from headsearch.heads.config import Scalar

MAX_CHARACTERS = 1_000_000
MAX_NESTING = 60
MAX_MAGNITUDE = 2**53
"""Whole numbers beyond this are not exact as floating point, which samplers work in."""

_PLAIN_EXPONENT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")


@dataclass(frozen=True)
class Where:
    """A position in a file, counted from 1."""

    filename: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.filename}:{self.line}:{self.column}"

    def error(self, message: str) -> SpaceError:
        """A `SpaceError` that names this position."""
        return SpaceError(f"{self}: {message}")

    def shifted(self, columns: int) -> Where:
        """The position `columns` further on the same line."""
        return Where(self.filename, self.line, self.column + columns)


@dataclass(frozen=True)
class ScalarNode:
    """A number, word, flag or null."""

    value: Scalar
    where: Where
    text_offset: int | None = 0
    """Columns from `where` to the first character of the text; None where text and file do not correspond one to one."""


@dataclass(frozen=True)
class ListNode:
    """A sequence."""

    items: tuple[Node, ...]
    where: Where


@dataclass(frozen=True)
class MapNode:
    """A mapping from text to nodes, in the order written."""

    items: dict[str, Node]
    where: Where
    keys: dict[str, Where]
    """Where each key stands."""

    def refuse_unknown(self, allowed: Iterable[str], what: str, context: str = "") -> None:
        """Raise `SpaceError` at the first key that is not `allowed`: `unknown <what> 'key' <context>`."""
        allowed = list(allowed)
        for key, where in self.keys.items():
            if key not in allowed:
                raise where.error(f"unknown {what} '{key}'{context}{did_you_mean(key, allowed)}")


Node = ScalarNode | ListNode | MapNode


def describe(node: Node) -> str:
    """What a node is, in words for an error message."""
    if isinstance(node, ListNode):
        return "a list"
    if isinstance(node, MapNode):
        return "a mapping"
    if node.value is None:
        return "nothing (null)"
    if isinstance(node.value, bool):
        return f"the flag {str(node.value).lower()}"
    return f"the text '{shorten(node.value)}'" if isinstance(node.value, str) else f"the number {node.value}"


def shorten(text: str, length: int = 60) -> str:
    """`text` on one line, cut to `length` characters."""
    line = " ".join(text.split())
    return line if len(line) <= length else line[: length - 1] + "…"


def read_nodes(text: str, filename: str) -> Node:
    """Parse YAML `text`; `filename` is for messages. Raises `SpaceError`."""
    start = Where(filename, 1, 1)
    if len(text) > MAX_CHARACTERS:
        raise start.error(f"{len(text)} characters; a space has at most {MAX_CHARACTERS}")
    try:
        loader = _Loader(text)
        loader.filename = filename
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = Where(filename, mark.line + 1, mark.column + 1) if mark else start
        raise where.error(f"not valid YAML: {shorten(error.problem or 'cannot be read', 200)}") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        column = error.position - (text.rfind("\n", 0, error.position) + 1) + 1
        where = Where(filename, line, column)
        raise where.error("not valid YAML: a character that is not allowed in it") from None
    if root is None:
        raise start.error("the file is empty; expected 'space: headsearch/space@1' and a 'head'")
    return _convert(root, filename)


class _Loader(yaml.SafeLoader):
    """Composes nodes only; refuses aliases and deep nesting while doing so."""

    filename = ""
    nesting = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        assert event.start_mark is not None
        where = Where(self.filename, event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.AliasEvent):
            raise where.error(
                f"YAML alias '*{event.anchor}'; expected a name under 'define' and {{ref: name}}"
            )
        if self.nesting >= MAX_NESTING:
            raise where.error(f"nested more than {MAX_NESTING} levels deep")
        self.nesting += 1
        try:
            node: yaml.Node | None = super().compose_node(parent, index)
        finally:
            self.nesting -= 1
        return node


def _convert(node: yaml.Node, filename: str) -> Node:
    where = Where(filename, node.start_mark.line + 1, node.start_mark.column + 1)
    if isinstance(node, yaml.SequenceNode) and node.tag == "tag:yaml.org,2002:seq":
        return ListNode(tuple(_convert(item, filename) for item in node.value), where)
    if isinstance(node, yaml.MappingNode) and node.tag == "tag:yaml.org,2002:map":
        items: dict[str, Node] = {}
        keys: dict[str, Where] = {}
        for key_node, value_node in node.value:
            key = _convert(key_node, filename)
            if not isinstance(key, ScalarNode) or not isinstance(key.value, str):
                raise key.where.error(f"{describe(key)} as a key; expected a name")
            if key.value in items:
                raise key.where.error(
                    f"the key '{key.value}' is given twice (first at line {keys[key.value].line})"
                )
            items[key.value], keys[key.value] = _convert(value_node, filename), key.where
        return MapNode(items, where, keys)
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node, where)
    raise where.error(f"the YAML tag '{node.tag}' is not allowed; expected a plain value, list or mapping")


def _scalar(node: yaml.ScalarNode, where: Where) -> ScalarNode:
    one_line = node.style != "|" and node.style != ">" and node.start_mark.line == node.end_mark.line
    quotes = 1 if node.style in ("'", '"') else 0
    width = node.end_mark.column - node.start_mark.column
    offset = quotes if one_line and width == len(node.value) + 2 * quotes else None
    kind = node.tag.removeprefix("tag:yaml.org,2002:")
    if kind == "merge":
        raise where.error("a YAML merge '<<'; expected a name under 'define' and {ref: name}")
    if kind == "str":
        plain_number = node.style is None and _PLAIN_EXPONENT.fullmatch(node.value)
        value: Scalar = (
            float(node.value) if plain_number else node.value
        )  # YAML 1.1 reads 1e-3 as text; people mean the number
    elif kind in ("int", "float", "bool", "null"):
        constructor = yaml.constructor.SafeConstructor()
        try:
            value = constructor.construct_object(node)
        except (ValueError, KeyError):
            raise where.error(f"'{shorten(node.value)}' cannot be read as {kind}") from None
    else:
        raise where.error(
            f"'{shorten(node.value)}' is read as a YAML {kind}; expected a number, a flag, or text in quotes"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise where.error(f"'{shorten(node.value)}' is not a finite number")
    if isinstance(value, int) and abs(value) > MAX_MAGNITUDE:
        raise where.error(f"a whole number beyond {MAX_MAGNITUDE}; expected a smaller one")
    return ScalarNode(value, where, offset)
