"""Counting, enumerating and sampling random spaces, against an independent brute-force reading of the YAML data."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from headsearch.errors import SpaceError
from headsearch.heads import HeadConfig, validate_stage
from headsearch.space import Space, parse_space

FAST = settings(suppress_health_check=list(HealthCheck))
Shared = Mapping[str, Any]


def as_space(data: Mapping[str, Any]) -> Space:
    try:
        return parse_space(json.dumps(data), "random.yaml")  # JSON is YAML
    except SpaceError as error:
        # Chance writes sets that can only ever name a head twice: tests/space/test_sets.py is about those.
        assume("names the same head twice" not in str(error))
        raise


def space_of(head: Any, **define: Any) -> Space:
    return as_space({"space": "headsearch/space@1", "define": define, "head": head})


# --- the brute force: every outcome of a node, with the shared draws made so far


def values(node: Any, define: Mapping[str, Any], shared: Shared) -> Iterator[tuple[Any, Shared]]:
    if not isinstance(node, dict):
        yield node, shared
    elif "choice" in node:
        yield from ((value, shared) for value in node["choice"])
    elif "int" in node:
        low, high = node["int"]
        yield from ((value, shared) for value in range(low, high + 1, node.get("step", 1)))
    elif "ref" in node:
        yield from values(define[node["ref"]], define, shared)
    elif node["same"] in shared:
        yield shared[node["same"]], shared
    else:
        for value, after in values(define[node["same"]], define, shared):
            yield value, {**after, node["same"]: value}


def heads(node: Any, define: Mapping[str, Any], shared: Shared) -> Iterator[tuple[tuple[Any, ...], Shared]]:
    if "ref" in node:
        yield from heads(define[node["ref"]], define, shared)
    elif "same" in node:
        if node["same"] in shared:
            yield shared[node["same"]], shared
            return
        for head, after in heads(define[node["same"]], define, shared):
            yield head, {**after, node["same"]: head}
    elif "one_of" in node:
        for branch in node["one_of"]:
            yield from heads(branch, define, shared)
    elif "stack" in node:
        for repeat, after in values(node["stack"]["repeat"], define, shared):
            yield from slots(node["stack"]["each"], repeat, define, after)
    else:
        [(family, parameters)] = node.items()
        yield from stages(family, list(parameters.items()), {}, define, shared)


def slots(
    each: Any, left: int, define: Mapping[str, Any], shared: Shared
) -> Iterator[tuple[tuple[Any, ...], Shared]]:
    if left == 0:
        yield (), shared
        return
    for first, between in heads(each, define, shared):
        for rest, after in slots(each, left - 1, define, between):
            yield first + rest, after


def stages(
    family: str, left: list[tuple[str, Any]], drawn: dict[str, Any], define: Mapping[str, Any], shared: Shared
) -> Iterator[tuple[tuple[Any, ...], Shared]]:
    if not left:
        yield (validate_stage(family, drawn),), shared
        return
    (name, node), *rest = left
    for value, after in values(node, define, shared):
        yield from stages(family, rest, {**drawn, name: value}, define, after)


def candidates(node: Any, define: Mapping[str, Any], shared: Shared) -> Iterator[HeadConfig]:
    """Heads and sets of heads; sets stand at the top or below `one_of`, nowhere else."""
    if "one_of" in node:
        for branch in node["one_of"]:
            yield from candidates(branch, define, shared)
    elif "set" in node:
        body = node["set"]
        if isinstance(body, list):
            yield from members(body, define, shared, ())
        else:
            for size, after in values(body["size"], define, shared):
                yield from members([body["each"]] * size, define, after, ())
    else:
        yield from (HeadConfig(found) for found, _ in heads(node, define, shared))


def members(
    left: list[Any], define: Mapping[str, Any], shared: Shared, drawn: tuple[HeadConfig, ...]
) -> Iterator[HeadConfig]:
    if not left:
        yield HeadConfig(members=drawn)
        return
    for found, after in heads(left[0], define, shared):
        yield from members(left[1:], define, after, (*drawn, HeadConfig(found)))


def every_head(data: Mapping[str, Any]) -> list[HeadConfig]:
    return list(candidates(data["head"], data["define"], {}))


# --- random spaces: v* are numbers, h* are heads; a definition names only those before it


def numbers(names: list[str]) -> st.SearchStrategy[Any]:
    plain = st.one_of(
        st.integers(1, 4),
        st.lists(st.integers(1, 4), min_size=1, max_size=3, unique=True).map(
            lambda options: {"choice": options}
        ),
        st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 2)).map(
            lambda t: {"int": [min(t[:2]), max(t[:2])], "step": t[2]}
        ),
    )
    named = (
        st.tuples(st.sampled_from(["ref", "same"]), st.sampled_from(names)).map(lambda t: {t[0]: t[1]})
        if names
        else plain
    )
    return st.one_of(plain, named)


def random_heads(value_names: list[str], head_names: list[str], levels: int) -> st.SearchStrategy[Any]:
    number = numbers(value_names)
    options = [
        st.fixed_dictionaries({"depth": number}).map(lambda p: {"mixer": p}),
        st.fixed_dictionaries({"depth": number, "mlp_ratio": number}).map(lambda p: {"resmlp": p}),
    ]
    if head_names:
        options.append(
            st.tuples(st.sampled_from(["ref", "same"]), st.sampled_from(head_names)).map(
                lambda t: {t[0]: t[1]}
            )
        )
    if levels:
        inner = random_heads(value_names, head_names, levels - 1)
        options.append(st.lists(inner, min_size=1, max_size=3).map(lambda branches: {"one_of": branches}))
        options.append(st.tuples(number, inner).map(lambda t: {"stack": {"repeat": t[0], "each": t[1]}}))
    return st.one_of(options)


def random_candidates(value_names: list[str], head_names: list[str]) -> st.SearchStrategy[Any]:
    """Sets of heads beside single ones."""
    member = random_heads(value_names, head_names, 1)
    a_set = st.one_of(
        st.lists(member, min_size=1, max_size=3),
        st.fixed_dictionaries({"size": numbers(value_names), "each": member}),
    ).map(lambda body: {"set": body})
    return st.one_of(
        random_heads(value_names, head_names, 2),
        a_set,
        st.lists(st.one_of(a_set, member), min_size=1, max_size=2).map(lambda branches: {"one_of": branches}),
    )


@st.composite
def random_spaces(draw: st.DrawFn) -> dict[str, Any]:
    define: dict[str, Any] = {}
    value_names: list[str] = []
    head_names: list[str] = []
    for index in range(draw(st.integers(0, 3))):
        define[f"v{index}"] = draw(numbers(value_names))
        value_names.append(f"v{index}")
    for index in range(draw(st.integers(0, 2))):
        define[f"h{index}"] = draw(random_heads(value_names, head_names, 1))
        head_names.append(f"h{index}")
    return {
        "space": "headsearch/space@1",
        "define": define,
        "head": draw(random_candidates(value_names, head_names)),
    }


@FAST
@given(random_spaces())
def test_count_and_enumeration_agree_with_brute_force(data: dict[str, Any]) -> None:
    space = as_space(data)
    count = space.count()
    assume(count is not None and count <= 1500)
    expected = every_head(data)
    assert count == len(expected)
    assert Counter(space.enumerate()) == Counter(expected)


@FAST
@given(random_spaces(), st.integers(0, 2**32))
def test_samples_and_default_lie_in_the_space(data: dict[str, Any], seed: int) -> None:
    space = as_space(data)
    assume((space.count() or 0) <= 1500)
    inside = set(every_head(data))
    rng = random.Random(seed)
    assert {space.sample(rng) for _ in range(20)} <= inside
    assert space.default() in inside


class NamesOnce:
    """Chooses at random, and checks that one name always comes with one domain, and at most once a head."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.domains: dict[str, Any] = {}
        self.seen: set[str] = set()

    def note(self, name: str, *domain: Any) -> None:
        assert self.domains.setdefault(name, domain) == domain
        assert name not in self.seen
        self.seen.add(name)

    def categorical(self, name: str, choices: Any) -> Any:
        self.note(name, "categorical", tuple(choices))
        return self.rng.choice(choices)

    def integer(self, name: str, low: int, high: int, step: int, log: bool) -> int:
        self.note(name, "integer", low, high, step, log)
        return self.rng.randrange(low, high + 1, step)

    def real(self, name: str, low: float, high: float, log: bool) -> float:
        self.note(name, "real", low, high, log)
        return self.rng.uniform(low, high)


@FAST
@given(random_spaces())
def test_a_name_stands_for_one_domain_and_one_decision(data: dict[str, Any]) -> None:
    space = as_space(data)
    chooser = NamesOnce(0)
    for _ in range(30):
        chooser.seen.clear()
        space.draw(chooser)


def test_count_of_a_product() -> None:
    assert space_of({"mixer": {"depth": {"int": [1, 4]}, "mlp_ratio": {"choice": [2, 4]}}}).count() == 8


def test_same_counts_once_where_ref_counts_each_time() -> None:
    def stack(keyword: str) -> Space:
        return space_of(
            {"stack": {"repeat": 3, "each": {"mixer": {"depth": {keyword: "d"}}}}}, d={"int": [1, 4]}
        )

    assert stack("ref").count() == 4**3
    assert stack("same").count() == 4


def test_a_shared_repeat_ties_the_number_of_slots_to_its_other_uses() -> None:
    each = {"resmlp": {"depth": {"same": "n"}, "mlp_ratio": {"choice": [2, 4]}}}
    space = space_of({"stack": {"repeat": {"same": "n"}, "each": each}}, n={"int": [1, 3]})
    assert space.count() == 2 + 2**2 + 2**3
    assert all(len(head.stages) == stage.params["depth"] for head in space.enumerate() for stage in head)


def test_a_draw_shared_by_some_branches_does_not_multiply_the_others() -> None:
    space = space_of(
        {"one_of": [{"mixer": {"depth": {"same": "d"}}}, {"gmlp": {"depth": 1}}]}, d={"int": [1, 4]}
    )
    assert space.count() == 5


def test_a_large_space_is_counted_without_enumeration() -> None:
    each = {"convnext": {"depth": {"int": [1, 12]}, "kernel_size": {"choice": [3, 5, 7, 9]}}}
    assert space_of({"stack": {"repeat": {"int": [1, 20]}, "each": each}}).count() == sum(
        48**n for n in range(1, 21)
    )


def test_a_continuum_has_no_count_and_no_enumeration() -> None:
    space = space_of({"mixer": {"drop_path": {"float": [0.0, 0.3]}}})
    assert space.count() is None
    assert not space.is_finite
    assert space.count_distinct() is None
    with pytest.raises(SpaceError, match="infinite"):
        space.enumerate()


def test_a_float_with_equal_bounds_is_one_value() -> None:
    assert space_of({"mixer": {"drop_path": {"float": [0.1, 0.1]}}}).count() == 1


def test_distinct_heads_are_counted_by_the_network_they_build() -> None:
    # depth 1 then 1 and depth 2 are the same two blocks
    space = space_of(
        {"one_of": [{"stack": {"repeat": 2, "each": {"mixer": {"depth": 1}}}}, {"mixer": {"depth": 2}}]}
    )
    assert space.count() == 2
    assert space.count_distinct() == 1
    assert space.count_distinct(limit=1) is None
