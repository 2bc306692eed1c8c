"""Who goes on in a funnel: from scores before training to the screen, and from the screen to proxies. Pure functions.

Scores of two joint runs do not compare: each base is pulled by other heads. Runs share two anchor heads, and every score is shifted by
how far its run's anchors lie from the mean of all anchors.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import TypeVar

from headsearch.heads import Candidate
from headsearch.results.records import TrialRecord
from headsearch.scoring.score import head_score
from headsearch.search.seeds import search_seed

_T = TypeVar("_T")


@dataclass(frozen=True)
class Standing:
    """How a head came out of a screen."""

    candidate: Candidate
    score: float
    """Shifted by the anchors of its joint run, and averaged over replicates. Higher is better."""
    epoch: int
    """Of the last rung it reached."""


def best_and_spread(
    candidates: Sequence[_T], count: int, *, score: Callable[[_T], float], family: Callable[[_T], str]
) -> list[_T]:
    """`count` of the candidates: the better half of them the best by score, the others spread over the families.

    A score before training is a weak guide. The second half is therefore chosen family by family in turn, each family's best that is left
    first, so that none is missed because the score does not like its kind.
    """
    order = sorted(candidates, key=lambda candidate: -score(candidate))
    best = order[: -(-count // 2)]
    rest: dict[str, list[_T]] = defaultdict(list)
    for candidate in order[len(best) :]:
        rest[family(candidate)].append(candidate)
    chosen = list(best)
    while len(chosen) < count and any(rest.values()):
        for members in rest.values():
            if members and len(chosen) < count:
                chosen.append(members.pop(0))
    return chosen


def joint_runs(
    heads: Sequence[Candidate], anchors: Sequence[Candidate], *, batch: int
) -> list[list[Candidate]]:
    """The heads of every joint run: at most `batch` each, anchors included, which are in every run where there are several.

    Heads are dealt out in turn, so that every run has its share of those named first.
    """
    if len(heads) <= batch:
        return [list(heads)]
    others = [head for head in heads if head not in anchors]
    runs = -(-len(others) // (batch - len(anchors)))
    return [[*others[index::runs], *anchors] for index in range(runs)]


def standings(records: Iterable[TrialRecord], anchors: Sequence[str] = ()) -> list[Standing]:
    """The order in which a screen leaves its heads, best first; infeasible heads are left out.

    A head that stayed longer stands before one that was dropped earlier, whatever their scores.

    Args:
        records: trials of one study; those that were not screened, or have not ended, are ignored.
        anchors: ids of the heads that are in all joint runs.
    """
    screened = [r for r in records if r.stage == "screen" and r.state in ("complete", "stopped") and r.rungs]
    runs: dict[int, dict[str, float]] = defaultdict(dict)
    for record in screened:
        runs[record.seed][record.head_id] = record_score(record)
    anchored = {
        seed: fmean(scores[anchor] for anchor in anchors)
        for seed, scores in runs.items()
        if anchors and all(anchor in scores for anchor in anchors)
    }
    middle = fmean(anchored.values()) if anchored else 0.0
    of_head: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in screened:
        of_head[record.head_id].append(record)
    found = [
        Standing(
            candidate=group[0].candidate,
            score=fmean(record_score(r) - (anchored.get(r.seed, middle) - middle) for r in group),
            epoch=min(r.rungs[-1].epoch for r in group),
        )
        for group in of_head.values()
    ]
    return sorted(found, key=lambda standing: (-standing.epoch, -standing.score, standing.candidate.head_id))


def record_score(record: TrialRecord) -> float:
    """The label-free score of a trial at the last rung it reached; minus infinity where that is not defined."""
    last = record.rungs[-1]
    score = head_score(last.measures, last.quality)
    return -math.inf if score is None else score


def promoted(order: Sequence[Standing], *, trials: int, audit: int, seed: int) -> list[Standing]:
    """The heads that get a proxy: the best of a screen, then `audit` taken by chance from the others.

    With more `trials` those chosen before are chosen again, whatever the seed.
    """
    best = list(order[: trials - audit])
    rest = sorted(order, key=lambda standing: standing.candidate.head_id)
    random.Random(search_seed("audit", seed)).shuffle(rest)
    chance = [standing for standing in rest if standing not in best]
    return [*best, *chance[:audit]]
