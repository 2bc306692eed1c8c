"""What a search tells those who watch it. Whoever writes a progress display or a logger implements `Observer`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from headsearch.results.records import TrialRecord
from headsearch.search.executors import Job
from headsearch.training.trial import RungScores

StageName = Literal["controls", "zero-cost", "screen", "heads", "replicates"]


@dataclass(frozen=True)
class SearchStatus:
    """How far a search is."""

    stage: StageName
    """What the next trainings are."""
    settled: int
    """Trainings that have ended, before a resume too; duplicates are not trainings."""
    expected: int
    """Trainings in all, as far as can be told now."""
    seconds_per_trial: float | None
    """Mean wall time of those that ran their full budget, times the mean share of it that trials used; None before the first."""
    at_work: int
    """Trials running now."""

    @property
    def seconds_left(self) -> float | None:
        """Wall time until the search ends, at the present pace; None while that is unknown."""
        if self.seconds_per_trial is None:
            return None
        return max(0, self.expected - self.settled) * self.seconds_per_trial / max(1, self.at_work)


class Observer(Protocol):
    """Told what happens, in the coordinating process. Must be quick, and must not raise."""

    def search_started(self, status: SearchStatus, *, resumed: bool) -> None:
        """The run directory is there and all input has been found good."""

    def trial_started(self, job: Job, status: SearchStatus) -> None:
        """A training begins, or goes on from its checkpoint."""

    def trial_progress(
        self, job: Job, epoch: float, epochs: int, loss: float, images_per_second: float
    ) -> None:
        """May be called at every training step."""

    def rung_reached(self, job: Job, scores: RungScores) -> None:
        """A trial has been scored at a rung."""

    def candidates_scored(self, done: int, total: int) -> None:
        """So many of the candidates have been scored before any training."""

    def trial_ended(self, record: TrialRecord, status: SearchStatus) -> None:
        """A training has ended, however it did, or a duplicate was answered."""

    def screen_ended(self, records: Sequence[TrialRecord], status: SearchStatus) -> None:
        """A joint run has ended; `records` are its heads."""

    def note(self, text: str) -> None:
        """Something worth a line, e.g. that all heads of the space have been tried."""

    def search_ended(self, status: SearchStatus) -> None:
        """Nothing is left to do."""


class SilentObserver:
    """Watches nothing."""

    def search_started(self, status: SearchStatus, *, resumed: bool) -> None: ...

    def trial_started(self, job: Job, status: SearchStatus) -> None: ...

    def trial_progress(
        self, job: Job, epoch: float, epochs: int, loss: float, images_per_second: float
    ) -> None: ...

    def rung_reached(self, job: Job, scores: RungScores) -> None: ...

    def candidates_scored(self, done: int, total: int) -> None: ...

    def trial_ended(self, record: TrialRecord, status: SearchStatus) -> None: ...

    def screen_ended(self, records: Sequence[TrialRecord], status: SearchStatus) -> None: ...

    def note(self, text: str) -> None: ...

    def search_ended(self, status: SearchStatus) -> None: ...
