"""The best of many scores is judged on heads that it was not chosen on."""

import itertools

import numpy as np
import pytest
from headbench import prediction
from headbench.prediction import Ahead, Bench, Column, ahead, left_out, predictions
from scipy.stats import kendalltau

GROUPS = [f"family {index // 3}" for index in range(24)]


def two(first: Column, second: Column, target: Column) -> Ahead | None:
    """The first score against the second, on one bench."""
    return ahead([Bench({"first": first, "second": second}, target)], "first", "second")


def test_scores_are_ordered_by_their_tau_which_is_scipys() -> None:
    random = np.random.default_rng(0)
    target = random.normal(size=12)
    scores = {name: list(target + noise * random.normal(size=12)) for name, noise in (("a", 3.0), ("b", 0.3))}
    first, second = predictions([Bench(scores, list(target))])
    assert (first.name, second.name) == ("b", "a")
    assert first.agreement.tau == pytest.approx(kendalltau(scores["b"], target).statistic)
    best = np.argsort(scores["a"])[::-1]
    assert second.top1 == pytest.approx(target.max() - target[best[0]])
    assert second.top3 == pytest.approx(target.max() - target[best[:3]].max())


def test_a_head_without_a_score_counts_in_no_pair_and_leaves_no_regret() -> None:
    target = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    (found,) = predictions([Bench({"a": [1.0, 2.0, None, 4.0, 5.0, 6.0]}, target)])
    assert (found.agreement.n, found.agreement.tau) == (5, 1.0)
    assert found.top1 is None


def test_a_score_is_ahead_by_the_difference_of_scipys_taus() -> None:
    random = np.random.default_rng(2)
    target = random.normal(size=24)
    good, bad = target + 0.3 * random.normal(size=24), target + 3.0 * random.normal(size=24)
    found = two(list(good), list(bad), list(target))
    assert found is not None
    taus = [kendalltau(score, target).statistic for score in (good, bad)]
    assert found.difference == pytest.approx(taus[0] - taus[1])
    assert 0 < found.low < found.difference < found.high
    back = two(list(bad), list(good), list(target))
    assert back is not None
    assert (back.low, back.high) == pytest.approx((-found.high, -found.low))


def test_nothing_is_ahead_of_itself_or_of_what_is_the_same_for_all() -> None:
    target = [1.0, 3.0, 2.0, 5.0, 4.0, 6.0]
    same = two(target, target, target)
    assert same is not None
    assert (same.difference, same.low, same.high) == (0.0, 0.0, 0.0)
    assert two(target, [1.0] * 6, target) is None


def test_heads_without_both_scores_do_not_count() -> None:
    target = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    found = two([1.0, 2.0, 3.0, 4.0, 5.0, None], [None, 5.0, 4.0, 3.0, 2.0, 1.0], target)
    assert found is not None
    assert found.difference == pytest.approx(2.0)


def test_the_interval_of_a_difference_holds_it_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "RESAMPLES", 200)
    held = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        target = random.normal(size=24)
        # Two scores with the same noise: neither is ahead.
        found = two(*(list(target + random.normal(size=24)) for _ in range(2)), list(target))
        held += found is not None and found.low <= 0.0 <= found.high
    assert 88 <= held <= 100


def test_a_single_score_left_out_is_its_own_tau() -> None:
    random = np.random.default_rng(1)
    target = random.normal(size=24)
    score = target + random.normal(size=24)
    found = left_out([Bench({"only": list(score)}, list(target))], GROUPS)
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
        best.append(predictions([Bench(scores, target)])[0].agreement.tau)
        taus.append(left_out([Bench(scores, target)], GROUPS).tau)
    assert np.mean(best) > 0.25
    assert abs(np.mean(taus)) < 0.1


def test_a_group_is_judged_by_what_the_others_chose() -> None:
    # "a" orders all but the last family, where it is the wrong way round; "b" is right there alone.
    target = list(range(24))
    a = [*range(21), 23, 22, 21]
    b = [0.0] * 21 + [1.0, 2.0, 3.0]
    found = left_out([Bench({"a": a, "b": b}, target)], GROUPS)
    assert set(found.chosen) == {"a"}
    discordant = sum(a[i] > a[j] for i, j in itertools.combinations(range(24), 2))
    assert found.tau == pytest.approx(1.0 - 2.0 * discordant / (24 * 23 / 2))


def benches(seed: int, *, apart: float, noise: float = 1.0) -> list[Bench]:
    """Two with a good and a bad score of the same heads, whose targets differ by `apart`; the second has only 16 of the heads."""
    random = np.random.default_rng(seed)
    common = random.normal(size=24)
    made = []
    for heads in (24, 16):
        target = common + apart * random.normal(size=24)
        scores = {"good": target + noise * random.normal(size=24), "bad": target + 4 * random.normal(size=24)}
        made.append(
            Bench(
                {name: list(values) for name, values in scores.items()},
                [*target[:heads], *[None] * (24 - heads)],
            )
        )
    return made


def test_over_benches_a_tau_is_the_mean_of_theirs_and_so_is_a_loss() -> None:
    both = benches(3, apart=1.0)
    found = {each.name: each for each in predictions(both)}
    alone = [{each.name: each for each in predictions([bench])} for bench in both]
    for name in ("good", "bad"):
        taus = [each[name].agreement.tau for each in alone]
        assert found[name].agreement.tau == pytest.approx(np.mean(taus))
        assert taus[1] == pytest.approx(kendalltau(both[1].scores[name][:16], both[1].target[:16]).statistic)
        assert found[name].top1 == pytest.approx(np.mean([each[name].top1 for each in alone]))
    difference = ahead(both, "good", "bad")
    assert difference is not None
    assert difference.difference == pytest.approx(found["good"].agreement.tau - found["bad"].agreement.tau)
    assert difference.low < difference.difference < difference.high
    only = [Bench({"good": bench.scores["good"]}, bench.target) for bench in both]
    assert left_out(only, GROUPS).tau == pytest.approx(found["good"].agreement.tau)


def test_a_score_that_one_bench_lacks_is_not_judged() -> None:
    first, second = benches(4, apart=1.0)
    second = Bench({"good": second.scores["good"]}, second.target)
    assert [each.name for each in predictions([first, second])] == ["good"]
    assert set(left_out([first, second], GROUPS).chosen) == {"good"}


def test_the_same_bench_twice_tells_no_more_than_once() -> None:
    bench = benches(5, apart=1.0)[0]
    (once, *_), (twice, *_) = predictions([bench]), predictions([bench, bench])
    assert twice.agreement.low == pytest.approx(once.agreement.low)
    assert twice.agreement.high == pytest.approx(once.agreement.high)
    assert ahead([bench, bench], "good", "bad") == ahead([bench], "good", "bad")
    assert left_out([bench, bench], GROUPS) == left_out([bench], GROUPS)


def test_the_choice_is_made_on_all_benches() -> None:
    # "a" is right on the first bench alone, "b" nearly right on both.
    target = list(map(float, range(24)))
    nearly = [target[index ^ 1] for index in range(24)]
    first = Bench({"a": target, "b": nearly}, target)
    second = Bench({"a": target[::-1], "b": nearly}, target)
    assert set(left_out([first], GROUPS).chosen) == {"a"}
    found = left_out([first, second], GROUPS)
    assert set(found.chosen) == {"b"}
    assert found.tau == pytest.approx(kendalltau(nearly, target).statistic)
