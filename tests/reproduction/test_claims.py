"""Verdicts from hand-made trials: where the claims hold, where they fail, and where nothing can be said."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence
from statistics import fmean

import pytest
from scipy.stats import kendalltau, t, ttest_ind

from headsearch.heads.config import HeadConfig, Stage
from headsearch.heads.cost import HeadCost
from headsearch.reproduction.claims import Claim, Claims, Part, claims
from headsearch.reproduction.contrasts import FAILS, HOLDS, UNCLEAR
from headsearch.results.records import State, TrialRecord
from headsearch.training.trial import RungScores

WOBBLE = (0.0, 0.6, -0.6, 0.3, -0.3)
"""What the seeds add, in points."""
OTHERS = ("swin", "poolformer", "convnext", "mbconv", "resnet")


def trial(
    head: str,
    probe: float | None,
    discrepancy: float | None,
    *,
    replicate: int = 0,
    control: str | None = None,
    family: str | None = None,
    state: State = "complete",
    reason: str | None = None,
) -> TrialRecord:
    family = family if family is not None else head.partition("-")[0]
    config = HeadConfig() if family == "none" else HeadConfig((Stage(family, {"depth": 1}),))
    rung = RungScores(epoch=9, loss=1.0, discrepancy=discrepancy, knn=probe)
    number = zlib.crc32(f"{head} {replicate}".encode())
    return TrialRecord(
        number=number,
        state=state,
        head_id=head,
        config=config,
        control=control,
        seed=number,
        replicate=replicate,
        rungs=(rung,) if state == "complete" else (),
        cost=HeadCost(1000, 10_000),
        seconds=1.0,
        images_per_second=100.0,
        reason=reason,
        duplicate_of=None,
    )


def records(
    heads: dict[str, tuple[float, float]],
    *,
    none: float = 50.0,
    same: float = 51.0,
    mlp: float = 53.0,
    seeds: int = 3,
    noise: float = 1.0,
) -> list[TrialRecord]:
    """Proxies of heads by name (a family and a number) with (probe, discrepancy), and of the three controls."""
    found = []
    for replicate in range(seeds):
        added = noise * WOBBLE[replicate]
        found += [
            trial(head, probe + added, discrepancy, replicate=replicate)
            for head, (probe, discrepancy) in heads.items()
        ]
        found += [
            trial("none", none + added, None, replicate=replicate, control="none", family="none"),
            trial("vit-same", same + added, 0.05, replicate=replicate, control="same"),
            trial("mlp-d3", mlp + added, 0.06, replicate=replicate, control="mlp"),
        ]
    return found


def graded(step: float = 1.0) -> dict[str, tuple[float, float]]:
    """Twelve heads of which every next one differs and, by `step`, helps more; the first two are of a ViT's own kind."""
    names = [f"{family}-{index}" for family in ("vit", *OTHERS) for index in (1, 2)]
    return {name: (55.0 + step * n, 0.1 + 0.05 * n) for n, name in enumerate(names)}


def by_name(found: Claims, name: str) -> Claim:
    return next(claim for claim in found.claims if claim.name == name)


def part(found: Claims, claim: str, start: str) -> Part:
    return next(p for p in by_name(found, claim).parts if p.name.startswith(start))


def test_all_three_claims_hold_where_gains_are_large_and_grow_with_discrepancy() -> None:
    heads = graded()
    found = claims(records(heads), list(reversed(heads)), family="vit")
    assert [claim.verdict for claim in found.claims] == [HOLDS, HOLDS, HOLDS]
    assert part(found, "pairs", "gain over an MLP head").verdict == HOLDS
    assert all(p.enough is None for claim in found.claims for p in claim.parts)


def test_the_mean_gain_is_over_heads_of_another_architecture_alone() -> None:
    heads = graded()
    found = claims(records(heads), list(heads), family="vit")
    others = [probe for name, (probe, _) in heads.items() if not name.startswith("vit")]
    assert part(found, "pairs", "gain over no head").value == pytest.approx(fmean(others) - 50.0)
    assert part(found, "pairs", "gain over a head of the base's own kind").value == pytest.approx(
        fmean(others) - 51.0
    )
    assert {head.head_id for head in found.heads if head.kind == "own"} == {"vit-1", "vit-2", "vit-same"}
    assert next(head for head in found.heads if head.head_id == "none").kind is None
    convolutions = claims(records(heads), list(heads), family="convnext")
    without = [probe for name, (probe, _) in heads.items() if not name.startswith("convnext")]
    assert part(convolutions, "pairs", "gain over no head").value == pytest.approx(fmean(without) - 50.0)


def test_one_head_against_a_control_is_the_t_test_with_the_noise_of_all() -> None:
    found = claims(records({"resnet-1": (60.0, 0.3)}), ["resnet-1"], family="vit")
    # All four arms have the same deviations: their pooled variance is that of each, with 8 degrees of freedom.
    expected = ttest_ind([60.0 + w for w in WOBBLE[:3]], [50.0 + w for w in WOBBLE[:3]]).confidence_interval()
    gained = part(found, "pairs", "gain over no head")
    assert gained.low is not None
    assert gained.high is not None
    assert found.noise is not None
    assert found.noise.df == 8
    ratio = 2.306004 / 2.776445  # Student's 97.5% quantiles for 8 and 4 degrees of freedom.
    assert (gained.high - gained.low) / (expected.high - expected.low) == pytest.approx(ratio, rel=1e-5)


def test_the_relation_is_kendalls_tau_over_all_heads_and_the_controls_that_are_heads() -> None:
    heads = graded()
    swapped = heads | {"swin-1": (70.0, 0.2), "resnet-2": (58.0, 0.65)}
    found = claims(records(swapped), list(swapped), family="vit")
    points = [*swapped.values(), (51.0, 0.05), (53.0, 0.06)]
    expected = kendalltau([d for _, d in points], [p for p, _ in points])
    relation = part(found, "discrepancy", "discrepancy and gain")
    assert relation.value == pytest.approx(expected.statistic)
    assert relation.p == pytest.approx(expected.pvalue)


def test_heads_that_do_not_help_fail_the_first_claim() -> None:
    heads = {name: (50.0, discrepancy) for name, (_, discrepancy) in graded().items()}
    found = claims(records(heads, same=52.0, noise=0.5), list(heads), family="vit")
    assert part(found, "pairs", "gain over a head of the base's own kind").verdict == FAILS
    assert by_name(found, "pairs").verdict == FAILS


def test_a_gain_over_no_head_alone_is_not_enough_where_the_own_kind_gains_as_much() -> None:
    heads = graded(0.0)
    found = claims(records(heads, same=56.0, noise=0.5), list(heads), family="vit")
    assert part(found, "pairs", "gain over no head").verdict == HOLDS
    assert by_name(found, "pairs").verdict == FAILS


def test_a_deeper_projector_that_does_as_well_is_told_and_does_not_decide() -> None:
    heads = graded()
    found = claims(records(heads, mlp=70.0), list(heads), family="vit")
    projector = part(found, "pairs", "gain over an MLP head")
    assert (projector.verdict, projector.decides) == (FAILS, False)
    assert by_name(found, "pairs").verdict == HOLDS


def test_a_gain_that_falls_with_discrepancy_fails_the_second_claim() -> None:
    heads = graded(-1.0)
    found = claims(records(heads, same=70.0, mlp=71.0), list(heads), family="vit")
    assert by_name(found, "discrepancy").verdict == FAILS


def test_no_relation_among_few_heads_cannot_be_told_and_more_heads_are_asked_for() -> None:
    order = [3, 7, 1, 9, 5, 0, 11, 4, 8, 2, 10, 6]
    heads = {
        name: (55.0 + gained, discrepancy)
        for gained, (name, (_, discrepancy)) in zip(order, graded().items(), strict=True)
    }
    found = claims(records(heads, same=61.2, mlp=61.4), list(heads), family="vit")
    relation = part(found, "discrepancy", "discrepancy and gain")
    assert relation.verdict == UNCLEAR
    assert relation.enough is not None
    assert relation.enough > 14


def test_a_screen_that_puts_the_worst_first_fails_the_third_claim() -> None:
    heads = graded()
    found = claims(records(heads), list(heads), family="vit")
    assert by_name(found, "search").verdict == FAILS
    assert [p.verdict for p in by_name(found, "search").parts] == [FAILS, FAILS, FAILS]
    first, three = found.choices
    assert first.regret.value == pytest.approx(11.0)
    assert three.regret.value == pytest.approx(9.0)


def test_regret_is_held_against_that_of_random_heads() -> None:
    heads = graded()
    order = ["resnet-1", "vit-1", "swin-1", *(h for h in heads if h not in ("resnet-1", "vit-1", "swin-1"))]
    first, three = claims(records(heads), order, family="vit").choices
    assert first.chosen == ("resnet-1",)
    assert three.chosen == ("resnet-1", "vit-1", "swin-1")
    # The means are 12 steps of 1: a random head loses 5.5 on average, the best of 3 loses 12 - 3 · 13 / 4.
    assert first.regret.value == three.regret.value == pytest.approx(1.0)
    assert first.random == pytest.approx(5.5)
    assert three.random == pytest.approx(12 - 3 * 13 / 4)
    assert first.as_good == pytest.approx(2 / 12)
    assert three.as_good == pytest.approx(1 - math.comb(10, 3) / math.comb(12, 3))
    assert first.regret.low is not None
    assert first.regret.high is not None
    assert first.regret.low <= 1.0 <= first.regret.high


def test_a_lucky_first_head_is_no_search_that_works() -> None:
    heads = graded()
    # The best head first, then an order without relation to the probe.
    middle = ["vit-2", "mbconv-2", "swin-1", "resnet-1", "vit-1", "convnext-2", "swin-2", "mbconv-1"]
    order = ["resnet-2", *middle, "poolformer-1", "convnext-1", "poolformer-2"]
    found = claims(records(heads), order, family="vit")
    assert part(found, "search", "the first head").verdict == HOLDS
    assert part(found, "search", "the screen's order").verdict == UNCLEAR
    assert by_name(found, "search").verdict == UNCLEAR


def test_one_seed_tells_nothing_in_points_and_asks_for_a_second() -> None:
    heads = graded()
    found = claims(records(heads, seeds=1), list(reversed(heads)), family="vit")
    assert found.noise is None
    for claim in ("pairs", "search"):
        assert by_name(found, claim).verdict == UNCLEAR
        assert {p.enough for p in by_name(found, claim).parts if p.unit == "points"} == {2}
    assert by_name(found, "discrepancy").verdict == HOLDS


def test_much_noise_asks_for_a_number_of_seeds_that_would_do() -> None:
    heads = graded()
    noisy = claims(records(heads, none=60.0, same=60.0, noise=8.0), list(reversed(heads)), family="vit")
    gained = part(noisy, "pairs", "gain over no head")
    assert gained.verdict == UNCLEAR
    assert gained.enough is not None
    assert gained.enough > 3


def test_a_missing_control_leaves_its_part_open() -> None:
    heads = graded()
    trials = [r for r in records(heads) if r.control != "same"]
    trials.append(trial("vit-same", None, None, control="same", state="infeasible", reason="collapsed"))
    found = claims(trials, list(reversed(heads)), family="vit")
    missing = part(found, "pairs", "gain over a head of the base's own kind")
    assert missing.value is None
    assert missing.missing == "the control same has no score"
    assert by_name(found, "pairs").verdict == UNCLEAR
    assert found.left_out == {"vit-same": "infeasible: collapsed"}


def test_a_head_that_collapses_with_one_seed_is_left_out_and_named() -> None:
    heads = graded()
    trials = [r for r in records(heads) if (r.head_id, r.replicate) != ("resnet-2", 2)]
    trials.append(trial("resnet-2", None, None, replicate=2, state="infeasible", reason="collapsed"))
    found = claims(trials, list(reversed(heads)), family="vit")
    assert found.left_out == {"resnet-2": "infeasible: collapsed"}
    assert found.choices[0].chosen == ("resnet-1",)
    assert "resnet-2" not in {head.head_id for head in found.heads}


@pytest.mark.parametrize("order", [[], ["vit-1"]])
def test_without_a_screen_the_third_claim_is_open(order: Sequence[str]) -> None:
    found = claims(records(graded()), order, family="vit")
    assert by_name(found, "search").verdict in (UNCLEAR, FAILS)
    assert part(found, "search", "the best of the first 3").missing is not None


def test_nothing_at_all_is_not_enough() -> None:
    found = claims([], [], family="vit")
    assert {claim.verdict for claim in found.claims} == {UNCLEAR}


def test_a_control_that_a_searched_head_answers_is_found() -> None:
    heads = graded()
    trials = [r for r in records(heads) if r.control != "same"]
    trials += [trial("vit-1", None, None, control="same", replicate=0, state="duplicate")]
    found = claims(trials, list(reversed(heads)), family="vit")
    others = [probe for name, (probe, _) in heads.items() if not name.startswith("vit")]
    assert part(found, "pairs", "gain over a head of the base's own kind").value == pytest.approx(
        fmean(others) - 55.0
    )


def test_the_figures_are_plain_data() -> None:
    heads = graded()
    for seeds in (1, 3):
        found = claims(records(heads, seeds=seeds), list(heads), family="vit").to_dict()
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert {claim["name"] for claim in found["claims"]} == {"pairs", "discrepancy", "search"}


def test_the_differences_of_single_heads_hold_for_all_at_once() -> None:
    found = claims(records(graded()), list(graded()), family="vit")
    head = next(head for head in found.heads if head.head_id == "resnet-2")
    over = head.over["none"]
    assert over.low is not None
    assert over.high is not None
    # 15 arms with 3 seeds and a standard deviation of 0.6: t for 30 degrees of freedom at 1 - 0.025 / 12.
    margin = t.ppf(1 - 0.025 / 12, 30) * 0.6 * math.sqrt(2 / 3)
    assert (over.low, over.high) == pytest.approx((16.0 - margin, 16.0 + margin))
