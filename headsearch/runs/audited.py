"""A run held against itself: reads what `headsearch audit` needs from the run directory and its study. Torch only where bases were kept."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headsearch.results.audit import Audit, BasePair, audit
from headsearch.runs.ranked import RankedRun, rank_run
from headsearch.search.selection import standings
from headsearch.training.trial import EMBEDDINGS


def audit_run(run: str | Path) -> Audit:
    """Everything that a run says about how far its ranking can be trusted.

    Raises:
        RunError: no such run, its study cannot be read, or kept embeddings cannot.
    """
    ranked = rank_run(run)
    return audit_ranked(ranked, bases=_bases(ranked))


def audit_ranked(ranked: RankedRun, bases: Sequence[BasePair] = ()) -> Audit:
    """The same of a run that has been read; needs no torch. `bases` are those of the control `none`, compared."""
    order = screen_order(ranked)
    return audit(
        ranked.records,
        ranked.candidates,
        labels=ranked.labels,
        measure=ranked.experiment.search.discrepancy,
        stage="screen" if ranked.experiment.search.strategy == "screen" else "proxy",
        screen_order=order,
        by_chance=taken_by_chance(ranked, order),
        bases=bases,
    )


def screen_order(ranked: RankedRun) -> list[str]:
    """Ids of the searched heads that went through a screen, best first."""
    screened = [record for record in ranked.records if record.stage == "screen"]
    anchors = sorted({record.head_id for record in screened if record.control is not None})
    return [
        head.head_id
        for head in (standing.candidate for standing in standings(screened, anchors))
        if head.head_id not in anchors
    ]


def taken_by_chance(ranked: RankedRun, order: list[str]) -> frozenset[str]:
    """Ids of the heads with a proxy that are not among the best of the screen."""
    search = ranked.experiment.search
    best = set(order[: search.trials - search.audit])
    proxies = {r.head_id for r in ranked.records if r.stage == "proxy" and r.control is None}
    return frozenset(proxies.intersection(order) - best)


def _bases(ranked: RankedRun) -> list[BasePair]:
    """The bases of the control `none` compared, where at least two seeds kept their embeddings."""
    complete = {
        record.seed: record.number
        for record in ranked.records
        if record.control == "none" and record.state == "complete"
    }
    files = {number: ranked.directory.trial_folder(number) / EMBEDDINGS for number in complete.values()}
    kept = {number: file for number, file in files.items() if file.exists()}
    if len(kept) < 2:
        return []
    from headsearch.scoring.between_bases import compare_bases

    return [
        BasePair(seeds, measure, value, shuffled)
        for seeds, measure, value, shuffled in compare_bases(kept, seed=ranked.experiment.seed)
    ]
