"""Constraints: what they mean, and that they can do nothing else."""

from __future__ import annotations

import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headsearch.base.info import BaseInfo
from headsearch.document import Where
from headsearch.errors import SpaceError
from headsearch.heads import HeadConfig, parse_head
from headsearch.heads.cost import HeadCost
from headsearch.space.constraints import BASE_ATTRIBUTES, parse_constraint

HERE = Where("s.yaml", 7, 5)
BASE = BaseInfo("vit_small_patch16_224", "vit", 384, (14, 12), 384, 12, 21_665_664, 8_500_000_000, 224)
COST = HeadCost(params=3_000_000, flops=600_000_000)
CONVNEXT = parse_head({"convnext": {"depth": 2, "kernel_size": 5, "first_shortcut": False}})
SWIN = parse_head({"swin": {"depth": 1, "window": 4}})
BOTH = HeadConfig(CONVNEXT.stages + SWIN.stages)


def holds(text: str, config: HeadConfig = CONVNEXT) -> bool:
    return parse_constraint(text, HERE).holds(config, BASE, COST)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("params <= 0.5 * base.params", True),
        ("params <= 0.1 * base.params", False),
        ("flops < base.flops / 10", True),
        ("depth == 2", True),
        ("depth != 2", False),
        ("1 <= depth <= 3", True),
        ("1 <= depth < 2", False),
        ("depth in (1, 3)", False),
        ("depth not in [1, 3]", True),
        ("family == 'convnext'", True),
        ("family != base.family", True),
        ("family in ('swin', \"convnext\")", True),
        ("not first_shortcut", True),
        ("first_shortcut == false and kernel_size > 3", True),
        ("first_shortcut or kernel_size > 5", False),
        ("-depth + 7 // 2 * 2 - 7 % 4 == 1", True),
        ("params * 4 / base.width < 31251 and base.depth == 12", True),
        ("kernel_size <= base.grid", True),
        ("base.grid == 12", True),
        ("base.model == 'vit_small_patch16_224'", True),
    ],
)
def test_expressions_mean_what_they_say(text: str, expected: bool) -> None:
    assert holds(text) is expected


def test_a_parameter_is_checked_on_every_stage_that_has_it() -> None:
    assert holds("kernel_size >= 7", SWIN)
    assert not holds("kernel_size >= 7", BOTH)
    assert not holds("family == 'swin'", BOTH)
    assert holds("family != 'swin' or window <= 4", BOTH)
    assert holds("kernel_size >= 9 or window >= 9", BOTH), "no stage has both"


def test_depth_is_that_of_the_whole_head() -> None:
    assert holds("depth == 3", BOTH)
    assert not holds("kernel_size <= 5 and depth <= 2", BOTH)


def test_the_empty_head_meets_conditions_on_stages() -> None:
    assert holds("kernel_size == 99", HeadConfig())
    assert not holds("depth > 0", HeadConfig())


def test_null_left_to_an_unknown_base_passes() -> None:
    head = parse_head({"vit": {"num_heads": None}})
    assert parse_constraint("num_heads >= 8", HERE).holds(head)
    assert not parse_constraint("num_heads >= 8", HERE).holds(parse_head({"vit": {"num_heads": 4}}))


def test_needs_are_known_before_evaluation() -> None:
    both = parse_constraint("params <= base.params", HERE)
    assert both.needs_cost
    assert both.needs_base
    neither = parse_constraint("depth <= 2", HERE)
    assert not neither.needs_cost
    assert not neither.needs_base


def test_what_is_needed_and_not_given_is_an_error_not_a_pass() -> None:
    with pytest.raises(SpaceError, match=r"^s.yaml:7:5: 'depth <= base.depth' needs the base"):
        parse_constraint("depth <= base.depth", HERE).holds(CONVNEXT)
    with pytest.raises(SpaceError, match="needs the head's cost"):
        parse_constraint("params <= 10", HERE).holds(CONVNEXT, BASE)


@pytest.mark.parametrize(
    "text", ["params / (depth - 2) > 1", "params // (depth - 2) > 1", "params % (depth - 2) > 1"]
)
def test_a_division_by_zero_is_a_clear_error(text: str) -> None:
    with pytest.raises(SpaceError, match=r"^s.yaml:7:5: .* divides by zero$"):
        holds(text)


@pytest.mark.parametrize(
    ("text", "column", "message"),
    [
        ("__import__('os').system('true')", 0, "a call is not allowed"),
        ("open('x') == 1", 0, "a call is not allowed"),
        ("depth.__class__ == 1", 0, "attributes are allowed on 'base' only"),
        ("base.__class__ == 1", 0, "unknown 'base.__class__'"),
        ("base.model.upper == 'X'", 0, "attributes are allowed on 'base' only"),
        ("base.parms > 1", 0, "did you mean 'params'?"),
        ("base == 1", 0, "'base' alone"),
        ("depth <= kernel_sise", 9, "unknown name 'kernel_sise'; did you mean 'kernel_size'?"),
        ("(1, 2)[0] == 1", 0, "an index is not allowed"),
        ("depth ** 9 > 1", 0, "the operator in 'depth ** 9' is not allowed"),
        ("depth << 9 > 1", 0, "the operator in 'depth << 9' is not allowed"),
        ("~depth > 1", 0, "the operator in '~depth'"),
        ("(lambda: 1) == 1", 1, "a function is not allowed"),
        ("[d for d in (1,)] == 1", 0, "is not allowed"),
        ("(depth := 3) == 3", 1, "is not allowed"),
        ("1 if depth else 2", 0, "if/else is not allowed"),
        ("f'{depth}' == 'a'", 0, "a formatted text is not allowed"),
        ("depth is 3", 0, "'is' is not allowed"),
        ("depth == None", 9, "'None' is not allowed"),
        ("depth == 1j", 9, "'1j' is not allowed"),
        ("depth < 10000000000000000000000", 8, "expected a number up to 1e18"),
        ("'a' * 1000000 == 'a'", 0, "''a'' is a text; expected a number"),
        ("family < 'swin'", 0, "'family' is a text; expected a number"),
        ("family == 3", 10, "compares a text with a number"),
        ("first_shortcut == 1", 18, "compares a flag with a number"),
        ("depth and kernel_size", 0, "'depth' is a number; expected a flag"),
        ("family == 'convnet'", 10, "'family' is never 'convnet'; did you mean 'convnext'?"),
        ("block in ('basic', 'botleneck')", 19, "did you mean 'bottleneck'?"),
        ("depth in 3", 9, "expected a list behind 'in'"),
        ("depth in (1, depth)", 13, "expected plain numbers or texts"),
        ("depth + 1", 0, "is a number; expected a condition"),
        ("depth <=", 8, "is not an expression"),
        ("import os", 0, "is not an expression"),
        ("", 0, "is not an expression"),
        ("depth <= 3; depth", 10, "is not an expression"),
    ],
)
def test_what_is_not_whitelisted_is_refused_where_it_stands(text: str, column: int, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        parse_constraint(text, HERE)
    assert str(caught.value).startswith(f"s.yaml:7:{5 + column}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "(" * 240 + "1" + ")" * 240 + " == 1",
        "not " * 120 + "first_shortcut",
        "1+" * 240 + "1 > 0",
        "-" * 490 + "1 < 0",
        "1 > 0 " * 100,
    ],
)
def test_size_and_nesting_are_bounded(text: str) -> None:
    with pytest.raises(SpaceError):
        parse_constraint(text, HERE)


@given(st.text(max_size=40) | st.text(alphabet="depthbas.()[]<>=+-*/% '\"0123456789:,notrdi", max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text: str) -> None:
    try:
        outcome: object = holds(text)
    except SpaceError as error:
        outcome = str(error)
    assert isinstance(outcome, bool) or (isinstance(outcome, str) and "\n" not in outcome)


ARITHMETIC = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "//": operator.floordiv,
    "%": operator.mod,
}
COMPARISON = {
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
}


@given(
    st.integers(1, 12),
    st.sampled_from(sorted(ARITHMETIC)),
    st.integers(1, 20),
    st.sampled_from(sorted(COMPARISON)),
    st.integers(-20, 100),
)
def test_arithmetic_is_that_of_python(depth: int, sign: str, by: int, comparison: str, bound: int) -> None:
    head = parse_head({"mixer": {"depth": depth}})
    expected = COMPARISON[comparison](ARITHMETIC[sign](depth, by), bound)
    assert holds(f"depth {sign} {by} {comparison} {bound}", head) is expected


def test_every_base_attribute_is_a_plain_value() -> None:
    for kind, read in BASE_ATTRIBUTES.values():
        assert isinstance(read(BASE), str if kind is str else int)


def test_the_normalised_text_ignores_spelling() -> None:
    assert (
        parse_constraint("( depth<=3 )", HERE).normalised == parse_constraint("depth <=  3", HERE).normalised
    )
