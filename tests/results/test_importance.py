"""The share of variance against scikit-learn's regression, against chance, and against cases computed by hand."""

import random

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression

from headsearch.heads import parse_head
from headsearch.results.importance import ENOUGH, explained, head_parameters, importances


def adjusted_r2(groups: list[list[float]]) -> float:
    """By ordinary regression on indicators of the groups."""
    x = np.concatenate([np.eye(len(groups))[[place] * len(group)] for place, group in enumerate(groups)])
    y = np.concatenate(groups)
    n, k = len(y), len(groups)
    r2 = LinearRegression(fit_intercept=False).fit(x, y).score(x, y)
    return float(1 - (1 - r2) * (n - 1) / (n - k))


@pytest.mark.parametrize("seed", range(5))
def test_the_share_is_the_adjusted_r2_of_the_group_means(seed: int) -> None:
    rng = random.Random(seed)
    groups = [[rng.gauss(mean, 1.0) for _ in range(rng.randint(1, 6))] for mean in (0.0, 1.0, 3.0)]
    assert explained(groups) == pytest.approx(adjusted_r2(groups))


def test_a_parameter_without_effect_reads_zero_on_average_however_many_values_it_has() -> None:
    rng = random.Random(0)
    shares = [explained([[rng.gauss() for _ in range(2)] for _ in range(8)]) for _ in range(2000)]
    assert all(share is not None for share in shares)
    assert float(np.mean(shares)) == pytest.approx(0.0, abs=0.02)  # type: ignore[arg-type]


@pytest.mark.parametrize("groups", [[[1.0, 2.0]], [[1.0], [2.0]], [[1.0, 1.0], [1.0]]])
def test_what_cannot_be_told_is_none(groups: list[list[float]]) -> None:
    assert explained(groups) is None


def test_the_parameter_that_decides_comes_first_and_others_near_zero() -> None:
    heads = [
        (parse_head({"convnext": {"depth": depth, "kernel_size": kernel}}), 10.0 * depth + 0.01 * place)
        for place, (depth, kernel) in enumerate(
            (d, k) for _ in range(3) for d in (1, 2, 3) for k in (3, 5, 7)
        )
    ]
    found = importances(heads)
    assert [item.parameter for item in found] == ["blocks", "kernel_size"]
    assert found[0].share > 0.99
    assert abs(found[1].share) < 0.15
    assert all(item.enough and item.heads == 27 for item in found)
    assert [(group.value, len(group.scores)) for group in found[0].groups] == [("1", 9), ("2", 9), ("3", 9)]


def test_a_parameter_of_some_families_is_judged_among_those_and_few_heads_are_not_enough() -> None:
    heads = [
        (parse_head({"convnext": {"kernel_size": 3}}), 1.0),
        (parse_head({"convnext": {"kernel_size": 3}}), 1.1),
        (parse_head({"convnext": {"kernel_size": 5}}), 2.0),
        (parse_head({"vit": {}}), 5.0),
        (parse_head({"vit": {}}), None),
    ]
    found = {item.parameter: item for item in importances(heads)}
    assert found["kernel_size"].heads == 3
    assert found["family"].heads == 4, "an unknown score is left out"
    assert not any(item.enough for item in found.values())
    assert ENOUGH > 3


def test_a_number_of_many_values_is_cut_into_quartiles() -> None:
    heads = [(parse_head({"vit": {"mlp_ratio": 1 + place / 10}}), float(place)) for place in range(40)]
    [item] = importances(heads)
    assert item.parameter == "mlp_ratio"
    assert [len(group.scores) for group in item.groups] == [10, 10, 10, 10]
    assert [group.mean for group in item.groups] == [4.5, 14.5, 24.5, 34.5]


def test_stages_that_differ_are_mixed() -> None:
    head = parse_head([{"convnext": {"depth": 1, "mlp_ratio": 2}}, {"vit": {"depth": 2, "mlp_ratio": 4}}])
    found = head_parameters(head)
    assert (found["family"], found["blocks"], found["stages"]) == ("convnext+vit", 3, 2)
    assert found["mlp_ratio"] == "mixed"
    assert found["first_shortcut"] is True


def test_the_heads_of_a_set_are_told_like_the_stages_of_a_stack() -> None:
    config = parse_head(
        {"set": [{"convnext": {"depth": 1, "kernel_size": 3}}, {"convnext": {"depth": 2, "kernel_size": 7}}]}
    )
    found = head_parameters(config)
    assert found["family"] == "set(convnext|convnext)"
    assert found["blocks"] == 3
    assert found["heads"] == 2
    assert found["kernel_size"] == "mixed"
    assert found["norm"] == "layer"
