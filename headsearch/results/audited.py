"""The heads that an audit compares, and what it compares of them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from headsearch.heads.cost import HeadCost
from headsearch.results.ranking import probe_score
from headsearch.results.records import TrialRecord
from headsearch.scoring.discrepancy import MEASURES
from headsearch.scoring.score import head_score
from headsearch.training.trial import RungScores, TrialStage

Score = Callable[[RungScores], float | None]

SCORES: Mapping[str, Score] = {
    "probe": probe_score,
    "linear": lambda scores: scores.linear,
    "discrepancy": lambda scores: scores.discrepancy,
    "score": lambda scores: head_score(scores.measures, scores.quality),
}
"""What is compared between rungs and between seeds, by name."""


@dataclass(frozen=True)
class AuditedHead:
    """A head that ran its full budget."""

    head_id: str
    searched: bool
    """Whether the search itself drew it; else it is a control with a head."""
    trials: tuple[TrialRecord, ...]
    """One per seed, by replicate."""
    cost: HeadCost | None

    def mean(self, score: Score, place: int = -1) -> float | None:
        """A score at one of the rungs, averaged over replicates; unknown where it is for one of them."""
        found = [score(trial.rungs[place]) for trial in self.trials]
        known = [value for value in found if value is not None]
        return fmean(known) if len(known) == len(found) else None


def full_budget(records: Sequence[TrialRecord], stage: TrialStage) -> list[AuditedHead]:
    """The heads that are compared: at full budget, never infeasible, by name; the control without a head has no discrepancy."""
    groups: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in records:
        if record.stage == stage and record.config.heads:
            groups[record.head_id].append(record)
    heads = []
    for head_id, group in sorted(groups.items()):
        complete = {r.seed: r for r in sorted(group, key=lambda r: r.replicate) if r.state == "complete"}
        if complete and not any(r.state == "infeasible" for r in group):
            trials = tuple(complete.values())
            searched = any(r.control is None for r in group)
            heads.append(AuditedHead(head_id, searched, trials, trials[0].cost))
    return heads


def measured(name: str) -> Score:
    """The discrepancy measure of that name."""
    return lambda scores: scores.measures.get(name)


def known_measures(heads: Sequence[AuditedHead]) -> list[str]:
    """The measures that any head has."""
    recorded = {name for head in heads for trial in head.trials for name in trial.rungs[-1].measures}
    names = (*MEASURES, *sorted(recorded.difference(MEASURES)))
    return [name for name in names if any(head.mean(measured(name)) is not None for head in heads)]
