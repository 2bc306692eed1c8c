"""Live progress of a search on stderr: bars on a terminal, plain lines elsewhere, nothing when asked to be quiet."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from headsearch.results.records import TrialRecord
from headsearch.results.text import duration
from headsearch.search.executors import Job
from headsearch.search.observer import Observer, SearchStatus, SilentObserver
from headsearch.training.trial import RungScores

STAGES = {
    "controls": "controls",
    "zero-cost": "scores before training",
    "screen": "screen",
    "heads": "heads",
    "replicates": "replicates of the finalists",
}

SILENCE = 60.0
"""Seconds after which a log is told that a training still goes on, and how far it is."""


class Display(Observer, Protocol):
    """An observer that has something to put away when the search ends, however it ends."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def progress_display(*, quiet: bool) -> Display:
    """The display that suits where stderr goes."""
    console = Console(stderr=True, highlight=False)
    if quiet:
        return SilentDisplay()
    return BarDisplay(console) if console.is_terminal else LineDisplay(console)


class SilentDisplay(SilentObserver):
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None


class LineDisplay(SilentDisplay):
    """A line for each thing that happens: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._speeds: dict[int, float] = {}
        """By trial: images per second, as last heard."""
        self._told: dict[int, float] = {}
        """By trial: when its last line was printed."""

    def search_started(self, status: SearchStatus, *, resumed: bool) -> None:
        if resumed:
            self._line(f"going on: {status.settled} of {status.expected} trainings are done")
        else:
            self._line(f"about {status.expected} trainings, controls first")

    def trial_started(self, job: Job, status: SearchStatus) -> None:
        self._of(job.number, f"{_named(job)} starts  ({_counted(status)})")

    def trial_progress(
        self, job: Job, epoch: float, epochs: int, loss: float, images_per_second: float
    ) -> None:
        self._speeds[job.number] = images_per_second
        if time.monotonic() - self._told.get(job.number, -math.inf) >= SILENCE:
            self._of(
                job.number,
                f"epoch {epoch:.1f} of {epochs}: loss {loss:.3f}, {images_per_second:,.0f} images/s",
            )

    def rung_reached(self, job: Job, scores: RungScores) -> None:
        speed = self._speeds.get(job.number, 0.0)
        self._of(job.number, f"epoch {scores.epoch}: {_scored(scores)}, {speed:,.0f} images/s")

    def trial_ended(self, record: TrialRecord, status: SearchStatus) -> None:
        self._of(record.number, _ended(record))
        self._forget(record.number)

    def candidates_scored(self, done: int, total: int) -> None:
        if done == total or done % 100 == 0:
            self._line(f"scored {done} of {total} heads before any training")

    def screen_ended(self, records: Sequence[TrialRecord], status: SearchStatus) -> None:
        self._of(records[0].number, _screened(records))
        self._forget(records[0].number)

    def note(self, text: str) -> None:
        self._line(text)

    def _of(self, trial: int, text: str) -> None:
        self._told[trial] = time.monotonic()
        self._line(f"trial {trial}: {text}")

    def _forget(self, trial: int) -> None:
        self._told.pop(trial, None)
        self._speeds.pop(trial, None)

    def _line(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, soft_wrap=True)


class BarDisplay(SilentDisplay):
    """A bar for the search, one for each running trial, and a line for each that has ended."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[told]}", markup=False),
            console=console,
            transient=True,
        )
        self._search: TaskID | None = None
        self._trials: dict[int, TaskID] = {}
        self._candidates: TaskID | None = None

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def search_started(self, status: SearchStatus, *, resumed: bool) -> None:
        self._search = self._bars.add_task("search", total=status.expected, told="")
        self._show(status)

    def trial_started(self, job: Job, status: SearchStatus) -> None:
        self._trials[job.number] = self._bars.add_task(f"trial {job.number}", total=1.0, told=_named(job))
        self._show(status)

    def trial_progress(
        self, job: Job, epoch: float, epochs: int, loss: float, images_per_second: float
    ) -> None:
        told = (
            f"{_named(job)}  epoch {epoch:.1f}/{epochs}  loss {loss:.3f}  {images_per_second:,.0f} images/s"
        )
        self._bars.update(self._trials[job.number], completed=epoch / epochs, told=told)

    def rung_reached(self, job: Job, scores: RungScores) -> None:
        return None

    def trial_ended(self, record: TrialRecord, status: SearchStatus) -> None:
        bar = self._trials.pop(record.number, None)
        if bar is not None:
            self._bars.remove_task(bar)
        self._bars.console.print(f"trial {record.number}: {_ended(record)}", markup=False, soft_wrap=True)
        self._show(status)

    def candidates_scored(self, done: int, total: int) -> None:
        if self._candidates is None:
            self._candidates = self._bars.add_task(
                "candidates", total=total, told="scored before any training"
            )
        self._bars.update(self._candidates, completed=done, total=total)
        if done == total:
            self._bars.remove_task(self._candidates)
            self._candidates = None

    def screen_ended(self, records: Sequence[TrialRecord], status: SearchStatus) -> None:
        bar = self._trials.pop(records[0].number, None)
        if bar is not None:
            self._bars.remove_task(bar)
        self._bars.console.print(
            f"trial {records[0].number}: {_screened(records)}", markup=False, soft_wrap=True
        )
        self._show(status)

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, soft_wrap=True)

    def _show(self, status: SearchStatus) -> None:
        if self._search is not None:
            self._bars.update(
                self._search, total=status.expected, completed=status.settled, told=_counted(status)
            )


def _named(job: Job) -> str:
    again = f", seed {job.replicate + 1}" if job.replicate else ""
    return f"control {job.control}{again}" if job.control else f"{job.head_id}{again}"


def _counted(status: SearchStatus) -> str:
    left = status.seconds_left
    tail = "" if left is None else f", about {duration(left)} left"
    return f"{STAGES[status.stage]}, {status.settled} of {status.expected} trainings done{tail}"


def _scored(scores: RungScores) -> str:
    parts = [f"loss {scores.loss:.3f}"]
    if scores.discrepancy is not None:
        parts.append(f"discrepancy {scores.discrepancy:.3f}")
    if scores.linear is not None:
        parts.append(f"linear {scores.linear:.1f} %")
    if scores.knn is not None:
        parts.append(f"k-NN {scores.knn:.1f} %")
    return ", ".join(parts)


def _ended(record: TrialRecord) -> str:
    name = f"control {record.control}" if record.control else record.head_id
    if record.state == "duplicate":
        return f"{name} is the head of trial {record.duplicate_of}: answered from there"
    if record.state != "complete":
        return f"{name} {record.state}: {record.reason}"
    taken = "" if record.seconds is None else f" in {duration(record.seconds)}"
    return f"{name} done{taken}: {_scored(record.rungs[-1])}"


def _screened(records: Sequence[TrialRecord]) -> str:
    states = Counter(record.state for record in records)
    taken = sum(record.seconds or 0.0 for record in records)
    parts = [f"{states['complete']} of {len(records)} stayed to the end"]
    parts += [f"{states[state]} {state}" for state in ("stopped", "infeasible") if states[state]]
    return f"screen of {len(records)} heads done in {duration(taken)}: {', '.join(parts)}"
