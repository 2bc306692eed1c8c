"""The verdict for every kind of table, against scipy and simulation."""

from __future__ import annotations

import random
import re
import statistics
from dataclasses import replace

import pytest

from headsearch.results.noise import dunnett_quantile
from headsearch.results.row import RankRow
from headsearch.results.verdict import verdict


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
    # df = 4, deviation 1; of three heads, one has a single run.
    margin = dunnett_quantile(4, 2, (1, 2, 2))
    rows = [row("convnext", 64.0), row("mixer", 62.0, 1, rank=2), row("vit", 50.5, rank=3), NONE, MLP]
    text = verdict(rows)
    assert text.startswith(
        f"convnext beats no head by +14.0 [{14 - margin:.1f}, {14 + margin:.1f}] points by k-NN (95% intervals, adjusted for 3 heads); "
        "2 of 3 ranked heads do"
    )
    assert f"and it beats plain MLPs, the control mlp (+4.0 [{4 - margin:.1f}, {4 + margin:.1f}])." in text


def test_a_winner_that_is_no_better_than_plain_mlps_is_said_to_be_none():
    assert "but it is not shown to beat plain MLPs" in verdict([row("convnext", 61.0), NONE, MLP])


def test_more_heads_tried_make_a_win_harder():
    rows = [row("convnext", 55.0), NONE]  # df = 2
    assert "convnext beats no head by +5.0 [0.7, 9.3] points by k-NN (95% intervals)" in verdict(rows)
    assert "No head is shown to beat no head" in verdict(rows, tried=20)


def test_heads_that_do_not_beat_the_control_are_said_not_to():
    text = verdict([row("vit", 50.5), row("swin", 49.0, rank=2), NONE])
    assert text.startswith("No head is shown to beat no head: the best, vit, gains +0.5 [")


def test_the_linear_probe_is_in_the_verdict_too():
    rows = [
        replace(each, linear=linear, linear_sd=0.5, epochs=40)
        for each, linear in ((row("convnext", 64.0), 79.0), (NONE, 80.0))
    ]
    text = verdict(rows, target_epochs=40)
    assert (
        "convnext beats no head by +14.0 [9.7, 18.3] points after 40 epochs by k-NN and -1.0 [-3.2, 1.2] by the linear probe"
        in text
    )


def test_nothing_is_said_of_worth_before_half_of_the_real_pretraining():
    rows = [replace(each, epochs=40) for each in (row("convnext", 64.0), NONE)]
    assert "convnext beats no head" in verdict(rows, target_epochs=80)
    text = verdict(rows, target_epochs=81)
    assert text.startswith("convnext is first by score; after 40 epochs it gains +14.0 [")
    assert "cannot be told after 40 of 81 epochs" in text
    assert "beat" not in text


def test_a_predicted_gain_is_what_short_trainings_end_with():
    first = replace(row("convnext", 64.0), predicted_gain=3.0, predicted_low=-1.0, predicted_high=7.0)
    text = verdict([replace(each, epochs=40) for each in (first, NONE)], target_epochs=300)
    assert text.endswith(
        "Predicted for the real pretraining of 300 epochs: +3.0 points (95% interval -1.0 to 7.0)."
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
