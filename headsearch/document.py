"""The one place that reads and writes YAML: spaces, experiments, values of `--set`, head.yaml, pretrain.yaml, plans, run directories.

A text becomes nodes that know their line and column. Every mistake is one error of the form `file:line:column: what is wrong, what was
expected`, of the kind that the reader of such files raises. Only plain data gets through: texts, numbers, flags, null, lists, and mappings
with distinct text keys. No aliases and merges (a short text could stand for gigabytes), no tags but the plain ones, no dates, no base 60;
length, nesting and the number of values are bounded. `docs/decisions/082-one-reader-of-yaml.md` says why.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml

from headsearch.errors import SpaceError, UserError, did_you_mean
from headsearch.files import read_text
from headsearch.heads.config import Scalar

MAX_CHARACTERS = 1_000_000
MAX_NODES = 25_000
MAX_NESTING = 60
MAX_MAGNITUDE = 2**63
"""Whole numbers must be smaller: all that the formats hold have 64 bits."""

_INTEGER = re.compile(r"[-+]?(0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
_REAL = re.compile(r"[-+]?([0-9][0-9_]*(\.[0-9_]*)?|\.[0-9][0-9_]*)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NULLS = ("", "~", "null", "Null", "NULL")
_FLAGS = {
    spelled: value
    for value, words in ((True, ("true", "yes", "on")), (False, ("false", "no", "off")))
    for word in words
    for spelled in (word, word.title(), word.upper())
}
_TAG = "tag:yaml.org,2002:"
_TYPES: dict[str, type] = {"bool": bool, "int": int, "float": float, "null": type(None)}


@dataclass(frozen=True)
class Where:
    """A position in a file, counted from 1."""

    filename: str
    line: int
    column: int
    kind: type[UserError] = SpaceError
    """What is raised where the file is wrong."""

    def __str__(self) -> str:
        return f"{self.filename}:{self.line}:{self.column}"

    def error(self, message: str) -> UserError:
        """The error that names this position."""
        return self.kind(f"{self}: {message}")

    def shifted(self, columns: int) -> Where:
        """The position `columns` further on the same line."""
        return Where(self.filename, self.line, self.column + columns, self.kind)


@dataclass(frozen=True)
class ScalarNode:
    """A number, word, flag or null."""

    value: Scalar
    where: Where
    text_offset: int | None = 0
    """Columns from `where` to the first character of the text; None where text and file do not correspond one to one."""
    text: str = ""
    """As written, without quotes."""


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
        """Raise at the first key that is not `allowed`: `unknown <what> 'key' <context>`."""
        allowed = list(allowed)
        for key, where in self.keys.items():
            if key not in allowed:
                raise where.error(f"unknown {what} '{shorten(key)}'{context}{did_you_mean(key, allowed)}")


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
    line = " ".join(text[: 4 * length].split())
    return line if len(line) <= length else line[: length - 1] + "…"


def plain(node: Node) -> Any:
    """What a node says, as plain data."""
    if isinstance(node, ScalarNode):
        return node.value
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return {key: plain(item) for key, item in node.items.items()}


def find(node: Node, path: Sequence[str]) -> tuple[Where | None, Node | None]:
    """Where the key stands that `path` leads to, or else the nearest above it; and its value, where there is one."""
    where: Where | None = None
    found: Node | None = node
    for part in path:
        if isinstance(found, MapNode) and part in found.items:
            where, found = found.keys[part], found.items[part]
        elif isinstance(found, ListNode) and part.isdecimal() and int(part) < len(found.items):
            found = found.items[int(part)]
            where = found.where
        else:
            return where, None
    return where, found


def read_mapping(path: Path, kind: type[UserError], expected: str, label: str | None = None) -> MapNode:
    """The keys and values of a YAML file.

    Args:
        path: the file.
        kind: what is raised.
        expected: what the file should be, for messages: `an experiment (headsearch init writes one)`.
        label: how messages name the file.

    Raises:
        UserError: of that kind; the file cannot be read, or holds something else.
    """
    label = label or str(path)
    if os.path.isfile(path / "run.json"):  # noqa: PTH113, Path.is_file raises for a name that is too long
        raise kind(f"{label}: a run directory; expected {expected}")
    root = parse(read_text(path, kind, label), label, kind, expected)
    if not isinstance(root, MapNode):
        raise root.where.error(f"{describe(root)}; expected keys and values, {expected}")
    return root


def refuse_another(root: MapNode, own: str, expected: str) -> None:
    """Raise where the format tag of a file, `head: headsearch/head@1`, is that of another kind than its `own`."""
    for key, node in root.items.items():
        if key != own and isinstance(node, ScalarNode) and node.text.startswith(f"headsearch/{key}@"):
            raise root.keys[key].error(f"the file says that it is '{key}: {node.text}'; expected {expected}")


def parse(
    text: str, filename: str, kind: type[UserError] = SpaceError, expected: str = "plain values"
) -> Node:
    """Read YAML `text`. `filename` and `expected` are for messages, `kind` is the error that is raised."""
    return _Reader(text, Where(filename, 1, 1, kind)).document(expected)


def to_yaml(data: Any) -> str:
    """Plain data as YAML that `parse` reads back equal."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes no aliases, puts quotes around a text that would be read as a number, and escapes line breaks that single quotes would lose."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        style = '"' if _RARE_BREAKS.intersection(data) else None
        return self.represent_scalar(f"{_TAG}str", data, style=style)


_RARE_BREAKS = frozenset("\x85\u2028\u2029")
_Dumper.add_representer(str, _Dumper.represent_str)

for _kind, _pattern in (("int", _INTEGER), ("float", _REAL)):
    _Dumper.add_implicit_resolver(_TAG + _kind, re.compile(f"(?:{_pattern.pattern})$"), list("-+.0123456789"))


_IN_OUR_WORDS = {
    r"found character '\t' that cannot start any token": "a tab; expected spaces",
    "expected <block end>, but found '<block mapping start>'": "indented unlike the lines before it, or the line before lacks a colon",
    "mapping values are not allowed here": "a colon where no key can be; is it in a text without quotes, or the indentation wrong?",
}
"""What PyYAML says of the mistakes that are made most."""


class _Reader:
    """Turns PyYAML's events into nodes. Its own composer and constructor are not used: they follow aliases, raise errors of seven kinds
    (ValueError for a date, IndexError for `!!int ""`), and recurse without end."""

    def __init__(self, text: str, start: Where) -> None:
        if len(text) > MAX_CHARACTERS:
            raise start.error(f"{len(text)} characters; expected at most {MAX_CHARACTERS}")
        self.start = start
        self.text = text
        self.nodes = 0

    def document(self, expected: str) -> Node:
        try:
            self.loader = yaml.SafeLoader(self.text)
            self.next()
            event = self.next()
            if isinstance(event, yaml.StreamEndEvent):
                raise self.start.error(f"the file is empty; expected {expected}")
            root = self.node(self.next(), 1)
            self.next()
            event = self.next()
            if not isinstance(event, yaml.StreamEndEvent):
                raise self.where(event).error("not valid YAML: a second document begins; expected one")
            return root
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            self.invalid(mark, shorten(error.problem or "cannot be read", 200))
        except yaml.reader.ReaderError as error:
            before = self.text[: error.position]
            line, column = before.count("\n") + 1, error.position - (before.rfind("\n") + 1) + 1
            where = Where(self.start.filename, line, column, self.start.kind)
            raise where.error("not valid YAML: a character that is not allowed in it") from None
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            # What PyYAML forgets to check, such as "\\UFFFFFFFF" and %YAML 1.9999….
            self.invalid(self.loader.get_mark(), shorten(str(error), 200))

    def invalid(self, mark: Any, problem: str) -> NoReturn:
        where = self.at(mark) if mark is not None else self.start
        raise where.error(f"not valid YAML: {_IN_OUR_WORDS.get(problem, problem)}") from None

    def next(self) -> Any:
        return self.loader.get_event()  # type: ignore[no-untyped-call]

    def at(self, mark: Any) -> Where:
        return Where(self.start.filename, mark.line + 1, mark.column + 1, self.start.kind)

    def where(self, event: Any) -> Where:
        return self.at(event.start_mark)

    def node(self, event: Any, level: int) -> Node:
        where = self.where(event)
        self.nodes += 1
        if level > MAX_NESTING:
            raise where.error(f"nested more than {MAX_NESTING} levels deep")
        if self.nodes > MAX_NODES:
            raise where.error(f"more than {MAX_NODES} values; expected fewer")
        if isinstance(event, yaml.AliasEvent):
            raise where.error(
                f"YAML alias '*{shorten(str(event.anchor))}'; expected the value itself, or in a space a name under 'define' and {{ref: name}}"
            )
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, where)
        kind = "seq" if isinstance(event, yaml.SequenceStartEvent) else "map"
        if event.tag not in (None, "!", _TAG + kind):
            self.refuse_tag(event, where)
        if kind == "seq":
            items = []
            while not isinstance(event := self.next(), yaml.SequenceEndEvent):
                items.append(self.node(event, level + 1))
            return ListNode(tuple(items), where)
        return self.mapping(where, level)

    def mapping(self, where: Where, level: int) -> MapNode:
        items: dict[str, Node] = {}
        keys: dict[str, Where] = {}
        while not isinstance(event := self.next(), yaml.MappingEndEvent):
            if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.style is None:
                raise self.where(event).error(
                    "a YAML merge '<<'; expected the keys themselves, or in a space a name under 'define' and {ref: name}"
                )
            key = self.node(event, level + 1)
            if not isinstance(key, ScalarNode) or not isinstance(key.value, str):
                raise key.where.error(f"{describe(key)} as a key; expected a name")
            if key.value in items:
                first = keys[key.value]
                raise key.where.error(
                    f"the key '{shorten(key.value)}' is given twice (first at line {first.line}, column {first.column})"
                )
            items[key.value], keys[key.value] = self.node(self.next(), level + 1), key.where
        return MapNode(items, where, keys)

    def scalar(self, event: Any, where: Where) -> ScalarNode:
        text: str = event.value
        if "\\" in self.text:
            text = _whole_characters(text, where)
        start, end = event.start_mark, event.end_mark
        quotes = 1 if event.style in ("'", '"') else 0
        as_written = event.style not in ("|", ">") and start.line == end.line
        offset = quotes if as_written and end.column - start.column == len(text) + 2 * quotes else None
        tag = (event.tag or "").removeprefix(_TAG)
        if tag in _TYPES:
            value: Scalar = _scalar(text, where)
            value = float(value) if tag == "float" and type(value) is int else value
            if type(value) is not _TYPES[tag]:
                raise where.error(f"'{shorten(text)}' cannot be read as {tag}")
        elif tag in ("", "!", "str"):
            value = _scalar(text, where) if event.style is None and not tag else text
        else:
            self.refuse_tag(event, where)
        return ScalarNode(value, where, offset, text)

    def refuse_tag(self, event: Any, where: Where) -> NoReturn:
        raise where.error(
            f"the YAML tag '{shorten(event.tag)}' is not allowed; expected a plain value, list or mapping"
        )


def _scalar(text: str, where: Where) -> Scalar:
    """What a word without quotes means.

    As YAML 1.2 has it, and where files of YAML 1.1 are read in another way by people too, as they are: `yes` and `off` are flags, `1_000` is a
    number. A leading zero, base 60 and dates make a text.
    """
    if text in _NULLS:
        return None
    if text in _FLAGS:
        return _FLAGS[text]
    if _INTEGER.fullmatch(text):
        if len(text) > 100:
            raise where.error(f"a whole number of {len(text)} digits; expected one below 2^63")
        try:
            number = int(text, 0)
        except ValueError:
            return text
        if abs(number) >= MAX_MAGNITUDE:
            raise where.error(f"a whole number beyond {MAX_MAGNITUDE}; expected a smaller one")
        return number
    if _NOT_FINITE.fullmatch(text):
        raise where.error(f"'{text}' is not a finite number")
    if _REAL.fullmatch(text):
        try:
            real = float(text)
        except ValueError:
            return text
        return real if math.isfinite(real) else text
    return text


def _whole_characters(text: str, where: Where) -> str:
    """`text` with the two halves of a character joined, as JSON writes those beyond U+FFFF."""
    try:
        return text.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise where.error("half of a character (a lone surrogate); expected whole ones") from None
