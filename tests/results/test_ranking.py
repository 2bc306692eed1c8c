"""The ranking: who is in it, in what order, and with what numbers."""

from __future__ import annotations

import random
import statistics
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.study._multi_objective import _fast_non_domination_rank

from headsearch.errors import RunError
from headsearch.heads import HeadConfig, parse_head
from headsearch.heads.cost import HeadCost
from headsearch.results.noise import pooled_noise
from headsearch.results.ranking import heads_tried, pareto_layers, probe_score, rank
from headsearch.results.records import TrialRecord
from headsearch.training.trial import RungScores

VIT = parse_head({"vit": {}})


def record(
    head_id, probe=None, discrepancy=None, *, state="complete", control=None, replicate=0, params=100, seed=None,
    config=VIT, reason=None, linear=None, number=0, overhead=None, stage="proxy", retrieval=None,
):  # fmt: skip
    measures = {} if discrepancy is None else {"procrustes.embedding.output": discrepancy}
    quality = {} if retrieval is None else {"retrieval.head": retrieval}
    rungs = (RungScores(12, 1.0, measures, discrepancy, probe, linear, quality=quality),)
    return TrialRecord(
        number=number,
        state=state,
        head_id=head_id,
        config=config,
        control=control,
        seed=replicate if seed is None else seed,
        replicate=replicate,
        rungs=rungs if state in ("complete", "stopped") else (),
        cost=HeadCost(params, 2 * params, overhead),
        seconds=1.0,
        images_per_second=1.0,
        reason=reason,
        duplicate_of=None,
        stage=stage,
    )


def none(probe, replicate=0):
    return record("none", probe, None, control="none", replicate=replicate, config=HeadConfig(), params=0)


def order(records, by="pareto", labels=True):
    return [(row.rank, row.head_id) for row in rank(records, by=by, labels=labels)]


def brute_force_layers(points):
    layers, left, layer = {}, set(points), 1
    while left:
        front = {p for p in left if not any(q != p and q[0] >= p[0] and q[1] >= p[1] for q in left)}
        layers |= dict.fromkeys(front, layer)
        left -= front
        layer += 1
    return [layers[p] for p in points]


small = st.integers(0, 6).map(float)


@given(st.lists(st.tuples(small, small), max_size=40))
def test_layers_are_those_of_peeling_fronts_off_one_by_one(points):
    assert pareto_layers(points) == brute_force_layers(points)


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 100)), min_size=1, max_size=40))
def test_layers_are_optunas(points):
    expected = _fast_non_domination_rank(-np.array(points)) + 1
    assert pareto_layers(points) == expected.tolist()


@pytest.mark.parametrize("by", ["pareto", "discrepancy", "score"])
def test_without_labels_controls_come_after_the_heads_however_much_they_differ(by):
    records = [
        record("mlp", None, 0.9, control="mlp", retrieval=90.0),
        record("head", None, 0.5, retrieval=50.0),
        record("other", None, 0.4, retrieval=40.0),
        none(None),
    ]
    assert order(records, by, labels=False) == [(1, "head"), (2, "other"), (None, "mlp"), (None, "none")]
    assert order([record("mlp", 99.0, 0.9, control="mlp"), record("head", 50.0, 0.5)]) == [
        (None, "mlp"),
        (1, "head"),
    ]


def test_pareto_orders_by_layer_then_probe_then_cost_then_name():
    records = [
        record("dominated", 80.0, 0.5),
        record("different", 70.0, 0.9),
        record("good", 90.0, 0.6),
        record("worst", 60.0, 0.1),
        record("twin-dear", 70.0, 0.9, params=200),
        record("b-twin", 70.0, 0.9),
    ]
    expected = ["good", "b-twin", "different", "twin-dear", "dominated", "worst"]
    assert order(records) == list(enumerate(expected, start=1))
    assert [row.pareto_layer for row in rank(records, by="pareto", labels=True)] == [1, 1, 1, 1, 2, 3]


def test_other_orders():
    records = [record("a", 80.0, 0.5), record("b", 70.0, 0.9), record("c", 90.0, 0.6), record("d", 80.0, 0.7)]
    assert [name for _, name in order(records, "probe")] == ["c", "d", "a", "b"]
    assert [name for _, name in order(records, "discrepancy")] == ["b", "d", "c", "a"]


def test_the_order_by_score_is_that_of_difference_times_retrieval_then_of_discrepancy():
    records = [
        record("different", 80.0, 0.9, retrieval=10.0),
        record("both", 60.0, 0.6, retrieval=90.0),
        record("unknown", 90.0, 0.95),
        record("good", 70.0, 0.1, retrieval=90.0),
    ]
    rows = rank(records, by="score", labels=True)
    assert [row.head_id for row in rows] == ["both", "different", "good", "unknown"]
    assert [row.score for row in rows] == [*map(pytest.approx, (0.54, 0.09, 0.09)), None]


def test_a_score_is_averaged_over_replicates():
    records = [
        record("a", 80.0, 0.5, retrieval=80.0),
        record("a", 80.0, 0.5, retrieval=40.0, replicate=1),
    ]
    [row] = rank(records, by="score", labels=True)
    assert row.score == pytest.approx((0.4 + 0.2) / 2)


def test_trials_of_a_screen_and_proxies_are_ranked_apart():
    records = [
        record("a", None, 0.9, retrieval=50.0, stage="screen", seed=1),
        record("b", None, 0.2, retrieval=50.0, stage="screen", seed=1),
        record("a", 80.0, 0.5, retrieval=60.0, seed=2, number=1),
    ]
    screened = rank(records, by="score", labels=False, stage="screen")
    assert [(row.head_id, row.stage, row.discrepancy) for row in screened] == [
        ("a", "screen", 0.9),
        ("b", "screen", 0.2),
    ]
    [row] = rank(records, by="pareto", labels=True)
    assert (row.head_id, row.stage, row.discrepancy, row.replicates) == ("a", "proxy", 0.5, 1)
    assert heads_tried(records) == 1


@given(st.randoms(use_true_random=False), st.sampled_from(["pareto", "probe", "discrepancy"]))
def test_the_order_of_the_records_does_not_matter(shuffler, by):
    draws = random.Random(0)
    records = [
        record(
            f"head-{n % 8}", draws.choice([70.0, 80.0]), draws.choice([0.3, 0.4]), replicate=n // 8, number=n
        )
        for n in range(16)
    ]
    shuffled = records.copy()
    shuffler.shuffle(shuffled)
    assert rank(shuffled, by=by, labels=True) == rank(records, by=by, labels=True)


def test_replicates_are_averaged_into_one_row():
    [row] = rank(
        [
            record("a", 80.0, 0.5, replicate=0, overhead=0.1),
            record("a", 84.0, 0.7, replicate=1, overhead=0.3),
        ],
        by="pareto",
        labels=True,
    )
    assert (row.replicates, row.probe, row.discrepancy, row.overhead) == (
        2,
        82.0,
        pytest.approx(0.6),
        pytest.approx(0.2),
    )
    assert row.probe_sd == pytest.approx(statistics.stdev([80.0, 84.0]))
    assert row.discrepancy_sd == pytest.approx(statistics.stdev([0.5, 0.7]))


def test_one_seed_run_twice_is_no_replicate():
    [row] = rank(
        [record("a", 80.0, 0.5, seed=7), record("a", 80.0, 0.5, seed=7, replicate=1)],
        by="pareto",
        labels=True,
    )
    assert (row.replicates, row.probe_sd) == (1, None)


def test_only_full_budget_and_feasible_heads_are_ranked():
    records = [
        record("stopped", 99.0, 0.9, state="stopped"),
        record("failed", state="failed"),
        record("running", state="running"),
        record("flat", state="infeasible", reason="the head collapsed"),
        record("fine", 60.0, 0.1),
    ]
    rows = rank(records, by="pareto", labels=True)
    assert [(row.rank, row.head_id, row.feasible, row.reason) for row in rows] == [
        (1, "fine", True, None),
        (None, "flat", False, "the head collapsed"),
    ]
    assert rows[1].replicates == 0
    assert rows[1].probe is None


def test_a_head_that_collapses_for_one_seed_is_not_ranked():
    records = [
        record("shaky", 99.0, 0.9),
        record("shaky", state="infeasible", replicate=1, reason="the base collapsed"),
        record("sound", 60.0, 0.1),
    ]
    rows = rank(records, by="probe", labels=True)
    assert [(row.rank, row.head_id) for row in rows] == [(1, "sound"), (None, "shaky")]
    assert rows[1].reason == "1 of 2 replicates: the base collapsed"
    assert not rows[1].feasible


def test_a_replicate_that_broke_for_another_reason_does_not_count_against_a_head():
    rows = rank([record("a", 80.0, 0.5), record("a", state="failed", replicate=1)], by="pareto", labels=True)
    assert [(row.rank, row.replicates) for row in rows] == [(1, 1)]


def test_controls_stand_in_their_place_without_a_rank():
    records = [
        none(70.0),
        record("vit", 80.0, 0.2, control="same"),
        record("good", 90.0, 0.5),
        record("bad", 75.0, 0.1),
    ]
    assert order(records, "probe") == [(1, "good"), (None, "vit"), (2, "bad"), (None, "none")]
    assert order(records, "pareto") == [(1, "good"), (None, "vit"), (2, "bad"), (None, "none")]
    controls = {row.head_id: row.control for row in rank(records, by="probe", labels=True)}
    assert controls == {"good": None, "vit": "same", "bad": None, "none": "none"}


def test_controls_do_not_push_heads_to_a_deeper_layer():
    records = [none(70.0), record("vit", 95.0, 0.9, control="same"), record("good", 90.0, 0.5)]
    layers = {row.head_id: row.pareto_layer for row in rank(records, by="pareto", labels=True)}
    assert layers == {"good": 1, "vit": None, "none": None}


def test_a_control_that_the_search_drew_too_is_ranked():
    drawn = replace(record("vit", state="duplicate", number=5), duplicate_of=1)
    records = [record("vit", 80.0, 0.2, control="same", number=1), drawn]
    [row] = rank(records, by="pareto", labels=True)
    assert (row.rank, row.control, row.replicates) == (1, "same", 1)


def test_the_probe_is_knn_and_the_linear_probe_stands_beside_it():
    both = [record("a", 80.0, 0.5, linear=90.0), record("b", 85.0, 0.5, linear=88.0)]
    rows = rank(both, by="probe", labels=True)
    assert [(row.head_id, row.probe, row.knn, row.linear) for row in rows] == [
        ("b", 85.0, 85.0, 88.0),
        ("a", 80.0, 80.0, 90.0),
    ]


def test_the_probe_of_one_trial():
    assert probe_score(RungScores(1, 0.1, knn=70.0, linear=80.0)) == 70.0
    assert probe_score(RungScores(1, 0.1, linear=80.0)) is None


def test_without_labels_the_order_is_that_of_discrepancy():
    records = [record("a", None, 0.2), record("b", None, 0.8), none(None)]
    rows = rank(records, by="pareto", labels=False)
    assert [(row.rank, row.head_id) for row in rows] == [(1, "b"), (2, "a"), (None, "none")]
    assert {(row.probe, row.gain, row.pareto_layer) for row in rows} == {(None, None, None)}
    with pytest.raises(RunError, match="labels: none"):
        rank(records, by="probe", labels=False)


def test_gains_are_over_the_control_with_the_noise_of_all_replicated_rows():
    records = [
        none(70.0, 0),
        none(72.0, 1),
        record("a", 80.0, 0.5),
        record("b", 75.0, 0.5),
        record("b", 79.0, 0.5, replicate=1),
    ]
    rows = {row.head_id: row for row in rank(records, by="pareto", labels=True)}
    noise = pooled_noise([(2, statistics.stdev([70.0, 72.0])), (2, statistics.stdev([75.0, 79.0]))])
    assert noise is not None
    assert rows["a"].gain == pytest.approx(9.0)
    # The best was picked for being it.
    assert (rows["a"].gain_low, rows["a"].gain_high) == pytest.approx(noise.interval(9.0, 1, 2, [1, 2]))
    assert [rows[name].simultaneous for name in ("a", "b", "none")] == [True, False, False]
    assert (rows["b"].gain_low, rows["b"].gain_high) == pytest.approx(noise.interval(6.0, 2, 2))
    assert (rows["none"].gain, rows["none"].gain_low) == (None, None)


def test_without_replicates_a_gain_has_no_interval_and_without_a_control_there_is_none():
    rows = {row.head_id: row for row in rank([none(70.0), record("a", 80.0, 0.5)], by="pareto", labels=True)}
    assert (rows["a"].gain, rows["a"].gain_low, rows["a"].gain_high) == (10.0, None, None)
    [row] = rank([record("a", 80.0, 0.5)], by="pareto", labels=True)
    assert row.gain is None


def test_what_is_unknown_is_none_and_sorts_last():
    records = [record("unknown", 80.0, None), record("broken", float("nan"), 0.5), record("known", 80.0, 0.1)]
    rows = rank(records, by="discrepancy", labels=True)
    assert [row.head_id for row in rows] == ["broken", "known", "unknown"]
    assert rows[0].probe is None
    assert rows[2].discrepancy is None


def test_heads_tried_counts_heads_that_were_stopped_too_and_no_controls():
    records = [
        none(70.0),
        record("a", 80.0, 0.5),
        record("a", 80.0, 0.5, replicate=1),
        record("b", 70.0, 0.5, state="stopped"),
        record("c", state="duplicate"),
    ]
    assert heads_tried(records) == 2


def test_the_linear_probe_has_gains_of_its_own():
    records = [
        record("none", 70.0, None, control="none", config=HeadConfig(), linear=80.0),
        record("none", 70.0, None, control="none", config=HeadConfig(), linear=82.0, replicate=1),
        record("a", 75.0, 0.5, linear=79.0),
    ]
    rows = {row.head_id: row for row in rank(records, labels=True)}
    noise = pooled_noise([(2, statistics.stdev([80.0, 82.0]))])
    assert noise is not None
    assert (rows["a"].gain, rows["a"].linear_gain) == (5.0, -2.0)
    assert (rows["a"].linear_gain_low, rows["a"].linear_gain_high) == pytest.approx(
        noise.interval(-2.0, 1, 2)
    )
    assert rows["a"].gain_low is None, "k-NN showed no noise"


def long_run():
    """Heads whose order by score is not that of their probes, and two seeds of one, which are far apart or not."""
    heads = [
        record(f"h{n}", probe, 0.1 * (n + 1), retrieval=50.0)
        for n, probe in enumerate([80.0, 70.0, 75.0, 72.0, 78.0, 71.0, 60.0])
    ]
    return [*heads, record("h6", 60.5, 0.7, retrieval=50.0, replicate=1), none(50.0)]


def test_the_probe_orders_only_from_half_of_the_target_on():
    by_score = [f"h{n}" for n in reversed(range(7))]
    for target in (None, 25):
        ranked = [row for row in rank(long_run(), labels=True, target_epochs=target) if row.rank]
        assert [row.head_id for row in ranked] == by_score
        assert {row.shrunk for row in ranked} == {None}
    ranked = [row for row in rank(long_run(), labels=True, target_epochs=24) if row.rank]
    assert ranked[0].head_id == "h0"
    assert ranked[-1].head_id == "h6"
    assert {row.predicted_gain for row in ranked} == {None}, "it is not the length of the real pretraining"


def test_at_full_length_the_shrunken_gain_is_the_predicted_one():
    rows = rank(long_run(), labels=True, target_epochs=12)
    for row in rows:
        if row.control == "none":
            assert row.predicted_gain is None
            continue
        assert row.predicted_gain == pytest.approx(row.shrunk - 50.0)
        assert row.predicted_low < row.predicted_gain < row.predicted_high


def test_runs_without_a_score_are_ordered_by_discrepancy():
    records = [record("a", 80.0, 0.2), record("b", 70.0, 0.6), record("c", 90.0, 0.4)]
    assert [row.head_id for row in rank(records, labels=True, target_epochs=300)] == ["b", "c", "a"]


@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_the_interval_of_the_best_row_holds_after_the_choice(spread):
    """12 heads with two seeds each, and no head with four: of the best, whichever it is, the true gain is inside."""
    draws = random.Random(7)
    inside = alone = 0
    for _ in range(400):
        truth = [draws.gauss(0.0, spread) for _ in range(12)]
        records = [none(draws.gauss(50.0, 1.0), seed) for seed in range(4)]
        records += [
            record(f"h{n}", draws.gauss(50.0 + gain, 1.0), 0.5, replicate=seed)
            for n, gain in enumerate(truth)
            for seed in range(2)
        ]
        rows = rank(records, by="probe", labels=True)
        best = rows[0] if rows[0].rank else rows[1]
        gain = truth[int(best.head_id[1:])]
        noise = pooled_noise([(row.replicates, row.probe_sd) for row in rows])
        low, high = noise.interval(best.gain, 2, 4)
        alone += low <= gain <= high
        inside += best.gain_low <= gain <= best.gain_high
    assert inside / 400 >= 0.95
    assert alone / 400 < 0.93
