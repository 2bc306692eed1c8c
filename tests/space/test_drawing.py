"""Distinct heads of a space."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from headsearch.errors import SpaceError
from headsearch.heads import Candidate
from headsearch.space import load_space, parse_space
from headsearch.space.drawing import distinct_heads
from headsearch.testing.heads import toy_base

TINY = load_space("tiny")


def space(head: str, constraints: str = "[]"):
    return parse_space(f"space: headsearch/space@1\nhead: {head}\nconstraints: {constraints}", "mine.yaml")


def test_a_small_space_is_drawn_whole() -> None:
    heads = distinct_heads(TINY, 1000, seed=3)
    assert set(heads) == {Candidate.of(head) for head in TINY.enumerate()}
    assert len(heads) == len(set(heads)) == TINY.count_distinct()


def test_a_larger_one_by_chance_and_the_same_for_the_same_seed() -> None:
    first, again, other = (distinct_heads(TINY, 20, seed=seed) for seed in (1, 1, 2))
    assert first == again
    assert len(set(first)) == len(set(other)) == 20
    assert set(first) != set(other)


def test_the_last_heads_are_found_where_chance_would_take_forever() -> None:
    count = TINY.count_distinct()
    assert count is not None
    assert len(set(distinct_heads(TINY, count - 1, seed=0))) == count - 1
    # One branch in two leads to one head of a thousand.
    rare = space("{one_of: [{mixer: {depth: 1}}, {mixer: {depth: 2, mlp_ratio: {choice: [1, 2, 3, 4]}}}]}")
    assert len(distinct_heads(rare, 5, seed=0)) == 5


def test_families_come_up_alike_however_many_heads_they_have() -> None:
    uneven = space("{one_of: [{mlp: {depth: {int: [1, 12]}}}, {convnext: {mlp_ratio: {float: [1, 8]}}}]}")
    counts = Counter(head.config.family for head in distinct_heads(uneven, 20, seed=0))
    assert counts["mlp"] > 4


def test_two_descriptions_of_one_network_are_one_head() -> None:
    twice = space("{one_of: [{vit: {num_heads: 2}}, {vit: {num_heads: null}}]}")
    assert len(distinct_heads(twice, 10, seed=0)) == 2
    assert len(distinct_heads(twice, 10, seed=0, base=toy_base(64))) == 1


def test_constraints_and_base_are_applied() -> None:
    deep = space("{mixer: {depth: {int: [1, 9]}}}", "[depth > 6]")
    assert {head.config.depth for head in distinct_heads(deep, 100, seed=0)} == {7, 8, 9}
    assert {head.config.depth for head in distinct_heads(deep, 2, seed=0)} < {7, 8, 9}
    with pytest.raises(
        SpaceError, match=r"mine\.yaml.*no head of the space is allowed.*refused by 'depth > 9'"
    ):
        distinct_heads(space("{mixer: {depth: {int: [1, 9]}}}", "[depth > 9]"), 5, seed=0)


def test_a_continuum_that_allows_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="no head of the space is allowed"):
        distinct_heads(space("{mixer: {mlp_ratio: {float: [1, 2]}}}", "[mlp_ratio > 2]"), 5, seed=0)
