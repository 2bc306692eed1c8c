"""Heads that a funnel dropped before they could be ranked: at which stage, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from headsearch.results.records import TrialRecord
from headsearch.results.row import RankRow
from headsearch.scoring.zero_cost_scores import ZeroCostScores, ordered


@dataclass(frozen=True)
class Passage:
    """How many heads came to each stage of a funnel."""

    candidates: int
    """Scored before any training."""
    screened: int
    proxies: int
    replicated: int
    """With more than one seed; controls are not counted."""

    def __str__(self) -> str:
        parts = [f"{self.candidates} heads scored untrained"] if self.candidates else []
        parts += [f"{self.screened} screened jointly"] if self.screened else []
        if self.proxies or self.candidates or not self.screened:
            # A screen alone has no proxies to come.
            parts.append(f"{self.proxies} with a proxy of their own")
        return " → ".join([*parts, f"{self.replicated} with more seeds"] if self.replicated else parts)


def passage(records: Iterable[TrialRecord], candidates: Sequence[ZeroCostScores]) -> Passage:
    """How many heads came how far; controls are left out."""
    searched = [r for r in records if r.control is None and r.state != "duplicate"]
    proxies = [r for r in searched if r.stage == "proxy"]
    return Passage(
        candidates=len(candidates),
        screened=len({r.head_id for r in searched if r.stage == "screen"}),
        proxies=len({r.head_id for r in proxies}),
        replicated=len({r.head_id for r in proxies if r.replicate > 0}),
    )


def departures(
    records: Iterable[TrialRecord], candidates: Sequence[ZeroCostScores], ranked: Iterable[RankRow]
) -> list[RankRow]:
    """A row for every head that is not in `ranked`, with the stage where it was dropped and the reason; those that came farthest are first.

    Args:
        records: Trials of one study.
        candidates: The heads that were scored before training, if any.
        ranked: The ranking of the same study.
    """
    gone = {row.head_id for row in ranked}
    rows: list[RankRow] = []
    proxies = [
        r for r in records if r.stage == "proxy" and r.control is None and r.state in ("stopped", "failed")
    ]
    screened = [r for r in records if r.stage == "screen" and r.control is None and r.state != "running"]
    order = sorted(screened, key=lambda r: (r.state != "complete", -(r.score or 0.0)))
    places = {r.head_id: place for place, r in enumerate(order, start=1)}
    for record in [*proxies, *order]:
        if record.head_id not in gone:
            gone.add(record.head_id)
            last = record.last
            reason = record.reason or f"place {places[record.head_id]} of {len(order)} by score in the screen"
            if record.taken == "chance":
                reason += ", taken by chance from the screen"
            known = (
                {} if last is None else {"discrepancy": last.discrepancy, "probe": last.knn, "knn": last.knn}
            )
            feasible = record.state != "infeasible"
            rows.append(_row(record, stage=record.stage, feasible=feasible, reason=reason, **known))
    scored = ordered(candidates)
    for place, candidate in enumerate(scored, start=1):
        if candidate.head_id not in gone:
            gone.add(candidate.head_id)
            reason = candidate.reason or f"place {place} of {len(scored)} by score before training"
            feasible = candidate.reason is None
            rows.append(_row(candidate, stage="zero-cost", feasible=feasible, reason=reason))
    return rows


def _row(of: TrialRecord | ZeroCostScores, **known: Any) -> RankRow:
    return RankRow(
        head_id=of.head_id,
        family=of.config.family,
        config=of.config.to_dict(),
        score=of.score,
        params=of.cost.params if of.cost else None,
        flops=of.cost.flops if of.cost else None,
        **known,
    )
