"""What a search tells those who watch it. Whoever writes a progress display or a logger extends `Observer`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from headsearch.results.records import TrialRecord
from headsearch.training.trial import RungScores, Training

StageName = Literal[
    "trunk", "controls", "zero-cost", "screen", "heads", "replicates", "equal-time", "anchors"
]
"""What a stage of a search is called."""


@dataclass(frozen=True)
class SearchStatus:
    """How far a search is."""

    stage: StageName
    """What is trained now or, where nothing is, next."""
    settled: int
    """Trainings that have ended, before a resume too; duplicates are not trainings."""
    expected: int
    """Trainings in all, as far as can be told now."""
    seconds_per_trial: float | None
    """Mean wall time of those that ran their full budget, times the mean share of it that trials used; None before the first."""
    at_work: int
    """Trainings running now."""

    @property
    def seconds_left(self) -> float | None:
        """Wall time until the search ends, at the present pace; None while that is unknown."""
        if self.seconds_per_trial is None:
            return None
        return max(0, self.expected - self.settled) * self.seconds_per_trial / max(1, self.at_work)


class Observer:
    """Told what happens, in the coordinating process. This one does nothing; its methods must be quick, and must not raise."""

    def search_started(self, status: SearchStatus, *, resumed: bool) -> None:
        """The run directory is there and all input has been found good."""

    def training_started(self, training: Training, status: SearchStatus) -> None:
        """A training begins, or goes on from its checkpoint."""

    def training_progress(
        self, training: Training, epoch: float, epochs: int, loss: float, images_per_second: float
    ) -> None:
        """May be called at every training step."""

    def rung_reached(self, training: Training, place: int, scores: RungScores) -> None:
        """The candidate at `place` of a training has been scored at a rung."""

    def candidates_scored(self, done: int, total: int) -> None:
        """So many of the candidates have been scored before any training. One that gets further seeds counts twice."""

    def training_ended(self, records: Sequence[TrialRecord], status: SearchStatus) -> None:
        """A training has ended, however it did; `records` are its trials. Or a single duplicate was answered."""

    def note(self, text: str) -> None:
        """Something worth a line, e.g. that all heads of the space have been tried."""

    def search_ended(self, status: SearchStatus) -> None:
        """Nothing is left to do."""
