"""Where the time of a search went, and what stopping early saved. Pure functions of the records."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from headsearch.results.records import TrialRecord, training_of

PART_NAMES = {
    "trunk": "Trunk",
    "controls": "Controls",
    "screen": "Screen",
    "heads": "Searched heads",
    "replicates": "Replicates",
    "equal-time": "None, equal time",
    "anchor": "Anchors",
}
"""What people call the parts of a search."""


@dataclass(frozen=True)
class Part:
    """The trainings of one part of a search."""

    name: str
    """`controls`, `heads` or `replicates` of the proxies; any other stage by its own name."""
    trainings: int
    """A joint run of many heads is one."""
    epochs: int
    """Epochs trained, as far as rungs tell: a trial that broke between two rungs counts up to the earlier one."""
    budget: int
    """Epochs if every training had run in full, as joint runs do."""
    seconds: float
    """Wall time of those trainings whose time is known."""
    untimed: int
    """Trainings whose time is not known."""


@dataclass(frozen=True)
class Spending:
    """What a search has cost."""

    parts: tuple[Part, ...]
    """In the order in which they come."""
    stopped: int
    """Trials ended early because they were behind."""
    saved_epochs: int
    """Epochs that stopped trials did not train."""
    saved_seconds: float | None
    """The same at the mean time of an epoch; None where that is unknown."""
    images_per_second: float | None
    """Median training throughput."""
    broken: Mapping[str, int]
    """How many trials failed or were infeasible, by reason, the most frequent first."""
    again: int
    """Trainings of a head and seed that had been tried before and failed."""
    duplicates: int
    """Proposals that were answered by an earlier trial, at no cost."""

    @property
    def seconds(self) -> float:
        """Wall time of all trainings whose time is known."""
        return sum(part.seconds for part in self.parts)

    @property
    def epochs(self) -> int:
        """Trained in all."""
        return sum(part.epochs for part in self.parts)


def part_of(record: TrialRecord) -> str:
    """The part of a search that a trial belongs to."""
    if record.stage != "proxy":
        return record.stage
    return "replicates" if record.replicate else "controls" if record.control else "heads"


def spending(records: Iterable[TrialRecord], *, budget: int, clock: Mapping[int, float]) -> Spending:
    """Add up.

    Args:
        records: Trials of one study.
        budget: Epochs of a full proxy.
        clock: By number, the seconds between start and end of a trial, for trials that did not record theirs.
    """
    listed = sorted(records, key=lambda record: record.number)
    trained = [record for record in listed if record.state != "duplicate"]
    groups: dict[str, list[TrialRecord]] = {"trunk": [], "controls": [], "heads": []}
    for record in trained:
        groups.setdefault(part_of(record), []).append(record)
    for late in ("replicates", "equal-time", "anchor"):
        groups[late] = groups.pop(late, [])
    parts = [_part(name, group, budget, clock) for name, group in groups.items()]

    # A head that leaves a joint run saves no epoch: the others go on.
    proxies = [record for record in trained if record.stage == "proxy"]
    full = [r.seconds / r.rungs[-1].epoch for r in proxies if r.state == "complete" and r.seconds is not None]
    stopped = [record for record in proxies if record.state == "stopped"]
    saved = sum(budget - record.rungs[-1].epoch for record in stopped if record.rungs)
    speeds = [r.images_per_second for r in trained if r.images_per_second is not None]
    broken = (record for record in trained if record.state in ("failed", "infeasible"))
    reasons = Counter(f"{record.state}: {record.reason or 'reason unknown'}" for record in broken)
    failed = {(r.head_id, r.replicate, r.stage): r.number for r in reversed(trained) if r.state == "failed"}
    again = sum(failed.get((r.head_id, r.replicate, r.stage), r.number) < r.number for r in trained)
    return Spending(
        parts=tuple(part for part in parts if part.trainings),
        stopped=len(stopped),
        saved_epochs=saved,
        saved_seconds=saved * statistics.fmean(full) if full else None,
        images_per_second=statistics.median(speeds) if speeds else None,
        broken=dict(reasons.most_common()),
        again=again,
        duplicates=len(listed) - len(trained),
    )


def _part(name: str, records: list[TrialRecord], budget: int, clock: Mapping[int, float]) -> Part:
    joint: dict[tuple[str, int], list[TrialRecord]] = {}
    for record in records:
        joint.setdefault(training_of(record), []).append(record)
    longest = [max((r.rungs[-1].epoch for r in group if r.rungs), default=0) for group in joint.values()]
    times = [r.seconds if r.seconds is not None else clock.get(r.number) for r in records]
    known = [time for time in times if time is not None]
    return Part(
        name=name,
        trainings=len(joint),
        epochs=sum(longest),
        budget=sum(longest) if name in ("trunk", "screen", "equal-time", "anchor") else budget * len(joint),
        seconds=sum(known),
        untimed=len(records) - len(known),
    )
