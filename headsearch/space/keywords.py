"""The words of the language: what makes a mapping a value, a head or the name of one, and what may stand beside it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from headsearch.document import ListNode, MapNode, Node, ScalarNode, shorten
from headsearch.errors import did_you_mean
from headsearch.heads.config import SET

VALUE_KINDS = ("choice", "int", "float")
HEAD_KINDS = ("one_of", "stack", SET)
NAME_KINDS = ("ref", "same")
OPTIONS = {
    "choice": ("default",),
    "int": ("step", "log", "default"),
    "float": ("log", "default"),
    "one_of": ("default",),
}
"""What may stand beside the keyword of a domain."""


def keyword_of(node: MapNode, keywords: tuple[str, ...], families: Collection[str], what: str) -> str:
    """The one key of a mapping that says what it is; options beside it are checked."""
    every = (*VALUE_KINDS, *HEAD_KINDS, *NAME_KINDS, *families)
    found = [key for key in node.items if key in every]
    if len(found) > 1:
        hint = "; expected one_of, with a list" if what != "value" else ""
        raise node.keys[found[1]].error(
            f"'{found[0]}' and '{found[1]}' in one mapping; expected one of them{hint}"
        )
    if not found:
        options = {option for options in OPTIONS.values() for option in options}
        key = next((key for key in node.items if key not in options), None)
        if key is None:
            raise node.where.error(
                f"a mapping that says nothing as a {what}; expected one of: {', '.join(keywords)}"
            )
        known = (*keywords, *(families if what != "value" else ()))
        raise node.keys[key].error(
            f"unknown {'family' if what == 'head' else what} '{shorten(key)}'{did_you_mean(key, known)}"
        )
    node.refuse_unknown((found[0], *OPTIONS.get(found[0], ())), "key", f" beside '{found[0]}'")
    return found[0]


def named_by_same(node: Node) -> Iterator[str]:
    """Every name under `same`, anywhere below a node."""
    if isinstance(node, ListNode):
        for item in node.items:
            yield from named_by_same(item)
    elif isinstance(node, MapNode):
        for key, item in node.items.items():
            if key == "same" and isinstance(item, ScalarNode) and isinstance(item.value, str):
                yield item.value
            yield from named_by_same(item)
