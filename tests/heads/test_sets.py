"""Sets of heads: one canonical form and one name for any order, what they build and what they cost."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from headsearch.errors import HeadError
from headsearch.heads import FAMILIES, HeadConfig, canonical, head_id, parse_head
from headsearch.heads.build import build_head, build_heads
from headsearch.scoring.cost import head_cost
from headsearch.testing.heads import toy_base

BASE = toy_base(64, (4, 4))
CONVNEXT, MIXER, STACK = (
    {"convnext": {"depth": 1, "kernel_size": 3}},
    {"mixer": {"depth": 2}},
    [{"vit": {"depth": 1}}, {"poolformer": {"depth": 1}}],
)


def pair(*members: object) -> HeadConfig:
    return parse_head({"set": list(members)})


@given(st.permutations([CONVNEXT, MIXER, STACK]), st.integers(2, 3))
def test_order_does_not_matter(members: list[object], size: int) -> None:
    one, turned = pair(*members[:size]), pair(*reversed(members[:size]))
    assert canonical(one, BASE) == canonical(turned, BASE)
    assert head_id(canonical(one, BASE)) == head_id(canonical(turned, BASE))
    assert canonical(canonical(one, BASE), BASE) == canonical(one, BASE)


def test_members_are_canonical() -> None:
    cut = pair([{"mixer": {"depth": 1}}, {"mixer": {"depth": 1, "mlp_ratio": 4.003}}], CONVNEXT)
    assert canonical(cut, BASE) == canonical(pair(CONVNEXT, MIXER), BASE)


def test_a_set_of_one_is_that_head() -> None:
    assert canonical(pair(STACK), BASE) == canonical(parse_head(STACK), BASE)


def test_the_same_head_twice_is_refused_in_one_line() -> None:
    with pytest.raises(HeadError) as raised:
        canonical(pair(CONVNEXT, MIXER, [{"mixer": {"depth": 1}}, {"mixer": {"depth": 1}}]))
    name = head_id(canonical(parse_head(MIXER)))
    assert str(raised.value) == f"a set that names the same head twice: {name}; expected heads that differ"


def test_sets_that_differ_in_a_member_have_different_ids() -> None:
    members = [CONVNEXT, MIXER, STACK, {"mixer": {"depth": 3}}]
    sets = [pair(*some) for size in (2, 3, 4) for some in itertools.combinations(members, size)]
    singles = [parse_head(member) for member in members]
    assert len({head_id(canonical(head, BASE)) for head in (*sets, *singles)}) == len(sets) + len(singles)
    assert len(set(sets)) == len(sets), "and they are values"


@pytest.mark.parametrize(
    ("members", "slug"),
    [
        ([CONVNEXT, MIXER], "set-convnext-d1-k3+mixer-d2"),
        ([STACK, CONVNEXT], "set-convnext-d1-k3+vit+poolformer-d2"),
        (
            [{family: {"first_shortcut": False}} for family in ("vit", "resnet", "mixer")],
            "set-mixer-d3+resnet-d3+vit-d3",
        ),
        ([{family: {}} for family in FAMILIES if family != "mlp"], "set10-d30"),
    ],
    ids=["whole", "with a stack", "families and depths", "their number"],
)
def test_the_name_is_readable_and_bounded(members: list[object], slug: str) -> None:
    name = head_id(canonical(pair(*members), BASE))
    assert name.rpartition("-")[0] == slug
    assert len(name) <= 60


def test_depth_and_family_speak_of_all_members() -> None:
    head = canonical(pair(MIXER, STACK, CONVNEXT), BASE)
    assert head.depth == 1 + 2 + 2
    assert head.family == "set(convnext|mixer|vit+poolformer)"
    assert canonical(pair(CONVNEXT, {"convnext": {}}), BASE).family == "set(convnext|convnext)"


def test_a_set_builds_its_members_in_canonical_order() -> None:
    torch.manual_seed(0)
    heads = build_heads(pair(MIXER, CONVNEXT), BASE)
    assert [head.config for head in heads] == list(canonical(pair(CONVNEXT, MIXER), BASE).members)
    torch.manual_seed(0)
    turned = build_heads(pair(CONVNEXT, MIXER), BASE)
    maps = torch.randn(2, 64, 4, 4)
    for one, other in zip(heads, turned, strict=True):
        assert torch.equal(one(maps), other(maps))


def test_a_single_head_and_none_are_built_alike() -> None:
    torch.manual_seed(0)
    [head] = build_heads(parse_head(MIXER), BASE)
    torch.manual_seed(0)
    twin = build_head(parse_head(MIXER), BASE)
    maps = torch.randn(2, 64, 4, 4)
    assert torch.equal(head(maps), twin(maps))
    assert build_heads(HeadConfig(), BASE) == []


def test_a_set_is_not_built_as_one_head() -> None:
    with pytest.raises(
        HeadError, match=r"^set-convnext-d1-k3\+mixer-d2-\w+ is a set of 2 heads; expected a single one$"
    ):
        build_head(pair(CONVNEXT, MIXER), BASE)


def test_a_set_costs_what_its_members_cost() -> None:
    singles = [head_cost(parse_head(member), BASE) for member in (CONVNEXT, MIXER, STACK)]
    cost = head_cost(pair(CONVNEXT, MIXER, STACK), BASE)
    assert cost.params == sum(single.params for single in singles)
    assert cost.flops == sum(single.flops for single in singles)
    built = build_heads(pair(CONVNEXT, MIXER, STACK), BASE)
    assert cost.params == sum(weight.numel() for head in built for weight in head.parameters())
