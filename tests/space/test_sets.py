"""Sets of heads in the language: what is read and refused, how decisions are named, what is counted, tried first, allowed."""

from __future__ import annotations

import io
import itertools
import random
from typing import Any

import jsonschema
import optuna
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from headsearch.base.info import BaseInfo
from headsearch.errors import HeadError, SpaceError
from headsearch.heads import Candidate, canonical, canonical_or_none, head_id, parse_head
from headsearch.heads.cost import HeadCost
from headsearch.search.proposer import OptunaChooser, Proposer, all_decisions, default_decisions
from headsearch.space import Space, json_schema, load_space, parse_space
from headsearch.space.show import space_tree

TAG = "space: headsearch/space@1\n"
BASE = BaseInfo("vit_tiny_patch16_224", "vit", 64, (4, 4), 64, 4, 200_000, 10_000_000, 16)
PAIR = "head: {set: [{convnext: {depth: {int: [1, 2]}}}, {mixer: {depth: {choice: [1, 3]}}}]}"
DRAWN = (
    "head: {set: {size: {int: [2, 3]}, each: "
    "{one_of: [{vit: {depth: 1}}, {mixer: {depth: {int: [1, 2]}}}, {poolformer: {}}]}}}"
)


def parse(text: str) -> Space:
    return parse_space(TAG + text, "s.yaml")


def names(text: str) -> list[str]:
    """Names of the decisions behind the default head."""
    return list(default_decisions(parse(text)))


def test_a_list_is_a_set_of_just_these_heads() -> None:
    heads = list(parse(PAIR).enumerate())
    assert len(heads) == 4
    assert [[(member.family, member.depth) for member in head.members] for head in heads] == [
        [("convnext", a), ("mixer", b)] for a in (1, 2) for b in (1, 3)
    ]
    assert {head.family for head in heads} == {"set(convnext|mixer)"}


def test_each_draws_every_member_by_itself() -> None:
    space = parse(DRAWN)
    # 4 descriptions of a member: vit, mixer 1, mixer 2, poolformer.
    assert space.count() == 4**2 + 4**3
    assert space.count() == sum(1 for _ in space.enumerate())
    # Networks are sets: neither the order nor a head twice.
    assert space.count_distinct() == sum(1 for size in (2, 3) for _ in itertools.combinations(range(4), size))


def test_a_set_of_one_is_that_head() -> None:
    space = parse("head: {set: {size: {int: [1, 2]}, each: {vit: {depth: {int: [1, 2]}}}}}")
    singles = [canonical(head) for head in space.enumerate() if len(head.members) == 1]
    assert singles == [canonical(parse_head({"vit": {"depth": depth}})) for depth in (1, 2)]
    assert space.count_distinct() == 2 + 1


def test_decisions_of_a_member_bear_its_number() -> None:
    assert names(PAIR) == ["member1.convnext.depth", "member2.mixer.depth"]
    assert names(DRAWN) == ["size", "member1.family", "member2.family", "member2.mixer.depth"]
    mixed = f"head: {{one_of: [{{resmlp: {{}}}}, {DRAWN.removeprefix('head: ')}], default: set}}"
    assert names(mixed)[:3] == ["family", "set.size", "set.member1.family"]
    stacked = "head: {set: [{vit: {}}, {stack: {repeat: 2, each: {mixer: {depth: {int: [1, 2]}}}}}]}"
    assert names(stacked) == ["member2.slot1.mixer.depth", "member2.slot2.mixer.depth"]


def test_a_shared_draw_is_shared_between_members() -> None:
    text = "define: {d: {int: [1, 3]}}\nhead: {set: [{vit: {depth: {same: d}}}, {mixer: {depth: {same: d}}}]}"
    space = parse(text)
    assert space.count() == 3
    assert all(len({member.depth for member in head.members}) == 1 for head in space.enumerate())


def test_a_shared_size_ties_the_number_of_members_to_its_other_uses() -> None:
    each = "{mixer: {depth: {same: n}, mlp_ratio: {choice: [1, 2, 4]}}}"
    space = parse(f"define: {{n: {{int: [2, 3]}}}}\nhead: {{set: {{size: {{same: n}}, each: {each}}}}}")
    assert space.count() == 3**2 + 3**3
    assert all(len(head.members) == member.depth for head in space.enumerate() for member in head.members)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (PAIR, [("convnext", 1), ("mixer", 3)]),
        (DRAWN, [("mixer", 1), ("vit", 1)]),
        (
            "head: {set: {size: 3, each: {mixer: {depth: {int: [1, 4], default: 3}}}}}",
            [("mixer", n) for n in (1, 3, 4)],
        ),
        (
            "define: {h: {mixer: {depth: {int: [1, 2]}, first_shortcut: {choice: [false, true], default: false}}}}\n"
            "head: {set: [{ref: h}, {vit: {depth: 1}}, {ref: h}, {ref: h}]}",
            [("mixer", 1), ("mixer", 1), ("mixer", 2), ("vit", 1)],
        ),
    ],
    ids=["slots of their own", "alike, by family", "alike, by number", "a definition three times"],
)
def test_the_default_is_a_set_although_its_members_are_drawn_alike(text: str, expected: list[Any]) -> None:
    space = parse(text)
    head = canonical(space.default())
    assert sorted((member.family, member.depth) for member in head.members) == expected
    assert default_decisions(space) in list(all_decisions(space))


def test_inlined_definitions_leave_hash_and_default_as_they_are() -> None:
    vit = "{vit: {depth: {int: [1, 3]}}}"
    named = parse(f"define: {{h: {vit}}}\nhead: {{set: [{{ref: h}}, {{ref: h}}]}}")
    spelled = parse(f"head: {{set: [{vit}, {vit}]}}")
    each = parse(f"head: {{set: {{size: 2, each: {vit}}}}}")
    assert named.hash == spelled.hash == each.hash
    assert named.default() == spelled.default() == each.default()
    assert parse(f"head: {{set: {{size: {{int: [1, 2]}}, each: {vit}}}}}").hash != each.hash
    assert parse(f"head: {{set: [{vit}, {{vit: {{}}}}]}}").hash != each.hash


MISTAKES = {
    "not a list": (
        "head: {set: vit}",
        "2:13",
        "the text 'vit' under 'set'; expected a list of 1 to 8 heads, or",
    ),
    "empty": ("head: {set: []}", "2:13", "a list of 0 under 'set'"),
    "too many": (f"head: {{set: [{', '.join(['{vit: {}}'] * 9)}]}}", "2:13", "a list of 9 under 'set'"),
    "no size": ("head: {set: {each: {vit: {}}}}", "2:13", "a set without 'size'; expected 'size' (how many)"),
    "no each": ("head: {set: {size: 2}}", "2:13", "a set without 'each'"),
    "unknown key": (
        "head: {set: {sise: 2, each: {vit: {}}}}",
        "2:14",
        "unknown key 'sise' of set; did you mean 'size'?",
    ),
    "size zero": (
        "head: {set: {size: 0, each: {vit: {}}}}",
        "2:20",
        "'size' may be 0; expected whole numbers from 1 to 8",
    ),
    "size too large": ("head: {set: {size: {int: [2, 9]}, each: {vit: {}}}}", "2:20", "'size' may be 9"),
    "size of text": ("head: {set: {size: two, each: {vit: {}}}}", "2:20", "'size' may be two"),
    "literal twice": (
        "head:\n  set:\n    - {vit: {depth: 1}}\n    - {vit: {mlp_ratio: 4, depth: 1}}",
        "5:7",
        "a set that names the same head twice: vit-d1-",
    ),
    "stack twice": (
        "head: {set: [{mixer: {depth: 2}}, {stack: {repeat: 2, each: {mixer: {depth: 1}}}}]}",
        "2:35",
        "names the same head twice: mixer-d2-",
    ),
    "each is literal": (
        "head: {set: {size: 2, each: {vit: {}}}}",
        "2:29",
        "names the same head twice: vit-d3-",
    ),
    "each is shared": (
        "define: {h: {vit: {depth: {int: [1, 2]}}}}\nhead: {set: {size: 2, each: {same: h}}}",
        "3:29",
        "names the same head twice: h;",
    ),
    "in a set": (
        "head: {set: [{vit: {}}, {set: [{mixer: {}}]}]}",
        "2:25",
        "a set inside a set; expected single heads",
    ),
    "in a set, below one_of": (
        "define: {s: {set: [{vit: {}}, {mixer: {}}]}}\nhead: {set: {size: 2, each: {one_of: [{swin: {}}, {ref: s}]}}}",
        "3:29",
        "a set inside a set",
    ),
    "in a stack": ("head: {stack: {repeat: 2, each: {set: [{vit: {}}]}}}", "2:33", "a set inside a stack"),
    "definition called set": ("define: {set: 3}\nhead: {vit: {}}", "2:10", "reserved name"),
    "definition called size": ("define: {size: 3}\nhead: {vit: {}}", "2:10", "reserved name"),
    "definition called member1": ("define: {member1: 3}\nhead: {vit: {}}", "2:10", "reserved name"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_that_says_where_and_what(name: str) -> None:
    text, position, message = MISTAKES[name]
    with pytest.raises(SpaceError) as caught:
        parse(text)
    shown = str(caught.value)
    assert shown.startswith(f"s.yaml:{position}: ")
    assert message in shown
    assert "\n" not in shown


@pytest.mark.parametrize("name", ["empty", "too many", "no each", "unknown key", "size zero", "not a list"])
def test_the_schema_refuses_what_it_can_see(name: str) -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    assert not validator.is_valid(yaml.safe_load(TAG + MISTAKES[name][0]))
    assert validator.is_valid(yaml.safe_load(TAG + PAIR))
    assert validator.is_valid(yaml.safe_load(TAG + DRAWN))


def test_coinciding_members_are_refused_like_by_a_constraint() -> None:
    space = parse(DRAWN)
    refused = [head for head in space.enumerate() if isinstance(space.judge(head), str)]
    assert len(refused) == (16 - 4 * 3) + (64 - 4 * 3 * 2)
    assert "a set that names the same head twice: " in str(space.judge(refused[0]))
    with pytest.raises(HeadError, match="twice"):
        space.violated(refused[0])


def test_members_that_a_base_makes_alike_are_refused_on_that_base_alone() -> None:
    space = parse("head: {set: [{vit: {}}, {vit: {num_heads: 2}}]}")
    head = space.default()
    assert isinstance(space.judge(head), Candidate)
    assert "twice: vit-d3-h2-" in str(space.judge(head, BASE)), "64 channels make 2 heads"
    wider = BaseInfo("b", "vit", 96, (4, 4), 96, 4, 1, 1, 16)
    assert space.judge(head, wider) == Candidate.of(head, wider)


@pytest.mark.parametrize(
    ("condition", "allowed"),
    [
        ("depth <= 4", True),
        ("depth <= 3", False),
        ("params <= 4000", True),
        ("params <= 3999", False),
        ("kernel_size == 5", True),
        ("kernel_size == 7", False),
        ("family in ('convnext', 'mixer')", True),
        ("family != 'mixer'", False),
        ("mlp_ratio <= 2", False),
    ],
)
def test_constraints_see_sums_and_every_member(condition: str, allowed: bool) -> None:
    space = parse(
        "head: {set: [{convnext: {depth: 1, kernel_size: 5, mlp_ratio: 2}}, {mixer: {depth: 3}}]}\n"
        f'constraints: ["{condition}"]'
    )
    judged = space.judge(space.default(), BASE, lambda head, base: HeadCost(1000 * head.depth, 1))
    assert judged == (Candidate.of(space.default(), BASE) if allowed else condition)


def test_the_tree_shows_both_forms() -> None:
    def shown(text: str) -> str:
        console = Console(file=io.StringIO(), width=100)
        console.print(space_tree(parse(text)))
        return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]

    assert "set of 2…3 heads, each:" in shown(DRAWN)
    assert shown(DRAWN).count("poolformer") == 1
    lines = [line.strip(" │├└─") for line in shown(PAIR).splitlines()]
    assert [line for line in lines if line in ("set of", "convnext", "mixer")] == [
        "set of",
        "convnext",
        "mixer",
    ]


@given(st.integers(0, 2**32))
def test_a_sample_has_one_identity_in_any_order(seed: int) -> None:
    head = parse(DRAWN).sample(random.Random(seed))
    one = canonical_or_none(head)
    turned = type(head)(members=tuple(reversed(head.members)))
    assert canonical_or_none(turned) == one
    families_and_depths = {(member.family, member.depth) for member in head.members}
    assert (one is None) == (len(families_and_depths) < len(head.members))
    if one is not None:
        assert parse_head(one.to_dict()) == one
        assert head_id(canonical(turned)) == head_id(one)


def test_optuna_decides_for_every_member() -> None:
    space = parse(DRAWN)
    inside = set(space.enumerate())
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5))
    seen: set[str] = set()
    for _ in range(20):
        trial = study.ask()
        head = space.draw(OptunaChooser(trial))
        assert head in inside
        seen |= trial.params.keys()
        study.tell(trial, float(head.depth))
    assert {"size", "member1.family", "member2.family", "member3.family", "member3.mixer.depth"} <= seen


@pytest.mark.parametrize("sampler", ["grid", "tpe", "random"])
def test_a_search_meets_every_set_once_and_none_with_a_head_twice(sampler: str) -> None:
    space = parse(DRAWN)
    proposer = Proposer(space, BASE, sampler=sampler, seed=0, objectives=2)
    tried: set[str] = set()
    while (proposal := proposer.propose(tried, ())) is not None:
        assert len({head_id(member) for member in proposal.candidate.config.members}) == len(
            proposal.candidate.config.members
        )
        proposer.tell(proposal.position, [0.5, float(len(tried))])
        tried.add(proposal.candidate.head_id)
    assert len(tried) == space.count_distinct() == 10


def test_the_shipped_pairs_come_from_the_families_of_tiny() -> None:
    space, tiny = load_space("sets"), load_space("tiny")
    assert space.families == tiny.families
    # Two of 21 members: `count` is of ordered pairs, `distinct` of different ones, a head twice left out.
    singles = {member for head in space.enumerate() for member in head.members}
    assert space.count() == len(singles) ** 2
    assert space.count_distinct() == len(singles) * (len(singles) - 1) // 2
    assert space.validate(BASE) == ()
