"""The experiments that HeadBench is made of: what the parts have in common, and in what they differ."""

import importlib
from typing import Any

import pytest
from headbench.table import PARTS

from headsearch.experiment import Experiment
from headsearch.search.materials import read_space

BENCHES = {"digits": (24, 3), "cifar10": (12, 2), "cifar10-convnext": (12, 2)}


@pytest.fixture(scope="module")
def script() -> Any:
    return importlib.import_module("make_headbench")


def parts(script: Any, name: str, *overrides: str) -> dict[str, Experiment]:
    return {
        part: script.part_experiment(name, part, workers=2, overrides=["data.root=images", *overrides])
        for part in PARTS
    }


@pytest.mark.parametrize("name", BENCHES)
def test_every_part_trains_the_same_heads_with_as_many_seeds(script: Any, name: str) -> None:
    heads, seeds = BENCHES[name]
    made = parts(script, name)
    assert {experiment.search.replicates for experiment in made.values()} == {seeds}
    assert all(experiment.base == made["proxies"].base for experiment in made.values())
    (path,) = {experiment.search.space for experiment in made.values()}
    assert read_space(path)[0].count_distinct() == heads
    for part in ("proxies", "long"):
        search = made[part].search
        assert (search.trials, search.finalists, search.sampler, search.stopping.kind) == (
            heads,
            heads,
            "grid",
            "none",
        )
    for part in ("screen", "screen-all", "screen-long"):
        screen = made[part].search.screen
        # One joint run, in which no head is dropped.
        assert (screen.heads, screen.batch, screen.reduction) == (heads, heads, 1)
        assert screen.in_each_step(heads) == (heads if part == "screen-all" else heads // 6)


@pytest.mark.parametrize("name", BENCHES)
def test_long_is_five_proxies_with_other_seeds_and_a_screen_as_long_as_one(script: Any, name: str) -> None:
    made = parts(script, name)
    proxy, long = made["proxies"].proxy, made["long"].proxy
    assert (long.epochs, long.rungs) == (5 * proxy.epochs, [5 * rung for rung in proxy.rungs])
    assert made["long"].seed != made["proxies"].seed
    assert made["screen"].search.screen.epochs == made["screen-all"].search.screen.epochs == proxy.epochs
    # Each head is in a sixth of the steps.
    assert made["screen-long"].search.screen.epochs == 6 * proxy.epochs


def test_what_is_set_by_hand_holds_in_every_part(script: Any) -> None:
    made = parts(script, "cifar10", "data.image_size=16")
    assert {experiment.data.image_size for experiment in made.values()} == {16}
