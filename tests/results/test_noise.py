"""Intervals against scipy and simulation; the verdict for every kind of table."""

from __future__ import annotations

import math
import random
import re
import statistics
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from headsearch.results.noise import Noise, blocked_noise, pooled_noise, two_sided_t, verdict
from headsearch.results.ranking import RankRow


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 8, 17, 100, 1001])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999, 1 - 0.05 / 1000])
def test_t_is_scipys(df, confidence):
    assert two_sided_t(df, confidence) == pytest.approx(stats.t.ppf((1 + confidence) / 2, df), rel=1e-9)


def test_interval_of_two_groups_is_the_classical_t_interval():
    head, control = [64.9, 64.2, 66.0], [51.6, 54.0]
    noise = pooled_noise([(3, statistics.stdev(head)), (2, statistics.stdev(control))])
    expected = stats.ttest_ind(head, control).confidence_interval(0.95)
    gain = statistics.fmean(head) - statistics.fmean(control)
    assert noise is not None
    assert noise.df == 3
    assert noise.interval(gain, 3, 2) == pytest.approx((expected.low, expected.high))


def test_pooled_deviation_is_the_residual_of_a_one_way_anova():
    groups = [[1.0, 2.0, 4.0], [5.0, 5.5], [7.0], [3.0, 3.5, 1.0, 0.0]]
    noise = pooled_noise([(len(g), statistics.stdev(g) if len(g) > 1 else None) for g in groups])
    residuals = [value - statistics.fmean(group) for group in groups for value in group]
    assert noise is not None
    assert noise.df == 10 - 4
    assert noise.deviation == pytest.approx(math.sqrt(sum(r * r for r in residuals) / 6))


def test_noise_that_was_not_seen_is_unknown_and_not_zero():
    assert pooled_noise([]) is None
    assert pooled_noise([(1, None), (1, None)]) is None
    assert pooled_noise([(2, 0.0), (3, 0.0)]) is None


def test_bonferroni_widens_the_interval_to_the_smaller_share():
    noise = Noise(deviation=1.5, df=6)
    low, high = noise.interval(2.0, 2, 2, comparisons=10)
    assert high - 2.0 == pytest.approx(2.0 - low) == pytest.approx(1.5 * stats.t.ppf(1 - 0.05 / 20, 6))


def test_intervals_cover_the_true_gain_as_often_as_they_say():
    draws = random.Random(0)
    covered = total = 0
    for _ in range(4000):
        head = [draws.gauss(3.0, 1.0)]  # one run; the noise is known from the others
        control = [draws.gauss(0.0, 1.0) for _ in range(2)]
        other = [draws.gauss(-1.0, 1.0) for _ in range(3)]
        noise = pooled_noise([(len(group), statistics.stdev(group)) for group in (control, other)])
        assert noise is not None
        low, high = noise.interval(head[0] - statistics.fmean(control), 1, 2)
        covered += low <= 3.0 <= high
        total += 1
    assert covered / total == pytest.approx(0.95, abs=0.012)


def row(head_id, probe, replicates=2, sd=1.0, rank=1, control=None, feasible=True, reason=None):
    return RankRow(
        rank=rank,
        head_id=head_id,
        family=head_id,
        config=None,
        control=control,
        stage="proxy",
        score=None,
        discrepancy=None,
        discrepancy_sd=None,
        probe=probe,
        probe_sd=sd if replicates > 1 else None,
        knn=probe,
        linear=None,
        gain=None,
        gain_low=None,
        gain_high=None,
        params=None,
        flops=None,
        overhead=None,
        replicates=replicates,
        pareto_layer=None,
        feasible=feasible,
        reason=reason,
    )


NONE = row("none", 50.0, rank=None, control="none")
MLP = row("mlp", 60.0, rank=None, control="mlp")


def test_the_race_of_equal_heads_is_rarely_said_to_have_a_winner():
    """12 heads no better than none; the best three of the first round get a second run, as in the funnel."""
    draws = random.Random(1)
    wrong = 0
    for _ in range(1000):
        runs = sorted(([draws.gauss(50.0, 1.0)] for _ in range(12)), reverse=True)
        for finalist in runs[:3]:
            finalist.append(draws.gauss(50.0, 1.0))
        runs.append([draws.gauss(50.0, 1.0) for _ in range(2)])
        rows = [
            row(
                str(n),
                statistics.fmean(run),
                len(run),
                statistics.stdev(run) if len(run) > 1 else 0.0,
                rank=n + 1,
            )
            for n, run in enumerate(runs)
        ]
        rows[-1] = replace(rows[-1], rank=None, control="none")
        wrong += "No head is shown" not in verdict(rows)
    assert wrong / 1000 <= 0.05


def test_a_clear_winner_is_named_with_its_adjusted_interval():
    # df = 4, deviation 1; three heads: t at 1 - 0.05 / 6, margin t * sqrt(1/2 + 1/2).
    margin = stats.t.ppf(1 - 0.05 / 6, 4)
    rows = [row("convnext", 64.0), row("mixer", 62.0, 1, rank=2), row("vit", 50.5, rank=3), NONE, MLP]
    text = verdict(rows)
    assert text.startswith(
        f"convnext beats no head by 14.0 points (95% interval {14 - margin:.1f} to {14 + margin:.1f}, adjusted for 3 heads); "
        "2 of 3 ranked heads do"
    )
    assert f"and it beats plain MLPs, the control mlp (+4.0, {4 - margin:.1f} to {4 + margin:.1f})." in text


def test_a_winner_that_is_no_better_than_plain_mlps_is_said_to_be_none():
    assert "but it is not shown to beat plain MLPs" in verdict([row("convnext", 61.0), NONE, MLP])


def test_more_heads_tried_make_a_win_harder():
    rows = [row("convnext", 55.0), NONE]  # df = 2
    assert "convnext beats no head by 5.0 points (95% interval 0.7 to 9.3)" in verdict(rows)
    assert "No head is shown to beat no head" in verdict(rows, tried=20)


def test_heads_that_do_not_beat_the_control_are_said_not_to():
    text = verdict([row("vit", 50.5), row("swin", 49.0, rank=2), NONE])
    assert text.startswith(
        "No head is shown to beat no head: the best, vit, gains +0.5 points (95% interval "
    )


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], "no head finished its full budget"),
        ([NONE], "no head finished its full budget"),
        ([row("vit", None), NONE], "nothing was probed"),
        ([row("vit", 60.0)], "no score of the control none"),
        (
            [row("vit", 60.0), replace(NONE, feasible=False, reason="the base collapsed")],
            r"\(the base collapsed\)",
        ),
        (
            [row("vit", 60.0, 1), replace(NONE, replicates=1, probe_sd=None)],
            r"no replicates .* vit reads \+10\.0 points",
        ),
    ],
)
def test_what_cannot_be_told_is_said(rows, expected):
    text = verdict(rows)
    assert text.startswith("Cannot tell")
    assert re.search(expected, text)


def test_noise_in_blocks_of_two_arms_is_that_of_the_paired_t_test() -> None:
    random = np.random.default_rng(5)
    seeds = random.normal(60, 5, 6)
    first, second = seeds + random.normal(0, 1, 6), seeds + 2 + random.normal(0, 1, 6)
    noise = blocked_noise([first.tolist(), second.tolist()])
    assert noise is not None
    gain = float((second - first).mean())
    expected = stats.ttest_rel(second, first).confidence_interval(0.95)
    assert noise.df == 5
    assert noise.interval(gain, 6, 6) == pytest.approx((expected.low, expected.high))


def test_noise_in_blocks_is_the_residual_of_least_squares() -> None:
    arms, seeds = 4, 3
    scores = np.random.default_rng(6).normal(70, 3, (arms, seeds))
    design = np.array(
        [
            [*(arm == a for a in range(arms)), *(seed == s for s in range(1, seeds))]
            for arm in range(arms)
            for seed in range(seeds)
        ],
        dtype=float,
    )
    _, squares, rank, _ = np.linalg.lstsq(design, scores.flatten(), rcond=None)
    noise = blocked_noise(scores.tolist())
    assert noise is not None
    assert noise.df == arms * seeds - rank == 6
    assert noise.deviation == pytest.approx(np.sqrt(squares[0] / noise.df))


def test_noise_in_blocks_that_was_not_seen_is_unknown() -> None:
    assert blocked_noise([[60.0], [70.0]]) is None
    assert blocked_noise([[60.1, 61.1, 59.7], [70.1, 71.1, 69.7]]) is None
