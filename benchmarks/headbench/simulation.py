"""A simulated clock: what a search would have done with W workers, in milliseconds instead of days.

Comes in: tabulated curves, a sampler, a stopping policy. Goes out: every trial with its start, end, epochs and fate. Nothing trains
and nothing waits; an event queue jumps from one rung to the next.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from headsearch.search.stopping import Objectives, SuccessiveHalving


class Curves(Protocol):
    """What heads measure, looked up. A head is a number from 0 on."""

    def observed(self, head: int, epoch: int, seed: int) -> Objectives:
        """Objectives at `epoch`; more is better."""

    def seconds_per_epoch(self, head: int) -> float:
        """Simulated time."""


class Sampler(Protocol):
    """Chooses heads."""

    def ask(self) -> int | None:
        """The next head, not asked for before; None when there are no more."""

    def tell(self, head: int, objectives: Objectives | None) -> None:
        """A trial has ended: with its objectives at full budget, or None when it was stopped."""


class InOrder:
    """The sampler that has the order in which to try the heads; a shuffled order makes it random search."""

    def __init__(self, heads: Iterable[int]) -> None:
        self._heads = iter(heads)

    def ask(self) -> int | None:
        """The next in order."""
        return next(self._heads, None)

    def tell(self, head: int, objectives: Objectives | None) -> None:
        """Nothing is learnt."""


@dataclass(frozen=True)
class SimulatedTrial:
    """A trial that has ended."""

    number: int
    head: int
    worker: int
    start: float
    """Seconds on the simulated clock."""
    end: float
    epochs: int
    """Trained in all."""
    objectives: Objectives | None
    """At full budget; None when it was stopped."""

    def epochs_until(self, time: float) -> float:
        """Epochs trained before `time`."""
        if time <= self.start:
            return 0.0
        return self.epochs * min(1.0, (time - self.start) / (self.end - self.start))


def simulate(
    curves: Curves, sampler: Sampler, stopping: SuccessiveHalving, *, workers: int = 1, seed: int = 0
) -> list[SimulatedTrial]:
    """Run trials until the sampler has no more heads. In the order in which they end.

    A worker that becomes free takes the next head at once. What happens at the same moment happens in order of trial number.
    """
    ended: list[SimulatedTrial] = []
    events: list[tuple[float, int, int]] = []  # Time, trial number and index of the rung that it reaches.
    running: dict[int, tuple[int, int, float]] = {}  # Trial number: head, worker, start.
    started = 0

    def reach(number: int, rung: int) -> None:
        head, _, start = running[number]
        time = start + stopping.rungs[rung] * curves.seconds_per_epoch(head)
        heapq.heappush(events, (time, number, rung))

    def start_on(worker: int, time: float) -> None:
        nonlocal started
        head = sampler.ask()
        if head is not None:
            running[started] = head, worker, time
            reach(started, 0)
            started += 1

    for worker in range(workers):
        start_on(worker, 0.0)
    while events:
        time, number, rung = heapq.heappop(events)
        head, worker, start = running[number]
        epoch = stopping.rungs[rung]
        objectives = curves.observed(head, epoch, seed)
        finished = epoch == stopping.rungs[-1]
        if stopping.decide(number, epoch, objectives) and not finished:
            reach(number, rung + 1)
            continue
        del running[number]
        result = objectives if finished else None
        ended.append(SimulatedTrial(number, head, worker, start, time, epoch, result))
        sampler.tell(head, result)
        start_on(worker, time)
    return ended


def epochs_spent(trials: Iterable[SimulatedTrial], time: float) -> float:
    """Epochs that all workers have trained before `time`, those of unfinished trials included."""
    return sum(trial.epochs_until(time) for trial in trials)
