"""The words of the language, what may stand beside each, and the domains that stand on their own: `choice`, `int` and `float`."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from headsearch.document import ListNode, MapNode, Node, ScalarNode, describe, shorten
from headsearch.errors import did_you_mean
from headsearch.heads.config import SET, Scalar
from headsearch.space.domains import Choice, Domain, Integer, Real, same_scalar, scalar_text

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
MAX_CHOICES = 1_000


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


def read_choice(node: MapNode) -> Choice:
    """`{choice: [a, b, …], default: a}`."""
    listed = node.items["choice"]
    if not isinstance(listed, ListNode):
        raise listed.where.error(f"{describe(listed)} under 'choice'; expected a list of values")
    if not 1 <= len(listed.items) <= MAX_CHOICES:
        size = "no values" if not listed.items else f"{len(listed.items)} values"
        raise listed.where.error(f"a choice of {size}; expected from 1 to {MAX_CHOICES}")
    options: list[Scalar] = []
    for item in listed.items:
        if not isinstance(item, ScalarNode):
            raise item.where.error(
                f"{describe(item)} in a choice; expected plain values (one_of chooses among heads)"
            )
        if any(same_scalar(item.value, option) for option in options):
            raise item.where.error(
                f"{scalar_text(item.value)} is given twice in a choice; expected distinct values"
            )
        options.append(item.value)
    choice = Choice(tuple(options))
    default = _default(node, choice, f"not among the values; expected one of {choice}")
    if default is None:
        return choice
    return replace(
        choice, default=next(i for i, option in enumerate(options) if same_scalar(option, default.value))
    )


def read_integer(node: MapNode) -> Integer:
    """`{int: [low, high], step: 1, log: false, default: low}`; `high` is lowered to the last number that `step` reaches."""
    first, last = _bounds(node, "int")
    low, high = _whole(first), _whole(last)
    step = _whole(node.items["step"]) if "step" in node.items else 1
    if step < 1:
        raise node.items["step"].where.error(f"a step of {step}; expected at least 1")
    log = _flag(node, "log")
    if log and low < 1:
        raise first.where.error(f"a lower bound of {low} with 'log'; expected at least 1")
    if log and step != 1:
        raise node.items["step"].where.error("'step' together with 'log'; expected one of them")
    domain = Integer(low, high - (high - low) % step, step, log)
    default = _default(node, domain, f"outside the domain; expected one of {domain}")
    return domain if default is None else replace(domain, default=_whole(default))


def read_real(node: MapNode) -> Real:
    """`{float: [low, high], log: false, default: low}`."""
    first, last = _bounds(node, "float")
    log = _flag(node, "log")
    low, high = _number(first), _number(last)
    if log and low <= 0:
        raise first.where.error(f"a lower bound of {low:g} with 'log'; expected more than 0")
    domain = Real(low, high, log)
    default = _default(node, domain, f"outside the domain; expected a number in {domain}")
    return domain if default is None else replace(domain, default=_number(default))


def _default(node: MapNode, domain: Domain, wrong: str) -> ScalarNode | None:
    """The value under `default`, which the domain must have; None where nothing is written there."""
    default = node.items.get("default")
    if default is not None and not (isinstance(default, ScalarNode) and default.value in domain):
        raise default.where.error(f"{describe(default)} as the default is {wrong}")
    return default


def _bounds(node: MapNode, keyword: str) -> tuple[Node, Node]:
    listed = node.items[keyword]
    if not isinstance(listed, ListNode) or len(listed.items) != 2:
        wrong = f"a list of {len(listed.items)}" if isinstance(listed, ListNode) else describe(listed)
        raise listed.where.error(f"{wrong} under '{keyword}'; expected two bounds, [low, high]")
    first, last = listed.items
    read = _whole if keyword == "int" else _number
    low, high = read(first), read(last)
    if low > high:
        raise listed.where.error(
            f"the bounds are the wrong way round: [{low:g}, {high:g}]; did you mean [{high:g}, {low:g}]?"
        )
    return first, last


def _whole(node: Node) -> int:
    value = _numeral(node, "a whole number")
    if value != int(value):
        raise node.where.error(f"{describe(node)}; expected a whole number")
    return int(value)


def _number(node: Node) -> float:
    return float(_numeral(node, "a number"))


def _numeral(node: Node, expected: str) -> int | float:
    value = node.value if isinstance(node, ScalarNode) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise node.where.error(f"{describe(node)}; expected {expected}")
    return value


def _flag(node: MapNode, key: str) -> bool:
    flag = node.items.get(key)
    if flag is None:
        return False
    if not isinstance(flag, ScalarNode) or not isinstance(flag.value, bool):
        raise flag.where.error(f"{describe(flag)} under '{key}'; expected true or false")
    return flag.value
