"""Agreement against a brute-force tau, and who is compared with whom."""

import itertools
import math
import random
from dataclasses import replace

import pytest

from headsearch.heads import parse_head
from headsearch.results.records import TrialRecord
from headsearch.results.trust import agreement, rungs_agree, seeds_agree, spreads, stages_agree
from headsearch.training.trial import RungScores


def trial(
    number: int, head: str, seed: int, scores: list[tuple[int, float, float]], **more: object
) -> TrialRecord:
    """A complete trial; scores are (epoch, discrepancy, k-NN)."""
    rungs = tuple(RungScores(epoch, 1.0, {}, discrepancy, knn) for epoch, discrepancy, knn in scores)
    record = TrialRecord(
        number, "complete", head, parse_head({"vit": {}}), None, seed, 0, rungs, None, 1.0, 1.0, None, None
    )
    return replace(record, **more)  # type: ignore[arg-type]


def brute_tau(pairs: list[tuple[float, float]]) -> float:
    """Kendall's tau of values without ties: pairs in the same order, less those in the reverse, over all."""
    signs = [math.copysign(1, (a - c) * (b - d)) for (a, b), (c, d) in itertools.combinations(pairs, 2)]
    return sum(signs) / len(signs)


def test_tau_is_that_of_all_pairs_and_unknown_scores_are_left_out() -> None:
    rng = random.Random(1)
    pairs = [(rng.random(), rng.random()) for _ in range(12)]
    found = agreement(
        "a and b", "probe", [*[(str(n), a, b) for n, (a, b) in enumerate(pairs)], ("x", None, 1.0)]
    )
    assert found.heads == 12
    assert found.tau == pytest.approx(brute_tau(pairs))
    assert found.p is not None


def test_four_heads_have_no_order_and_equal_scores_neither() -> None:
    assert agreement("", "", [(str(n), float(n), float(n)) for n in range(4)]).tau is None
    assert agreement("", "", [(str(n), 1.0, float(n)) for n in range(6)]).tau is None


def test_rungs_are_compared_with_the_full_budget_of_the_same_trials() -> None:
    records = [
        trial(n, f"h{n}", n, [(1, float(-n), float(n)), (9, float(n), float(n) + 1)]) for n in range(6)
    ]
    records.append(
        replace(records[0], number=9, head_id="stopped", state="stopped", rungs=records[0].rungs[:1])
    )
    found = {item.objective: item for item in rungs_agree(records)[1]}
    assert found["discrepancy"].tau == pytest.approx(-1.0)
    assert found["probe"].tau == pytest.approx(1.0)
    assert found["probe"].heads == 6, "a stopped trial has no score at full budget"


def test_seeds_are_compared_head_by_head_and_a_seed_run_twice_is_no_replicate() -> None:
    records = [
        trial(2 * n + r, f"h{n}", 10 * n + r, [(9, 0.1 * n, 50.0 + n + r)]) for n in range(5) for r in (0, 1)
    ]
    records.append(trial(50, "once", 7, [(9, 0.5, 50.0)]))
    records.append(trial(51, "once", 7, [(9, 0.5, 60.0)]))
    found = {item.objective: item for item in seeds_agree(records)}
    assert found["probe"].pairs[2] == ("h2", 52.0, 53.0)
    assert found["probe"].heads == 5
    assert found["probe"].tau == pytest.approx(1.0)


def test_the_noise_is_pooled_over_heads_by_hand() -> None:
    records = [
        trial(0, "a", 0, [(9, 0.1, 50.0)]),
        trial(1, "a", 1, [(9, 0.3, 54.0)]),
        trial(2, "b", 0, [(9, 0.2, 60.0)]),
        trial(3, "b", 1, [(9, 0.2, 60.0)]),
        trial(4, "c", 0, [(9, 0.9, 70.0)]),
    ]
    probe = next(item for item in spreads(records) if item.objective == "probe")
    assert probe.noise == pytest.approx(2.0), "variances 8 and 0, each of one degree of freedom"
    assert probe.spread == pytest.approx(9.0184995), "of 52, 60 and 70"
    assert probe.heads == 2
    assert spreads(records[4:]) == []


def test_a_stage_by_any_name_is_compared_with_the_proxies() -> None:
    proxies = [trial(n, f"h{n}", n, [(9, 0.1 * n, 50.0 + n)]) for n in range(6)]
    screens = [trial(20 + n, f"h{n}", 99, [(3, 1 - 0.1 * n, 0.0)], stage="sieve") for n in range(1, 6)]
    screens = [replace(r, rungs=(replace(r.rungs[0], knn=None),)) for r in screens]
    [found] = stages_agree([*proxies, *screens])
    assert (found.between, found.objective, found.heads) == ("sieve and proxy", "discrepancy", 5)
    assert found.tau == pytest.approx(-1.0)
    assert stages_agree(proxies) == []
