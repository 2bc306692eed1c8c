"""What a search costs on a table of curves: by hand on a table of a few heads, and from runs on the toy objective."""

import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from headbench.making import OVERHEAD, collect, write_headbench

from headsearch.testing.toy_search import run_toy, toy_experiment


@pytest.fixture(scope="module")
def script() -> Any:
    return importlib.import_module("search_cost")


@pytest.fixture(scope="module")
def policies() -> Any:
    return importlib.import_module("search_policies")


@pytest.fixture
def bench(policies: Any) -> Any:
    """Ten heads of rising worth, two seeds, trainings that order them rightly from the first rung; an epoch of any head takes an hour."""
    curves = np.zeros((10, 2, 3, 2))
    curves[..., 1] = np.arange(10.0)[:, None, None]
    return policies.Bench(
        heads=[str(index) for index in range(10)],
        params=[{"kind": "a", "depth": index, "first_shortcut": False} for index in range(10)],
        short=policies.Schedule((1, 2, 4), curves),
        long=policies.Schedule((5, 10, 20), curves),
        screened=curves[:, :, -1, 1],
        hours=np.ones(10),
        screen=policies.Training(8.0, 8.0),
    )


def test_everything_costs_every_head_and_finds_the_best(script: Any, policies: Any, bench: Any) -> None:
    (step,) = policies.everything(bench, seed=0)
    assert step == (200.0, 200.0, 9)
    assert bench.everything == (200.0, 200.0)
    assert script.until_good(bench, [step]) == (200.0, 200.0)


@pytest.mark.parametrize(("name", "epochs"), [("funnel, short", 4), ("funnel", 20)])
def test_a_funnel_pays_for_its_screen_its_trainings_and_its_finalists(
    script: Any, policies: Any, bench: Any, name: str, epochs: int
) -> None:
    steps = policies.POLICIES[name](bench, 0)
    assert steps[0] == (8.0, 8.0, 9)
    assert len(steps) == 1 + 8 + 1
    assert steps[-1] == (8.0 + 8 * epochs + 2 * epochs, 8.0 + 10 * epochs, 9)
    # The screen's first was right at once.
    assert script.until_good(bench, steps) == (8.0, 8.0)


def test_a_funnel_that_stops_weak_heads_trains_few_to_the_end(policies: Any, bench: Any) -> None:
    steps = policies.POLICIES["funnel, stopped early"](bench, 0)
    assert steps[1] == (28.0, 28.0, 9)
    assert steps[-1].head == 9
    # The others are worse than the first: they end at the first rung, or, as the second best where a third may go on, at the next.
    assert 8 + 20 + 7 * 5 <= steps[-2].epochs <= 8 + 20 + 2 * 10 + 5 * 5
    # One finalist is left, which is trained once more.
    assert steps[-1].epochs == steps[-2].epochs + 20


def test_only_a_head_that_stays_good_to_the_end_counts(script: Any, policies: Any, bench: Any) -> None:
    step = policies.Step
    assert script.until_good(bench, [step(1, 1, 9), step(2, 2, 3), step(5, 6, 9), step(7, 8, 9)]) == (5, 6)
    assert script.until_good(bench, [step(1, 1, 9), step(2, 2, 3)]) is None


def test_regret_before_anything_is_returned_is_that_of_chance(script: Any, bench: Any) -> None:
    steps = [script.Step(10, 10, 4), script.Step(100, 100, 9)]
    assert script.regret_at(bench, steps, 0.01) == 4.5
    assert script.regret_at(bench, steps, 0.05) == 5.0
    assert script.regret_at(bench, steps, 1.0) == 0.0


@pytest.mark.parametrize("name", ["tpe", "tpe, short", "nsga2", "nsga2, short", "random", "random, short"])
def test_others_train_every_head_once(policies: Any, bench: Any, name: str) -> None:
    steps = policies.POLICIES[name](bench, 3)
    assert len(steps) == 10
    assert steps[-1].epochs == (40 if name.endswith("short") else 200)
    assert steps[-1].head == 9


@pytest.mark.parametrize("name", ["random, stopped early", "tpe, stopped early"])
def test_stopping_early_spends_less(policies: Any, bench: Any, name: str) -> None:
    steps = policies.POLICIES[name](bench, 3)
    assert steps[-1].epochs < 200
    assert steps[-1].head == 9


def test_a_table_of_runs_is_measured(script: Any, policies: Any, tmp_path: Path) -> None:
    every = {"sampler": "grid", "trials": 12, "finalists": 12, "replicates": 2}
    run_toy(tmp_path / "proxies", toy_experiment(**every))
    run_toy(tmp_path / "long", toy_experiment(seed=7, **every))
    run_toy(
        tmp_path / "screen",
        toy_experiment(strategy="screen", screen={"heads": 66, "batch": 68, "reduction": 1}, replicates=2),
    )
    (tmp_path / "screen" / OVERHEAD).write_text("1.5")
    path = tmp_path / "bench.csv.gz"
    write_headbench(path, collect(tmp_path))
    bench = policies.load(path)
    assert len(bench.heads) == 12
    assert bench.short.curves.shape == bench.long.curves.shape == (12, 2, 3, 2)
    # A step of the joint run takes 2.5 steps without heads; nine epochs of it, in epochs of a mean proxy.
    depths = np.array([params["depth"] for params in bench.params])
    assert bench.screen.hours == pytest.approx(9 * 2.5 * bench.hours / (1 + 0.05 * depths))
    rows = {row["search"]: row for row in script.measure(bench, 20)}
    assert rows["everything"]["epochs"][0] == pytest.approx(1.0)
    assert rows["everything"]["whole"] == pytest.approx(1.0)
    assert all(math.isfinite(row["regret"]) and row["regret"] >= 0 for row in rows.values())
    assert rows["funnel"]["regret"] < float((bench.truth.max() - bench.truth).mean())
