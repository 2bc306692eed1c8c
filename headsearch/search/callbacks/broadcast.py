"""Tells several observers what happens in a search, and sees to it that none of them can end it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Protocol, Self

from headsearch.results.records import TrialRecord
from headsearch.search.executors import Job
from headsearch.search.observer import Observer, SearchStatus
from headsearch.secrecy import redacted
from headsearch.training.trial import RungScores


class Callback(Observer, Protocol):
    """An observer that may fail, and that has something to put away."""

    @property
    def name(self) -> str:
        """What people know it as."""

    def close(self) -> None:
        """The search has ended, however it did. Trials that run are resumed by a later session."""


class Broadcast:
    """Tells a display, and callbacks until they fail. Closes them in the end."""

    def __init__(self, display: Observer, callbacks: Iterable[Callback]) -> None:
        self._display = display
        self._callbacks = list(callbacks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for callback in list(self._callbacks):
            self._attempt(callback, lambda callback: callback.close())

    def search_started(self, status: SearchStatus, *, resumed: bool) -> None:
        self._tell(lambda observer: observer.search_started(status, resumed=resumed))

    def trial_started(self, job: Job, status: SearchStatus) -> None:
        self._tell(lambda observer: observer.trial_started(job, status))

    def trial_progress(
        self, job: Job, epoch: float, epochs: int, loss: float, images_per_second: float
    ) -> None:
        self._tell(lambda observer: observer.trial_progress(job, epoch, epochs, loss, images_per_second))

    def rung_reached(self, job: Job, scores: RungScores) -> None:
        self._tell(lambda observer: observer.rung_reached(job, scores))

    def candidates_scored(self, done: int, total: int) -> None:
        self._tell(lambda observer: observer.candidates_scored(done, total))

    def trial_ended(self, record: TrialRecord, status: SearchStatus) -> None:
        self._tell(lambda observer: observer.trial_ended(record, status))

    def screen_ended(self, records: Sequence[TrialRecord], status: SearchStatus) -> None:
        self._tell(lambda observer: observer.screen_ended(records, status))

    def note(self, text: str) -> None:
        self._tell(lambda observer: observer.note(text))

    def search_ended(self, status: SearchStatus) -> None:
        self._tell(lambda observer: observer.search_ended(status))

    def _tell(self, say: Callable[[Observer], None]) -> None:
        say(self._display)
        for callback in list(self._callbacks):
            self._attempt(callback, say)

    def _attempt(self, callback: Callback, say: Callable[[Callback], None]) -> None:
        try:
            say(callback)
        except Exception as error:  # noqa: BLE001 - whatever a client of somebody's server raises
            self._callbacks.remove(callback)
            reason = " ".join(str(error).split()) or type(error).__name__
            self._display.note(f"{callback.name} failed and is told no more: {redacted(reason)[:300]}")
