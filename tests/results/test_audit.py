"""What an audit says of runs whose truth is known: every section with its numbers, and what it says where there are none."""

from __future__ import annotations

import json
import math
import statistics

import numpy as np
import pytest
from scipy import stats

from headsearch.heads import HeadConfig, parse_head
from headsearch.heads.cost import HeadCost
from headsearch.results.agreement import UNCLEAR
from headsearch.results.audit import BasePair, audit
from headsearch.results.audit_lines import choice_line, difference_line, slope_line
from headsearch.results.records import TrialRecord
from headsearch.results.tables import audit_json, section_table
from headsearch.scoring.zero_cost_scores import ZeroCostScores
from headsearch.training.trial import RungScores

MEASURE = "cka.embedding.output"
VIT = parse_head({"vit": {}})
SECTIONS = ["stages", "rungs", "seeds", "measures", "choosing", "relation", "scale"]


def rung(epoch, probe, discrepancy, other=None):
    measures = {MEASURE: discrepancy, "cka.tokens.output": discrepancy, "cka.tokens.change": discrepancy / 2}
    if other is not None:
        measures["mutual_knn.embedding.output"] = other
    return RungScores(
        epoch, 1.0, measures, discrepancy, probe, None if probe is None else probe + 1, 20.0, 15.0,
        quality={"retrieval.head": 50.0},
    )  # fmt: skip


def trial(head, rungs, *, replicate=0, control=None, state="complete", params=100, stage="proxy"):
    return TrialRecord(
        0, state, head, VIT, control, hash((head, replicate, stage)), replicate, tuple(rungs),
        HeadCost(params, 2 * params), 1.0, 1.0, None, None, stage,
    )  # fmt: skip


def candidate(head, score, synflow=None):
    measures = {"cka.embedding.output": score}
    return ZeroCostScores(head, VIT, 1, measures=measures, quality={"retrieval.head": 100.0}, synflow=synflow)


def sections(*arguments, **options):
    found = audit(*arguments, **{"labels": True, "measure": MEASURE} | options)
    json.loads(audit_json(found), parse_constant=pytest.fail)
    assert [section.name for section in found.sections] == SECTIONS
    assert all(section.conclusion for section in found.sections)
    return {section.name: section for section in found.sections}


def line(section, name):
    [found] = [each for each in section.lines if each.name == name]
    return found


PROBES = [60.0, 64.0, 61.0, 70.0, 68.0, 75.0, 72.0, 66.0]
DISCREPANCIES = [0.1, 0.25, 0.2, 0.5, 0.45, 0.8, 0.3, 0.35]
HEADS = [f"head-{n}" for n in range(8)]


def run():
    """Eight heads; at epoch 1 the order is the reverse of that at the full budget."""
    return [
        trial(head, [rung(1, -probe, discrepancy), rung(9, probe, discrepancy, probe)], params=n)
        for n, (head, probe, discrepancy) in enumerate(zip(HEADS, PROBES, DISCREPANCIES, strict=True))
    ]


def test_an_early_rung_is_held_against_the_full_budget():
    found = sections(run())["rungs"]
    probe, discrepancy = line(found, "probe: epoch 1 → 9"), line(found, "discrepancy: epoch 1 → 9")
    assert (probe.n, probe.value, probe.verdict) == (8, -1.0, "disagrees")
    assert (discrepancy.value, discrepancy.verdict) == (1.0, "agrees")
    assert found.conclusion.startswith("The order at epoch 1 goes against that at the full budget, by probe")


def test_choosing_by_a_score_costs_what_the_best_of_its_first_heads_lacks():
    found = sections(
        run(), [candidate(head, 0.0, -probe) for head, probe in zip(HEADS, PROBES, strict=True)]
    )["choosing"]
    perfect, synflow, params = (
        line(found, name) for name in ("mutual_knn.embedding.output", "synflow", "params")
    )
    assert (perfect.value, perfect.top1_regret, perfect.top3_regret) == (1.0, 0.0, 0.0)
    assert (synflow.value, synflow.top1_regret, synflow.top3_regret) == (-1.0, 15.0, 11.0)
    # The last three heads have 75, 72 and 66; the very last one has most parameters.
    assert (params.top1_regret, params.top3_regret) == (9.0, 0.0)
    assert params.value == pytest.approx(stats.kendalltau(range(8), PROBES).statistic)
    assert "naswot" not in found.conclusion, "nobody asked for it"
    assert line(found, "retrieval.head").value is None, "the same for all heads orders nothing"


def test_discrepancy_and_gain_are_related_by_tau_and_by_slope():
    found = sections(run())["relation"]
    fit = stats.linregress([value / 0.1 for value in DISCREPANCIES], PROBES)
    margin = stats.t.ppf(0.975, 6) * fit.stderr
    slope = found.lines[1]
    assert (slope.value, slope.low, slope.high) == pytest.approx(
        (fit.slope, fit.slope - margin, fit.slope + margin)
    )
    assert (slope.unit, slope.verdict) == ("points", "agrees")
    assert found.lines[0].value == pytest.approx(stats.kendalltau(DISCREPANCIES, PROBES).statistic)
    assert found.conclusion.startswith("Discrepancy agrees with the probe: tau 0.79 [")


def test_the_stages_are_held_against_each_other_and_chance_against_choice():
    candidates = [candidate(head, float(n)) for n, head in enumerate(HEADS)]
    order = HEADS[::-1]
    found = sections(run(), candidates, screen_order=order, by_chance=frozenset(HEADS[:3]))["stages"]
    assert line(found, "untrained → screen").value == 1.0
    screen = line(found, "screen → proxy's probe")
    assert screen.value == pytest.approx(stats.kendalltau(range(8), PROBES).statistic)
    assert screen.top1_regret == 75.0 - 66.0
    difference = line(found, "probe: chosen less taken by chance")
    expected = stats.ttest_ind(PROBES[3:], PROBES[:3]).confidence_interval(0.95)
    assert difference.value == pytest.approx(statistics.fmean(PROBES[3:]) - statistics.fmean(PROBES[:3]))
    assert (difference.low, difference.high) == pytest.approx((expected.low, expected.high))
    assert difference.verdict == "agrees"
    assert "3 of the 8 heads with a proxy were taken by chance" in found.conclusion


def test_seeds_are_compared_with_noise_and_spread_over_all_pairs_of_replicates():
    records = run()
    again = [value + shift for value, shift in zip(PROBES, [1, -1, 2, 0, 1, -2, 0, 1], strict=True)]
    records += [
        trial(h, [rung(1, 0.0, 0.1), rung(9, y, 0.1 + y / 100)], replicate=1)
        for h, y in zip(HEADS, again, strict=True)
    ]
    found = sections(records)["seeds"]
    probe = line(found, "probe")
    assert probe.value == pytest.approx(stats.kendalltau(PROBES, again).statistic)
    pairs = list(zip(PROBES, again, strict=True))
    assert probe.noise == pytest.approx(
        math.sqrt(statistics.fmean(statistics.variance(pair) for pair in pairs))
    )
    assert probe.spread == pytest.approx(statistics.stdev(map(statistics.fmean, pairs)))
    assert {each.name for each in found.lines} >= {
        "probe",
        "linear",
        "discrepancy",
        "score",
        "cka.tokens.output",
    }
    third = [
        trial(h, [rung(1, 0.0, 0.1), rung(9, y, 0.2)], replicate=2)
        for h, y in zip(HEADS, PROBES, strict=True)
    ]
    assert line(sections(records + third)["seeds"], "probe").value == pytest.approx((2 * probe.value + 1) / 3)


def test_measures_are_held_against_the_one_that_ranks():
    found = sections(run())["measures"]
    assert line(found, "cka.tokens.change").value == 1.0
    assert line(found, "mutual_knn.embedding.output").value == pytest.approx(
        stats.kendalltau(DISCREPANCIES, PROBES).statistic
    )
    assert "3 of 3 other measures agree" in found.conclusion


def test_floor_and_ceiling_are_what_was_measured():
    same = [
        trial("same", [rung(9, 60.0, value)], control="same", replicate=n)
        for n, value in enumerate((0.1, 0.3))
    ]
    bases = [BasePair((0, 3), "cka", 0.4, 0.98), BasePair((0, 4), "cka", 0.6, 1.02)]
    found = sections(run() + same, bases=bases)["scale"]
    assert [(each.value, each.low, each.high, each.n) for each in found.lines] == [
        (pytest.approx(0.2), 0.1, 0.3, 2),
        (0.5, 0.4, 0.6, 2),
        (1.0, 0.98, 1.02, 2),
    ]
    assert found.conclusion == (
        "A head of the base's own kind reads 0.20, and 6 of 8 heads read more. "
        "By CKA the same training with another seed reads 0.50, and unrelated representations 1.00."
    )


def test_controls_take_no_part_in_choosing_and_infeasible_heads_in_nothing():
    records = run()
    records.append(trial("mlp", [rung(1, 99.0, 0.01), rung(9, 99.0, 0.01)], control="mlp"))
    records.append(trial("head-0", [], replicate=1, state="infeasible"))
    found = sections(records)
    assert {each.n for each in found["choosing"].lines} == {7}
    assert line(found["rungs"], "probe: epoch 1 → 9").n == 8
    assert line(found["relation"], "discrepancy → probe").n == 8


def test_heads_that_were_stopped_or_are_running_or_have_no_head_do_not_count():
    records = run()
    records += [
        trial("stopped", [rung(1, 10.0, 0.1)], state="stopped"),
        trial("running", [rung(1, 10.0, 0.1)], state="running"),
        TrialRecord(0, "complete", "none", HeadConfig(), "none", 1, 0, (RungScores(9, 1.0, knn=50.0),), None, 1.0, 1.0, None, None),
    ]  # fmt: skip
    assert sections(records) == sections(run())


@pytest.mark.parametrize(
    ("records", "labels"),
    [([], True), ([], False), ([trial("a", [], state="failed")], True), (run()[:1], True)],
)
def test_a_section_without_data_says_what_is_missing(records, labels):
    found = sections(records, labels=labels)
    assert "Not measured: no head has two seeds" in found["seeds"].conclusion
    assert "Not measured: no stage before the proxies" in found["stages"].conclusion
    assert "is not measured" in found["scale"].conclusion
    expected = "fewer than two" if labels else "reads no labels"
    assert expected in found["choosing"].conclusion
    if not records:
        assert all(not section.lines for section in found.values())


def test_without_labels_what_needs_none_is_there():
    records = [trial(r.head_id, [rung(x.epoch, None, x.discrepancy) for x in r.rungs]) for r in run()]
    found = sections(
        records, [candidate(h, 1.0 * n) for n, h in enumerate(HEADS)], labels=False, screen_order=HEADS
    )
    assert [each.name for each in found["rungs"].lines] == ["discrepancy: epoch 1 → 9", "score: epoch 1 → 9"]
    assert "proxy's probe" not in {each.name for each in found["stages"].lines}
    assert found["stages"].conclusion.startswith(
        "It cannot be told whether the screen agrees with the proxies: 8 heads, tau -0.43"
    )
    assert "reads no labels" in found["relation"].conclusion


def test_few_heads_are_said_to_be_too_few_with_how_many_would_do():
    found = sections(run()[:4])["relation"]
    assert [each.verdict for each in found.lines] == [UNCLEAR, UNCLEAR]
    assert all(each.enough is not None and each.enough >= 5 for each in found.lines)
    assert found.conclusion.startswith(
        "It cannot be told whether discrepancy agrees with the probe: 4 heads are too few"
    )
    assert f"about {found.lines[0].enough} would be enough" in found.conclusion


def test_an_interval_of_points_narrows_with_the_root_of_the_heads():
    draws = np.random.default_rng(0)
    x, y = list(draws.normal(size=10)), list(draws.normal(size=10))
    unclear = slope_line("slope", x, y)
    assert unclear.verdict == UNCLEAR
    margin = (unclear.high - unclear.low) / 2
    assert unclear.enough == math.ceil(10 * (margin / unclear.value) ** 2)
    assert slope_line("slope", [1.0, 1.0, 1.0], [1.0, 2.0, 3.0]) is None
    assert difference_line("two heads", [1.0], [2.0]).low is None


def test_a_score_that_nobody_has_costs_nothing_that_is_known():
    assert choice_line("unknown", [None, None], [1.0, 2.0]).top1_regret is None


def test_tables_show_every_line_and_leave_out_empty_columns():
    import io

    from rich.console import Console

    console = Console(width=120, file=io.StringIO(), color_system=None)
    found = sections(run())
    console.print(section_table(found["choosing"]))
    text = console.file.getvalue()
    assert all(each.name in text for each in found["choosing"].lines)
    assert "top-1" in text
    assert "noise" not in text
    assert max(map(len, text.splitlines())) < 120
    stages = sections(run(), [candidate(head, float(n)) for n, head in enumerate(HEADS)], screen_order=HEADS)[
        "stages"
    ]
    console.print(section_table(stages))
    assert "…" not in console.file.getvalue()
    assert all(each.name in console.file.getvalue() for each in stages.lines)
    assert section_table(found["seeds"]) is None
