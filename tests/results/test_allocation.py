"""Further seeds: for whom, in which order, and until when."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from headsearch.experiment import SearchSpec
from headsearch.heads import HeadConfig, parse_head
from headsearch.results.allocation import further_seeds, knowledge_gradient
from headsearch.results.certainty import Belief
from headsearch.results.noise import Noise
from headsearch.results.ranking import rank
from headsearch.results.records import TrialRecord
from headsearch.training.trial import RungScores

VIT = parse_head({"vit": {}})


def trial(head, score, replicate=0, *, control=None, state="complete", number=0):
    """One whose label-free score is `score`."""
    measures = {} if score is None else {"procrustes.embedding.output": score}
    rungs = (RungScores(9, 1.0, measures, score, 50.0, quality={"retrieval.head": 100.0}),)
    return TrialRecord(
        number=number, state=state, head_id=head, config=HeadConfig() if head == "none" else VIT, control=control,
        seed=replicate, replicate=replicate, rungs=rungs if state == "complete" else (), cost=None, seconds=1.0,
        images_per_second=None, reason=None, duplicate_of=None,
    )  # fmt: skip


class Heads:
    """True scores and noise, from which trials are made."""

    def __init__(self, truth, noise, seed=0):
        self.truth, self.noise, self.seed = truth, noise, seed
        self.control = {"none": None, "same": 0.0, "mlp": 0.1}

    def trial(self, head, replicate=0):
        truth = self.truth.get(head, self.control.get(head))
        drawn = random.Random(f"{self.seed} {head} {replicate}").gauss(0.0, self.noise)
        score = None if truth is None else truth + drawn
        return trial(head, score, replicate, control=head if head in self.control else None)

    def first(self):
        return [self.trial(head) for head in (*self.control, *self.truth)]

    def search(self, **sizes):
        """Train whatever is wanted, until nothing is."""
        records = self.first()
        while True:
            seeds = ask(records, **sizes)
            missing = [
                seed for seed in seeds.wanted if seed not in {(r.head_id, r.replicate) for r in records}
            ]
            if not missing:
                assert seeds.complete
                return records, seeds
            records += [self.trial(*seed) for seed in missing]


def ask(records, *, finalists=3, replicates=4, certainty=0.9, replicates_of_none=None):
    numbered = [replace(record, number=number) for number, record in enumerate(records)]
    search = SearchSpec(
        finalists=finalists, replicates=replicates, certainty=certainty, replicates_of_none=replicates_of_none
    )
    return further_seeds(numbered, search, labels=False)


APART = {"a": 5.0, "b": 3.0, "c": 1.0, "d": 0.5}
ALIKE = {"a": 5.0, "b": 4.7, "c": 4.4, "d": 4.0}


def test_the_gradient_is_the_expected_rise_of_the_highest_mean():
    heads, noise = [Belief(1.0, 0.5), Belief(0.8, 0.9), Belief(-0.5, 0.2)], Noise(0.7, 5)
    draws = np.random.default_rng(0).normal(size=400_000)
    means = np.array([head.mean for head in heads])
    for place, found in enumerate(knowledge_gradient(heads, noise)):
        # The posterior after one more score, drawn from what is believed.
        variance = heads[place].deviation ** 2
        score = heads[place].mean + draws * np.sqrt(variance + 0.49)
        after = (heads[place].mean * 0.49 + score * variance) / (variance + 0.49)
        others = np.delete(means, place).max()
        assert found == pytest.approx(float(np.maximum(after, others).mean()) - means.max(), abs=2e-3)


def test_the_gradient_of_two_equal_heads_is_that_of_half_a_normal_distribution():
    moves = 1.0 / np.sqrt(2.0)
    found = knowledge_gradient([Belief(3.0, 1.0), Belief(3.0, 1.0)], Noise(1.0, 5))
    assert found == pytest.approx([moves * stats.norm.pdf(0.0)] * 2)


def test_with_certainty_1_controls_and_finalists_get_all_their_seeds_in_turn():
    seeds = ask(Heads(APART, 0.1).first(), replicates=3, certainty=1.0)
    heads = ("none", "same", "mlp", "a", "b", "c")
    # √3 times 3 seeds of `none`, rounded.
    of_none = (("none", 3), ("none", 4))
    assert seeds.wanted == (*((head, n) for n in (1, 2) for head in heads), *of_none)
    assert seeds.complete
    assert seeds.most == 14


def test_none_has_the_seeds_that_make_gains_surest_at_the_price_of_all():
    """Against every way to divide as many trainings: the variance of a gain is s² (1 / n_head + 1 / n_none)."""
    for m, seeds in itertools.product(range(1, 12), range(1, 8)):
        of_none = SearchSpec(finalists=m, replicates=seeds).seeds_of_none(m, seeds)
        trainings = m * seeds + of_none
        best = min(m / (trainings - n) + 1 / n for n in np.linspace(0.01, trainings - 0.01, 5000))
        assert 1 / seeds + 1 / of_none < 1.04 * best


def test_none_gets_more_seeds_as_a_finalist_does_and_nobody_waits_for_them():
    found = set()
    for draw in range(12):
        heads = Heads(ALIKE, 0.6, draw)
        records, seeds = heads.search(replicates=3, certainty=0.999)
        most = 1 + max(r.replicate for r in records if r.control is None)
        of_none = sum(r.head_id == "none" for r in records)
        assert of_none == max(3, round(3**0.5 * most))
        found.add((most, of_none))
        late = [r for r in records if not (r.head_id == "none" and r.replicate > 2)]
        assert ask(late, replicates=3, certainty=0.999) == seeds
    assert found == {(2, 3), (3, 5)}


def test_so_many_seeds_of_none_as_are_asked_for_and_no_fewer_than_of_other_controls():
    first = Heads(APART, 0.1).first()
    for asked, found in ((7, 7), (1, 3), (3, 3)):
        seeds = ask(first, replicates=3, certainty=1.0, replicates_of_none=asked)
        assert 1 + [head for head, _ in seeds.wanted].count("none") == found
        assert seeds.most == len(seeds.wanted) == (3 + 2) * 2 + found - 1


def test_controls_come_first_and_all_at_once_then_one_seed_after_the_other():
    heads = Heads(ALIKE, 0.5)
    records = heads.first()
    of_controls = tuple((head, n) for n in (1, 2, 3) for head in ("none", "same", "mlp"))
    assert ask(records).wanted == of_controls
    records += [heads.trial(*seed) for seed in of_controls[:-1]]
    assert ask(records).wanted == of_controls
    records.append(heads.trial(*of_controls[-1]))
    seeds = ask(records)
    assert seeds.wanted[:-1] == of_controls
    assert seeds.wanted[-1][0] in ("a", "b", "c")
    assert not seeds.complete


def test_a_head_far_ahead_needs_one_more_seed_and_heads_that_noise_confuses_more():
    sure, _ = Heads(APART, 0.1).search()
    assert [(r.head_id, r.replicate) for r in sure if r.replicate and r.control is None] == [("a", 1)]
    confused = {"a": 5.0, "b": 4.2, "c": 3.4, "d": 0.0}
    spent = [len(Heads(confused, 0.5, seed).search()[0]) for seed in range(20)]
    assert min(spent) == len(sure)
    assert sum(spent) / 20 > len(sure) + 0.25


def test_the_bounds_hold_whatever_the_noise():
    for seed in range(10):
        records, seeds = Heads(ALIKE, 0.05, seed).search(finalists=3, replicates=2)
        again = [r for r in records if r.replicate and r.control is None]
        assert len(again) <= 3
        assert {r.replicate for r in again} <= {1}
        assert len(seeds.wanted) <= seeds.most == 7


def test_what_comes_next_follows_from_the_results_and_not_from_their_order():
    heads = Heads(ALIKE, 0.6, 3)
    records, seeds = heads.search()
    for shuffled in range(5):
        first, again = records[:7], records[7:]
        random.Random(shuffled).shuffle(again)
        assert ask(first + again) == seeds


def test_results_that_are_not_asked_for_yet_change_nothing():
    """As after a search with other bounds."""
    heads = Heads(ALIKE, 0.6, 3)
    records, _ = heads.search()
    more = [heads.trial(head, n) for head in ("b", "c") for n in (1, 2, 3)]
    known = {(r.head_id, r.replicate) for r in records}
    assert ask(records + [r for r in more if (r.head_id, r.replicate) not in known]).complete


def test_a_seed_that_runs_is_waited_for():
    heads = Heads(ALIKE, 0.6, 3)
    records, seeds = heads.search()
    running = [replace(r, state="running", rungs=()) if r is records[-1] else r for r in records]
    found = ask(running)
    assert found.wanted == seeds.wanted[: len(found.wanted)]
    assert found.wanted[-1] == (records[-1].head_id, records[-1].replicate)
    assert not found.complete


def test_a_head_that_collapses_with_another_seed_is_first_no_more():
    heads = Heads(APART, 0.1)
    records = heads.first()
    while not (seeds := ask(records)).complete:
        known = {(r.head_id, r.replicate) for r in records}
        for seed in [seed for seed in seeds.wanted if seed not in known]:
            bad = seed[0] == "a"
            records.append(trial(*seed[:1], None, seed[1], state="infeasible") if bad else heads.trial(*seed))
    again = [(r.head_id, r.replicate) for r in records if r.replicate and r.control is None]
    assert again == [("a", 1), ("b", 1)]


def test_heads_without_a_score_get_all_their_seeds():
    records = [trial("none", None, control="none"), trial("a", None), trial("b", None)]
    seeds = ask(records, finalists=2, replicates=2)
    assert seeds.complete
    assert sorted(seeds.wanted) == [("a", 1), ("b", 1), ("none", 1), ("none", 2)]


def test_a_control_that_failed_is_not_trained_again_as_a_replicate():
    records = [trial("none", None, control="none", state="failed"), *Heads(APART, 0.1).first()[1:]]
    assert all(head != "none" for head, _ in ask(records).wanted)


@pytest.mark.parametrize("seed", range(20))
def test_finalists_are_the_first_of_the_whole_ranking(seed):
    rng = random.Random(seed)
    # Scores of one digit, so that many are alike, and the rest of the ranking decides.
    records = [trial("none", None, control="none"), trial("c", 5.0, control="mlp")]
    records += [
        trial(f"h{n}", rng.choice([None, *range(6)]), state=rng.choice(["complete", "stopped"]))
        for n in range(30)
    ]
    records += [replace(trial("c", 5.0), state="duplicate", duplicate_of=1)]
    records = [replace(record, number=number) for number, record in enumerate(records)]
    ranked = [row.head_id for row in rank(records, labels=False) if row.rank is not None][:3]
    wanted = further_seeds(records, SearchSpec(finalists=3, replicates=2, certainty=1.0), labels=False).wanted
    assert [head for head in dict.fromkeys(head for head, _ in wanted) if head not in ("none", "c")] == [
        head for head in ranked if head != "c"
    ]
