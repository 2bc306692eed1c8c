"""Tells several observers what happens in a search, and sees to it that none of them can end it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from headsearch.results.records import TrialRecord
from headsearch.search.observer import Observer, SearchStatus
from headsearch.secrecy import redacted
from headsearch.training.trial import RungScores, Training


class Callback(Observer):
    """An observer that may fail, and that has something to put away."""

    name: str
    """What people know it as."""

    def close(self) -> None:
        """The search has ended, however it did. Trainings that run are resumed by a later session."""


class Broadcast(Observer):
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
            self._attempt(callback, callback.close)

    def search_started(self, status: SearchStatus, *, resumed: bool) -> None:
        self._tell("search_started", status, resumed=resumed)

    def training_started(self, training: Training, status: SearchStatus) -> None:
        self._tell("training_started", training, status)

    def training_progress(
        self, training: Training, epoch: float, epochs: int, loss: float, images_per_second: float
    ) -> None:
        self._tell("training_progress", training, epoch, epochs, loss, images_per_second)

    def rung_reached(self, training: Training, place: int, scores: RungScores) -> None:
        self._tell("rung_reached", training, place, scores)

    def candidates_scored(self, done: int, total: int) -> None:
        self._tell("candidates_scored", done, total)

    def training_ended(self, records: Sequence[TrialRecord], status: SearchStatus) -> None:
        self._tell("training_ended", records, status)

    def note(self, text: str) -> None:
        self._tell("note", text)

    def search_ended(self, status: SearchStatus) -> None:
        self._tell("search_ended", status)

    def _tell(self, what: str, *about: object, **more: object) -> None:
        getattr(self._display, what)(*about, **more)
        for callback in list(self._callbacks):
            self._attempt(callback, getattr(callback, what), *about, **more)

    def _attempt(self, callback: Callback, say: Callable[..., Any], *about: object, **more: object) -> None:
        try:
            say(*about, **more)
        except Exception as error:  # noqa: BLE001 - whatever a client of somebody's server raises
            self._callbacks.remove(callback)
            reason = " ".join(str(error).split()) or type(error).__name__
            self._display.note(f"{callback.name} failed and is switched off: {redacted(reason)[:300]}")
