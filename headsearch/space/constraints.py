"""Constraints: conditions over a head and its base, such as `params <= 0.5 * base.params`.

An expression is parsed with `ast`, which may give only a few kinds of nodes. Its names and types are checked when the space is read, and it is
evaluated by walking the tree. Nothing is ever compiled or called, and size, nesting and numbers are bounded.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headsearch.base.info import BaseInfo
from headsearch.document import Where, shorten
from headsearch.errors import UserError, did_you_mean
from headsearch.heads import FAMILIES
from headsearch.heads.config import HeadConfig, Scalar
from headsearch.heads.cost import HeadCost

BASE_ATTRIBUTES: Mapping[str, tuple[type, Callable[[BaseInfo], Scalar]]] = {
    "params": (float, lambda base: base.params),
    "flops": (float, lambda base: base.flops),
    "width": (float, lambda base: base.width),
    "depth": (float, lambda base: base.depth),
    "grid": (float, lambda base: min(base.grid)),
    "embedding_dim": (float, lambda base: base.embedding_dim),
    "image_size": (float, lambda base: base.image_size),
    "family": (str, lambda base: base.family),
    "model": (str, lambda base: base.model),
}
"""What `base.<name>` may be; `grid` is the shorter side of the feature map, in positions."""

HEAD_NAMES: Mapping[str, type] = {"params": float, "flops": float, "depth": float, "family": str}
"""Names that every head has; beside them, every parameter of a family."""

MAX_CHARACTERS = 500
MAX_NODES = 200
MAX_NESTING = 30

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_ORDER: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_EQUALITY = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
_FLAGS = {"true": True, "false": False}
_WORDS = {float: "a number", str: "a text", bool: "a flag"}
_KINDS = {"int": float, "float": float, "bool": bool, "str": str}
_ALLOWED = "expected comparisons, and/or/not, + - * / // %, numbers, texts, names and base.<name>"


@dataclass(frozen=True)
class Constraint:
    """A condition that a head must meet before it is trained. Made by `parse_constraint`."""

    text: str
    """As written."""
    where: Where
    """Where it is written."""
    expression: ast.expr
    """The checked expression."""
    names: frozenset[str]
    """Names of the head used: `params`, `flops`, `depth`, `family`, and parameters."""
    base_names: frozenset[str]
    """Attributes of the base used."""

    @property
    def needs_cost(self) -> bool:
        """Whether the head's parameters or FLOPs must be known."""
        return bool(self.names & {"params", "flops"})

    @property
    def needs_base(self) -> bool:
        """Whether the base itself is named. Cost needs a base too, because it sets the head's width."""
        return bool(self.base_names)

    @property
    def normalised(self) -> str:
        """The meaning as text: spacing, quotes and redundant brackets removed."""
        return ast.unparse(self.expression)

    def holds(self, config: HeadConfig, base: BaseInfo | None = None, cost: HeadCost | None = None) -> bool:
        """Whether `config` meets the condition.

        A condition on `family` or on parameters is checked on every stage that has all of them, in every member of a set. A head without such a
        stage passes, and so does a stage where a parameter is null, that is, left to a base that is not known. Raises `SpaceError` if a base or
        cost is needed and not given, and for a division by zero.
        """
        if self.needs_base and base is None:
            raise self.where.error(f"'{self.text}' needs the base; expected one to be given")
        if self.needs_cost and cost is None:
            raise self.where.error(
                f"'{self.text}' needs the head's cost; expected a base to be given, to compute it with"
            )
        scope: dict[str, Scalar] = {"depth": config.depth}
        if cost is not None:
            scope |= {"params": cost.params, "flops": cost.flops}
        staged = self.names - {"params", "flops", "depth"}
        if not staged:
            return self._value(scope, base)
        # A stage's own `depth` gives way to the head's, which is in `scope`.
        stages = [{**stage.params, "family": stage.family} for head in config.heads for stage in head]
        stages = [values for values in stages if all(values.get(name) is not None for name in staged)]
        return all(self._value(values | scope, base) for values in stages)

    def _value(self, scope: Mapping[str, Scalar], base: BaseInfo | None) -> bool:
        try:
            return bool(_evaluate(self.expression, scope, base))
        except ZeroDivisionError:
            raise self.where.error(f"'{self.text}' divides by zero") from None
        except OverflowError:
            raise self.where.error(f"'{self.text}' gives a number too large to compare") from None


def parse_constraint(text: str, where: Where, text_offset: int | None = 0) -> Constraint:
    """Check `text` and return the constraint; raises `SpaceError` naming the column of what is wrong.

    `text_offset` is the number of columns from `where` to the first character of `text`, None where they do not correspond.
    """
    if len(text) > MAX_CHARACTERS:
        raise where.error(f"a constraint of {len(text)} characters; expected at most {MAX_CHARACTERS}")
    if not text.isascii():
        raise where.error(f"a constraint with characters outside ASCII: '{shorten(text)}'; {_ALLOWED}")
    stripped = text.strip()
    if text_offset is not None:
        text_offset += len(text) - len(text.lstrip())
    checker = _Checker(where, text_offset)
    try:
        expression = ast.parse(stripped, mode="eval").body
    except SyntaxError as error:
        here = checker.at((error.offset or len(stripped) + 1) - 1)  # 0 stands for the end
        raise here.error(f"'{shorten(stripped)}' is not an expression; {_ALLOWED}") from None
    except (ValueError, MemoryError, RecursionError):
        raise where.error(f"'{shorten(stripped)}' cannot be read; {_ALLOWED}") from None
    result = checker.types(expression, MAX_NESTING)
    if result != {bool}:
        raise where.error(
            f"'{shorten(stripped)}' is {_kinds(result)}; expected a condition, such as 'depth <= 3'"
        )
    return Constraint(stripped, where, expression, frozenset(checker.names), frozenset(checker.base_names))


class _Checker:
    """Admits whitelisted nodes only, collects names, and finds the possible types of every part."""

    def __init__(self, where: Where, text_offset: int | None) -> None:
        self.where = where
        self.text_offset = text_offset
        self.names: set[str] = set()
        self.base_names: set[str] = set()
        self.nodes = 0

    def types(self, node: ast.expr, nesting: int) -> set[type]:
        self.nodes += 1
        if nesting == 0 or self.nodes > MAX_NODES:
            raise self.fail(
                node, f"too long or too deeply nested; expected at most {MAX_NODES} parts, {MAX_NESTING} deep"
            )
        if isinstance(node, ast.Constant):
            return self.constant(node)
        if isinstance(node, ast.Name):
            return self.name(node)
        if isinstance(node, ast.Attribute):
            return self.attribute(node)
        if isinstance(node, ast.BoolOp):
            for part in node.values:
                self.need(part, bool, nesting)
            return {bool}
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not | ast.USub):
            kind = bool if isinstance(node.op, ast.Not) else float
            self.need(node.operand, kind, nesting)
            return {kind}
        if isinstance(node, ast.BinOp) and type(node.op) in _BINARY:
            self.need(node.left, float, nesting)
            self.need(node.right, float, nesting)
            return {float}
        if isinstance(node, ast.Compare):
            return self.compare(node, nesting)
        raise self.fail(node, f"{_node_name(node)} is not allowed in a constraint; {_ALLOWED}")

    def constant(self, node: ast.Constant) -> set[type]:
        if isinstance(node.value, bool):
            return {bool}
        if isinstance(node.value, int | float) and abs(node.value) <= 1e18:
            return {float}
        if isinstance(node.value, str):
            return {str}
        raise self.fail(
            node,
            f"'{shorten(ast.unparse(node), 30)}' is not allowed in a constraint; expected a number up to 1e18, a text or a flag",
        )

    def name(self, node: ast.Name) -> set[type]:
        if node.id in _FLAGS:
            return {bool}
        if node.id == "base":
            raise self.fail(
                node, f"'base' alone; expected base.<name> with a name of: {', '.join(BASE_ATTRIBUTES)}"
            )
        kinds = _parameter_types(node.id)
        if node.id in HEAD_NAMES:
            kinds = {HEAD_NAMES[node.id]}
        if not kinds:
            known = {*HEAD_NAMES, *(p.name for family in FAMILIES.values() for p in family.parameters)}
            raise self.fail(node, f"unknown name '{node.id}'{did_you_mean(node.id, known)}")
        self.names.add(node.id)
        return kinds

    def attribute(self, node: ast.Attribute) -> set[type]:
        if not isinstance(node.value, ast.Name) or node.value.id != "base":
            raise self.fail(
                node, f"'{shorten(ast.unparse(node), 30)}': attributes are allowed on 'base' only; {_ALLOWED}"
            )
        if node.attr not in BASE_ATTRIBUTES:
            raise self.fail(
                node, f"unknown 'base.{shorten(node.attr, 30)}'{did_you_mean(node.attr, BASE_ATTRIBUTES)}"
            )
        self.base_names.add(node.attr)
        return {BASE_ATTRIBUTES[node.attr][0]}

    def compare(self, node: ast.Compare, nesting: int) -> set[type]:
        left = node.left
        for op, right in zip(node.ops, node.comparators, strict=True):
            if type(op) in _ORDER:
                self.need(left, float, nesting)
                self.need(right, float, nesting)
            elif not isinstance(op, _EQUALITY):
                raise self.fail(node, "'is' is not allowed in a constraint; expected == or !=")
            else:
                for part in self.members(op, right):
                    left_types, part_types = self.types(left, nesting - 1), self.types(part, nesting - 1)
                    if not left_types & part_types:
                        raise self.fail(
                            part,
                            f"compares {_kinds(left_types)} with {_kinds(part_types)}; expected the same kind",
                        )
                    self.known_text(left, part)
                    self.known_text(part, left)
            left = right
        return {bool}

    def members(self, op: ast.cmpop, right: ast.expr) -> list[ast.expr]:
        """What the left side is compared with: the right side, or the members of a literal list behind `in`."""
        if not isinstance(op, ast.In | ast.NotIn):
            return [right]
        if not isinstance(right, ast.Tuple | ast.List) or not right.elts:
            raise self.fail(right, "expected a list behind 'in', such as ('convnext', 'mixer')")
        for member in right.elts:
            if not isinstance(member, ast.Constant):
                raise self.fail(member, f"{_node_name(member)} in a list; expected plain numbers or texts")
        return right.elts

    def known_text(self, name: ast.expr, value: ast.expr) -> None:
        """Refuse a text that the named quantity can never have: it would be a typo."""
        if (
            not isinstance(name, ast.Name)
            or not isinstance(value, ast.Constant)
            or not isinstance(value.value, str)
        ):
            return
        known = set(FAMILIES) if name.id == "family" else _parameter_texts(name.id)
        if known and value.value not in known:
            raise self.fail(
                value, f"'{name.id}' is never '{shorten(value.value, 30)}'{did_you_mean(value.value, known)}"
            )

    def need(self, node: ast.expr, kind: type, nesting: int) -> None:
        found = self.types(node, nesting - 1)
        if kind not in found:
            raise self.fail(
                node, f"'{shorten(ast.unparse(node), 30)}' is {_kinds(found)}; expected {_WORDS[kind]}"
            )

    def fail(self, node: ast.expr, message: str) -> UserError:
        return self.at(node.col_offset).error(message)

    def at(self, offset: int) -> Where:
        """Where in the file a character of the expression stands."""
        return self.where if self.text_offset is None else self.where.shifted(self.text_offset + offset)


def _evaluate(node: ast.expr, scope: Mapping[str, Scalar], base: BaseInfo | None) -> Any:
    """Value of a checked expression."""
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, ast.Name):
        return _FLAGS[node.id] if node.id in _FLAGS else scope[node.id]
    if isinstance(node, ast.Attribute):
        assert base is not None
        return BASE_ATTRIBUTES[node.attr][1](base)
    if isinstance(node, ast.BoolOp):
        values: Iterator[bool] = (bool(_evaluate(part, scope, base)) for part in node.values)
        return all(values) if isinstance(node.op, ast.And) else any(values)
    if isinstance(node, ast.UnaryOp):
        value = _evaluate(node.operand, scope, base)
        return not value if isinstance(node.op, ast.Not) else -value
    if isinstance(node, ast.BinOp):
        return _BINARY[type(node.op)](_evaluate(node.left, scope, base), _evaluate(node.right, scope, base))
    assert isinstance(node, ast.Compare)
    left = _evaluate(node.left, scope, base)
    for op, right_node in zip(node.ops, node.comparators, strict=True):
        members = right_node.elts if isinstance(right_node, ast.Tuple | ast.List) else [right_node]
        values_right = [_evaluate(member, scope, base) for member in members]
        if not _compare(op, left, values_right):
            return False
        left = values_right[0]
    return True


def _compare(op: ast.cmpop, left: Any, right: list[Any]) -> bool:
    if type(op) in _ORDER:
        return _ORDER[type(op)](left, right[0])
    return (left in right) is isinstance(op, ast.Eq | ast.In)


def _parameter_types(name: str) -> set[type]:
    return {_KINDS[p.kind] for family in FAMILIES.values() for p in family.parameters if p.name == name}


def _parameter_texts(name: str) -> set[str]:
    """Every text that a parameter may have in any family; empty where it is no text or not limited to some."""
    lists = [
        p.choices
        for family in FAMILIES.values()
        for p in family.parameters
        if p.name == name and p.kind == "str"
    ]
    return set() if None in lists else {str(choice) for choices in lists for choice in choices or ()}


def _kinds(types: set[type]) -> str:
    return " or ".join(sorted(_WORDS[kind] for kind in types))


def _node_name(node: ast.expr) -> str:
    names: dict[type[ast.expr], str] = {
        ast.Call: "a call",
        ast.Subscript: "an index",
        ast.Lambda: "a function",
        ast.IfExp: "if/else",
        ast.List: "a list (other than behind 'in')",
        ast.Tuple: "a list (other than behind 'in')",
        ast.JoinedStr: "a formatted text",
    }
    if isinstance(node, ast.BinOp | ast.UnaryOp):
        return f"the operator in '{shorten(ast.unparse(node), 30)}'"
    return names.get(type(node), f"'{shorten(ast.unparse(node), 30)}'")
