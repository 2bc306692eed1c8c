"""One number sets the sizes of a funnel: it costs what was asked for, more buys more, and what was said stays."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headsearch.errors import ExperimentError
from headsearch.experiment import load_experiment
from headsearch.experiment.budget import (
    JOINT_HEADS,
    SCREEN_COST,
    SIZES,
    STOPPED_SHARE,
    hours,
    least,
    with_budget,
)

controls = st.integers(0, 3)
stoppings = st.sampled_from(["asha", "none"])


def sized(budget: float, controls: int = 3, stopping: str = "asha") -> dict[str, Any]:
    return with_budget({"stopping": {"kind": stopping}}, budget, controls=controls)


def cost(sizes: dict[str, Any], controls: int, stopping: str, trunk: float = 0.0) -> float:
    """Proxies, counted stage by stage: controls, joint runs, first trials, further seeds of which `none` has more, trunks."""
    joint_runs = math.ceil(sizes["screen"]["heads"] / JOINT_HEADS)
    first = sizes["trials"] * (STOPPED_SHARE if stopping == "asha" else 1.0)
    further = (sizes["finalists"] + controls) * (sizes["replicates"] - 1)
    if controls and trunk == 0.0:
        further += (
            max(round(sizes["finalists"] ** 0.5 * sizes["replicates"]), sizes["replicates"])
            - sizes["replicates"]
        )
    further += trunk * sizes["replicates"]
    return controls + SCREEN_COST * joint_runs + first + further


def test_a_budget_pays_for_a_trunk_in_every_replicate() -> None:
    plain = load_experiment("digits", ["search={space: tiny, budget: 60}"]).search
    found = load_experiment("digits", ["search={space: tiny, budget: 60}", "proxy.trunk={epochs: 100}"])
    assert found.trunk_cost == 2.5
    sizes = found.search.model_dump()
    paid = cost(sizes, 3, "asha", 2.5)
    assert 57 < paid <= 60
    assert found.search.trials < plain.trials
    expected = r"search: budget: 8 proxies are too few; expected at least 8\.5: a trunk \(2\.5\), 3 controls"
    with pytest.raises(ExperimentError, match=expected):
        load_experiment("digits", ["search={space: tiny, budget: 8}", "proxy.trunk=auto"])


@pytest.mark.parametrize("trunk", ["{}", "7", "{epochs: 3, file: a.pt}"])
def test_a_trunk_that_is_none_is_refused_in_one_line(trunk: str) -> None:
    expected = r"proxy\.trunk: expected \{epochs: N\}, a file of weights, auto or null"
    with pytest.raises(ExperimentError, match=expected):
        load_experiment("digits", [f"proxy.trunk={trunk}"])


@pytest.mark.parametrize("weights", ["pretrained", "base.pt"])
def test_a_base_with_weights_has_its_trunk_already(weights: str) -> None:
    experiment = load_experiment("digits", ["proxy.trunk=auto", f"base.weights={weights}"])
    assert experiment.proxy.trunk is None


@given(st.floats(0, 500), controls, stoppings)
def test_a_funnel_costs_no_more_than_its_budget(extra: float, controls: int, stopping: str) -> None:
    budget = least(controls) + extra
    assert cost(sized(budget, controls, stopping), controls, stopping) <= budget


@given(st.floats(0, 500), controls, stoppings)
def test_a_budget_is_spent(extra: float, controls: int, stopping: str) -> None:
    """One head more would need another joint run at most."""
    budget = least(controls) + extra
    sizes = sized(budget, controls, stopping)
    assert budget - cost(sizes, controls, stopping) < 1.0 + SCREEN_COST + 2 * (sizes["finalists"] + controls)


@given(st.floats(0, 300), st.floats(0, 300), controls, stoppings)
def test_more_buys_surer_answers_or_more_heads(a: float, b: float, controls: int, stopping: str) -> None:
    """What is bought first is seeds: with the same of them a larger budget tries as many heads or more."""
    less, more = (sized(least(controls) + extra, controls, stopping) for extra in sorted((a, b)))
    endings = [(sizes["finalists"], sizes["replicates"]) for sizes in (less, more)]
    assert endings[0] <= endings[1]
    if endings[0] == endings[1]:
        assert less["trials"] <= more["trials"]
        assert less["candidates"] <= more["candidates"]
        assert less["screen"]["heads"] <= more["screen"]["heads"]


@given(st.floats(0, 500), controls, stoppings)
def test_the_sizes_are_ones_that_an_experiment_takes(extra: float, controls: int, stopping: str) -> None:
    sizes = sized(least(controls) + extra, controls, stopping)
    assert set(SIZES) <= set(sizes)
    assert 1 <= sizes["trials"] <= sizes["screen"]["heads"] <= sizes["candidates"]
    assert sizes["audit"] < sizes["trials"]
    assert 2 * sizes["finalists"] <= sizes["trials"]
    assert (sizes["finalists"] == 0) == (sizes["replicates"] == 1)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "candidates": st.integers(1, 999),
            "trials": st.integers(1, 99),
            "audit": st.integers(0, 9),
            "finalists": st.integers(1, 9),
            "replicates": st.integers(1, 9),
            "screen": st.fixed_dictionaries({"batch": st.integers(2, 9)}, optional={"heads": st.integers(1)}),
            "sampler": st.just("random"),
        },
    )
)
def test_what_was_asked_for_stays(search: dict[str, Any]) -> None:
    given = with_budget(search, 40, controls=3)
    assert {key: given[key] for key in search if key != "screen"} == {
        key: value for key, value in search.items() if key != "screen"
    }
    assert search.get("screen", {}).items() <= given["screen"].items()


@pytest.mark.parametrize("controls", [0, 1, 3])
def test_less_than_controls_a_screen_and_one_head_is_refused(controls: int) -> None:
    assert sized(least(controls), controls, "none")["trials"] == 1
    with pytest.raises(ValueError, match=rf"too few; expected at least {least(controls):g}"):
        sized(least(controls) - 0.01, controls)


def test_an_experiment_with_a_budget_has_its_sizes_and_keeps_what_is_said() -> None:
    search = load_experiment(None, ["search.budget=40", "search.audit=3"]).search
    asked = with_budget({"audit": 3}, 40.0, controls=3)
    assert {key: getattr(search, key) for key in SIZES if key != "screen"} == {
        key: asked[key] for key in SIZES if key != "screen"
    }
    assert search.screen.heads == asked["screen"]["heads"]
    with pytest.raises(ExperimentError, match=r"budget: 3 proxies are too few; expected at least 6"):
        load_experiment(None, ["search.budget=3"])


def test_a_budget_in_hours_waits_until_it_is_known_how_many_proxies_fit() -> None:
    search = load_experiment(None, ["search.budget='1.5 h'"]).search
    assert hours("1.5 h") == hours(" 1.5hours ") == 1.5
    assert hours("2 h") == 2.0
    assert hours("2 h 30 min") == hours("150 min") == hours("2h30min") == 2.5
    assert hours("2:30") == hours("") == hours("h") == hours("2") == hours("30 min 2 h") == 0.0
    assert search.sized(30.0).trials == with_budget({}, 30.0, controls=3)["trials"]
    with pytest.raises(ValueError, match="too few"):
        search.sized(2.0)


def test_sizes_that_are_given_go_with_those_that_hours_buy_or_are_refused_in_one_line() -> None:
    hours_for_one = ["search.budget='2 h'", "search.trials=1", "search.finalists=0", "search.controls=[none]"]
    one = load_experiment(None, hours_for_one).search.sized(30.0)
    assert (one.trials, one.audit) == (1, 0), "no trial is left to chance where there is one"
    many = load_experiment(None, ["search.budget='2 h'", "search.trials=20"]).search
    with pytest.raises(ExperimentError) as raised:
        many.sized(12.0)
    assert str(raised.value) == "search.budget: 2 h: trials (20) must not exceed screen.heads (15)"
