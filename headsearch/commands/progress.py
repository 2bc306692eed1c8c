"""Live progress of a search on stderr: bars on a terminal, plain lines elsewhere, nothing when asked to be quiet."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, TaskID

from headsearch.pretrain.display import bars_on
from headsearch.results.records import TrialRecord
from headsearch.results.text import counted, duration
from headsearch.search.observer import Observer, SearchStatus
from headsearch.training.trial import RungScores, Training

STAGES = {
    "trunk": "trunk",
    "controls": "controls",
    "zero-cost": "scores before training",
    "screen": "screen",
    "heads": "heads",
    "replicates": "replicates of the finalists",
    "equal-time": "no head, for as long as the best",
    "anchors": "long trainings of a few heads",
}

SILENCE = 60.0
"""Seconds after which a log is told that a training still goes on, and how far it is."""

FIRST = 10.0
"""The same after its start, when a reader wants to know whether it works at all."""


@contextmanager
def progress_display(*, quiet: bool) -> Iterator[Observer]:
    """The display that suits where stderr goes. It is put away when the search ends, however it ends."""
    console = Console(stderr=True, highlight=False)
    if quiet:
        yield Observer()
    elif console.is_terminal:
        with bars_on(console) as bars:
            yield BarDisplay(bars)
    else:
        yield LineDisplay(console)


class LineDisplay(Observer):
    """A line for each thing that happens: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._speeds: dict[int, float] = {}
        """By trial: images per second, as last heard."""
        self._told: dict[int, float] = {}
        """By trial: when its last line was printed."""

    def search_started(self, status: SearchStatus, *, resumed: bool) -> None:
        if resumed:
            self._line(f"resuming: {status.settled} of {status.expected} trainings are done")
        else:
            self._line(f"about {counted(status.expected, 'training')}, controls first")

    def training_started(self, training: Training, status: SearchStatus) -> None:
        self._of(training.number, f"{_named(training)} starts  ({_counted(status)})")
        self._told[training.number] -= max(0.0, SILENCE - FIRST)

    def training_progress(
        self, training: Training, epoch: float, epochs: int, loss: float, images_per_second: float
    ) -> None:
        self._speeds[training.number] = images_per_second
        if time.monotonic() - self._told.get(training.number, -math.inf) >= SILENCE:
            self._of(
                training.number,
                f"epoch {epoch:.1f} of {epochs}: loss {loss:.3f}, {images_per_second:,.0f} images/s",
            )

    def rung_reached(self, training: Training, place: int, scores: RungScores) -> None:
        if training.stage == "screen":
            # A line for each of its heads would say little.
            return
        # Unknown of a rung that was reached before the search went on, and is told again.
        speed = self._speeds.get(training.number)
        told = "" if speed is None else f", {speed:,.0f} images/s"
        self._of(training.number, f"epoch {scores.epoch}: {_scored(scores)}{told}")

    def training_ended(self, records: Sequence[TrialRecord], status: SearchStatus) -> None:
        number = records[0].number
        self._of(number, _ended(records))
        self._told.pop(number, None)
        self._speeds.pop(number, None)

    def candidates_scored(self, done: int, total: int) -> None:
        if done == total or done % 100 == 0:
            self._line(f"untrained scores: {done} of {total}")

    def note(self, text: str) -> None:
        self._line(text)

    def _of(self, trial: int, text: str) -> None:
        self._told[trial] = time.monotonic()
        self._line(f"trial {trial}: {text}")

    def _line(self, text: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {text}", markup=False, soft_wrap=True)


class BarDisplay(Observer):
    """A bar for the search, one for each running trial, and a line for each that has ended."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._search: TaskID | None = None
        self._trials: dict[int, TaskID] = {}
        self._candidates: TaskID | None = None

    def search_started(self, status: SearchStatus, *, resumed: bool) -> None:
        self._search = self._bars.add_task("search", total=status.expected, told="")
        self._show(status)

    def training_started(self, training: Training, status: SearchStatus) -> None:
        number = training.number
        self._trials[number] = self._bars.add_task(f"trial {number}", total=1.0, told=_named(training))
        self._show(status)

    def training_progress(
        self, training: Training, epoch: float, epochs: int, loss: float, images_per_second: float
    ) -> None:
        told = f"{_named(training)}  epoch {epoch:.1f}/{epochs}  loss {loss:.3f}  {images_per_second:,.0f} images/s"
        self._bars.update(self._trials[training.number], completed=epoch / epochs, told=told)

    def training_ended(self, records: Sequence[TrialRecord], status: SearchStatus) -> None:
        number = records[0].number
        bar = self._trials.pop(number, None)
        if bar is not None:
            self._bars.remove_task(bar)
        self._bars.console.print(f"trial {number}: {_ended(records)}", markup=False, soft_wrap=True)
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

    def note(self, text: str) -> None:
        self._bars.console.print(text, markup=False, soft_wrap=True)

    def _show(self, status: SearchStatus) -> None:
        if self._search is not None:
            self._bars.update(
                self._search, total=status.expected, completed=status.settled, told=_counted(status)
            )


def _named(training: Training) -> str:
    again = f", seed {training.replicate + 1}" if training.replicate else ""
    trial = training.trials[0]
    if training.stage == "screen":
        return f"screen of {len(training.trials)} heads{again}"
    if training.stage == "trunk":
        return f"trunk{again}"
    if training.epochs is not None:
        again = f" for {training.epochs} epochs{again}"
    return f"control {trial.control}{again}" if trial.control else f"{trial.candidate.head_id}{again}"


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


def _ended(records: Sequence[TrialRecord]) -> str:
    record = records[0]
    if record.stage == "screen":
        return _screened(records)
    name = f"control {record.control}" if record.control else record.head_id
    if record.stage == "trunk":
        name = "trunk"
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
