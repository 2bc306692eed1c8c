"""The best of many scores is judged on heads that it was not chosen on."""

import itertools

import numpy as np
import pytest
from scipy.stats import kendalltau

from headsearch.results import prediction
from headsearch.results.prediction import foretellings, left_out

GROUPS = [f"family {index // 3}" for index in range(24)]


def test_scores_are_ordered_by_their_tau_which_is_scipys() -> None:
    random = np.random.default_rng(0)
    target = random.normal(size=12)
    scores = {name: list(target + noise * random.normal(size=12)) for name, noise in (("a", 3.0), ("b", 0.3))}
    first, second = foretellings(scores, list(target))
    assert (first.name, second.name) == ("b", "a")
    assert first.agreement.tau == pytest.approx(kendalltau(scores["b"], target).statistic)
    best = np.argsort(scores["a"])[::-1]
    assert second.top1 == pytest.approx(target.max() - target[best[0]])
    assert second.top3 == pytest.approx(target.max() - target[best[:3]].max())


def test_a_head_without_a_score_counts_in_no_pair_and_leaves_no_regret() -> None:
    target = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    (found,) = foretellings({"a": [1.0, 2.0, None, 4.0, 5.0, 6.0]}, target)
    assert (found.agreement.n, found.agreement.tau) == (5, 1.0)
    assert found.top1 is None


def test_a_single_score_left_out_is_its_own_tau() -> None:
    random = np.random.default_rng(1)
    target = random.normal(size=24)
    score = target + random.normal(size=24)
    found = left_out({"only": list(score)}, list(target), GROUPS)
    # Every pair is judged with equal weight, so nothing but the usual tau is left.
    assert found.tau == pytest.approx(kendalltau(score, target).statistic)
    assert found.low < found.tau < found.high


def test_choosing_among_noise_is_worth_nothing_though_the_best_looks_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(prediction, "RESAMPLES", 2)
    taus, best = [], []
    for seed in range(20):
        random = np.random.default_rng(seed)
        target = list(random.normal(size=24))
        scores = {str(index): list(random.normal(size=24)) for index in range(60)}
        best.append(foretellings(scores, target)[0].agreement.tau)
        taus.append(left_out(scores, target, GROUPS).tau)
    assert np.mean(best) > 0.25
    assert abs(np.mean(taus)) < 0.1


def test_a_group_is_judged_by_what_the_others_chose() -> None:
    # "a" orders all but the last family, where it is the wrong way round; "b" is right there alone.
    target = list(range(24))
    a = [*range(21), 23, 22, 21]
    b = [0.0] * 21 + [1.0, 2.0, 3.0]
    found = left_out({"a": a, "b": b}, target, GROUPS)
    assert set(found.chosen) == {"a"}
    discordant = sum(a[i] > a[j] for i, j in itertools.combinations(range(24), 2))
    assert found.tau == pytest.approx(1.0 - 2.0 * discordant / (24 * 23 / 2))
