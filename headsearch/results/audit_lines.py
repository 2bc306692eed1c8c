"""What an audit compares (the heads that ran their full budget), and its lines: comparisons with an interval, a verdict, and the number of heads that
would be enough if the verdict is open. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, linear_regression, variance
from typing import Literal

from headsearch.heads.cost import HeadCost
from headsearch.results.agreement import FEWEST, UNCLEAR, Agreement, Verdict, agreement, regret
from headsearch.results.noise import CONFIDENCE, two_sided_t
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
    """Whether the search drew it. If not, it is a control with a head."""
    trials: tuple[TrialRecord, ...]
    """One per seed, by replicate."""
    cost: HeadCost | None

    def mean(self, score: Score, place: int = -1) -> float | None:
        """A score at one of the rungs, averaged over replicates; None if one of them lacks it."""
        found = [score(trial.rungs[place]) for trial in self.trials]
        known = [value for value in found if value is not None]
        return fmean(known) if len(known) == len(found) else None


def full_budget(records: Sequence[TrialRecord], stage: TrialStage) -> list[AuditedHead]:
    """The heads that are compared, by name: those at full budget that were never infeasible. The control without a head has no discrepancy and is left out."""
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


@dataclass(frozen=True)
class Line:
    """One comparison. Unknown is None."""

    name: str
    unit: Literal["tau", "points", "discrepancy"]
    """Of `value`, `low` and `high`: Kendall's tau-b, points of the probe, or what the discrepancy is measured in."""
    n: int
    """Heads compared; of unit `discrepancy`, measurements."""
    value: float | None
    low: float | None
    """95% interval; of unit `discrepancy`, the smallest and the largest measurement."""
    high: float | None
    verdict: Verdict | Literal["measured"]
    """`measured`: nothing is compared."""
    enough: int | None = None
    """About how many heads would be enough to tell; None if it can be told already."""
    p: float | None = None
    """Two-sided, of no relation at all."""
    top1_regret: float | None = None
    """Points of the probe lost by taking the head that the score puts first."""
    top3_regret: float | None = None
    """The same for the best of its first three."""
    noise: float | None = None
    """Standard deviation between seeds of one head, pooled over heads."""
    spread: float | None = None
    """Standard deviation of the heads' means: a score tells heads apart where this is much larger than the noise."""

    @classmethod
    def of(
        cls, name: str, found: Agreement, *, noise: float | None = None, spread: float | None = None
    ) -> Line:
        """The line of an agreement."""
        enough, p = found.enough, found.p
        bounds = found.tau, found.low, found.high
        return cls(name, "tau", found.n, *bounds, found.verdict, enough, p, noise=noise, spread=spread)

    @property
    def interval(self) -> str:
        """`tau 0.71 [0.40, 0.90]`."""
        if self.value is None:
            return "undefined"
        bounds = "" if self.low is None or self.high is None else f" [{self.low:.2f}, {self.high:.2f}]"
        name = {"tau": "tau ", "points": "", "discrepancy": ""}[self.unit]
        return f"{name}{self.value:.2f}{bounds}"


def agreement_line(name: str, first: Sequence[float | None], second: Sequence[float | None]) -> Line:
    """How well two scores of the same heads agree."""
    return Line.of(name, agreement(first, second))


def choice_line(name: str, score: Sequence[float | None], probe: Sequence[float | None]) -> Line:
    """How well a score agrees with the probe, and what choosing by it loses."""
    line = agreement_line(name, score, probe)
    known = [(s, p) for s, p in zip(score, probe, strict=True) if s is not None and p is not None]
    if not known:
        return line
    scores, probes = [s for s, _ in known], [p for _, p in known]
    return replace(line, top1_regret=regret(scores, probes, 1), top3_regret=regret(scores, probes, 3))


def slope_line(name: str, x: Sequence[float], y: Sequence[float]) -> Line | None:
    """The slope of the straight line of least squares of `y` (points of the probe) over `x`, with Student's interval; None where all `x` are
    the same."""
    if len(set(x)) < 2:
        return None
    slope, constant = linear_regression(x, y)
    residual = math.fsum((b - constant - slope * a) ** 2 for a, b in zip(x, y, strict=True))
    return _points(name, slope, residual, 1.0 / (variance(x) * (len(x) - 1)), n=len(x))


def difference_line(name: str, first: Sequence[float], second: Sequence[float]) -> Line:
    """The difference of two means in points of the probe, with Student's interval for equal variances."""
    difference = fmean(first) - fmean(second)
    residual = math.fsum((value - fmean(side)) ** 2 for side in (first, second) for value in side)
    share = 1.0 / len(first) + 1.0 / len(second)
    return _points(name, difference, residual, share, n=len(first) + len(second))


def measured_line(name: str, values: Sequence[float]) -> Line:
    """What was measured: the mean, the smallest and the largest."""
    return Line(name, "discrepancy", len(values), fmean(values), min(values), max(values), "measured")


def _points(name: str, value: float, residual: float, share: float, *, n: int) -> Line:
    """What was estimated from `n` values that leave a sum of squares as `residual`; its variance is this `share` of theirs."""
    if n < 3:
        return Line(name, "points", n, value, None, None, UNCLEAR, FEWEST)
    margin = two_sided_t(n - 2, CONFIDENCE) * math.sqrt(residual / (n - 2) * share)
    clear = n >= FEWEST and abs(value) > margin
    verdict: Verdict = UNCLEAR if not clear else "agrees" if value > 0 else "disagrees"
    # An interval narrows with the root of the number of heads.
    enough = None
    if not clear and value != 0.0:
        enough = max(FEWEST, n + 1, math.ceil(n * (margin / value) ** 2))
    return Line(name, "points", n, value, value - margin, value + margin, verdict, enough)
