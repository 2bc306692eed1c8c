"""Which heads of a search are trained again with further seeds, and when that is enough. Pure functions of the records.

The best heads by their first trials become finalists. Every control gets all of its seeds; `none`, whose noise is in every gain, gets √m times as
many as one of the m finalists. Finalists get theirs one at a time. The next seed goes to the head with the largest knowledge gradient, that is, to
the one whose next score is expected to raise the highest believed score most (Frazier, Powell and Dayanik, "A knowledge-gradient policy for
sequential information collection", 2008). This ends when it is sure enough that the first head is as good as the best of them, or when all seeds are
used. The next seed depends on earlier results alone, so every executor and every resumed search makes the same choices.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean

from headsearch.experiment import SearchSpec
from headsearch.results.certainty import Belief, beliefs, probability_as_good
from headsearch.results.noise import Noise, noise_within
from headsearch.results.ranking import rank
from headsearch.results.records import TrialRecord

_NORMAL = NormalDist()

Seed = tuple[str, int]
"""A head by its id, and the number of the replicate."""


@dataclass(frozen=True)
class Seeds:
    """Further seeds of a search."""

    wanted: tuple[Seed, ...]
    """The trainings that are decided, in order; some may be done."""
    complete: bool
    """Whether nothing will be added."""
    most: int
    """How many trainings there will be if certainty is never reached."""

    @property
    def expected(self) -> int:
        """How many trainings there will be, as far as is known."""
        return len(self.wanted) if self.complete else self.most


def further_seeds(records: Sequence[TrialRecord], search: SearchSpec, *, labels: bool) -> Seeds:
    """What is to be trained again, once every first trial has ended.

    Args:
        records: trials of the search, by number.
        search: its finalists, replicates, certainty and target epochs.
        labels: whether trials have a probe.
    """
    proxies = [record for record in records if record.stage == "proxy"]
    trials = {(r.head_id, r.replicate): r for r in proxies if r.state != "duplicate"}
    first = [record for record in proxies if record.replicate == 0]
    complete = {record.head_id for record in first if record.state == "complete"}
    controls = dict.fromkeys(record.head_id for record in first if record.control is not None)
    again = [head for head in controls if head in complete]
    ranked = [
        row.head_id
        for row in rank(_leading(first, search.finalists + len(controls)), labels=labels)
        if row.rank is not None
    ]
    best = [head for head in ranked[: search.finalists] if head not in controls]
    none = next((r.head_id for r in first if r.control == "none" and r.head_id in complete), "")
    goals = dict.fromkeys((*again, *best), search.replicates)
    if none:
        goals[none] = search.seeds_of_none(len(best), search.replicates)
    everything = tuple(
        (head, n) for n in range(1, max(goals.values(), default=1)) for head in goals if n < goals[head]
    )
    if search.certainty >= 1.0 or any(trials[head, 0].score is None for head in best):
        return Seeds(everything, complete=True, most=len(everything))
    of_none = search.seeds_of_none(len(best), 1)
    waited_for = [(h, n) for h, n in everything if h in again and n < (of_none if h == none else goals[h])]
    wanted = waited_for.copy()
    following = _one_by_one(trials, again, best, search.replicates, search.certainty)
    while all(seed in trials and trials[seed].state != "running" for seed in waited_for):
        seed = next(following, None)
        if seed is None:
            return Seeds(tuple(wanted), complete=True, most=len(everything))
        waited_for.append(seed)
        wanted.append(seed)
        if none:
            # It has no score, so that nothing that is decided here waits for it.
            had, of_none = of_none, max(of_none, search.seeds_of_none(len(best), seed[1] + 1))
            wanted += [(none, n) for n in range(had, of_none)]
    return Seeds(tuple(wanted), complete=False, most=len(everything))


def _leading(first: Sequence[TrialRecord], most: int) -> list[TrialRecord]:
    """The first trials whose heads can be among the `most` best. With one trial a head no noise is known, so the score alone orders them."""
    scores = {
        r.head_id: r.score if r.score is not None and math.isfinite(r.score) else -math.inf
        for r in first
        if r.state == "complete"
    }
    least = min(heapq.nlargest(most, scores.values()), default=-math.inf)
    return [record for record in first if scores.get(record.head_id, -math.inf) >= least]


def knowledge_gradient(heads: Sequence[Belief], noise: Noise) -> list[float]:
    """By how much one more seed of each head is expected to raise the highest believed score."""
    gradients = []
    for place, belief in enumerate(heads):
        # Its believed mean will move by a normal draw of this deviation.
        moves = belief.deviation**2 / math.hypot(belief.deviation, noise.deviation)
        others = max((other.mean for at, other in enumerate(heads) if at != place), default=-math.inf)
        apart = abs(belief.mean - others)
        z = -apart / moves if moves > 0.0 else -math.inf
        gradients.append(moves * (_NORMAL.pdf(z) + z * _NORMAL.cdf(z)) if math.isfinite(z) else 0.0)
    return gradients


def _one_by_one(
    trials: Mapping[Seed, TrialRecord],
    controls: Sequence[str],
    finalists: Sequence[str],
    replicates: int,
    certainty: float,
) -> Iterator[Seed]:
    """Further seeds of the finalists, one by one. Ask for the next when all earlier ones, and those of the controls, are trained."""
    given = dict.fromkeys(finalists, 1)

    def scores(head: str, seeds: int) -> list[float]:
        found = (trials.get((head, n)) for n in range(seeds))
        return [r.score for r in found if r is not None and r.state == "complete" and r.score is not None]

    while True:
        feasible = [
            head
            for head in finalists
            if all(trials[head, n].state != "infeasible" for n in range(given[head]))
        ]
        known = {head: scores(head, given[head]) for head in feasible}
        heads = sorted(known, key=lambda head: -fmean(known[head]))
        left = [head for head in heads if given[head] < replicates]
        if not left:
            return
        shown = [*(scores(head, replicates) for head in controls), *known.values()]
        noise = noise_within(shown)
        chosen = left[0]
        if noise is not None:
            believed = beliefs([known[head] for head in heads], noise)
            sure = probability_as_good(0, believed, noise) >= certainty
            if sure and len(known[heads[0]]) > 1:
                return
            gradients = dict(zip(heads, knowledge_gradient(believed, noise), strict=True))
            # Nothing is said of a first head that was seen once.
            chosen = left[0] if sure else max(left, key=lambda head: gradients[head])
        elif len(known[heads[0]]) > 1:
            # Seeds agree to the last digit.
            return
        yield chosen, given[chosen]
        given[chosen] += 1
