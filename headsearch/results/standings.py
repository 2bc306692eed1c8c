"""The order in which a screen leaves its heads. Pure.

Scores of two joint runs do not compare: each base is pulled by other heads. Runs share two anchor heads, and every score is shifted by
how far its run's anchors lie from the mean of all anchors.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from headsearch.heads import Candidate
from headsearch.results.records import TrialRecord


@dataclass(frozen=True)
class Standing:
    """How a head came out of a screen."""

    candidate: Candidate
    score: float
    """Shifted by the anchors of its joint run, and averaged over replicates. Higher is better."""
    epoch: int
    """Of the last rung it reached."""


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
        runs[record.seed][record.head_id] = _score(record)
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
            score=fmean(_score(r) - (anchored.get(r.seed, middle) - middle) for r in group),
            epoch=min(r.rungs[-1].epoch for r in group),
        )
        for group in of_head.values()
    ]
    return sorted(found, key=lambda standing: (-standing.epoch, -standing.score, standing.candidate.head_id))


def _score(record: TrialRecord) -> float:
    """Minus infinity where it is not defined."""
    return -math.inf if record.score is None else record.score
