from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headsearch.search.stopping import (
    Decision,
    Objectives,
    SuccessiveHalving,
    non_dominated_layers,
    spread_out,
    survivors,
)

RUNGS = (1, 3, 9)
# Few values, so that ties and duplicates are common.
value = st.integers(0, 5).map(float)
one_objective = st.lists(st.tuples(value), min_size=1, max_size=25)
two_objectives = st.lists(st.tuples(value, value), min_size=1, max_size=25)
objectives = st.one_of(one_objective, two_objectives)


def dominates(a: Objectives, b: Objectives) -> bool:
    return all(x >= y for x, y in zip(a, b, strict=True)) and a != b


def layers_by_brute_force(points: dict[int, Objectives]) -> list[set[int]]:
    left, layers = dict(points), []
    while left:
        layer = {key for key in left if not any(dominates(other, left[key]) for other in left.values())}
        layers.append(layer)
        left = {key: point for key, point in left.items() if key not in layer}
    return layers


@given(objectives)
def test_layers_equal_those_peeled_off_one_by_one(points: list[Objectives]) -> None:
    numbered = dict(enumerate(points))
    layers = non_dominated_layers(numbered)
    assert [set(layer) for layer in layers] == layers_by_brute_force(numbered)
    assert sum(map(len, layers)) == len(points)


@given(objectives, st.integers(1, 5))
def test_survivors_fill_layer_after_layer(points: list[Objectives], reduction: int) -> None:
    numbered = dict(enumerate(points))
    chosen = survivors(numbered, reduction)
    assert len(set(chosen)) == len(chosen) >= max(1, len(points) // reduction)
    rank = {key: depth for depth, layer in enumerate(layers_by_brute_force(numbered)) for key in layer}
    worst = max(rank[key] for key in chosen)
    assert {key for key in rank if rank[key] < worst} <= set(chosen)


@given(one_objective, st.integers(1, 5))
def test_survivors_on_one_objective_are_the_top_of_the_sorted_list(
    points: list[Objectives], reduction: int
) -> None:
    best_first = sorted(range(len(points)), key=lambda key: (-points[key][0], key))
    expected = best_first[: max(1, len(points) // reduction)]
    assert set(survivors(dict(enumerate(points)), reduction)) == set(expected)


@given(objectives, st.integers(1, 5))
def test_survivors_do_not_depend_on_the_order_of_arrival(points: list[Objectives], reduction: int) -> None:
    numbered = dict(enumerate(points))
    assert survivors(numbered, reduction) == survivors(dict(reversed(numbered.items())), reduction)


def test_a_layer_is_thinned_from_its_ends_to_the_widest_gap() -> None:
    # Along the line the points lie at 0, 0.2, 0.4, 0.5 and 1. After the ends 0.5 is farthest from them, and then 0.2: it is 0.2 away from
    # its nearest, and 0.4 only 0.1.
    points = dict(enumerate([(0.0, 10.0), (0.2, 8.0), (0.4, 6.0), (0.5, 5.0), (1.0, 0.0)]))
    layer = non_dominated_layers(points)[0]
    assert spread_out(layer, points, 4) == [4, 0, 3, 1]


def test_of_two_heads_that_measure_alike_one_survives() -> None:
    points = dict(
        enumerate([(1.0, 0.0), (0.0, 1.0), (0.99, 0.01), (0.5, 0.5), (0.1, 0.1), (0.2, 0.1), (0.1, 0.2)])
    )
    assert set(survivors(points, 2)) == {0, 1, 3}


def play(stopping: SuccessiveHalving, reports: list[tuple[int, int, Objectives]]) -> list[bool]:
    """Decisions, in order; a stopped trial reports no more."""
    stopped: set[int] = set()
    decisions = []
    for number, epoch, point in reports:
        if number not in stopped:
            decisions.append(stopping.decide(number, epoch, point))
            stopped |= set() if decisions[-1] else {number}
    return decisions


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, int, Objectives]]:
    """Trials that run side by side: reports of a trial rise, those of different trials mix."""
    size = draw(st.integers(1, 2))
    numbers = draw(st.lists(st.integers(0, 11), max_size=36))
    seen: dict[int, int] = {}
    reports = []
    for number in numbers:
        if seen.get(number, 0) < len(RUNGS):
            point = tuple(draw(value) for _ in range(size))
            reports.append((number, RUNGS[seen.get(number, 0)], point))
            seen[number] = seen.get(number, 0) + 1
    return reports


@given(histories(), st.integers(1, 4))
def test_the_leader_of_a_rung_and_the_last_rung_are_never_stopped(
    reports: list[tuple[int, int, Objectives]], reduction: int
) -> None:
    stopping = SuccessiveHalving(RUNGS, reduction)
    for number, epoch, point in reports:
        before = [d.objectives for d in stopping.decisions if d.epoch == epoch and d.number != number]
        leads = any(all(point[i] > other[i] for other in before) for i in range(len(point)))
        go_on = stopping.decide(number, epoch, point)
        assert go_on or not (leads or epoch == RUNGS[-1])


@given(histories())
def test_reduction_of_one_stops_nothing(reports: list[tuple[int, int, Objectives]]) -> None:
    assert all(play(SuccessiveHalving(RUNGS, reduction=1), reports))


@given(histories(), st.integers(1, 4), st.integers(0, 36), st.randoms(use_true_random=False))
def test_a_policy_rebuilt_from_its_records_decides_as_the_live_one(
    reports: list[tuple[int, int, Objectives]], reduction: int, crash: int, shuffle: random.Random
) -> None:
    live = SuccessiveHalving(RUNGS, reduction)
    play(live, reports[:crash])
    records = json.loads(json.dumps(live.decisions))
    shuffle.shuffle(records)
    rebuilt = SuccessiveHalving(RUNGS, reduction)
    rebuilt.remember(Decision(n, epoch, tuple(point), go_on) for n, epoch, point, go_on in records)
    stopped = {d.number for d in live.decisions if not d.go_on}
    # Trials that were running at the crash report once more what they had reported.
    rest = [report for report in reports[:crash] + reports[crash:] if report[0] not in stopped]
    assert play(rebuilt, rest) == play(live, rest)
    assert set(rebuilt.decisions) == set(live.decisions)


def test_a_repeated_report_is_answered_as_before_though_the_field_has_grown() -> None:
    stopping = SuccessiveHalving(RUNGS, 3)
    assert stopping.decide(0, 1, (0.5,))
    for number in range(1, 9):
        stopping.decide(number, 1, (0.5 + number / 10,))
    assert stopping.decide(0, 1, (0.5,))
    assert not stopping.decide(9, 1, (0.5,))


def test_a_withdrawn_trial_raises_the_bar_no_more() -> None:
    stopping = SuccessiveHalving(RUNGS, 3)
    stopping.decide(0, 1, (99.0, 99.0))
    assert not stopping.decide(1, 1, (0.5, 50.0))
    stopping.withdraw(0)
    assert stopping.decide(2, 1, (0.6, 60.0))
    assert [decision.number for decision in stopping.decisions] == [1, 2]


@pytest.mark.parametrize(
    ("rungs", "reduction", "message"),
    [
        ((), 3, "rungs must rise"),
        ((3, 1), 3, "rungs must rise"),
        ((1, 1), 3, "rungs must rise"),
        ((0, 1), 3, "rungs must rise"),
        ((1, 3), 0, "reduction must be at least 1, got 0"),
    ],
)
def test_nonsense_is_refused(rungs: tuple[int, ...], reduction: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SuccessiveHalving(rungs, reduction)


@pytest.mark.parametrize(
    ("epoch", "point", "message"),
    [
        (2, (1.0, 1.0), "epoch 2 is no rung"),
        (1, (), "one or two finite"),
        (1, (1.0, float("nan")), "one or two finite"),
        (1, (1.0,), "expected 2 objectives"),
    ],
)
def test_a_report_that_cannot_be_compared_is_refused(epoch: int, point: Objectives, message: str) -> None:
    stopping = SuccessiveHalving(RUNGS)
    stopping.decide(0, 1, (0.5, 50.0))
    with pytest.raises(ValueError, match=message):
        stopping.decide(1, epoch, point)
