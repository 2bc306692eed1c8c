"""How far to trust a ranking: whether seeds, early rungs and screens put the heads in the same order. Pure functions.

Agreement is Kendall's tau-b (1: the same order, 0: no relation, -1: the reverse) with its two-sided p-value, from scipy, which is imported when
one is asked for.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from headsearch.results.ranking import probe_score
from headsearch.results.records import TrialRecord
from headsearch.training.trial import RungScores

Score = Callable[[RungScores], float | None]

OBJECTIVES: dict[str, Score] = {"discrepancy": lambda rung: rung.discrepancy, "probe": probe_score}
"""What heads are ordered by."""

ENOUGH = 5
"""Heads below which an order says nothing: any two orders of four heads agree perfectly one time in 24."""


@dataclass(frozen=True)
class Agreement:
    """How alike two orders of the same heads are."""

    between: str
    """What is compared."""
    objective: str
    pairs: tuple[tuple[str, float, float], ...]
    """(head id, first score, second score)."""
    tau: float | None
    """None with fewer than `ENOUGH` heads, or where all scores of a side are equal."""
    p: float | None
    """Chance of an agreement at least as strong, either way, were there no relation."""

    @property
    def heads(self) -> int:
        """How many heads are compared."""
        return len(self.pairs)


@dataclass(frozen=True)
class Spread:
    """A score's noise between seeds of one head, against its spread between heads."""

    objective: str
    noise: float
    """Standard deviation between replicates, pooled over heads."""
    spread: float | None
    """Standard deviation of the means of heads; None for a single one."""
    heads: int
    """Heads with two seeds or more."""


def agreement(
    between: str, objective: str, pairs: Iterable[tuple[str, float | None, float | None]]
) -> Agreement:
    """Compare two scores of the same heads; a head with an unknown one is left out."""
    known = tuple((head, a, b) for head, a, b in pairs if a is not None and b is not None)
    if len(known) < ENOUGH:
        return Agreement(between, objective, known, None, None)
    from scipy.stats import kendalltau

    result = kendalltau([a for _, a, _ in known], [b for _, _, b in known])
    tau, p = float(result.statistic), float(result.pvalue)
    return Agreement(
        between, objective, known, None if math.isnan(tau) else tau, None if math.isnan(p) else p
    )


def seeds_agree(records: Iterable[TrialRecord]) -> list[Agreement]:
    """The first seed of every head that has two against the second, for each objective."""
    pairs = [group[:2] for group in _complete(records).values() if len(group) > 1]
    return [
        agreement(
            "first and second seed",
            name,
            [(first.head_id, score(first.rungs[-1]), score(second.rungs[-1])) for first, second in pairs],
        )
        for name, score in OBJECTIVES.items()
    ]


def rungs_agree(records: Iterable[TrialRecord]) -> dict[int, list[Agreement]]:
    """By epoch of every earlier rung: its scores against those at full budget, over first trials that ran it.

    Trials that were stopped have no score at full budget, so what the rungs were used to stop is not judged here.
    """
    first = [group[0] for group in _complete(records).values()]
    epochs = sorted({rung.epoch for record in first for rung in record.rungs[:-1]})
    return {
        epoch: [
            agreement(
                f"epoch {epoch} and full budget",
                name,
                [
                    (record.head_id, score(rung), score(record.rungs[-1]))
                    for record in first
                    for rung in record.rungs[:-1]
                    if rung.epoch == epoch
                ],
            )
            for name, score in OBJECTIVES.items()
        ]
        for epoch in epochs
    }


def stages_agree(records: Iterable[TrialRecord]) -> list[Agreement]:
    """Heads that were scored at another stage too (`screen`, say) against their proxies, for each such stage and objective."""
    listed = list(records)
    proxies = {head: group[0] for head, group in _complete(listed).items()}
    found = []
    for stage in dict.fromkeys(record.stage for record in listed if record.stage != "proxy"):
        other = {
            record.head_id: record
            for record in listed
            if record.stage == stage and record.state == "complete"
        }
        both = [(other[head], proxy) for head, proxy in proxies.items() if head in other]
        for name, score in OBJECTIVES.items():
            pairs = [(proxy.head_id, score(early.rungs[-1]), score(proxy.rungs[-1])) for early, proxy in both]
            if any(first is not None for _, first, _ in pairs):
                found.append(agreement(f"{stage} and proxy", name, pairs))
    return found


def spreads(records: Iterable[TrialRecord]) -> list[Spread]:
    """For each objective, the noise between seeds against the spread between heads; left out where no head has two seeds."""
    found = []
    groups = list(_complete(records).values())
    for name, score in OBJECTIVES.items():
        scores = [_known(score(record.rungs[-1]) for record in group) for group in groups]
        replicated = [values for values in scores if len(values) > 1]
        if not replicated:
            continue
        squares = sum((len(values) - 1) * statistics.variance(values) for values in replicated)
        df = sum(len(values) - 1 for values in replicated)
        means = [statistics.fmean(values) for values in scores if values]
        spread = statistics.stdev(means) if len(means) > 1 else None
        found.append(Spread(name, math.sqrt(squares / df), spread, len(replicated)))
    return found


def _complete(records: Iterable[TrialRecord]) -> dict[str, list[TrialRecord]]:
    """Proxies at full budget by head, one for each seed in order of number; the control without a head has no place in an order of heads."""
    groups: dict[str, dict[int, TrialRecord]] = defaultdict(dict)
    for record in sorted(records, key=lambda record: record.number):
        if record.stage == "proxy" and record.state == "complete" and record.config.heads:
            groups[record.head_id].setdefault(record.seed, record)
    return {head: list(group.values()) for head, group in groups.items()}


def _known(values: Iterable[float | None]) -> Sequence[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
